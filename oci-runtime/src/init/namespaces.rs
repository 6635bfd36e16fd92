//! From the creator's namespaces into the container's.
//!
//! What is joined by path is joined first, with all that the creator may do: such a namespace can belong to another user
//! namespace than the container's. Then the user namespace, so that it owns what is made after it, and in it a process for
//! the PID namespace. The ids change last: until then the process is the host's root to files that only that one may write,
//! and has lost all capabilities over the host.

use std::os::fd::{AsFd, OwnedFd};

use sys::credentials;
use sys::namespace::Kind;
use sys::process::{CloneArgs, CloneFlags, Fork, Signal, SingleThread};

use crate::error::{Error, Step};
use crate::host::Host;
use crate::inputs::StdioFds;
use crate::launch::Channel;
use crate::plan::{IdMaps, Namespace, Namespaces, Plan};
use crate::status::Request;

/// What can't be done any more once the user namespace is entered: its capabilities are worth nothing on the host.
pub(crate) fn prepare_for_user_namespace(maps: &IdMaps, stdio: &StdioFds) -> Result<(), Error> {
    give_pipes(maps, stdio)?;
    // A namespace that is joined may forbid setgroups(2): what the creator is a member of is shed here.
    credentials::set_groups(&[]).step(|| "leave the creator's groups".to_owned())
}

/// To the container's root, who can pass them on to the user: nobody in there may give away what is the host's.
fn give_pipes(maps: &IdMaps, stdio: &StdioFds) -> Result<(), Error> {
    let step = || "give a standard stream to the container's root".to_owned();
    let (uid, gid) = maps.root().map_err(|error| Error::Refused(error.to_string()))?;
    for stream in [&stdio.stdin, &stdio.stdout, &stdio.stderr].into_iter().flatten() {
        let stat = sys::at::fstat(stream).step(step)?;
        if sys::at::file_type(&stat) == sys::at::SFlag::S_IFIFO {
            sys::at::fchown(stream, uid, gid).step(step)?;
        }
    }
    Ok(())
}

/// Joins what is named by path, the user and the PID namespace excepted.
pub(super) fn join(host: &Host) -> Result<(), Error> {
    for (kind, namespace) in &host.joined {
        sys::namespace::setns(namespace, *kind).step(|| format!("join the {} namespace", kind.file_name()))?;
    }
    Ok(())
}

/// Enters the user namespace. Where the container has a PID namespace as well, a process that is born in it goes on from
/// here, in place of this one.
pub(super) fn enter_user(plan: &Plan, host: &Host, channel: &Channel, alone: &SingleThread) -> Result<(), Error> {
    let Some(user) = &host.user else { return Ok(()) };
    if let Some(pid) = &host.pid_namespace {
        sys::namespace::setns(pid, Kind::Pid).step(|| "join the pid namespace".to_owned())?;
    }
    warn_if_seen(plan, host, channel);
    sys::namespace::setns(&user.namespace, Kind::User).step(|| "join the user namespace".to_owned())?;
    hide()?;
    if !plan.namespaces.pid.is_private() {
        return Ok(());
    }
    let mut flags = CloneFlags::CLONE_PARENT;
    flags.set(CloneFlags::CLONE_NEWPID, plan.namespaces.pid == Namespace::New);
    let arguments = CloneArgs { flags, into_cgroup: None, exit_signal: None, pidfd: true };
    let forked = sys::process::clone3_alone(&arguments, alone);
    match forked.step(|| "clone the first process of the PID namespace".to_owned())? {
        Fork::Child => Ok(()),
        Fork::Parent(child) => {
            let told = child.pidfd.as_ref().is_some_and(|pidfd| channel.born(pidfd));
            if let (false, Some(pidfd)) = (told, &child.pidfd) {
                // Nobody is left to want it.
                let _ = pidfd.send_signal(Signal::SIGKILL);
            }
            sys::process::exit_now(0)
        }
    }
}

/// Makes all that are new, in one call.
pub(super) fn make(plan: &Plan, host: &Host) -> Result<(), Error> {
    let namespaces = &plan.namespaces;
    let mut new = CloneFlags::empty();
    for (kind, namespace) in [
        (Kind::Mount, &namespaces.mount),
        (Kind::Net, &namespaces.network),
        (Kind::Ipc, &namespaces.ipc),
        (Kind::Uts, &namespaces.uts),
        (Kind::Cgroup, &namespaces.cgroup),
        (Kind::Time, &namespaces.time),
    ] {
        if *namespace == Namespace::New {
            new |= kind.flag();
        }
    }
    sys::namespace::unshare(new).step(|| "make namespaces".to_owned())?;
    if namespaces.time == Namespace::New {
        enter_time(plan, host)?;
    }
    Ok(())
}

/// A new time namespace is that of children only, and takes offsets until somebody is in it (time_namespaces(7)).
fn enter_time(plan: &Plan, host: &Host) -> Result<(), Error> {
    if !plan.time_offsets.is_empty() {
        host.procfs.write_self("timens_offsets", &plan.time_offsets).step(|| "set linux.timeOffsets".to_owned())?;
    }
    host.procfs
        .own_namespace("time_for_children")
        .and_then(|namespace| sys::namespace::setns(&namespace, Kind::Time))
        .step(|| "enter the time namespace".to_owned())
}

/// Has the creator move network devices into what is the network namespace now.
pub(super) fn take_net_devices(plan: &Plan, host: &Host, channel: &Channel) -> Result<(), Error> {
    if plan.net_devices.is_empty() {
        return Ok(());
    }
    let namespace = host.procfs.own_namespace("net").step(|| "open the network namespace".to_owned())?;
    channel.ask(Request::NetDevices, Some(OwnedFd::as_fd(&namespace)))
}

/// Becomes the root of the user namespace, to whom everything belongs that is made from here on.
pub(crate) fn become_root() -> Result<(), Error> {
    let step = || "become the container's root".to_owned();
    credentials::set_gid(0).step(step)?;
    hide()?;
    credentials::set_uid(0).step(step)?;
    hide()
}

/// A change of ids, or of the user namespace, makes a process what `fs.suid_dumpable` says; nobody in the container shall look
/// into us.
fn hide() -> Result<(), Error> {
    sys::process::set_dumpable(false).step(|| "hide from the container".to_owned())
}

/// The kernel's default of 0 hides a process that changes its ids, 2 from all but the host's root. With 1 ("ptrace is unchecked",
/// Documentation/admin-guide/sysctl/fs.rst) it is open until [`hide`], some microseconds later. That can't be closed from here,
/// and who sets it has been told: so it is no refusal.
fn warn_if_seen(plan: &Plan, host: &Host, channel: &Channel) {
    if has_tracers(&plan.namespaces)
        && host.procfs.read_sysctl("fs.suid_dumpable").is_ok_and(|setting| setting.trim() == "1")
    {
        channel.warn(
            "fs.suid_dumpable is 1: while it is created, a container can be traced by those whose user and PID namespaces \
             it joins",
        );
    }
}

/// Whether there may be somebody who sees the process and has capabilities over it.
fn has_tracers(namespaces: &Namespaces) -> bool {
    matches!(namespaces.user, Namespace::Joined(_)) && namespaces.pid != Namespace::New
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_shares_user_and_pid_namespace_may_trace() {
        let joined = || Namespace::Joined("/proc/1/ns/x".into());
        for (user, pid, expected) in [
            (joined(), joined(), true),
            (joined(), Namespace::Inherited, true),
            (joined(), Namespace::New, false),
            (Namespace::New, joined(), false),
            (Namespace::Inherited, joined(), false),
        ] {
            let namespaces = Namespaces { user, pid, ..Namespaces::default() };
            assert_eq!(has_tracers(&namespaces), expected, "{namespaces:?}");
        }
    }
}
