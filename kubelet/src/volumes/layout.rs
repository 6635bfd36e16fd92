//! Where volumes lie: upstream's folders, so that either kubelet finds what the other one left.

use super::source::Source;
use crate::pod::PodUid;
use std::path::{Path, PathBuf};

/// The folder of the volumes' content, below a pod's.
pub(super) const VOLUMES: &str = "volumes";
/// The folder of bound subPaths.
pub(super) const SUBPATHS: &str = "volume-subpaths";
/// The folder of marks that say what is set up.
pub(super) const PLUGINS: &str = "plugins";

/// The kinds of volume that lie in a pod's folder. A hostPath lies where it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    EmptyDir,
    ConfigMap,
    Secret,
    DownwardApi,
    Projected,
}

impl Kind {
    /// `kubernetes.io/<plugin>` with `~` for the slash: upstream's name of the folder.
    fn folder(self) -> &'static str {
        match self {
            Kind::EmptyDir => "kubernetes.io~empty-dir",
            Kind::ConfigMap => "kubernetes.io~configmap",
            Kind::Secret => "kubernetes.io~secret",
            Kind::DownwardApi => "kubernetes.io~downward-api",
            Kind::Projected => "kubernetes.io~projected",
        }
    }
}

/// The folder of one pod.
#[derive(Debug, Clone)]
pub(super) struct PodFolder(pub(super) PathBuf);

impl PodFolder {
    /// `<root>/pods/<uid>`.
    pub(super) fn of(root: &Path, uid: &PodUid) -> PodFolder {
        PodFolder(root.join("pods").join(uid.as_str()))
    }

    /// `volumes/kubernetes.io~<kind>/<name>`.
    pub(super) fn volume(&self, kind: Kind, name: &str) -> PathBuf {
        self.0.join(VOLUMES).join(kind.folder()).join(name)
    }

    /// What a container mounts for a volume of this source.
    pub(super) fn mounted(&self, source: &Source<'_>, name: &str) -> PathBuf {
        match source.kind() {
            Some(kind) => self.volume(kind, name),
            None => PathBuf::from(source.host_path().unwrap_or_default()),
        }
    }

    /// The mark that an emptyDir is set up, ownership included.
    pub(super) fn ready_mark(&self, name: &str) -> PathBuf {
        self.0.join(PLUGINS).join(Kind::EmptyDir.folder()).join(name).join("ready")
    }

    /// Where the subPath of a container's `index`th mount is bound.
    pub(super) fn subpath(&self, volume: &str, container: &str, index: usize) -> PathBuf {
        self.0.join(SUBPATHS).join(volume).join(container).join(index.to_string())
    }
}
