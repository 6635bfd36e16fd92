//! Variables of all kinds.

use super::SpecError;
use crate::api::Api;
use crate::pod::Pod;
use k8s_openapi::api::core::v1::Container;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What a container's environment is made of beside objects of the API server.
#[derive(Debug)]
pub struct EnvInputs<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// One of its containers.
    pub container: &'a Container,
    /// The pod's addresses, from its sandbox; of a pod in the host's network the node's.
    pub pod_ips: &'a [IpAddr],
    /// The node's addresses.
    pub host_ips: &'a [IpAddr],
    /// What a limit that is not set is said to be.
    pub allocatable: &'a BTreeMap<String, Quantity>,
}

/// The environment: `envFrom`, `env`, and the variables of services where neither says otherwise.
pub async fn environment(api: &dyn Api, inputs: &EnvInputs<'_>) -> Result<BTreeMap<String, String>, SpecError> {
    let _ = (api, inputs);
    todo!()
}
