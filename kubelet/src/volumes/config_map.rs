//! configMap: the keys of a ConfigMap as files.

use super::content::{Inputs, optional};
use super::error::SetUpError;
use super::payload::{Keys, Payload};
use k8s_openapi::api::core::v1::{ConfigMap, ConfigMapVolumeSource};
use std::collections::BTreeMap;

/// What a volume of this source holds.
pub(super) async fn payload(source: &ConfigMapVolumeSource, inputs: &Inputs<'_>) -> Result<Payload, SetUpError> {
    let optional = source.optional.unwrap_or(false);
    let keys = Keys { items: source.items.as_deref(), default_mode: source.default_mode, optional };
    of(&source.name, &keys, inputs).await
}

/// The payload of the ConfigMap `name`, for this kind and for projected volumes.
pub(super) async fn of(name: &str, keys: &Keys<'_>, inputs: &Inputs<'_>) -> Result<Payload, SetUpError> {
    let found = inputs.api.config_map(inputs.pod.namespace(), name).await;
    let object = optional(found, "configmap", name, keys.optional)?.unwrap_or_default();
    keys.of(&data(&object), SetUpError::ConfigMapKey)
}

/// Text and binary keys.
fn data(object: &ConfigMap) -> BTreeMap<&str, &[u8]> {
    let text = object.data.iter().flatten().map(|(key, text)| (key.as_str(), text.as_bytes()));
    let binary = object.binary_data.iter().flatten().map(|(key, bytes)| (key.as_str(), bytes.0.as_slice()));
    binary.chain(text).collect()
}
