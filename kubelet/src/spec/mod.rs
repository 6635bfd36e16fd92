//! From a pod and a container to the CRI's configs.
//!
//! Everything here is a pure function of its inputs but for [`environment`], which reads objects through the API, and
//! [`files`], which makes what a container mounts and checks what it names. A worker calls, in this order:
//! [`dns::pod_dns`], [`files::prepare_sandbox`] and [`sandbox_config`]; then for each container [`environment`],
//! [`files::prepare_container`] and [`container_config`].
//!
//! | module | holds |
//! |---|---|
//! | [`sandbox`] | the sandbox: names, hostname, ports, sysctls |
//! | [`container`] | the container: command, mounts, log; its hash |
//! | [`mod@env`], [`expansion`] | variables of all kinds; `$(VAR)` |
//! | [`downward`] | fields of pod and container as text, for variables and volumes |
//! | [`services`] | the variables that name services |
//! | [`dns`], [`hosts`] | the content of resolv.conf and /etc/hosts |
//! | [`security`] | the security context: users, groups, seccomp, masks |
//! | [`Machine`] | what all this has to know of the machine |
//! | [`resources`] | shares, quotas, limits, oom_score_adj |
//! | [`files`] | what is made on disk for all this |
//! | [`quantity`] | amounts |

pub mod container;
pub mod dns;
pub mod downward;
pub mod env;
pub mod expansion;
pub mod files;
pub mod hosts;
mod machine;
pub mod quantity;
pub mod resources;
pub mod sandbox;
pub mod security;
pub mod services;

pub use container::{ContainerInputs, container_config, container_hash};
pub use env::{EnvInputs, environment};
pub use machine::Machine;
pub use sandbox::{SandboxInputs, sandbox_config};

/// Why a pod or container can't be turned into what the CRI takes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SpecError {
    /// The waiting reason: `CreateContainerConfigError` or `CreatePodSandboxError`.
    pub reason: &'static str,
    /// Upstream's text, for the waiting message and the event.
    pub message: String,
}

impl SpecError {
    /// A container that can't be described.
    pub(crate) fn container(message: impl Into<String>) -> SpecError {
        SpecError { reason: "CreateContainerConfigError", message: message.into() }
    }

    /// A sandbox that can't be described.
    pub(crate) fn sandbox(message: impl Into<String>) -> SpecError {
        SpecError { reason: "CreatePodSandboxError", message: message.into() }
    }
}
