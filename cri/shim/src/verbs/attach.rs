//! `Attach`: connects a client to a running container's streams.

use super::Begun;
use crate::attach::Client;
use crate::failure::{failure, internal};
use crate::log::Stream;
use crate::supervisor::Shim;
use shim_protocol::{Answer, Attach, ErrorKind};
use std::fs::File;
use std::os::fd::OwnedFd;

/// Clients of one container; more are refused: each may keep 2 MiB.
const CLIENTS_LIMIT: usize = 32;

pub(super) fn attach(shim: &mut Shim, fds: Vec<OwnedFd>, attach: &Attach) -> Begun {
    let key = shim.new_key();
    let id = &attach.container;
    let container = shim.container(id)?;
    let invalid = |message: String| Err(failure(ErrorKind::Invalid, message));
    if container.first().is_none() {
        return Err(failure(ErrorKind::NotRunning, format_args!("container {id} is not running")));
    }
    let stdio = &mut container.stdio;
    if attach.stdio.stdin && stdio.inlet.is_none() {
        return invalid(format!("container {id} has no standard input, or has closed it"));
    }
    if attach.stdio.stderr && stdio.outputs.iter().any(|output| output.terminal) {
        return invalid(format!("container {id} has a terminal, which has no standard error of its own"));
    }
    if stdio.clients.len() == CLIENTS_LIMIT {
        return invalid(format!("container {id} has {CLIENTS_LIMIT} attached clients, which is the most"));
    }
    let mut fds = fds.into_iter();
    let mut take = |wanted: bool| -> Result<Option<File>, shim_protocol::Failure> {
        let Some(fd) = wanted.then(|| fds.next()).flatten() else { return Ok(None) };
        sys::fd::set_nonblocking(&fd, true).map_err(|error| internal("take a client's stream", &error))?;
        Ok(Some(File::from(fd)))
    };
    let stdin = take(attach.stdio.stdin)?;
    let mut stdout = take(attach.stdio.stdout)?;
    let mut stderr = take(attach.stdio.stderr)?;
    // A stream that the container has closed has ended for its clients too.
    let is_open = |stream: Stream| stdio.outputs.iter().any(|output| output.stream == stream);
    if !is_open(Stream::Stdout) {
        stdout = None;
    }
    if !is_open(Stream::Stderr) {
        stderr = None;
    }
    let client = Client::new(key, stdin, stdout, stderr);
    if !client.is_done() {
        stdio.clients.push(client);
    }
    Ok(Some(Answer::Done))
}
