//! What a request may ask for at all, and the seccomp profile that it means.

use crate::failure::{Failure, Result};
use crate::host;
use crate::sandbox::SandboxRecord;
use proto::security_profile::ProfileType;
use proto::{
    LinuxContainerSecurityContext, NamespaceMode, NamespaceOption, PodSandboxConfig, SeLinuxOption, SecurityProfile,
};
use std::path::PathBuf;

/// Refuses what contradicts the sandbox, and what is not built.
pub(super) fn check(security: &LinuxContainerSecurityContext, sandbox: &SandboxRecord) -> Result<()> {
    if security.privileged && !privileged(&sandbox.config) {
        return Err(Failure::invalid("privileged container in a sandbox that is not privileged"));
    }
    user_namespace(security.namespace_options.as_ref())?;
    selinux(security.selinux_options.as_ref())?;
    if !security.privileged {
        apparmor(security.apparmor.as_ref(), deprecated_apparmor(security))?;
    }
    Ok(())
}

/// Refuses what a sandbox can't have.
pub(crate) fn check_sandbox(config: &PodSandboxConfig) -> Result<()> {
    let Some(security) = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref()) else {
        return Ok(());
    };
    user_namespace(security.namespace_options.as_ref())?;
    selinux(security.selinux_options.as_ref())?;
    if security.run_as_group.is_some() && security.run_as_user.is_none() {
        return Err(Failure::invalid("sandbox: run_as_group without run_as_user"));
    }
    Ok(())
}

/// Whether a sandbox may hold privileged containers.
pub(crate) fn privileged(config: &PodSandboxConfig) -> bool {
    let security = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    security.is_some_and(|security| security.privileged)
}

fn user_namespace(options: Option<&NamespaceOption>) -> Result<()> {
    let Some(userns) = options.and_then(|options| options.userns_options.as_ref()) else { return Ok(()) };
    match userns.mode() {
        NamespaceMode::Node if userns.uids.is_empty() && userns.gids.is_empty() => Ok(()),
        NamespaceMode::Node => Err(Failure::invalid("userns_options: mode NODE with id mappings")),
        NamespaceMode::Pod if userns.uids.len() > 1 || userns.gids.len() > 1 => {
            Err(Failure::invalid("userns_options: more than one id mapping"))
        }
        NamespaceMode::Pod => Err(Failure::unbuilt("userns_options: user namespaces of pods")),
        mode => Err(Failure::invalid(format!("userns_options: mode {}", mode.as_str_name()))),
    }
}

/// On a host without SELinux labels mean nothing, and every runtime lets them pass.
fn selinux(options: Option<&SeLinuxOption>) -> Result<()> {
    let Some(options) = options else { return Ok(()) };
    let empty = [&options.user, &options.role, &options.r#type, &options.level].iter().all(|part| part.is_empty());
    if !empty && host::selinux() {
        return Err(Failure::unbuilt("selinux_options: SELinux labels"));
    }
    Ok(())
}

#[expect(deprecated, reason = "clients still send it, and it counts where the new field is absent")]
fn deprecated_apparmor(security: &LinuxContainerSecurityContext) -> &str {
    &security.apparmor_profile
}

fn apparmor(profile: Option<&SecurityProfile>, deprecated: &str) -> Result<()> {
    let named = match profile {
        Some(profile) => match profile.profile_type() {
            ProfileType::Unconfined => return Ok(()),
            ProfileType::RuntimeDefault => "runtime/default",
            ProfileType::Localhost => profile.localhost_ref.as_str(),
        },
        None => deprecated,
    };
    match (named, host::apparmor()) {
        ("" | "unconfined", _) | ("runtime/default", false) => Ok(()),
        (named, true) => Err(Failure::unbuilt(format!("AppArmor profile {named:?}"))),
        (named, false) => Err(Failure::invalid(format!("AppArmor profile {named:?}: this host has no AppArmor"))),
    }
}

/// The seccomp profile of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seccomp {
    /// None: privileged, unconfined, or nothing said.
    Unconfined,
    /// Ours, which depends on the container's capabilities.
    RuntimeDefault,
    /// A file of the host.
    Localhost(PathBuf),
}

/// The profile that a security context means; the deprecated string counts only where the new field is absent.
#[expect(deprecated, reason = "clients still send it, and it counts where the new field is absent")]
pub(crate) fn seccomp(security: &LinuxContainerSecurityContext) -> Result<Seccomp> {
    if security.privileged {
        return Ok(Seccomp::Unconfined);
    }
    let localhost = |path: &str| {
        let path = PathBuf::from(path);
        if path.is_absolute() {
            Ok(Seccomp::Localhost(path))
        } else {
            Err(Failure::invalid(format!("seccomp: localhost profile {} is not an absolute path", path.display())))
        }
    };
    if let Some(profile) = &security.seccomp {
        return match profile.profile_type() {
            ProfileType::RuntimeDefault => Ok(Seccomp::RuntimeDefault),
            ProfileType::Unconfined => Ok(Seccomp::Unconfined),
            ProfileType::Localhost => localhost(&profile.localhost_ref),
        };
    }
    match security.seccomp_profile_path.as_str() {
        "" | "unconfined" => Ok(Seccomp::Unconfined),
        "runtime/default" | "docker/default" => Ok(Seccomp::RuntimeDefault),
        path => match path.strip_prefix("localhost/") {
            Some(path) => localhost(path),
            None => Err(Failure::invalid(format!("seccomp_profile_path {path:?} is unknown"))),
        },
    }
}

#[cfg(test)]
#[expect(deprecated, reason = "clients still send it, and it counts where the new field is absent")]
mod tests {
    use super::*;
    use proto::{IdMapping, UserNamespace};

    fn profile(kind: ProfileType, path: &str) -> Option<SecurityProfile> {
        Some(SecurityProfile { profile_type: kind.into(), localhost_ref: path.into() })
    }

    #[test]
    fn a_missing_profile_is_unconfined_and_an_empty_one_is_the_default() {
        let default = LinuxContainerSecurityContext::default();
        for (seccomp_profile, old, privileged, want) in [
            (None, "", false, Ok(Seccomp::Unconfined)),
            (Some(SecurityProfile::default()), "", false, Ok(Seccomp::RuntimeDefault)),
            (profile(ProfileType::Unconfined, ""), "runtime/default", false, Ok(Seccomp::Unconfined)),
            (profile(ProfileType::Localhost, "/p.json"), "", false, Ok(Seccomp::Localhost("/p.json".into()))),
            (profile(ProfileType::Localhost, "p.json"), "", false, Err(())),
            (profile(ProfileType::Localhost, "/p.json"), "", true, Ok(Seccomp::Unconfined)),
            (None, "runtime/default", false, Ok(Seccomp::RuntimeDefault)),
            (None, "localhost//p.json", false, Ok(Seccomp::Localhost("/p.json".into()))),
            (None, "other", false, Err(())),
        ] {
            let context = LinuxContainerSecurityContext {
                seccomp: seccomp_profile.clone(),
                seccomp_profile_path: old.into(),
                privileged,
                ..default.clone()
            };
            assert_eq!(seccomp(&context).map_err(drop), want, "{seccomp_profile:?} {old:?} {privileged}");
        }
    }

    #[test]
    fn user_namespaces_are_refused_each_by_its_reason() {
        let mapping = IdMapping { host_id: 1, container_id: 0, length: 1 };
        for (mode, mappings, want) in [
            (NamespaceMode::Node, 0, None),
            (NamespaceMode::Pod, 1, Some(tonic::Code::Unimplemented)),
            (NamespaceMode::Pod, 2, Some(tonic::Code::InvalidArgument)),
            (NamespaceMode::Container, 1, Some(tonic::Code::InvalidArgument)),
            (NamespaceMode::Target, 1, Some(tonic::Code::InvalidArgument)),
        ] {
            let mappings = vec![mapping; mappings];
            let userns = UserNamespace { mode: mode.into(), uids: mappings.clone(), gids: mappings };
            let options = NamespaceOption { userns_options: Some(userns), ..NamespaceOption::default() };
            assert_eq!(user_namespace(Some(&options)).err().map(|error| error.code), want, "{mode:?}");
        }
    }
}
