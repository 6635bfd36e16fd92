//! Tests that need nothing of the machine.

mod architecture;
mod kubelet_config;
mod registry_mirrors;
mod registry_pull;
mod registry_server;
mod registry_token;
