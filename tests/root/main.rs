//! Tests that need root.

mod bad_input;
mod cli;
mod cni;
mod cni_plugins;
mod cni_portmap;
mod cni_upstream;
mod crictl;
mod critest;
mod image_faults;
mod image_layers;
mod image_registry;
mod image_store;
mod pod_network;
mod process;
mod restart;
mod rootfd;
mod runtime;
mod shim_client;
mod shim_hang;
mod shim_isolation;
mod shim_life;
mod shim_protocol;
mod shim_stdio;
mod world;
