//! Mistakes in a volume.

use super::{Checked, amounts, names, one_of, require};
use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, PodSpec, Volume};
use std::collections::BTreeSet;

const HOST_PATHS: [&str; 8] =
    ["", "DirectoryOrCreate", "Directory", "FileOrCreate", "File", "Socket", "CharDevice", "BlockDevice"];

/// Checks all volumes of a pod.
pub(super) fn check_all(spec: &PodSpec) -> Checked {
    let mut known = BTreeSet::new();
    for (index, volume) in spec.volumes.iter().flatten().enumerate() {
        let (field, name) = (format!("spec.volumes[{index}]"), volume.name.as_str());
        require(names::is_label(name), format!("{field}.name"), format!("{name:?} is not a DNS label"))?;
        require(known.insert(name), format!("{field}.name"), format!("{name:?} is there twice"))?;
        check(volume, &field)?;
    }
    Ok(())
}

fn check(volume: &Volume, field: &str) -> Checked {
    let sources = serde_json::to_value(volume).ok().and_then(|value| Some(value.as_object()?.len() - 1)).unwrap_or(0);
    require(sources == 1, field, format!("has {sources} sources; it needs one"))?;
    if let Some(host_path) = &volume.host_path {
        let kind = host_path.type_.as_deref();
        require(!host_path.path.is_empty(), format!("{field}.hostPath.path"), "is missing")?;
        let inside = !host_path.path.split('/').any(|part| part == "..");
        require(inside, format!("{field}.hostPath.path"), "must not contain '..'")?;
        one_of(kind, &HOST_PATHS, format!("{field}.hostPath.type"))?;
    }
    if let Some(limit) = volume.empty_dir.as_ref().and_then(|directory| directory.size_limit.as_ref()) {
        amounts::one(limit, format!("{field}.emptyDir.sizeLimit"))?;
    }
    divisors(volume, field)?;
    if let Some(mode) = volume.downward_api.as_ref().and_then(|downward| downward.default_mode) {
        require((0..=0o777).contains(&mode), format!("{field}.downwardAPI.defaultMode"), "is not from 0 to 0777")?;
    }
    if let Some(mode) = volume.projected.as_ref().and_then(|projected| projected.default_mode) {
        require((0..=0o777).contains(&mode), format!("{field}.projected.defaultMode"), "is not from 0 to 0777")?;
    }
    Ok(())
}

fn divisors(volume: &Volume, field: &str) -> Checked {
    let check = |items: Option<&[DownwardAPIVolumeFile]>, field: &str| {
        let selectors = items.unwrap_or_default().iter().map(|item| item.resource_field_ref.as_ref()).enumerate();
        selectors.filter_map(|(index, selector)| Some((index, selector?))).try_for_each(|(index, selector)| {
            amounts::divisor(selector, &format!("{field}.items[{index}].resourceFieldRef"))
        })
    };
    let own = volume.downward_api.as_ref().and_then(|downward| downward.items.as_deref());
    check(own, &format!("{field}.downwardAPI"))?;
    let sources = volume.projected.as_ref().and_then(|projected| projected.sources.as_deref()).unwrap_or_default();
    sources.iter().enumerate().try_for_each(|(index, source)| {
        let items = source.downward_api.as_ref().and_then(|downward| downward.items.as_deref());
        check(items, &format!("{field}.projected.sources[{index}].downwardAPI"))
    })
}

/// The first thing at the API server that a volume refers to, and the field.
pub(super) fn reference(volume: &Volume) -> Option<(&'static str, String)> {
    let own = [
        (volume.config_map.is_some(), "configmaps (via configmap volumes)", "configMap"),
        (volume.secret.is_some(), "secrets (via secret volumes)", "secret"),
        (volume.csi.is_some(), "csidrivers (via CSI volumes)", "csi"),
        (volume.glusterfs.is_some(), "endpoints (via glusterFS volumes)", "glusterfs"),
        (volume.persistent_volume_claim.is_some(), "persistentvolumeclaims", "persistentVolumeClaim"),
        (volume.ephemeral.is_some(), "persistentvolumeclaims (via ephemeral volumes)", "ephemeral"),
        (volume.azure_file.is_some(), "secrets (via azureFile volumes)", "azureFile"),
    ];
    if let Some((_, what, field)) = own.into_iter().find(|(given, _, _)| *given) {
        return Some((what, field.to_owned()));
    }
    let sources = volume.projected.as_ref().and_then(|projected| projected.sources.as_deref()).unwrap_or_default();
    sources.iter().enumerate().find_map(|(index, source)| {
        let own = [
            (source.config_map.is_some(), "configmaps (via projected volumes)", "configMap"),
            (source.secret.is_some(), "secrets (via projected volumes)", "secret"),
            (source.service_account_token.is_some(), "serviceaccounts (via projected volumes)", "serviceAccountToken"),
            (source.cluster_trust_bundle.is_some(), "clustertrustbundles", "clusterTrustBundle"),
            (source.pod_certificate.is_some(), "podcertificates", "podCertificate"),
        ];
        let found = own.into_iter().find(|(given, _, _)| *given);
        found.map(|(_, what, field)| (what, format!("projected.sources[{index}].{field}")))
    })
}
