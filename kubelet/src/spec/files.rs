//! What is made on disk for a pod and its containers.
//!
//! Everything is below `<root>/pods/<uid>` and the log folder, both root's alone; a container may write to what it
//! mounts from there, so every file is made anew or opened without following links.

use super::SpecError;
use crate::config::Config;
use crate::pod::Pod;
use k8s_openapi::api::core::v1::Container;
use std::net::IpAddr;
use std::path::PathBuf;

/// What was made for one start of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerFiles {
    /// The pod's /etc/hosts; `None` where a volume is mounted there or the pod has no address.
    pub hosts: Option<PathBuf>,
    /// The file of this start's termination message.
    pub termination_log: Option<PathBuf>,
    /// The seccomp profile's absolute path, where one is named; it was there.
    pub seccomp_profile: Option<PathBuf>,
}

/// Makes the pod's folders: `<root>/pods/<uid>/{volumes,plugins,containers}` and the log folder. Blocking.
pub fn prepare_sandbox(config: &Config, pod: &Pod) -> Result<(), SpecError> {
    let _ = (config, pod);
    todo!()
}

/// Makes what one start of a container needs: /etc/hosts, a fresh termination-log, the log folder; and finds its
/// seccomp profile. Blocking.
pub fn prepare_container(
    config: &Config,
    pod: &Pod,
    container: &Container,
    pod_ips: &[IpAddr],
) -> Result<ContainerFiles, SpecError> {
    let _ = (config, pod, container, pod_ips);
    todo!()
}

/// Removes the pod's folder once its volumes are gone; nothing if it is gone. Blocking.
///
/// What is mounted below it is not crossed into: an error then.
pub fn remove_pod(config: &Config, uid: &crate::pod::PodUid) -> Result<(), SpecError> {
    let _ = (config, uid);
    todo!()
}
