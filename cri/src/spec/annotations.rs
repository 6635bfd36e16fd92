//! The annotations that gVisor, Kata, NVIDIA's tools and hooks read from a spec; containerd's names.
//!
//! A pod's own annotations do not reach the runtime: they are written by whoever may create pods (CVE-2023-6476).

use super::Inputs;
use std::collections::HashMap;

pub(super) fn build(inputs: &Inputs<'_>) -> HashMap<String, String> {
    let metadata = inputs.sandbox.metadata();
    let name = inputs.config.metadata.as_ref().map(|metadata| metadata.name.clone()).unwrap_or_default();
    [
        ("io.kubernetes.cri.container-type", "container".to_owned()),
        ("io.kubernetes.cri.sandbox-id", inputs.sandbox.id.clone()),
        ("io.kubernetes.cri.sandbox-name", metadata.name),
        ("io.kubernetes.cri.sandbox-namespace", metadata.namespace),
        ("io.kubernetes.cri.sandbox-uid", metadata.uid),
        ("io.kubernetes.cri.container-name", name),
        ("io.kubernetes.cri.image-name", inputs.image_name.to_owned()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}
