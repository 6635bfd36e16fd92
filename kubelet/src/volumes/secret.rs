//! secret: the keys of a Secret as files, never on a disk.

use super::content::{Inputs, optional};
use super::error::SetUpError;
use super::payload::{Keys, Payload};
use k8s_openapi::api::core::v1::SecretVolumeSource;

/// What a volume of this source holds.
pub(super) async fn payload(source: &SecretVolumeSource, inputs: &Inputs<'_>) -> Result<Payload, SetUpError> {
    let optional = source.optional.unwrap_or(false);
    let keys = Keys { items: source.items.as_deref(), default_mode: source.default_mode, optional };
    of(source.secret_name.as_deref().unwrap_or_default(), &keys, inputs).await
}

/// The payload of the Secret `name`, for this kind and for projected volumes.
pub(super) async fn of(name: &str, keys: &Keys<'_>, inputs: &Inputs<'_>) -> Result<Payload, SetUpError> {
    let found = inputs.api.secret(inputs.pod.namespace(), name).await;
    let object = optional(found, "secret", name, keys.optional)?.unwrap_or_default();
    let data = object.data.iter().flatten().map(|(key, bytes)| (key.as_str(), bytes.0.as_slice())).collect();
    keys.of(&data, SetUpError::SecretKey)
}
