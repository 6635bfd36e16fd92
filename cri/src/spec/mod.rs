//! CRI configuration → OCI runtime-spec, purely: what a container is, decided before anything is touched.
//!
//! The caller has looked up everything that depends on the machine or the image's files ([`Inputs`]); from there on the
//! same request gives the same spec. Each part of a spec has its file, and its table of tests.
//!
//! The pod's network, IPC and UTS namespaces are those of its shim, whose child the container becomes: the spec does not
//! mention them. `/dev/shm` is handed over by the shim as well.

mod annotations;
pub(crate) mod capabilities;
mod command;
pub(crate) mod devices;
mod environment;
pub(crate) mod log_path;
pub(crate) mod mounts;
pub(crate) mod namespaces;
pub(crate) mod resources;
pub(crate) mod security;
pub(crate) mod signal;
pub(crate) mod sysctls;
pub(crate) mod user;

use crate::failure::Result;
use crate::sandbox::SandboxRecord;
use capabilities::CapabilitySets;
use devices::HostDevice;
use image::ImageConfig;
use mounts::{PodFiles, Volume};
use namespaces::PidNamespace;
use oci_spec::runtime::{
    Linux, LinuxBuilder, LinuxNamespaceType, PosixRlimitBuilder, PosixRlimitType, Process, ProcessBuilder, RootBuilder,
    Spec, SpecBuilder, UserBuilder,
};
use proto::{ContainerConfig, LinuxContainerSecurityContext};
use std::path::Path;
use user::ResolvedUser;

/// Everything that a spec follows from.
#[derive(Debug)]
pub(crate) struct Inputs<'a> {
    pub(crate) sandbox: &'a SandboxRecord,
    pub(crate) config: &'a ContainerConfig,
    pub(crate) image: &'a ImageConfig,
    /// The name that the container's image was asked for by.
    pub(crate) image_name: &'a str,
    pub(crate) user: &'a ResolvedUser,
    pub(crate) pid: &'a PidNamespace,
    pub(crate) files: &'a PodFiles,
    pub(crate) volumes: &'a [Volume],
    pub(crate) devices: &'a [HostDevice],
    pub(crate) host: &'a Host,
    pub(crate) cgroup: &'a str,
}

/// What the machine lets us give away.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    /// Capabilities of the daemon, as bits: a container can't have more.
    pub(crate) capabilities: u64,
    /// RLIMIT_NOFILE of containers, soft and hard.
    pub(crate) open_files: (u64, u64),
    /// Whether cgroups are v2 only, so that containers get a cgroup namespace.
    pub(crate) unified_cgroups: bool,
    /// The host's own name, for pods that send none.
    pub(crate) hostname: String,
}

/// The security context, or an empty one.
pub(crate) fn security_context(config: &ContainerConfig) -> LinuxContainerSecurityContext {
    config.linux.as_ref().and_then(|linux| linux.security_context.clone()).unwrap_or_default()
}

/// The OCI spec of a container.
///
/// # Errors
/// Something in the request that makes no sense or is not built, by name.
pub(crate) fn build(inputs: &Inputs<'_>) -> Result<Spec> {
    let security = security_context(inputs.config);
    security::check(&security, inputs.sandbox)?;
    let root = RootBuilder::default().path("rootfs").readonly(security.readonly_rootfs).build();
    let spec = SpecBuilder::default()
        .version("1.2.1")
        .root(root.expect("complete"))
        .process(process(inputs, &security)?)
        .mounts(mounts::build(inputs, &security)?)
        .annotations(annotations::build(inputs))
        .linux(linux(inputs, &security)?)
        .build();
    let mut spec = spec.expect("complete");
    // The builder's own default is a name; the pod's is set once, in the UTS namespace that its containers join.
    spec.set_hostname(None);
    Ok(spec)
}

fn process(inputs: &Inputs<'_>, security: &LinuxContainerSecurityContext) -> Result<Process> {
    let config = inputs.config;
    let user = UserBuilder::default()
        .uid(inputs.user.uid)
        .gid(inputs.user.gid)
        .additional_gids(inputs.user.groups.clone())
        .build();
    let (soft, hard) = inputs.host.open_files;
    let files = PosixRlimitBuilder::default().typ(PosixRlimitType::RlimitNofile).soft(soft).hard(hard).build();
    let mut builder = ProcessBuilder::default()
        .terminal(config.tty)
        .user(user.expect("complete"))
        .args(command::build(config, inputs.image)?)
        .env(environment::build(inputs)?)
        .cwd(command::working_dir(config, inputs.image))
        .capabilities(CapabilitySets::build(security, inputs.host.capabilities)?.to_oci())
        .rlimits(vec![files.expect("complete")])
        .no_new_privileges(security.no_new_privs);
    if let Some(score) = resources::oom_score(config)? {
        builder = builder.oom_score_adj(score);
    }
    Ok(builder.build().expect("complete"))
}

fn linux(inputs: &Inputs<'_>, security: &LinuxContainerSecurityContext) -> Result<Linux> {
    let resources = inputs.config.linux.as_ref().and_then(|linux| linux.resources.clone()).unwrap_or_default();
    let mut oci = resources::to_oci(&resources)?;
    oci.set_devices(Some(devices::rules(inputs.devices, security.privileged)));
    let (masked, readonly) = if security.privileged {
        Default::default()
    } else {
        (security.masked_paths.clone(), security.readonly_paths.clone())
    };
    let mut builder = LinuxBuilder::default()
        .namespaces(namespaces::build(inputs, security.privileged))
        .cgroups_path(Path::new(inputs.cgroup))
        .devices(inputs.devices.iter().map(HostDevice::to_oci).collect::<Vec<_>>())
        .resources(oci)
        .masked_paths(masked)
        .readonly_paths(readonly);
    if let Some(propagation) = mounts::root_propagation(&inputs.config.mounts) {
        builder = builder.rootfs_propagation(propagation);
    }
    Ok(builder.build().expect("complete"))
}

/// The path of a namespace of a process.
pub(crate) fn namespace_of(pid: i32, kind: LinuxNamespaceType) -> std::path::PathBuf {
    let name = match kind {
        LinuxNamespaceType::Pid => "pid",
        LinuxNamespaceType::Network => "net",
        LinuxNamespaceType::Ipc => "ipc",
        LinuxNamespaceType::Uts => "uts",
        LinuxNamespaceType::Mount => "mnt",
        LinuxNamespaceType::User => "user",
        LinuxNamespaceType::Cgroup => "cgroup",
        LinuxNamespaceType::Time => "time",
    };
    std::path::PathBuf::from(format!("/proc/{pid}/ns/{name}"))
}

#[cfg(test)]
mod tests;
