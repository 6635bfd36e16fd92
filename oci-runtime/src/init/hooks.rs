//! The hooks that run in the container's own namespaces, each a child of its first process.

use std::ffi::CString;
use std::os::fd::AsFd;

use sys::process::{Pid, SingleThread};
use sys::rootfd::RootFd;

use crate::error::Error;
use crate::hooks::Series;
use crate::launch::Channel;
use crate::plan::{Hook, Hooks};
use crate::program;
use crate::state::{Identity, Status};
use crate::status::Request;

/// Those that come when the container's file systems are there and its root is not the only one yet: its creator's, then the
/// `createContainer` ones. These have the creator's powers and paths, and begin in the container's root.
pub(super) fn run_before_pivot(
    hooks: &Hooks,
    identity: &Identity,
    root: &RootFd,
    alone: &SingleThread,
    channel: &Channel,
) -> Result<(), Error> {
    if !(hooks.prestart.is_empty() && hooks.create_runtime.is_empty()) {
        channel.ask(Request::Hooks, None)?;
    }
    let series = Series {
        kind: "createContainer",
        hooks: &hooks.create_container,
        directory: Some(root.as_fd()),
        // Ours is 0 here.
        umask: Some(0o022),
        // As runc, which clears the environment of its process inside.
        environment: &[],
    };
    series.run(&identity.state(Status::Creating, Pid::this().as_raw()), alone, &mut |stage| channel.stage(stage))
}

/// The `startContainer` hooks, which are programs of the container: they run as its program will, with its identity, its
/// labels and its filter.
pub(crate) struct BeforeProgram {
    pub(super) hooks: Vec<Hook>,
    pub(super) identity: Identity,
    pub(super) alone: SingleThread,
}

impl BeforeProgram {
    /// CVE-2019-5736 holds for a hook as for the program: its file is the container's too.
    pub(super) fn refuse_image(&self, own_image: &sys::at::FileStat) -> Result<(), Error> {
        self.hooks.iter().try_for_each(|hook| Ok(program::refuse_image(&hook.path, &[], own_image)?))
    }

    /// `environment` is the program's, which hooks without one of their own have, as with runc.
    pub(super) fn run(&self, environment: &[CString]) -> Result<(), Error> {
        let series = Series { kind: "startContainer", hooks: &self.hooks, directory: None, umask: None, environment };
        series.run(&self.identity.state(Status::Created, Pid::this().as_raw()), &self.alone, &mut |_| ())
    }
}
