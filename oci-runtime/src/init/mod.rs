//! The container's first process, from its clone to the exec of the program.
//!
//! It runs with one thread, as a copy of its creator, with everything of the host that it needs in [`Host`]. What it
//! fails with goes through the [`Channel`]. Paths of the container are resolved by [`RootFd`] only.

mod cgroup_mount;
mod console;
mod dev;
mod hidden;
mod labels;
mod mounts;
mod placement;
mod process;
mod root;

use std::convert::Infallible;
use std::mem::ManuallyDrop;

use cgroup::Cgroup;
use sys::mount::pivot_root_to;
use sys::process::CloneFlags;
use sys::rootfd::RootFd;

pub(crate) use labels::{label_keys, label_program, refuse_labels_without_selinux, refuse_without_selinux};
pub(crate) use placement::{begin_on, set_final_affinity};
use process::Standing;
pub(crate) use process::{
    Settings, become_program, enter, keep_only, prepare, raise_hard_limits, reset_signals, set_oom_score,
    shed_capabilities, start_session,
};

use crate::error::{Error, Step};
use crate::host::Host;
use crate::inputs::StdioFds;
use crate::launch::Channel;
use crate::plan::{Namespace, Plan};

/// What the first process works through.
pub(crate) struct Init<'a> {
    pub(crate) plan: Plan,
    pub(crate) host: Host,
    pub(crate) cgroup: &'a Cgroup,
    pub(crate) stdio: StdioFds,
    pub(crate) settings: Settings,
}

/// Sets the container up, waits for the start and runs the program.
///
/// The order is the kernel's and the threats': each step says why it stands where it stands.
pub(crate) fn run(init: Init<'_>, channel: &Channel) -> Result<Infallible, Error> {
    // Its files are closed by number, all at once and never again by their owners.
    let mut init = ManuallyDrop::new(init);
    let init = &mut *init;
    let plan = &init.plan;
    process::reset_signals()?;
    labels::label_keys(&plan.process, &init.host.procfs)?;
    process::start_session()?;
    // First of all, so that everything made from here on is charged to the container; a cgroup namespace that is made
    // later has this cgroup as its root.
    init.cgroup.join_self().step(|| format!("join cgroup {}", init.cgroup.path()))?;
    placement::reset_affinity(channel);
    // Where the score can still be lowered and limits still be raised: with the creator's capabilities.
    process::set_oom_score(&plan.process, &init.settings, &init.host.procfs)?;
    process::raise_hard_limits(&plan.process, &init.settings)?;
    enter_namespaces(plan, &init.host)?;

    // The old root stays in view until the pivot, but nothing of it is opened any more.
    let root = root::attach(&init.host)?;
    let terminals = mounts::make_all(plan, &init.host, &root, channel)?;
    if plan.own_dev {
        dev::make_nodes(plan, &root)?;
    }
    let console = console::open(&plan.process, plan.own_dev, &root, terminals.as_ref())?;
    drop(terminals);
    // After the nodes: a masked path below /dev or /sys is there by now, and nothing is mounted over a mask.
    hidden::hide(plan, &init.host, &root)?;
    set_kernel_parameters(plan, &init.host)?;
    process::make_working_directory(&plan.process, &root)?;
    // The last looks at the image from outside it.
    let home = process::home(&plan.process, &root);
    let null = init.host.open_null().and_then(|null| dev::open_null(&root, &null));
    let null = null.step(|| "open the null device".to_owned())?;
    mounts::make_read_only(plan, &root)?;
    pivot_root_to(&root).step(|| "pivot into the root file system".to_owned())?;
    root::set_propagation(plan)?;

    labels::label_program(&plan.process, &init.host.procfs)?;
    let standing = Standing { root, home, null, console, fifo: init.host.fifo.take() };
    let prepared = process::prepare(&plan.process, &mut init.stdio, standing)?;
    process::keep_only(&init.settings, &prepared, channel)?;
    process::become_program(&plan.process, &init.settings, prepared, channel)
}

/// Joins what is named by path, then makes the rest in one call. The PID namespace it was born in.
fn enter_namespaces(plan: &Plan, host: &Host) -> Result<(), Error> {
    for (kind, namespace) in &host.joined {
        sys::namespace::setns(namespace, *kind).step(|| format!("join the {} namespace", kind.file_name()))?;
    }
    let namespaces = &plan.namespaces;
    // Mounts in any case: of a joined namespace a copy is made, or our pivot would change the root of all who are in it.
    let mut new = CloneFlags::CLONE_NEWNS;
    for (kind, namespace) in [
        (CloneFlags::CLONE_NEWNET, &namespaces.network),
        (CloneFlags::CLONE_NEWIPC, &namespaces.ipc),
        (CloneFlags::CLONE_NEWUTS, &namespaces.uts),
        (CloneFlags::CLONE_NEWCGROUP, &namespaces.cgroup),
    ] {
        new.set(kind, *namespace == Namespace::New);
    }
    sys::namespace::unshare(new).step(|| "make namespaces".to_owned())
}

/// Through the creator's own procfs: the container's could be anything (CVE-2025-52881).
fn set_kernel_parameters(plan: &Plan, host: &Host) -> Result<(), Error> {
    if let Some(name) = &plan.hostname {
        sys::namespace::set_hostname(name).step(|| format!("set hostname {name}"))?;
    }
    if let Some(name) = &plan.domainname {
        sys::namespace::set_domainname(name).step(|| format!("set domainname {name}"))?;
    }
    for sysctl in &plan.sysctls {
        host.procfs
            .write_sysctl(&sysctl.path, &sysctl.value)
            .step(|| format!("set linux.sysctl[{}]", sysctl.path.replace('/', ".")))?;
    }
    Ok(())
}

/// Resolves in the container's root as it is seen from inside.
pub(crate) fn own_root() -> Result<RootFd, Error> {
    RootFd::open("/").step(|| "open the container's root".to_owned())
}
