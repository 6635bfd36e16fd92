//! Pods that the runtime has and nobody wants: what was deleted while no kubelet ran.

use crate::pod::{Pod, PodError, Source};
use crate::runtime::{ContainerState, ObservedPod, RuntimePod};
use k8s_openapi::api::core::v1 as api;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Whether anything of a pod has to be stopped; dead containers and sandboxes are left to garbage collection.
pub(super) fn is_alive(observed: &ObservedPod) -> bool {
    let running = |state: &ContainerState| matches!(state, ContainerState::Running { .. } | ContainerState::Unknown);
    observed.containers.iter().any(|container| running(&container.state))
        || observed.sandboxes.iter().any(|sandbox| sandbox.ready)
}

/// As much of its object as can be told from labels and annotations: enough to end it as it wanted to be ended.
pub(super) fn object(pod: &RuntimePod) -> Result<Pod, PodError> {
    let names: BTreeSet<&str> = pod.observed.containers.iter().map(|container| container.name.as_str()).collect();
    let containers = names.into_iter().map(|name| api::Container { name: name.to_owned(), ..Default::default() });
    let grace = pod.observed.containers.iter().find_map(|container| container.grace_period);
    let spec = api::PodSpec {
        containers: containers.collect(),
        termination_grace_period_seconds: grace.and_then(|seconds| seconds.try_into().ok()),
        ..Default::default()
    };
    let object = api::Pod {
        metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
            name: Some(pod.name.clone()),
            namespace: Some(pod.namespace.clone()),
            uid: Some(pod.uid.to_string()),
            ..Default::default()
        },
        spec: Some(spec),
        status: None,
    };
    Pod::new(Arc::new(object), Source::Api)
}
