//! What is made on disk for a pod and its containers.
//!
//! Everything is below `<root>/pods/<uid>` and the log folder, both root's alone. A container may write to the files
//! that it mounts from there, and one that mounts the host's /var/log may change the folders of logs: so every path is
//! resolved beneath its root, and no file is opened through a link.

use super::security::{self, Seccomp};
use super::{SpecError, container, hosts, sandbox};
use crate::config::Config;
use crate::pod::{Pod, PodUid};
use k8s_openapi::api::core::v1::Container;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use sys::at::{self, OFlag};
use sys::rootfd::RootFd;

/// The host's /etc/hosts beyond this is not one.
const MAX_HOSTS: u64 = 10 << 20;

/// What was made for one start of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerFiles {
    /// The pod's /etc/hosts; `None` where a volume is mounted there or the pod has no address.
    pub hosts: Option<PathBuf>,
    /// The file of this start's termination message; `None` where `terminationMessagePath` is empty.
    pub termination_log: Option<PathBuf>,
    /// The seccomp profile's absolute path, where one is named; it was there.
    pub seccomp_profile: Option<PathBuf>,
}

/// Makes the pod's folders: `<root>/pods/<uid>/{volumes,plugins,containers}` and the log folder. Blocking.
///
/// # Errors
/// A folder that can't be made.
pub fn prepare_sandbox(config: &Config, pod: &Pod) -> Result<(), SpecError> {
    let fail = |error: sys::Error| SpecError::sandbox(format!("error making pod data directories: {error}"));
    sandbox::one_component(pod.name())?;
    sandbox::one_component(pod.namespace())?;
    let root = RootFd::open(&config.root).map_err(fail)?;
    for folder in ["volumes", "plugins", "containers"] {
        root.make_path_beneath(&pod_folder(pod.uid()).join(folder), 0o750).map_err(fail)?;
    }
    make_log_folder(config, pod, "").map_err(fail)
}

/// Makes what one start of a container needs: /etc/hosts, a fresh termination-log, the log folder; and finds its
/// seccomp profile. Blocking.
///
/// # Errors
/// A file that can't be made, a profile that is not there.
pub fn prepare_container(
    config: &Config,
    pod: &Pod,
    container: &Container,
    pod_ips: &[IpAddr],
) -> Result<ContainerFiles, SpecError> {
    sandbox::one_component(&container.name).map_err(|error| SpecError::container(error.message))?;
    make_log_folder(config, pod, &container.name).map_err(|error| {
        SpecError::container(format!("create container log directory for container {} failed: {error}", container.name))
    })?;
    let root = RootFd::open(&config.root)
        .map_err(|error| SpecError::container(format!("open the kubelet's root: {error}")))?;
    Ok(ContainerFiles {
        hosts: hosts_file(config, &root, pod, container, pod_ips)?,
        termination_log: termination_log(config, &root, pod, container)?,
        seccomp_profile: seccomp_profile(config, pod, container)?,
    })
}

/// Removes the pod's folder once its volumes are gone; nothing if it is gone. Blocking.
///
/// # Errors
/// Something is mounted below it, which is not crossed into.
pub fn remove_pod(config: &Config, uid: &PodUid) -> Result<(), SpecError> {
    let removed = RootFd::open(&config.root).and_then(|root| root.remove_all(&pod_folder(uid)));
    removed.map_err(|error| SpecError::sandbox(format!("remove the folder of pod {uid}: {error}")))
}

fn pod_folder(uid: &PodUid) -> PathBuf {
    Path::new("pods").join(uid.as_str())
}

/// `container` may be empty: the pod's folder alone. The mode is that of upstream: log shippers are not root.
fn make_log_folder(config: &Config, pod: &Pod, container: &str) -> sys::Result<()> {
    let folder = sandbox::log_directory(config, pod);
    let name = folder.file_name().map(Path::new).unwrap_or(Path::new(""));
    RootFd::open(&config.pod_logs)?.make_path_beneath(&name.join(container), 0o755).map(drop)
}

/// Writes the pod's /etc/hosts anew: its containers share the file, and each start brings it up to date.
fn hosts_file(
    config: &Config,
    root: &RootFd,
    pod: &Pod,
    container: &Container,
    pod_ips: &[IpAddr],
) -> Result<Option<PathBuf>, SpecError> {
    let taken = container.volume_mounts.iter().flatten().any(|mount| mount.mount_path == "/etc/hosts");
    if taken || (pod_ips.is_empty() && !pod.host_network()) {
        return Ok(None);
    }
    let aliases = pod.spec().host_aliases.as_deref().unwrap_or_default();
    let fail = |error: String| SpecError::container(format!("write the pod's /etc/hosts: {error}"));
    let text = if pod.host_network() {
        let host = sys::fs::read_bounded("/etc/hosts", MAX_HOSTS).map_err(|error| fail(error.to_string()))?;
        hosts::of_host(&String::from_utf8_lossy(&host), aliases)
    } else {
        let (hostname, domain) = sandbox::hostname_and_domain(pod, &config.dns.domain)
            .map_err(|error| SpecError::container(error.message))?;
        hosts::managed(pod_ips, &hostname, &domain, aliases)
    };
    let folder = root.make_path_beneath(&pod_folder(pod.uid()), 0o750).map_err(|error| fail(error.to_string()))?;
    overwrite(&folder, "etc-hosts", text.as_bytes()).map_err(fail)?;
    Ok(Some(config.pod_dir(pod.uid()).join("etc-hosts")))
}

/// Replaces a file's content in place: containers that run have this very file mounted. The new text is written before
/// the rest is cut off, so that nobody finds the file empty.
fn overwrite(folder: &impl std::os::fd::AsFd, name: &str, content: &[u8]) -> Result<(), String> {
    let file = at::openat(folder, name, OFlag::O_WRONLY | OFlag::O_CREAT, 0o644).map_err(|error| error.to_string())?;
    at::fchmod(&file, 0o644).map_err(|error| error.to_string())?;
    let mut file = File::from(file);
    file.seek(SeekFrom::Start(0))
        .and_then(|_| file.write_all(content))
        .and_then(|()| file.set_len(content.len() as u64))
        .map_err(|error| format!("{name}: {error}"))
}

/// A file of its own for each start: what an earlier one said is still to be read.
fn termination_log(
    config: &Config,
    root: &RootFd,
    pod: &Pod,
    container: &Container,
) -> Result<Option<PathBuf>, SpecError> {
    if container::termination_message_path(container).is_empty() {
        return Ok(None);
    }
    let fail = |error: sys::Error| SpecError::container(format!("error on creating termination-log file: {error}"));
    let folder = pod_folder(pod.uid()).join("containers").join(&container.name);
    let handle = root.make_path_beneath(&folder, 0o750).map_err(fail)?;
    let name = format!("{:08x}", uuid::Uuid::new_v4().as_fields().0);
    let file = at::openat(&handle, &name, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL, 0o600).map_err(fail)?;
    // Whoever the container runs as writes to it.
    at::fchmod(&file, 0o666).map_err(fail)?;
    Ok(Some(config.root.join(folder).join(name)))
}

/// The profile as a path for the runtime, which reads it later: a file that is there, not empty, and beneath
/// `<root>/seccomp` whatever links lie on the way (CVE-2023-2431).
fn seccomp_profile(config: &Config, pod: &Pod, container: &Container) -> Result<Option<PathBuf>, SpecError> {
    let Seccomp::Localhost(name) = security::seccomp(pod, container, config.seccomp_default)? else {
        return Ok(None);
    };
    let folder = config.root.join("seccomp");
    let fail =
        |what: String| SpecError::container(format!("cannot load seccomp profile {:?}: {what}", folder.join(&name)));
    let found = RootFd::open(&folder).and_then(|folder| folder.open_path_beneath(&name));
    let stat = found.and_then(|file| at::fstat(&file)).map_err(|error| fail(error.to_string()))?;
    if at::file_type(&stat) != at::SFlag::S_IFREG || stat.st_size == 0 {
        return Err(fail("it is not a file, or empty".to_owned()));
    }
    Ok(Some(folder.join(name)))
}

#[cfg(test)]
pub(super) mod tests;
