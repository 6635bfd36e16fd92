//! Fields of pod and container as text, for variables and volumes.

use crate::pod::Pod;
use k8s_openapi::api::core::v1::{Container, ResourceFieldSelector};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Addresses that fields speak of.
#[derive(Debug, Clone, Copy)]
pub struct Addresses<'a> {
    /// The pod's; empty until its sandbox has some.
    pub pod: &'a [IpAddr],
    /// The node's.
    pub host: &'a [IpAddr],
}

/// A field of the object itself: `metadata.…` and what of `spec` and `status` variables may refer to.
pub fn field(pod: &Pod, path: &str, addresses: Addresses<'_>) -> Result<String, String> {
    let _ = (pod, path, addresses);
    todo!()
}

/// A request or limit, in units of the divisor; a limit that is not set is the pod's or what the node can give.
pub fn resource(
    pod: &Pod,
    container: &Container,
    selector: &ResourceFieldSelector,
    allocatable: &BTreeMap<String, Quantity>,
) -> Result<String, String> {
    let _ = (pod, container, selector, allocatable);
    todo!()
}
