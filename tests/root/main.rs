//! Tests that need root.

mod bad_input;
mod crictl;
mod critest;
mod process;
mod restart;
mod rootfd;
mod shim_client;
mod shim_life;
mod world;
