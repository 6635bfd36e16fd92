//! `linux.namespaces`: which are new, which are joined, which are the caller's.

use std::path::PathBuf;

use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType};

use super::{PlanError, invalid};

/// Where a namespace comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Namespace {
    /// The caller's own, usually the host's.
    #[default]
    Inherited,
    /// Made for this container.
    New,
    /// An existing one.
    Joined(PathBuf),
}

impl Namespace {
    /// Whether the container has one that is not simply its creator's.
    pub fn is_private(&self) -> bool {
        *self != Namespace::Inherited
    }
}

/// The namespaces of a container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Namespaces {
    /// Mounts. Where they are inherited the container's own are attached nowhere: its root is a tree by itself.
    pub mount: Namespace,
    /// Process ids.
    pub pid: Namespace,
    /// Network.
    pub network: Namespace,
    /// System V IPC and POSIX message queues.
    pub ipc: Namespace,
    /// Host and domain name.
    pub uts: Namespace,
    /// The view of the cgroup trees.
    pub cgroup: Namespace,
    /// User and group ids, and what capabilities are good for; owner of the ones that are made with it.
    pub user: Namespace,
    /// Offsets of the clocks that don't tell the date.
    pub time: Namespace,
}

impl Namespaces {
    pub(super) fn from_spec(list: &[LinuxNamespace]) -> Result<Namespaces, PlanError> {
        let mut namespaces = Namespaces::default();
        for (index, entry) in list.iter().enumerate() {
            let field = || format!("linux.namespaces[{index}]");
            let slot = match entry.typ() {
                LinuxNamespaceType::Mount => &mut namespaces.mount,
                LinuxNamespaceType::Pid => &mut namespaces.pid,
                LinuxNamespaceType::Network => &mut namespaces.network,
                LinuxNamespaceType::Ipc => &mut namespaces.ipc,
                LinuxNamespaceType::Uts => &mut namespaces.uts,
                LinuxNamespaceType::Cgroup => &mut namespaces.cgroup,
                LinuxNamespaceType::User => &mut namespaces.user,
                LinuxNamespaceType::Time => &mut namespaces.time,
            };
            if slot.is_private() {
                return Err(invalid(field(), format!("a second namespace of type {}", entry.typ())));
            }
            *slot = match entry.path() {
                Some(path) if path.is_absolute() => Namespace::Joined(path.clone()),
                Some(path) if !path.as_os_str().is_empty() => {
                    return Err(invalid(field(), format!("path {} is not absolute", path.display())));
                }
                _ => Namespace::New,
            };
        }
        if !namespaces.mount.is_private() && namespaces.user.is_private() {
            return Err(invalid(
                "linux.namespaces",
                "a user namespace needs a mount namespace: its root may not mount anything on the host",
            ));
        }
        Ok(namespaces)
    }
}
