//! What pods leave on disk: folders, cgroups, logs and links of pods that nobody knows and of which nothing runs.

use super::Collector;
use crate::pod::PodUid;
use crate::runtime::RuntimePod;
use crate::spec::files;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use sys::rootfd::RootFd;

impl Collector {
    /// Removes what is left of pods that are neither in the runtime, which had these, nor known. Whether a pod is known is
    /// asked before each step, for it may have come since the last one.
    pub(super) async fn collect_orphans(&self, pods: &[RuntimePod]) {
        let listed: BTreeSet<PodUid> = pods.iter().map(|pod| pod.uid.clone()).collect();
        let table = self.table.clone();
        let in_use = Arc::new(move |uid: &PodUid| listed.contains(uid) || table.get(uid).is_some());
        self.folders(&*in_use).await;
        self.cgroups(in_use.clone()).await;
        let logs = self.config.pod_logs.clone();
        let links = self.config.container_logs.clone();
        let sweep = move || {
            remove_log_folders(&logs, &*in_use);
            remove_dangling_links(&links);
        };
        if let Err(error) = tokio::task::spawn_blocking(sweep).await {
            tracing::error!(%error, "sweep logs");
        }
    }

    async fn folders(&self, in_use: impl Fn(&PodUid) -> bool) {
        let on_disk = match self.volumes.pods_on_disk().await {
            Ok(on_disk) => on_disk,
            Err(error) => {
                tracing::warn!(%error, "the folders of pods can't be listed");
                return;
            }
        };
        for uid in &on_disk {
            if in_use(uid) {
                continue;
            }
            if let Err(error) = self.volumes.unmount(uid).await {
                tracing::warn!(%uid, %error, "the volumes of a pod that is gone are not taken down");
                continue;
            }
            if in_use(uid) {
                continue;
            }
            let (config, owned) = (self.config.clone(), uid.clone());
            let removed = tokio::task::spawn_blocking(move || files::remove_pod(&config, &owned)).await;
            if let Ok(Err(error)) = removed {
                tracing::warn!(%uid, %error, "the folder of a pod that is gone is not removed");
            }
        }
    }

    async fn cgroups(&self, in_use: Arc<impl Fn(&PodUid) -> bool + Send + Sync + 'static>) {
        let cgroups = self.cgroups.clone();
        let Ok(Ok(pods)) = tokio::task::spawn_blocking(move || cgroups.pods()).await else { return };
        for uid in pods {
            let (cgroups, in_use) = (self.cgroups.clone(), in_use.clone());
            let remove = move || if in_use(&uid) { Ok(()) } else { cgroups.remove_pod(&uid) };
            if let Ok(Err(error)) = tokio::task::spawn_blocking(remove).await {
                tracing::warn!(%error, "the cgroup of a pod that is gone is not removed");
            }
        }
    }
}

/// Removes log folders `<namespace>_<name>_<uid>` of pods that are not in use. Blocks.
fn remove_log_folders(logs: &Path, in_use: impl Fn(&PodUid) -> bool) {
    let Ok(root) = RootFd::open(logs) else { return };
    for name in names(logs) {
        // Neither namespaces nor names hold underscores.
        let Some(uid) = name.rsplit('_').next().filter(|_| name.matches('_').count() == 2) else { continue };
        if PodUid::parse(uid).map_or(true, |uid| in_use(&uid)) {
            continue;
        }
        if let Err(error) = root.remove_all(Path::new(&name)) {
            tracing::warn!(folder = name, %error, "the logs of a pod that is gone are not removed");
        }
    }
}

/// Removes links in the folder that lead nowhere any more. Blocks.
fn remove_dangling_links(folder: &Path) {
    for name in names(folder) {
        let link: PathBuf = folder.join(&name);
        let is_link = link.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink());
        let leads_nowhere = is_link && matches!(link.try_exists(), Ok(false));
        if leads_nowhere && let Err(error) = std::fs::remove_file(&link) {
            tracing::warn!(link = name, %error, "a link to a log that is gone is not removed");
        }
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn logs_go_with_their_pod_and_links_with_their_log() {
        let folder = tempfile::tempdir().unwrap();
        let (logs, links) = (folder.path().join("pods"), folder.path().join("containers"));
        std::fs::create_dir(&links).unwrap();
        for pod in ["n_web_u-1", "n_db_u-2", "strange"] {
            let container = logs.join(pod).join("main");
            std::fs::create_dir_all(&container).unwrap();
            std::fs::File::create(container.join("0.log")).unwrap();
            symlink(container.join("0.log"), links.join(format!("{pod}.log"))).unwrap();
        }
        remove_log_folders(&logs, |uid| uid.as_str() == "u-1");
        remove_dangling_links(&links);
        let sorted = |folder: &Path| {
            let mut names = names(folder);
            names.sort();
            names
        };
        assert_eq!(sorted(&logs), ["n_web_u-1", "strange"]);
        assert_eq!(sorted(&links), ["n_web_u-1.log", "strange.log"]);
    }
}
