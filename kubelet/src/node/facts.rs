//! What this machine is: read once at the start, told by [`super::status`], used for admission and resources.

use crate::config::Config;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What this machine is and offers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    /// The node's name.
    pub name: String,
    /// The hostname that addresses and labels show.
    pub hostname: String,
    /// Our addresses, the primary one first; one per family at most.
    pub host_ips: Vec<IpAddr>,
    /// Processors.
    pub cpus: u32,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Swap in bytes.
    pub swap_bytes: u64,
    /// `/etc/machine-id`.
    pub machine_id: String,
    /// The firmware's UUID.
    pub system_uuid: String,
    /// Another one after each boot.
    pub boot_id: String,
    /// `uname -r`.
    pub kernel_version: String,
    /// `PRETTY_NAME` of os-release.
    pub os_image: String,
    /// `Node.status.capacity`.
    pub capacity: BTreeMap<String, Quantity>,
    /// `Node.status.allocatable`: what remains for pods.
    pub allocatable: BTreeMap<String, Quantity>,
}

/// A fact that could not be had.
#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    /// No address to be reached at.
    #[error("find an address of node {node}: {reason}")]
    Address {
        /// The node's name.
        node: String,
        /// What was tried.
        reason: String,
    },
    /// A file of /proc or /sys.
    #[error("read {what}")]
    Read {
        /// Which.
        what: &'static str,
        /// Why not.
        #[source]
        source: sys::Error,
    },
    /// A setting that is not a quantity.
    #[error("{field} {key}: {value:?} is not a quantity")]
    Quantity {
        /// The setting.
        field: &'static str,
        /// The resource or signal.
        key: String,
        /// What it says.
        value: String,
    },
}

/// Reads the facts.
pub fn facts(config: &Config) -> Result<Facts, FactsError> {
    let _ = config;
    todo!()
}
