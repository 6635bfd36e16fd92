//! The OCI runtime-spec for Linux as a library: config → [`Plan`] → container.
//!
//! ```text
//! config.json ──config::parse──▶ Spec ──Plan::from_spec──▶ Plan ──create──▶ Created ──start──▶ the program runs
//!                                        (pure, checks all)        │
//!                                                                  └ clone3 → container init: cgroup, namespaces,
//!                                                                    mounts, pivot, identity, wait, exec
//! ```
//!
//! [`Plan::from_spec`] is pure and refuses, by the field's name, all that is not built. [`create`] prepares what can be
//! opened on the host, clones the container's first process and hears from it through a status channel; whatever
//! fails in there comes back as the caller's error. [`exec`] puts another process into a running container.
//!
//! The caller must have exactly one thread: between `clone3` and `execve` the child runs ordinary code. The caller
//! becomes non-dumpable, because the child is born inside the container's PID namespace and inherits it.
//!
//! The library knows nothing of container ids, state files, pods or images, and logs nothing: the `orlop-runtime`
//! command and `orlop-shim` do.

mod agent;
pub mod config;
mod create;
mod delegation;
mod error;
mod exec;
mod filesystem;
pub mod hooks;
mod host;
mod id_mapped;
mod init;
mod inputs;
mod launch;
mod net_devices;
mod own_image;
pub mod plan;
mod program;
pub mod resctrl;
mod seccomp_filter;
mod state;
mod status;
mod user_namespace;
mod volume;

pub use cgroup;
pub use create::create;
pub use error::Error;
pub use exec::exec;
pub use inputs::{Born, Created, ExecInputs, Gate, Inputs, Parent, Root, StdioFds, Target};
pub use own_image::protect as protect_own_image;
pub use plan::{Plan, PlanError, ProcessPlan};
pub use seccomp;
pub use seccomp_filter::{Filter, Listener};
pub use state::{Identity, SPEC_VERSION, State, Status};
pub use status::{StartError, StartErrorKind};
