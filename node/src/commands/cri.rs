//! `orlop cri`: the daemon, from its settings to its end.

use crate::settings::Settings;
use anyhow::Context;
use sd_notify::NotifyState;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use sys::credentials::{self, Limit, Resource};
use tokio::signal::unix::{SignalKind, signal};

/// How long work that blocks may go on once nobody is served any more.
pub(super) const UNWIND: Duration = Duration::from_secs(5);

/// How many files we may have open, if the machine lets us: what the kubelet's `maxOpenFiles` is by default.
const OPEN_FILES: u64 = 1_000_000;

/// Recovers what runs, serves until SIGTERM or SIGINT, and leaves the pods alone.
///
/// # Errors
/// A directory or the socket can't be made, another daemon serves it, or the state can't be read.
pub(crate) fn run(settings: &Settings) -> anyhow::Result<()> {
    sys::kernel::require_minimum()?;
    allow_open_files(OPEN_FILES);
    let runtime = runtime()?;
    let daemon = runtime.block_on(open(settings))?;
    let served = runtime.block_on(async {
        let stop = stopped()?;
        serve(&daemon, settings, || notify(&NotifyState::Ready), stop).await
    });
    // A plugin or a volume that hangs does not keep us: what is half done, the next start finds.
    runtime.shutdown_timeout(UNWIND);
    // Last, because the lock goes with it: a successor that recovers is to find none of our tasks at work.
    drop(daemon);
    served
}

/// The runtime that daemons run on.
pub(super) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the async runtime")
}

/// Raises how many files this process may have open to `most`, or to what the machine allows: each client and each log
/// takes some, and a shell's 1024 are soon used up. Containers don't notice: theirs is set by the CRI.
pub(super) fn allow_open_files(most: u64) {
    let raised = credentials::limit(Resource::NOFILE).and_then(|now| match raised(now, most) {
        Some(limit) => credentials::set_limit(Resource::NOFILE, limit),
        None => Ok(()),
    });
    if let Err(error) = raised {
        tracing::warn!(%error, "open files stay limited as they were");
    }
}

/// A soft limit of `most` if the hard one allows it; never less than now.
fn raised(now: Limit, most: u64) -> Option<Limit> {
    let soft = now.hard.min(most);
    (soft > now.soft).then_some(Limit { soft, ..now })
}

/// Makes the directories and recovers what runs.
pub(super) async fn open(settings: &Settings) -> anyhow::Result<cri::Daemon> {
    for folder in [&settings.root, &settings.state] {
        private_folder(folder)?;
    }
    Ok(cri::Daemon::recover(config(settings)?).await?)
}

/// Listens, says so to `ready`, and serves until `stop` resolves.
pub(super) async fn serve(
    daemon: &cri::Daemon,
    settings: &Settings,
    ready: impl FnOnce(),
    stop: impl Future<Output = ()> + Send,
) -> anyhow::Result<()> {
    let socket = settings.socket();
    let listener = cri::listen(&socket)?;
    tracing::info!(socket = %socket.display(), "serving");
    ready();
    let served = daemon.serve(listener, stop).await;
    // A successor listens there only once it has our lock, which we hold until the end; nobody else makes this path.
    _ = std::fs::remove_file(&socket);
    Ok(served?)
}

/// Resolves when the process is told to stop, by SIGTERM or SIGINT.
pub(super) fn stopped() -> anyhow::Result<impl Future<Output = ()> + Send> {
    let mut term = signal(SignalKind::terminate()).context("watch SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("watch SIGINT")?;
    Ok(async move {
        tokio::select! { _ = term.recv() => {}, _ = interrupt.recv() => {} }
        tracing::info!("stopping; pods are left alone");
        notify(&NotifyState::Stopping);
    })
}

/// Supervision is optional: without systemd there is nobody to tell, and a failure to tell changes nothing.
pub(super) fn notify(state: &NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(std::slice::from_ref(state)) {
        tracing::warn!(%error, "tell the service manager");
    }
}

/// A folder that only root may enter; one that is looser, from an older version or a careless hand, is repaired.
pub(super) fn private_folder(path: &Path) -> anyhow::Result<()> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.with_context(|| format!("make {}", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
        .with_context(|| format!("make {} private", path.display()))
}

fn config(settings: &Settings) -> anyhow::Result<cri::Config> {
    let mut config = cri::Config::new(&settings.root, &settings.state, shim(settings)?);
    config.cgroup_parent.clone_from(&settings.cri.cgroup_parent);
    config.netns_dir.clone_from(&settings.cri.netns_dir);
    config.cni = cri::Cni {
        conf_dir: settings.cni.conf_dir.clone(),
        bin_dirs: settings.cni.bin_dirs.clone(),
        cache_dir: settings.cni.cache_dir.clone(),
        timeout: Duration::from_secs(settings.cri.cni_timeout_s),
    };
    config.registry_hosts_dirs.clone_from(&settings.registry.hosts_dirs);
    config.parallel_layers = settings.image.parallel_layers;
    config.proxies = super::proxies();
    Ok(config)
}

fn shim(settings: &Settings) -> anyhow::Result<PathBuf> {
    let shim = if settings.cri.shim.as_os_str().is_empty() {
        std::env::current_exe().context("find this program")?.with_file_name("orlop-shim")
    } else {
        settings.cri.shim.clone()
    };
    anyhow::ensure!(shim.is_file(), "the pod supervisor {} is not there (cri.shim)", shim.display());
    Ok(shim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_files_are_raised_as_far_as_they_may_be_and_never_lowered() {
        let check = |soft, hard, most, expected: Option<u64>| {
            assert_eq!(raised(Limit { soft, hard }, most), expected.map(|soft| Limit { soft, hard }));
        };
        check(1024, 524_288, 1_000_000, Some(524_288));
        check(1024, u64::MAX, 1_000_000, Some(1_000_000));
        check(4096, 4096, 1_000_000, None);
        check(2_000_000, u64::MAX, 1_000_000, None);
    }
}
