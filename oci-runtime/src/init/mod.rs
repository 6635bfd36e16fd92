//! The container's first process, from its clone to the exec of the program.
//!
//! It runs with one thread, as a copy of its creator, with everything of the host that it needs in [`Host`]. What it
//! fails with goes through the [`Channel`]. Paths of the container are resolved by [`RootFd`] only.

mod cgroup_mount;
mod console;
mod dev;
mod hidden;
mod hooks;
mod labels;
mod mounts;
mod namespaces;
mod placement;
mod process;
mod root;

use std::convert::Infallible;
use std::mem::ManuallyDrop;

use cgroup::Cgroup;
use sys::Errno;
use sys::process::SingleThread;
use sys::pty::Pty;
use sys::rootfd::RootFd;

use hooks::BeforeProgram;
pub(crate) use labels::{label_keys, label_program, refuse_labels_without_selinux, refuse_without_selinux};
use mounts::Mounted;
pub(crate) use namespaces::{become_root, prepare_for_user_namespace};
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
use crate::plan::{Plan, Sysctl, SysctlNamespace};
use crate::state::Identity;

/// What the first process works through.
pub(crate) struct Init<'a> {
    pub(crate) plan: Plan,
    pub(crate) host: Host,
    pub(crate) cgroup: &'a Cgroup,
    pub(crate) stdio: StdioFds,
    pub(crate) settings: Settings,
    pub(crate) identity: Identity,
}

/// Sets the container up, waits for the start and runs the program.
///
/// The order is the kernel's and the threats': each step says why it stands where it stands.
pub(crate) fn run(init: Init<'_>, channel: &Channel) -> Result<Infallible, Error> {
    // Its files are closed by number, all at once and never again by their owners.
    let mut init = ManuallyDrop::new(init);
    let init = &mut *init;
    process::reset_signals()?;
    // While `/proc` tells it.
    let alone = crate::hooks::alone()?;
    be_counted(init, channel)?;
    let late = enter_namespaces(init, channel, &alone)?;
    let plan = &init.plan;
    labels::label_keys(&plan.process, &init.host.procfs)?;
    process::start_session(&init.settings)?;

    // The old root stays in view until the pivot, but nothing of it is opened any more.
    let root = root::attach(plan, &init.host)?;
    let (mounted, console) = furnish(init, &root, &late, channel, &alone)?;
    process::make_working_directory(&plan.process, &root)?;
    // The last looks at the image from outside it.
    let home = process::home(&plan.process, &root, &init.host.procfs)?;
    let open_null = || init.host.open_null().and_then(|null| dev::open_null(&root, &null));
    let null = init.stdio.needs_null().then(open_null).transpose().step(|| "open the null device".to_owned())?;
    mounts::make_read_only(&mounted, &root)?;
    drop(mounted);
    root::enter(plan, &root)?;
    root::set_propagation(plan)?;

    labels::label_program(&plan.process, &init.host.procfs)?;
    let before_program = (!plan.hooks.start_container.is_empty()).then(|| BeforeProgram {
        hooks: plan.hooks.start_container.clone(),
        identity: init.identity.clone(),
        alone,
    });
    let standing = Standing { root, home, null, console, fifo: init.host.fifo.take(), before_program };
    let prepared = process::prepare(&plan.process, &mut init.stdio, standing)?;
    process::keep_only(&init.settings, &prepared, channel)?;
    process::become_program(&plan.process, &init.settings, prepared, channel)
}

/// First of all, so that everything made from here on is charged to the container; a cgroup namespace that is made later has
/// this cgroup as its root.
fn be_counted(init: &mut Init<'_>, channel: &Channel) -> Result<(), Error> {
    init.cgroup.join_self().step(|| format!("join cgroup {}", init.cgroup.path()))?;
    if let Some(groups) = init.host.resctrl.take() {
        groups.join_self()?;
    }
    placement::reset_affinity(channel);
    // Where the score can still be lowered and limits still be raised: with the creator's capabilities.
    process::set_oom_score(&init.plan.process, &init.settings, &init.host.procfs)?;
    process::raise_hard_limits(&init.plan.process, &init.settings)
}

/// Leaves the creator's namespaces, and sets what they are to have; the parameters that are still to be set.
fn enter_namespaces<'a>(init: &'a Init<'_>, channel: &Channel, alone: &SingleThread) -> Result<Vec<&'a Sysctl>, Error> {
    let (plan, host) = (&init.plan, &init.host);
    let maps = host.user.as_ref().map(|user| &user.maps);
    if let Some(maps) = maps {
        namespaces::prepare_for_user_namespace(maps, &init.stdio)?;
    }
    namespaces::join(host)?;
    namespaces::enter_user(plan, host, channel, alone)?;
    namespaces::make(plan, host)?;
    namespaces::take_net_devices(plan, host, channel)?;
    set_names(plan)?;
    let (network, others): (Vec<_>, Vec<_>) =
        plan.sysctls.iter().partition(|sysctl| sysctl.namespace == SysctlNamespace::Network);
    let unset = set_kernel_parameters(&others, host)?;
    if maps.is_some() {
        namespaces::become_root()?;
    }
    // Those of the network can be of devices that a hook makes.
    Ok(unset.into_iter().map(|(sysctl, _)| sysctl).chain(network).collect())
}

/// All that is in the root file system besides the image; what is mounted, and the console.
fn furnish<'a>(
    init: &'a Init<'_>,
    root: &RootFd,
    late: &[&Sysctl],
    channel: &Channel,
    alone: &SingleThread,
) -> Result<(Mounted<'a>, Option<Pty>), Error> {
    let (plan, host) = (&init.plan, &init.host);
    let mounted = mounts::make_all(plan, host, root, channel)?;
    if plan.own_dev {
        dev::make_nodes(plan, host.devices.as_ref(), root)?;
    }
    // Everything is there and nothing is hidden or read-only yet: what they change counts.
    hooks::run_before_pivot(&plan.hooks, &init.identity, root, alone, channel)?;
    let console = console::open(&plan.process, plan.own_dev, root, mounted.terminals())?;
    // After the nodes: a masked path below /dev or /sys is there by now, and nothing is mounted over a mask.
    hidden::hide(plan, host, root)?;
    match set_kernel_parameters(late, host)?.into_iter().next() {
        Some((sysctl, source)) => Err(Error::Step { step: describe(sysctl), source }),
        None => Ok((mounted, console)),
    }
}

fn set_names(plan: &Plan) -> Result<(), Error> {
    if let Some(name) = &plan.hostname {
        sys::namespace::set_hostname(name).step(|| format!("set hostname {name}"))?;
    }
    if let Some(name) = &plan.domainname {
        sys::namespace::set_domainname(name).step(|| format!("set domainname {name}"))?;
    }
    Ok(())
}

/// A parameter that the kernel did not let us set, and what it said.
type Unset<'a> = (&'a Sysctl, sys::Error);

/// Through the creator's own procfs: the container's could be anything (CVE-2025-52881). Returns those that this process may
/// not set as who it is now: with a user namespace, those of IPC are the host's root's before Linux 6.10, and its own root's
/// from then on.
fn set_kernel_parameters<'a>(sysctls: &[&'a Sysctl], host: &Host) -> Result<Vec<Unset<'a>>, Error> {
    let mut unset = Vec::new();
    for sysctl in sysctls {
        match host.procfs.write_sysctl(&sysctl.path, &sysctl.value) {
            Err(error) if error.is(Errno::EACCES) || error.is(Errno::EPERM) => unset.push((*sysctl, error)),
            set => set.step(|| describe(sysctl))?,
        }
    }
    Ok(unset)
}

fn describe(sysctl: &Sysctl) -> String {
    format!("set linux.sysctl[{}]", sysctl.path.replace('/', "."))
}

/// Resolves in the container's root as it is seen from inside.
pub(crate) fn own_root() -> Result<RootFd, Error> {
    RootFd::open("/").step(|| "open the container's root".to_owned())
}
