//! The container: command, mounts, log; its hash.

use super::{Machine, SpecError, files::ContainerFiles};
use crate::config::Config;
use crate::pod::Pod;
use k8s_openapi::api::core::v1::Container;
use std::collections::BTreeMap;

/// What a container's config is made of.
#[derive(Debug)]
pub struct ContainerInputs<'a> {
    /// Settings.
    pub config: &'a Config,
    /// The machine.
    pub machine: &'a Machine,
    /// The pod.
    pub pod: &'a Pod,
    /// One of its containers.
    pub container: &'a Container,
    /// What [`crate::images::Images::ensure`] found: it says which user the image runs as.
    pub image: &'a proto::Image,
    /// How often the container was started before.
    pub restart_count: u32,
    /// From [`super::environment`].
    pub env: &'a BTreeMap<String, String>,
    /// From the volumes.
    pub mounts: Vec<proto::Mount>,
    /// From [`super::files::prepare_container`].
    pub files: &'a ContainerFiles,
}

/// The config of one start of a container.
pub fn container_config(inputs: &ContainerInputs<'_>) -> Result<proto::ContainerConfig, SpecError> {
    let _ = inputs;
    todo!()
}

/// A hash of what can't change without another container: name and image. The same as upstream's, so that a node
/// changes its kubelet without restarting a container.
pub fn container_hash(container: &Container) -> String {
    let _ = container;
    todo!()
}
