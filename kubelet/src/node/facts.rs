//! What this machine is: read once at the start, told by [`super::status`], used for admission and resources.

mod capacity;
mod machine;

use crate::config::Config;
use capacity::Machine;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use machine::Files;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

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
    #[error("can't get ip address of node {0}: it has no default route and DNS does not know it; --node-ip names one")]
    Address(String),
    /// A file of /proc or /sys.
    #[error("read {0}")]
    Unknown(&'static str),
    /// The folder for pods.
    #[error("measure the file system of {path}")]
    Storage {
        /// The kubelet's root.
        path: std::path::PathBuf,
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

/// Reads the facts. The kubelet's root folder has to be there: its file system is the node's storage.
///
/// # Errors
/// What a node can't do without: an address, memory, processors, storage; a reservation that is not a quantity.
pub fn facts(config: &Config) -> Result<Facts, FactsError> {
    let files = Files::below(Path::new("/"));
    let (memory_bytes, swap_bytes) = files.memory().ok_or(FactsError::Unknown("MemTotal of /proc/meminfo"))?;
    let cpus = files.cpus().ok_or(FactsError::Unknown("/sys/devices/system/cpu/online"))?;
    let storage = storage(&config.root)?;
    let machine = Machine { cpus, memory: memory_bytes, storage, huge_pages: files.huge_pages() };
    let (capacity, allocatable) = capacity::resources(&machine, &config.limits)?;
    Ok(Facts {
        name: config.node_name.clone(),
        // Upstream tells them apart for cloud providers that name nodes; here the name is the hostname.
        hostname: config.node_name.clone(),
        host_ips: addresses(config)?,
        cpus,
        memory_bytes,
        swap_bytes,
        machine_id: files.machine_id(),
        system_uuid: files.system_uuid(),
        boot_id: files.boot_id(),
        kernel_version: files.kernel_version(),
        os_image: files.os_image(),
        capacity,
        allocatable,
    })
}

fn addresses(config: &Config) -> Result<Vec<IpAddr>, FactsError> {
    if !config.node_ips.is_empty() {
        return Ok(config.node_ips.clone());
    }
    let found = crate::config::detect_ip(&config.node_name);
    // A cloud's controller sets the addresses of a node that does not know its own.
    if found.is_none() && !config.external_cloud {
        return Err(FactsError::Address(config.node_name.clone()));
    }
    Ok(found.into_iter().collect())
}

/// The size of the file system that a folder is on, in bytes.
fn storage(path: &Path) -> Result<u64, FactsError> {
    let failed = |source| FactsError::Storage { path: path.to_owned(), source };
    let folder =
        std::fs::File::open(path).map_err(|error| failed(sys::Error::from_io("open", &error, path.display())))?;
    Ok(sys::fs::usage(&folder).map_err(failed)?.bytes)
}
