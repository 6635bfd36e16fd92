//! downwardAPI: fields of the pod as files, labels and annotations following the object.

use super::content::Inputs;
use super::error::SetUpError;
use super::payload::{File, Payload, mode};
use crate::spec::downward::{self, Addresses};
use k8s_openapi::api::core::v1::DownwardAPIVolumeFile;

/// What a volume of these items holds. All items that fail are named.
pub(super) fn payload(
    items: &[DownwardAPIVolumeFile],
    default_mode: Option<i32>,
    inputs: &Inputs<'_>,
) -> Result<Payload, SetUpError> {
    let mut payload = Payload::default();
    let mut errors = Vec::new();
    for item in items {
        let file = text(item, inputs).map(|text| File {
            data: text.into_bytes(),
            mode: mode(item.mode, default_mode),
            owner: None,
        });
        if let Err(error) = file.and_then(|file| Ok(payload.insert(&item.path, file)?)) {
            errors.push(error);
        }
    }
    if errors.is_empty() { Ok(payload) } else { Err(SetUpError::of(errors)) }
}

fn text(item: &DownwardAPIVolumeFile, inputs: &Inputs<'_>) -> Result<String, SetUpError> {
    if let Some(field) = &item.field_ref {
        // Only what a pod has before it runs: a volume is written before there is an address.
        if !field.field_path.starts_with("metadata.") {
            return Err(SetUpError::Downward(format!("unsupported fieldPath: {}", field.field_path)));
        }
        let none = Addresses { pod: &[], host: &[] };
        return downward::field(inputs.pod, &field.field_path, none).map_err(SetUpError::Downward);
    }
    let Some(selector) = &item.resource_field_ref else { return Ok(String::new()) };
    let name = selector.container_name.as_deref().unwrap_or_default();
    let (_, container) =
        inputs.pod.container(name).ok_or_else(|| SetUpError::Downward(format!("container {name} not found")))?;
    downward::resource(inputs.pod, container, selector, inputs.allocatable).map_err(SetUpError::Downward)
}
