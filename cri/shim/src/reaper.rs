//! The first process of a PID namespace that the pod's containers share.
//!
//! It does nothing but be there: with SIGCHLD ignored the kernel reaps the orphans that become its children. It waits
//! on a pipe whose other end the shim holds, and ends with the shim.
//!
//! Its neighbours are containers, which see it as pid 1. What they could reach through `/proc/1` has to be worthless:
//! its root is an empty read-only tmpfs, its only fd is that pipe, its ids are 65534, it has no capability and can't
//! get any, its system calls are filtered as a container's, and it is not dumpable.

use crate::cgroups::Cgroups;
use crate::failure::{failure, internal};
use oci_runtime::cgroup::Cgroup;
use oci_runtime::seccomp;
use shim_protocol::{Failure, Process, Reaper};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use sys::credentials::{self, Capabilities, CapabilitySets, SeccompFlags};
use sys::mount::{Fs, MountFlags, Propagation};
use sys::process::{CloneArgs, CloneFlags, Fork};
use sys::procfs::ProcFd;
use sys::signal::Signal;

/// The user and group that own nothing; pods' reapers have always run as them.
const NOBODY: u32 = 65534;

/// Starts it, as the child of the caller's parent. Gives the process, its pidfd, and the end of the pipe that keeps it
/// alive. For stage children.
pub(crate) fn start(reaper: &Reaper, cgroups: &Cgroups) -> Result<(Process, OwnedFd, OwnedFd), Failure> {
    let no_limits = oci_runtime::cgroup::Resources::default();
    let cgroup = Cgroup::create(cgroups.layout(), &reaper.cgroup, &no_limits)
        .map_err(|error| internal(format_args!("make the reaper's cgroup {}", reaper.cgroup), &error))?;
    start_in(&cgroup, reaper).inspect_err(|_| {
        // The failure that led here is the one to tell.
        let _ = cgroup.delete();
    })
}

fn start_in(cgroup: &Cgroup, reaper: &Reaper) -> Result<(Process, OwnedFd, OwnedFd), Failure> {
    let fail = |tried: &'static str| move |error: sys::Error| internal(tried, &error);
    let program = filter()?;
    let (lifeline, held) = sys::fd::pipe().map_err(fail("make the reaper's pipe"))?;
    let (report, reporter) = sys::fd::pipe().map_err(fail("make the reaper's pipe"))?;
    // Before the clone: the reaper is not to be looked into at any moment of its life.
    sys::process::set_dumpable(false).map_err(fail("hide the reaper"))?;
    let flags = CloneFlags::CLONE_PARENT | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS;
    let arguments = CloneArgs { flags, into_cgroup: cgroup.unified(), exit_signal: None, pidfd: true };
    match sys::process::clone3(&arguments).map_err(fail("clone the reaper"))? {
        Fork::Child => {
            drop((held, report));
            let ready = cgroup.join_self().map_err(|error| internal("join the reaper's cgroup", &error));
            // Before anyone is told that it is there, and so before there can be a neighbour.
            let isolated = isolate(reaper, &program)
                .and_then(|()| sys::fd::close_all_but(0, &[lifeline.as_fd(), reporter.as_fd()]))
                .map_err(|error| internal("isolate it", &error));
            let ready = ready.and(isolated);
            tell(File::from(reporter), ready.as_ref().err());
            if ready.is_ok() {
                wait(lifeline);
            }
            sys::process::exit_now(1)
        }
        Fork::Parent(child) => {
            drop((lifeline, reporter));
            let refused = std::io::read_to_string(File::from(report));
            match refused.as_deref() {
                Ok("") => {}
                Ok(refused) => {
                    return Err(failure(
                        shim_protocol::ErrorKind::Internal,
                        format_args!("start the reaper: {refused}"),
                    ));
                }
                Err(error) => return Err(internal("hear from the reaper", error)),
            }
            let pidfd =
                child.pidfd.ok_or_else(|| failure(shim_protocol::ErrorKind::Internal, "clone3 gave no pidfd"))?;
            let start_time = sys::process::start_time(child.pid).map_err(fail("find the reaper"))?;
            Ok((Process { pid: child.pid.as_raw(), start_time }, pidfd.into(), held))
        }
    }
}

/// The system call filter that RuntimeDefault gives a container without capabilities.
fn filter() -> Result<Vec<u8>, Failure> {
    let program = seccomp::compile(&seccomp::runtime_default(&[""; 0]));
    let program = program.map_err(|error| internal("compile the reaper's system call filter", &error))?;
    Ok(program.bytes())
}

/// Gives up everything, in the order that leaves each next step possible: a new root needs capabilities, other ids need
/// them too, and no_new_privs lets the filter be loaded without any.
fn isolate(reaper: &Reaper, program: &[u8]) -> sys::Result<()> {
    if let Some(score) = reaper.oom_score_adj {
        // Lowering it may need a capability that the host lacks.
        let _ = ProcFd::open().and_then(|proc| proc.write_self("oom_score_adj", score.to_string()));
    }
    sys::process::set_name(c"orlop-reaper")?;
    change_root()?;
    credentials::set_no_new_privs()?;
    credentials::drop_bounding(Capabilities::default())?;
    credentials::clear_ambient()?;
    credentials::set_groups(&[])?;
    credentials::set_gid(NOBODY)?;
    credentials::set_uid(NOBODY)?;
    CapabilitySets::default().apply()?;
    sys::process::set_dumpable(false)?;
    sys::signal::ignore(Signal::SIGCHLD)?;
    credentials::seccomp_load(program, SeccompFlags::empty())
}

/// Makes an empty tmpfs the root and takes everything else away.
fn change_root() -> sys::Result<()> {
    sys::mount::set_propagation_root(Propagation::Private)?;
    let fs = Fs::open("tmpfs")?;
    fs.set_string("source", "orlop-reaper")?.set_string("mode", "0555")?.set_string("size", "4096")?;
    let attributes = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let root = fs.mount(attributes)?;
    sys::mount::attach(&root, "/")?;
    sys::mount::pivot_root_to(&root)
}

/// Tells the stage child that all is well, by the end of the pipe, or what is not.
fn tell(mut reporter: File, refused: Option<&Failure>) {
    if let Some(refused) = refused {
        let _ = reporter.write_all(refused.message.as_bytes());
    }
}

/// Waits for the shim's end, and ends itself, with all processes of the PID namespace.
fn wait(lifeline: OwnedFd) -> ! {
    let mut lifeline = File::from(lifeline);
    while lifeline.read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::Interrupted) {}
    sys::process::exit_now(0)
}
