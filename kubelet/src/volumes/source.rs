//! What a volume is: the one source of an API volume, or the name of the field that we can't serve.

use super::layout::Kind;
use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, DownwardAPIVolumeSource, EmptyDirVolumeSource, HostPathVolumeSource, PodSpec,
    ProjectedVolumeSource, SecretVolumeSource, Volume, VolumeMount, VolumeProjection,
};
use std::collections::BTreeSet;

/// Where a volume's content comes from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source<'a> {
    EmptyDir(&'a EmptyDirVolumeSource),
    HostPath(&'a HostPathVolumeSource),
    ConfigMap(&'a ConfigMapVolumeSource),
    Secret(&'a SecretVolumeSource),
    DownwardApi(&'a DownwardAPIVolumeSource),
    Projected(&'a ProjectedVolumeSource),
}

/// A volume without any source is an emptyDir, as the API server's defaults have it; a static pod has seen no API
/// server.
static NO_SOURCE: EmptyDirVolumeSource = EmptyDirVolumeSource { medium: None, size_limit: None };

impl<'a> Source<'a> {
    /// The source of `volume`; the name of the field for one that is not built, or for a name that is no file's name.
    pub(super) fn of(volume: &'a Volume) -> Result<Source<'a>, String> {
        if !is_one_component(&volume.name) {
            return Err("name".into());
        }
        let found = None
            .or(volume.empty_dir.as_ref().map(Source::EmptyDir))
            .or(volume.host_path.as_ref().map(Source::HostPath))
            .or(volume.config_map.as_ref().map(Source::ConfigMap))
            .or(volume.secret.as_ref().map(Source::Secret))
            .or(volume.downward_api.as_ref().map(Source::DownwardApi))
            .or(volume.projected.as_ref().map(Source::Projected));
        match found {
            Some(source) => source.unsupported().map_or(Ok(source), Err),
            None => other_field(volume).map_or(Ok(Source::EmptyDir(&NO_SOURCE)), Err),
        }
    }

    /// The part of a source that is not built: the field's path below the volume.
    fn unsupported(&self) -> Option<String> {
        match self {
            Source::EmptyDir(source) => match source.medium.as_deref() {
                None | Some("" | "Memory") => None,
                Some(_) => Some("emptyDir.medium".into()),
            },
            Source::Projected(projected) => {
                let sources = projected.sources.iter().flatten().enumerate();
                sources
                    .filter_map(|(index, source)| Some((index, unsupported_projection(source)?)))
                    .next()
                    .map(|(index, field)| format!("projected.sources[{index}].{field}"))
            }
            _ => None,
        }
    }

    /// The folder that it lies in; `None` for a hostPath.
    pub(super) fn kind(&self) -> Option<Kind> {
        match self {
            Source::EmptyDir(_) => Some(Kind::EmptyDir),
            Source::HostPath(_) => None,
            Source::ConfigMap(_) => Some(Kind::ConfigMap),
            Source::Secret(_) => Some(Kind::Secret),
            Source::DownwardApi(_) => Some(Kind::DownwardApi),
            Source::Projected(_) => Some(Kind::Projected),
        }
    }

    /// Upstream's name of the kind, in metrics.
    pub(super) fn plugin(&self) -> &'static str {
        match self {
            Source::EmptyDir(_) => "kubernetes.io/empty-dir",
            Source::HostPath(_) => "kubernetes.io/host-path",
            Source::ConfigMap(_) => "kubernetes.io/configmap",
            Source::Secret(_) => "kubernetes.io/secret",
            Source::DownwardApi(_) => "kubernetes.io/downward-api",
            Source::Projected(_) => "kubernetes.io/projected",
        }
    }

    /// The path of a hostPath.
    pub(super) fn host_path(&self) -> Option<&'a str> {
        match self {
            Source::HostPath(source) => Some(&source.path),
            _ => None,
        }
    }

    /// Whether containers may not write to it, whatever their mounts say: the kubelet writes there, as root
    /// (CVE-2017-1002102).
    pub(super) fn is_read_only(&self) -> bool {
        !matches!(self, Source::EmptyDir(_) | Source::HostPath(_))
    }
}

fn unsupported_projection(source: &VolumeProjection) -> Option<&'static str> {
    match source {
        VolumeProjection { cluster_trust_bundle: Some(_), .. } => Some("clusterTrustBundle"),
        VolumeProjection { pod_certificate: Some(_), .. } => Some("podCertificate"),
        _ => None,
    }
}

/// The field of a volume whose source is none of ours, by its JSON name.
fn other_field(volume: &Volume) -> Option<String> {
    let json = serde_json::to_value(volume).ok()?;
    json.as_object()?.keys().find(|key| *key != "name").cloned()
}

/// The name becomes a folder's.
fn is_one_component(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0'])
}

/// The first volume in `spec` of a kind that is not built, as the path of its field: `spec.volumes[2].nfs`.
pub fn unsupported(spec: &PodSpec) -> Option<String> {
    let volumes = spec.volumes.iter().flatten().enumerate();
    volumes.map(|(index, volume)| Some(format!("spec.volumes[{index}].{}", Source::of(volume).err()?))).find_map(|f| f)
}

/// The volumes that a container of the pod mounts, in the order of the spec. The others are not set up at all.
pub(super) fn mounted(spec: &PodSpec) -> impl Iterator<Item = &Volume> {
    let names: BTreeSet<&str> = mounts(spec).map(|mount| mount.name.as_str()).collect();
    spec.volumes.iter().flatten().filter(move |volume| names.contains(volume.name.as_str()))
}

fn mounts(spec: &PodSpec) -> impl Iterator<Item = &VolumeMount> {
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    containers.flat_map(|container| container.volume_mounts.iter().flatten())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(volume: serde_json::Value, expected: Option<&str>) {
        let spec = json!({ "containers": [], "volumes": [{ "name": "ok" }, volume] });
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        assert_eq!(unsupported(&spec).as_deref(), expected, "{volume}");
    }

    #[test]
    fn a_volume_that_can_not_be_served_is_refused_by_the_name_of_its_field() {
        check(json!({ "name": "a" }), None);
        check(json!({ "name": "a", "emptyDir": { "medium": "Memory" } }), None);
        check(
            json!({ "name": "a", "emptyDir": { "medium": "HugePages-2Mi" } }),
            Some("spec.volumes[1].emptyDir.medium"),
        );
        check(json!({ "name": "a", "gitRepo": { "repository": "x" } }), Some("spec.volumes[1].gitRepo"));
        check(json!({ "name": "a", "nfs": { "path": "/", "server": "s" } }), Some("spec.volumes[1].nfs"));
        check(json!({ "name": "a", "image": {} }), Some("spec.volumes[1].image"));
        check(
            json!({ "name": "a", "persistentVolumeClaim": { "claimName": "c" } }),
            Some("spec.volumes[1].persistentVolumeClaim"),
        );
        let sources =
            json!([{ "secret": { "name": "s" } }, { "podCertificate": { "keyType": "ED25519", "signerName": "x" } }]);
        check(
            json!({ "name": "a", "projected": { "sources": sources } }),
            Some("spec.volumes[1].projected.sources[1].podCertificate"),
        );
        for name in ["", "..", "a/b", "../../etc"] {
            check(json!({ "name": name, "emptyDir": {} }), Some("spec.volumes[1].name"));
        }
    }

    #[test]
    fn only_what_a_container_mounts_is_set_up() {
        let spec: PodSpec = serde_json::from_value(json!({
            "volumes": [{ "name": "a" }, { "name": "unused" }, { "name": "b" }],
            "initContainers": [{ "name": "i", "volumeMounts": [{ "name": "b", "mountPath": "/b" }] }],
            "containers": [{ "name": "c", "volumeMounts": [{ "name": "a", "mountPath": "/a" }] }],
        }))
        .unwrap();
        assert_eq!(mounted(&spec).map(|volume| volume.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    }
}
