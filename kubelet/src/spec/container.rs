//! The container: command, mounts, log; its hash.

use super::expansion::{self, Room};
use super::files::ContainerFiles;
use super::security::Seccomp;
use super::{Machine, SpecError, resources, security};
use crate::config::Config;
use crate::pod::Pod;
use crate::runtime::keys;
use k8s_openapi::api::core::v1::Container;
use proto::security_profile::ProfileType;
use std::collections::BTreeMap;
use std::path::Path;

/// What a container's config is made of.
#[derive(Debug)]
pub struct ContainerInputs<'a> {
    /// Settings.
    pub config: &'a Config,
    /// The machine.
    pub machine: &'a Machine,
    /// The pod.
    pub pod: &'a Pod,
    /// One of its containers.
    pub container: &'a Container,
    /// What [`crate::images::Images::ensure`] found for this start: it says which user the image runs as.
    pub image: &'a proto::Image,
    /// How often the container was started before.
    pub restart_count: u32,
    /// From [`super::environment`].
    pub env: &'a BTreeMap<String, String>,
    /// From the volumes.
    pub mounts: Vec<proto::Mount>,
    /// From [`super::files::prepare_container`], for this start.
    pub files: &'a ContainerFiles,
}

/// The config of one start of a container.
///
/// # Errors
/// A user that may not be, a profile that is not there, a device that is not built.
pub fn container_config(inputs: &ContainerInputs<'_>) -> Result<proto::ContainerConfig, SpecError> {
    let ContainerInputs { config, machine, pod, container, image, restart_count, env, mounts, files } = inputs;
    if container.volume_devices.as_ref().is_some_and(|devices| !devices.is_empty()) {
        return Err(SpecError::container("volumeDevices are not supported by this kubelet"));
    }
    let seccomp = seccomp_profile(pod, container, config, files)?;
    let (command, args) = command_line(container, env)?;
    Ok(proto::ContainerConfig {
        metadata: Some(proto::ContainerMetadata { name: container.name.clone(), attempt: *restart_count }),
        image: Some(proto::ImageSpec {
            image: image.id.clone(),
            user_specified_image: container.image.clone().unwrap_or_default(),
            ..proto::ImageSpec::default()
        }),
        command,
        args,
        working_dir: container.working_dir.clone().unwrap_or_default(),
        envs: env.iter().map(|(key, value)| key_value(key, value)).collect(),
        mounts: all_mounts(mounts, container, files, machine.selinux),
        labels: labels(pod, container),
        annotations: annotations(pod, container, *restart_count),
        log_path: format!("{}/{restart_count}.log", container.name),
        stdin: container.stdin.unwrap_or(false),
        stdin_once: container.stdin_once.unwrap_or(false),
        tty: container.tty.unwrap_or(false),
        linux: Some(proto::LinuxContainerConfig {
            resources: Some(resources::container(pod, container, &config.limits, machine)),
            security_context: Some(security::container(security::Inputs { pod, container, image, machine, seccomp })?),
        }),
        ..proto::ContainerConfig::default()
    })
}

/// `command` and `args` with their variables. The environment goes the same way to the process.
fn command_line(
    container: &Container,
    env: &BTreeMap<String, String>,
) -> Result<(Vec<String>, Vec<String>), SpecError> {
    let mut room = Room::empty();
    for (name, value) in env {
        room.take(name.len() + 1 + value.len()).map_err(|error| SpecError::container(format!("{name:?}: {error}")))?;
    }
    let mut expanded = |field: &str, words: Option<&[String]>| {
        let lookup = |name: &str| env.get(name).map(String::as_str);
        expansion::words(words.unwrap_or_default(), &mut room, lookup).map_err(|(index, error)| {
            SpecError::container(format!("{field}[{index}] can't be passed to a process: {error}"))
        })
    };
    Ok((expanded("command", container.command.as_deref())?, expanded("args", container.args.as_deref())?))
}

/// A hash of what can't change without another container: name and image. The same as upstream's, so that a node
/// changes its kubelet without restarting a container.
pub fn container_hash(container: &Container) -> String {
    let quoted = |text: &str| {
        let json = serde_json::Value::from(text).to_string();
        // Go's encoder hides these from HTML.
        json.replace('&', "\\u0026").replace('<', "\\u003c").replace('>', "\\u003e")
    };
    let image = container.image.as_deref().unwrap_or_default();
    let json = format!("{{\"image\":{},\"name\":{}}}", quoted(image), quoted(&container.name));
    let bytes: Vec<String> = json.bytes().map(|byte| byte.to_string()).collect();
    // Upstream hashes what its debug printer makes of the bytes.
    format!("{:x}", fnv32a(format!("([]uint8)[{}]", bytes.join(" ")).as_bytes()))
}

/// FNV-1a of 32 bits (RFC 9923).
fn fnv32a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

fn key_value(key: &str, value: &str) -> proto::KeyValue {
    proto::KeyValue { key: key.to_owned(), value: value.as_bytes().to_vec() }
}

/// The profile that [`super::files::prepare_container`] has found to be there.
fn seccomp_profile(
    pod: &Pod,
    container: &Container,
    config: &Config,
    files: &ContainerFiles,
) -> Result<proto::SecurityProfile, SpecError> {
    Ok(match (security::seccomp(pod, container, config.seccomp_default)?, &files.seccomp_profile) {
        (Seccomp::Unconfined, _) => security::profile(ProfileType::Unconfined, ""),
        (Seccomp::RuntimeDefault, _) => security::profile(ProfileType::RuntimeDefault, ""),
        (Seccomp::Localhost(_), Some(path)) => security::profile(ProfileType::Localhost, &path.to_string_lossy()),
        (Seccomp::Localhost(name), None) => {
            let message = format!("localhostProfile {} was not looked for", name.display());
            return Err(SpecError::container(message));
        }
    })
}

/// The volumes' mounts, then /etc/hosts, then the termination log.
fn all_mounts(
    volumes: &[proto::Mount],
    container: &Container,
    files: &ContainerFiles,
    relabel: bool,
) -> Vec<proto::Mount> {
    let file = |target: &str, source: &Path| proto::Mount {
        container_path: target.to_owned(),
        host_path: source.to_string_lossy().into_owned(),
        selinux_relabel: relabel,
        ..proto::Mount::default()
    };
    let mut mounts = volumes.to_vec();
    mounts.extend(files.hosts.as_deref().map(|source| file("/etc/hosts", source)));
    let target = termination_message_path(container);
    mounts.extend(files.termination_log.as_deref().map(|source| file(target, source)));
    mounts
}

/// `terminationMessagePath`, by default `/dev/termination-log`; an empty one means none.
pub fn termination_message_path(container: &Container) -> &str {
    container.termination_message_path.as_deref().unwrap_or("/dev/termination-log")
}

fn labels(pod: &Pod, container: &Container) -> BTreeMap<String, String> {
    BTreeMap::from([
        (keys::POD_NAME.to_owned(), pod.name().to_owned()),
        (keys::POD_NAMESPACE.to_owned(), pod.namespace().to_owned()),
        (keys::POD_UID.to_owned(), pod.uid().to_string()),
        (keys::CONTAINER_NAME.to_owned(), container.name.clone()),
    ])
}

/// What a later kubelet has to know of the container although its pod may be gone from the API server.
fn annotations(pod: &Pod, container: &Container, restart_count: u32) -> BTreeMap<String, String> {
    let policy = container.termination_message_policy.as_deref().unwrap_or("File");
    let mut annotations = BTreeMap::from([
        (keys::CONTAINER_HASH.to_owned(), container_hash(container)),
        (keys::RESTART_COUNT.to_owned(), restart_count.to_string()),
        (keys::TERMINATION_MESSAGE_PATH.to_owned(), termination_message_path(container).to_owned()),
        (keys::TERMINATION_MESSAGE_POLICY.to_owned(), policy.to_owned()),
    ]);
    if let Some(grace) = pod.object().metadata.deletion_grace_period_seconds {
        annotations.insert("io.kubernetes.pod.deletionGracePeriod".to_owned(), grace.to_string());
    }
    if let Some(grace) = pod.spec().termination_grace_period_seconds {
        annotations.insert(keys::GRACE_PERIOD.to_owned(), grace.to_string());
    }
    if let Some(ports) = container.ports.as_ref().filter(|ports| !ports.is_empty()) {
        let json = serde_json::to_string(ports).expect("ports are numbers and texts");
        annotations.insert(keys::PORTS.to_owned(), json);
    }
    annotations
}

#[cfg(test)]
mod tests;
