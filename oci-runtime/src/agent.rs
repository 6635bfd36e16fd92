//! Seccomp agents: who decides on the system calls that a filter asks about (config-linux.md, "Seccomp", `listenerPath`).

use std::os::fd::{AsFd, RawFd};
use std::time::Duration;

use serde::Serialize;

use crate::error::{Error, Step};
use crate::launch::Asked;
use crate::seccomp_filter::Listener;
use crate::state::{SPEC_VERSION, State};

/// The name of the fd beside the message.
const SECCOMP_FD: &str = "seccompFd";

/// How long an agent may take to accept a connection, and to make room for the message.
const PATIENCE: Duration = Duration::from_secs(10);

/// What an agent is told, beside the fd (config-linux.md, "The Container Process State").
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ContainerProcessState<'a> {
    oci_version: &'static str,
    fds: [&'static str; 1],
    /// Of the process that the filter holds for.
    pid: i32,
    #[serde(skip_serializing_if = "str::is_empty")]
    metadata: &'a str,
    state: State<'a>,
}

/// Hands the fd on which the filter of `asked`'s process asks, its number `number`, to the agent.
///
/// The process could not send it: its filter may stop any call but `write`, with which it told the number.
pub(crate) fn hand_over(
    listener: &Listener,
    asked: &Asked<'_>,
    number: RawFd,
    container: State<'_>,
) -> Result<(), Error> {
    let pidfd = asked.process.pidfd.as_ref().ok_or_else(|| Error::Refused("the process has no pidfd".to_owned()))?;
    let fd = pidfd.take_fd(number).step(|| "take the listener of the system call filter".to_owned())?;
    let Listener { path, metadata } = listener;
    let message = ContainerProcessState {
        oci_version: SPEC_VERSION,
        fds: [SECCOMP_FD],
        pid: asked.process.pid.as_raw(),
        metadata,
        state: container,
    };
    let message = serde_json::to_vec(&message).unwrap_or_default();
    let shown = path.display();
    let agent = sys::socket::connect_stream(path, PATIENCE).step(|| format!("connect to seccomp agent {shown}"))?;
    sys::socket::send(&agent, &message, &[fd.as_fd()]).step(|| format!("hand the listener to seccomp agent {shown}"))
}
