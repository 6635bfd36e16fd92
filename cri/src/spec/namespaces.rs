//! Which namespaces a container has for itself.
//!
//! Network, IPC and UTS are the pod's: the container is born in them, because its shim lives there. What is left is the
//! mount namespace, the PID namespace, and on cgroup v2 the cgroup namespace.

use super::Inputs;
use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType};
use proto::{NamespaceOption, PodSandboxConfig};
use std::path::PathBuf;

/// A container's PID namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PidNamespace {
    /// One of its own.
    New,
    /// The host's.
    Host,
    /// That of the pod, or of another container.
    Of(PathBuf),
}

/// The namespace options of a sandbox, or their defaults: everything is the pod's.
pub(crate) fn options(sandbox: &PodSandboxConfig) -> NamespaceOption {
    let security = sandbox.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    security.and_then(|security| security.namespace_options.clone()).unwrap_or_default()
}

pub(super) fn build(inputs: &Inputs<'_>, privileged: bool) -> Vec<LinuxNamespace> {
    let new = |kind| LinuxNamespaceBuilder::default().typ(kind).build().expect("complete");
    let mut namespaces = vec![new(LinuxNamespaceType::Mount)];
    match inputs.pid {
        PidNamespace::New => namespaces.push(new(LinuxNamespaceType::Pid)),
        PidNamespace::Host => {}
        PidNamespace::Of(path) => {
            let joined = LinuxNamespaceBuilder::default().typ(LinuxNamespaceType::Pid).path(path).build();
            namespaces.push(joined.expect("complete"));
        }
    }
    if inputs.host.unified_cgroups && !privileged {
        namespaces.push(new(LinuxNamespaceType::Cgroup));
    }
    namespaces
}
