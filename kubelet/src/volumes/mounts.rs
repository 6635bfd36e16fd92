//! What a container's `volumeMounts` ask of the runtime. Decided here, without looking at any volume.

use super::layout::PodFolder;
use super::source::Source;
use crate::spec::expansion::{self, NoPath};
use k8s_openapi::api::core::v1::{Volume, VolumeMount};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// One mount, but for its subPath, which has to be bound first.
#[derive(Debug, PartialEq)]
pub(super) struct Plan {
    /// The volume's name.
    pub(super) volume: String,
    /// The volume's path on the host.
    pub(super) path: PathBuf,
    /// The path in it, if only a part is mounted.
    pub(super) sub_path: Option<PathBuf>,
    /// What the runtime is told; `host_path` is the volume's.
    pub(super) mount: proto::Mount,
}

/// What a decision needs beside the mount.
pub(super) struct Given<'a> {
    pub(super) folder: &'a PodFolder,
    pub(super) volumes: &'a [Volume],
    pub(super) container: &'a str,
    /// The container's, for `subPathExpr`.
    pub(super) environment: &'a BTreeMap<String, String>,
    /// Whether the runtime can make a mount and all below it read-only.
    pub(super) recursive_read_only: bool,
}

/// Decides one mount; the error is the container's waiting message, upstream's text.
pub(super) fn plan(mount: &VolumeMount, given: &Given<'_>) -> Result<Plan, String> {
    let volume = given.volumes.iter().find(|volume| volume.name == mount.name);
    let source = volume
        .and_then(|volume| Source::of(volume).ok())
        .ok_or_else(|| format!("cannot find volume {:?} to mount into container {:?}", mount.name, given.container))?;
    let sub_path = sub_path(mount, given.environment)?;
    let path = given.folder.mounted(&source, &mount.name);
    let mount = proto::Mount {
        container_path: absolute(&mount.mount_path),
        host_path: path.to_string_lossy().into_owned(),
        readonly: mount.read_only.unwrap_or(false) || source.is_read_only(),
        propagation: propagation(mount)? as i32,
        recursive_read_only: recursive_read_only(mount, given.recursive_read_only)
            .map_err(|error| format!("failed to resolve recursive read-only mode: {error}"))?,
        ..proto::Mount::default()
    };
    Ok(Plan { volume: volume.map(|volume| volume.name.clone()).unwrap_or_default(), path, sub_path, mount })
}

/// `subPath`, or `subPathExpr` with the container's variables in it.
fn sub_path(mount: &VolumeMount, environment: &BTreeMap<String, String>) -> Result<Option<PathBuf>, String> {
    let path = match mount.sub_path_expr.as_deref().filter(|expression| !expression.is_empty()) {
        Some(expression) => expand(expression, environment)?,
        None => mount.sub_path.clone().unwrap_or_default(),
    };
    if path.is_empty() {
        return Ok(None);
    }
    if path.starts_with('/') {
        return Err(format!("error SubPath `{path}` must not be an absolute path"));
    }
    if path.split('/').any(|name| name == "..") {
        return Err(format!("unable to provision SubPath `{path}`: must not contain '..'"));
    }
    Ok(Some(path.into()))
}

/// A variable that is not there would mount the wrong part, an empty one the whole volume.
fn expand(expression: &str, environment: &BTreeMap<String, String>) -> Result<String, String> {
    let value = |name: &str| environment.get(name).map(String::as_str).filter(|value| !value.is_empty());
    expansion::path(expression, value).map_err(|error| match error {
        NoPath::Unknown(missing) => {
            let missing: BTreeSet<String> = missing.into_iter().collect();
            format!("missing value for {}", missing.into_iter().collect::<Vec<_>>().join(", "))
        }
        NoPath::Long => "subPathExpr: the path is longer than 4096 bytes".to_owned(),
    })
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

fn propagation(mount: &VolumeMount) -> Result<proto::MountPropagation, String> {
    match mount.mount_propagation.as_deref() {
        None | Some("None") => Ok(proto::MountPropagation::PropagationPrivate),
        Some("HostToContainer") => Ok(proto::MountPropagation::PropagationHostToContainer),
        Some("Bidirectional") => Ok(proto::MountPropagation::PropagationBidirectional),
        Some(other) => Err(format!("invalid MountPropagation mode: {other:?}")),
    }
}

fn recursive_read_only(mount: &VolumeMount, supported: bool) -> Result<bool, String> {
    let name = &mount.name;
    let mode = match mount.recursive_read_only.as_deref() {
        None | Some("Disabled") => return Ok(false),
        Some(mode) => mode,
    };
    if !mount.read_only.unwrap_or(false) {
        return Err(format!("volume {name:?} requested recursive read-only mode, but it is not read-only"));
    }
    match mount.mount_propagation.as_deref() {
        None | Some("None") => {}
        Some(propagation) => {
            return Err(format!(
                "volume {name:?} requested recursive read-only mode, but it is not compatible with propagation {propagation:?}"
            ));
        }
    }
    match mode {
        "IfPossible" => Ok(supported),
        "Enabled" if supported => Ok(true),
        "Enabled" => {
            Err(format!("volume {name:?} requested recursive read-only mode, but it is not supported by the runtime"))
        }
        _ => Err(format!("unknown recursive read-only mode {mode:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn planned(mount: Value, recursive_read_only: bool) -> Result<Plan, String> {
        let volumes: Vec<Volume> = serde_json::from_value(json!([
            { "name": "scratch", "emptyDir": {} },
            { "name": "config", "configMap": { "name": "c" } },
            { "name": "host", "hostPath": { "path": "/srv" } },
        ]))
        .unwrap();
        let environment = BTreeMap::from([("POD".to_owned(), "web-0".to_owned()), ("EMPTY".to_owned(), String::new())]);
        let folder = PodFolder("/pods/u".into());
        let given = Given {
            folder: &folder,
            volumes: &volumes,
            container: "main",
            environment: &environment,
            recursive_read_only,
        };
        plan(&serde_json::from_value(mount).unwrap(), &given)
    }

    #[test]
    fn each_kind_is_mounted_from_where_it_lies() {
        let check = |name: &str, path: &str, readonly: bool| {
            let plan = planned(json!({ "name": name, "mountPath": "data" }), false).unwrap();
            let mount = proto::Mount {
                container_path: "/data".into(),
                host_path: path.into(),
                readonly,
                ..proto::Mount::default()
            };
            assert_eq!(plan, Plan { volume: name.into(), path: path.into(), sub_path: None, mount });
        };
        check("scratch", "/pods/u/volumes/kubernetes.io~empty-dir/scratch", false);
        check("config", "/pods/u/volumes/kubernetes.io~configmap/config", true);
        check("host", "/srv", false);
    }

    #[test]
    fn a_sub_path_stays_relative_and_never_steps_back() {
        let check = |field: &str, path: &str, expected: Result<Option<&str>, &str>| {
            let plan = planned(json!({ "name": "scratch", "mountPath": "/d", field: path }), false);
            let expected = expected.map(|path| path.map(PathBuf::from)).map_err(str::to_owned);
            assert_eq!(plan.map(|plan| plan.sub_path), expected, "{field}: {path}");
        };
        check("subPath", "", Ok(None));
        check("subPath", "a/b", Ok(Some("a/b")));
        check("subPath", "a..b/..c", Ok(Some("a..b/..c")));
        check("subPath", "/etc", Err("error SubPath `/etc` must not be an absolute path"));
        check("subPath", "a/../../b", Err("unable to provision SubPath `a/../../b`: must not contain '..'"));
        check("subPathExpr", "logs/$(POD)", Ok(Some("logs/web-0")));
        check("subPathExpr", "$(EMPTY)/$(GONE)", Err("missing value for EMPTY, GONE"));
    }

    #[test]
    fn what_a_mount_can_not_be_is_refused_by_upstreams_words() {
        let check = |fields: Value, supported: bool, expected: Result<(bool, i32), &str>| {
            let mut mount = json!({ "name": "scratch", "mountPath": "/d" });
            mount.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            let plan = planned(mount, supported).map(|plan| (plan.mount.recursive_read_only, plan.mount.propagation));
            assert_eq!(plan, expected.map_err(str::to_owned), "{fields}");
        };
        let enabled = json!({ "readOnly": true, "recursiveReadOnly": "Enabled" });
        check(enabled.clone(), true, Ok((true, 0)));
        check(
            enabled,
            false,
            Err(
                "failed to resolve recursive read-only mode: volume \"scratch\" requested recursive read-only mode, but it is not supported by the runtime",
            ),
        );
        check(json!({ "readOnly": true, "recursiveReadOnly": "IfPossible" }), false, Ok((false, 0)));
        check(
            json!({ "recursiveReadOnly": "IfPossible" }),
            true,
            Err(
                "failed to resolve recursive read-only mode: volume \"scratch\" requested recursive read-only mode, but it is not read-only",
            ),
        );
        check(json!({ "mountPropagation": "HostToContainer" }), false, Ok((false, 1)));
        check(json!({ "mountPropagation": "Bidirectional" }), false, Ok((false, 2)));
        check(json!({ "mountPropagation": "Both" }), false, Err("invalid MountPropagation mode: \"Both\""));
        check(json!({ "name": "other" }), false, Err("cannot find volume \"other\" to mount into container \"main\""));
    }
}
