//! The security context: users, groups, seccomp, AppArmor, SELinux, masks, namespaces.
//!
//! A container's own field goes before the pod's. Everything is decided anew for every start, the image's user above
//! all: a kubelet that kept it from the first start lost it at the second, and ran as root (CVE-2019-11245).

use super::{Machine, SpecError};
use crate::pod::Pod;
use k8s_openapi::api::core::v1::{
    AppArmorProfile, Capabilities, Container, PodSecurityContext, SELinuxOptions, SecurityContext,
};
use proto::security_profile::ProfileType;
use proto::{NamespaceMode, SecurityProfile};
use std::path::{Component, Path, PathBuf};

/// Never shown to a container that is not privileged; moby's list, which runtimes share.
const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
/// Never written by one.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What a container's security context is made of.
pub(super) struct Inputs<'a> {
    pub(super) pod: &'a Pod,
    pub(super) container: &'a Container,
    pub(super) image: &'a proto::Image,
    pub(super) machine: &'a Machine,
    pub(super) seccomp: SecurityProfile,
}

/// The security context of one start.
///
/// # Errors
/// A user that `runAsNonRoot` forbids, in upstream's words; a field of another time.
pub(super) fn container(inputs: Inputs<'_>) -> Result<proto::LinuxContainerSecurityContext, SpecError> {
    let Inputs { pod, container, image, machine, seccomp } = inputs;
    let own = container.security_context.clone().unwrap_or_default();
    let of_pod = pod.spec().security_context.clone().unwrap_or_default();
    let user = user(pod, container, image)?;
    let (apparmor, apparmor_text) = apparmor(pod, container)?;
    proc_mount(&own)?;
    #[expect(deprecated, reason = "runtimes older than the field of its own read the string")]
    Ok(proto::LinuxContainerSecurityContext {
        capabilities: own.capabilities.as_ref().map(capabilities),
        privileged: own.privileged.unwrap_or(false),
        namespace_options: Some(namespaces(pod)?),
        selinux_options: own.se_linux_options.as_ref().or(of_pod.se_linux_options.as_ref()).map(selinux),
        run_as_user: user.id.map(int64),
        run_as_group: own.run_as_group.or(of_pod.run_as_group).map(int64),
        run_as_username: user.name,
        readonly_rootfs: own.read_only_root_filesystem.unwrap_or(false),
        supplemental_groups: supplemental_groups(&of_pod),
        supplemental_groups_policy: groups_policy(&of_pod)?.into(),
        no_new_privs: own.allow_privilege_escalation == Some(false),
        masked_paths: MASKED
            .iter()
            .map(|&path| path.to_owned())
            .chain(machine.thermal_throttle.iter().cloned())
            .collect(),
        readonly_paths: READ_ONLY.map(str::to_owned).to_vec(),
        seccomp: Some(seccomp),
        apparmor,
        apparmor_profile: apparmor_text,
        seccomp_profile_path: String::new(),
    })
}

/// The security context of a pod's sandbox. Its seccomp profile is always the runtime's own: what runs there is ours.
pub(super) fn sandbox(pod: &Pod) -> Result<proto::LinuxSandboxSecurityContext, SpecError> {
    let of_pod = pod.spec().security_context.clone().unwrap_or_default();
    let for_sandbox = |error: SpecError| SpecError::sandbox(error.message);
    Ok(proto::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(pod).map_err(for_sandbox)?),
        selinux_options: of_pod.se_linux_options.as_ref().map(selinux),
        run_as_user: of_pod.run_as_user.map(int64),
        // A group without a user means nothing to a runtime, and the image's user is not the sandbox's.
        run_as_group: of_pod.run_as_user.and(of_pod.run_as_group).map(int64),
        supplemental_groups: supplemental_groups(&of_pod),
        supplemental_groups_policy: groups_policy(&of_pod).map_err(for_sandbox)?.into(),
        privileged: pod.containers().any(|(_, container)| privileged(container)),
        seccomp: Some(profile(ProfileType::RuntimeDefault, "")),
        ..proto::LinuxSandboxSecurityContext::default()
    })
}

/// Whether a container is privileged.
pub fn privileged(container: &Container) -> bool {
    container.security_context.as_ref().and_then(|security| security.privileged).unwrap_or(false)
}

/// The user that a pod or container asks for, before the image is asked.
pub fn run_as_user(pod: &Pod, container: &Container) -> Option<i64> {
    let own = container.security_context.as_ref().and_then(|security| security.run_as_user);
    own.or_else(|| pod.spec().security_context.as_ref().and_then(|security| security.run_as_user))
}

/// Whom a container runs as: an id or a name, never both.
#[derive(Debug, PartialEq, Eq)]
struct User {
    id: Option<i64>,
    name: String,
}

fn user(pod: &Pod, container: &Container, image: &proto::Image) -> Result<User, SpecError> {
    let wish = run_as_user(pod, container);
    let of_image = match (&image.uid, image.username.as_str()) {
        (Some(uid), _) => User { id: Some(uid.value), name: String::new() },
        (None, "") => User { id: Some(0), name: String::new() },
        (None, name) => User { id: None, name: name.to_owned() },
    };
    if runs_as_non_root(pod, container) {
        not_root(wish, &of_image).map_err(|message| {
            let pod = format!("{}_{}({})", pod.name(), pod.namespace(), pod.uid());
            SpecError::container(format!("{message} (pod: {pod:?}, container: {})", container.name))
        })?;
    }
    Ok(wish.map_or(of_image, |id| User { id: Some(id), name: String::new() }))
}

fn runs_as_non_root(pod: &Pod, container: &Container) -> bool {
    let own = container.security_context.as_ref().and_then(|security| security.run_as_non_root);
    let of_pod = pod.spec().security_context.as_ref().and_then(|security| security.run_as_non_root);
    own.or(of_pod).unwrap_or(false)
}

/// A name can't be told from root before the image's passwd is read, which is the runtime's to do: refused.
fn not_root(wish: Option<i64>, of_image: &User) -> Result<(), String> {
    match (wish, of_image.id) {
        (Some(0), _) => Err("container's runAsUser breaks non-root policy".to_owned()),
        (Some(_), _) => Ok(()),
        (None, Some(0)) => Err("container has runAsNonRoot and image will run as root".to_owned()),
        (None, Some(id)) if i32::try_from(id).is_err() || id < 0 => Err(format!(
            "container has runAsNonRoot and image has an invalid user id ({id}). (Must be 1-({})): must be between 0 \
             and {}, inclusive",
            i32::MAX,
            i32::MAX
        )),
        (None, Some(_)) => Ok(()),
        (None, None) => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({}), cannot verify user is non-root",
            of_image.name
        )),
    }
}

fn supplemental_groups(of_pod: &PodSecurityContext) -> Vec<i64> {
    of_pod.fs_group.into_iter().chain(of_pod.supplemental_groups.iter().flatten().copied()).collect()
}

fn groups_policy(of_pod: &PodSecurityContext) -> Result<proto::SupplementalGroupsPolicy, SpecError> {
    match of_pod.supplemental_groups_policy.as_deref() {
        None | Some("Merge") => Ok(proto::SupplementalGroupsPolicy::Merge),
        Some("Strict") => Ok(proto::SupplementalGroupsPolicy::Strict),
        Some(other) => Err(SpecError::container(format!("unsupported supplementalGroupsPolicy: {other}"))),
    }
}

/// The namespaces that a pod has of its own, shares, or takes from the host.
///
/// # Errors
/// `hostUsers: false`, until the runtime has user namespaces.
pub(super) fn namespaces(pod: &Pod) -> Result<proto::NamespaceOption, SpecError> {
    let spec = pod.spec();
    let host = |field: Option<bool>| if field.unwrap_or(false) { NamespaceMode::Node } else { NamespaceMode::Pod };
    let pid = match (spec.host_pid, spec.share_process_namespace) {
        (Some(true), _) => NamespaceMode::Node,
        (_, Some(true)) => NamespaceMode::Pod,
        _ => NamespaceMode::Container,
    };
    if spec.host_users == Some(false) {
        return Err(SpecError::container("spec.hostUsers: false is not supported by this kubelet"));
    }
    let users = proto::UserNamespace { mode: NamespaceMode::Node.into(), ..proto::UserNamespace::default() };
    Ok(proto::NamespaceOption {
        network: host(spec.host_network).into(),
        pid: pid.into(),
        ipc: host(spec.host_ipc).into(),
        target_id: String::new(),
        userns_options: spec.host_users.map(|_| users),
    })
}

/// `Unmasked` is for pods with a user namespace of their own, and those there are none of yet.
fn proc_mount(own: &SecurityContext) -> Result<(), SpecError> {
    match own.proc_mount.as_deref() {
        None | Some("" | "Default") => Ok(()),
        Some(other) => {
            let message = format!(
                "securityContext.procMount: {other} is not supported by this kubelet: it needs hostUsers: false"
            );
            Err(SpecError::container(message))
        }
    }
}

/// The seccomp profile that a pod asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seccomp {
    /// None.
    Unconfined,
    /// The runtime's.
    RuntimeDefault,
    /// A file below `<root>/seccomp`, relative to it; whether it is there is not known here.
    Localhost(PathBuf),
}

/// The seccomp profile of a container: its own, the pod's, or what the node has for those that say nothing.
///
/// # Errors
/// `Localhost` that names no file below the folder: an empty name ran unconfined once (CVE-2023-2431).
pub fn seccomp(pod: &Pod, container: &Container, default: bool) -> Result<Seccomp, SpecError> {
    let own = container.security_context.as_ref().and_then(|security| security.seccomp_profile.as_ref());
    let of_pod = || pod.spec().security_context.as_ref().and_then(|security| security.seccomp_profile.as_ref());
    let Some(wish) = own.or_else(of_pod) else {
        return Ok(if default { Seccomp::RuntimeDefault } else { Seccomp::Unconfined });
    };
    match wish.type_.as_str() {
        "RuntimeDefault" => Ok(Seccomp::RuntimeDefault),
        "Unconfined" => Ok(Seccomp::Unconfined),
        "Localhost" => localhost_profile(wish.localhost_profile.as_deref().unwrap_or_default()),
        other => Err(SpecError::container(format!("unknown seccomp profile type: {other:?}"))),
    }
}

fn localhost_profile(name: &str) -> Result<Seccomp, SpecError> {
    let path = Path::new(name);
    if name.is_empty() {
        return Err(SpecError::container("localhostProfile must be set if seccompProfile type is Localhost."));
    }
    if name.contains('\0') || !path.components().all(|part| matches!(part, Component::Normal(_))) {
        let message =
            format!("localhostProfile {name:?} must be a path below the kubelet's seccomp folder, without '..'");
        return Err(SpecError::container(message));
    }
    Ok(Seccomp::Localhost(path.to_owned()))
}

/// An AppArmor profile, and the same in the words of older runtimes.
fn apparmor(pod: &Pod, container: &Container) -> Result<(Option<SecurityProfile>, String), SpecError> {
    let own = container.security_context.as_ref().and_then(|security| security.app_armor_profile.clone());
    let of_pod = || pod.spec().security_context.as_ref().and_then(|security| security.app_armor_profile.clone());
    let Some(wish) = own.or_else(|| annotated_apparmor(pod, &container.name)).or_else(of_pod) else {
        return Ok((None, String::new()));
    };
    match (wish.type_.as_str(), wish.localhost_profile.as_deref()) {
        ("RuntimeDefault", _) => Ok((Some(profile(ProfileType::RuntimeDefault, "")), "runtime/default".to_owned())),
        ("Unconfined", _) => Ok((Some(profile(ProfileType::Unconfined, "")), "unconfined".to_owned())),
        ("Localhost", Some(name)) if !name.is_empty() => {
            Ok((Some(profile(ProfileType::Localhost, name)), format!("localhost/{name}")))
        }
        ("Localhost", _) => Err(SpecError::container("missing localhost apparmor profile name")),
        (other, _) => Err(SpecError::container(format!("unknown apparmor profile type: {other:?}"))),
    }
}

/// The annotation from before the field: the API server turns it into the field, for static pods nobody does.
fn annotated_apparmor(pod: &Pod, container: &str) -> Option<AppArmorProfile> {
    let key = format!("container.apparmor.security.beta.kubernetes.io/{container}");
    let text = pod.annotation(&key).filter(|text| pod.is_static() && !text.is_empty())?;
    let of = |kind: &str, name: Option<&str>| {
        Some(AppArmorProfile { type_: kind.to_owned(), localhost_profile: name.map(str::to_owned) })
    };
    match (text, text.strip_prefix("localhost/")) {
        ("runtime/default", _) => of("RuntimeDefault", None),
        ("unconfined", _) => of("Unconfined", None),
        (_, name @ Some(_)) => of("Localhost", name),
        _ => None,
    }
}

pub(super) fn profile(kind: ProfileType, reference: &str) -> SecurityProfile {
    SecurityProfile { profile_type: kind.into(), localhost_ref: reference.to_owned() }
}

fn capabilities(wish: &Capabilities) -> proto::Capability {
    proto::Capability {
        add_capabilities: wish.add.clone().unwrap_or_default(),
        drop_capabilities: wish.drop.clone().unwrap_or_default(),
        add_ambient_capabilities: Vec::new(),
    }
}

fn selinux(wish: &SELinuxOptions) -> proto::SeLinuxOption {
    proto::SeLinuxOption {
        user: wish.user.clone().unwrap_or_default(),
        role: wish.role.clone().unwrap_or_default(),
        r#type: wish.type_.clone().unwrap_or_default(),
        level: wish.level.clone().unwrap_or_default(),
    }
}

fn int64(value: i64) -> proto::Int64Value {
    proto::Int64Value { value }
}

#[cfg(test)]
mod tests;
