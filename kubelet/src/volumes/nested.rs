//! Mount points inside of volumes: where a container mounts `/a/b` below its volume at `/a`, the folder `b` has to be
//! there before, since a volume that pods can't write to is read-only when the runtime comes.

use super::error::SetUpError;
use crate::pod::Pod;
use k8s_openapi::api::core::v1::Container;
use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};
use sys::rootfd::RootFd;

/// Makes the mount points inside of the volume `name`.
pub(super) fn make(volume: &RootFd, points: &BTreeSet<PathBuf>) -> sys::Result<()> {
    points.iter().try_for_each(|point| volume.mkdir_all(point, 0o755).map(drop))
}

/// The paths inside of the volume `name` on which a container of the pod mounts something else, without those that lie
/// in another volume again.
pub(super) fn points(pod: &Pod, name: &str) -> Result<BTreeSet<PathBuf>, SetUpError> {
    let mut points = BTreeSet::new();
    for (_, container) in pod.containers() {
        points.extend(points_of(container, name)?);
    }
    Ok(points)
}

fn points_of(container: &Container, name: &str) -> Result<Vec<PathBuf>, SetUpError> {
    let mounts = || container.volume_mounts.iter().flatten();
    let mut all = mounts().map(|mount| clean(&mount.mount_path)).collect::<Result<Vec<_>, _>>()?;
    all.sort(); // by component: a folder comes before what is in it
    let mut points = Vec::new();
    for mount in mounts().filter(|mount| mount.name == name) {
        let base = clean(&mount.mount_path)?;
        let mut last: Option<&PathBuf> = None;
        for path in &all {
            let nested = last.is_some_and(|last| path.starts_with(last));
            if let Ok(inside) = path.strip_prefix(&base)
                && !inside.as_os_str().is_empty()
                && !nested
            {
                points.push(inside.to_owned());
                last = Some(path);
            }
        }
    }
    Ok(points)
}

/// A mount path without `.` and double slashes. One that steps back would make folders outside of the container.
fn clean(path: &str) -> Result<PathBuf, SetUpError> {
    let mut clean = PathBuf::from("/");
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => return Err(SetUpError::MountPoint(path.to_owned())),
            _ => {}
        }
    }
    Ok(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(mounts: &[(&str, &str)], expected: &[&str]) {
        let mounts: Vec<_> =
            mounts.iter().map(|(name, path)| serde_json::json!({ "name": name, "mountPath": path })).collect();
        let container = serde_json::from_value(serde_json::json!({ "name": "c", "volumeMounts": mounts })).unwrap();
        let expected: Vec<PathBuf> = expected.iter().map(PathBuf::from).collect();
        assert_eq!(points_of(&container, "v").unwrap(), expected, "{mounts:?}");
    }

    #[test]
    fn what_is_mounted_inside_of_the_volume_needs_a_folder_there() {
        check(&[("v", "/dir"), ("x", "/other")], &[]);
        check(&[("v", "/dir"), ("x", "/dir/nested")], &["nested"]);
        check(&[("v", "/dir/"), ("x", "/dir//nested/./a")], &["nested/a"]);
        check(&[("v", "/dir"), ("x", "/dir/a"), ("y", "/dir/a/b")], &["a"]);
        check(&[("v", "/dir"), ("x", "/directory")], &[]);
        check(&[("v", "/d"), ("w", "/d/n"), ("x", "/d/n-v"), ("y", "/d/n/m"), ("z", "/d/n2")], &["n", "n-v", "n2"]);
        check(&[("v", "/a"), ("v", "/b"), ("x", "/b/c")], &["c"]);
    }

    #[test]
    fn a_mount_path_that_steps_back_is_refused() {
        let mount = serde_json::json!({ "name": "v", "mountPath": "../../etc" });
        let container = serde_json::from_value(serde_json::json!({ "name": "c", "volumeMounts": [mount] })).unwrap();
        assert_eq!(points_of(&container, "v").unwrap_err().to_string(), "invalid container mount point ../../etc");
    }
}
