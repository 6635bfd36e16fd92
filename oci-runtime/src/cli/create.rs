//! create: everything but running the program.

use std::path::{Path, PathBuf};

use oci_runtime::cgroup::{CgroupPath, Layout};
use oci_runtime::plan::{ContainerWide, Namespace, Plan};
use oci_runtime::{Created, Gate, Inputs, Root, StdioFds};
use oci_spec::runtime::Spec;
use serde_json::Value;
use sys::fs::Durability;
use sys::process::{Pid, Process};

use super::Error;
use super::args::{self, Stop};
use super::bundle::{self, Bundle};
use super::help::Help;
use super::hooks;
use super::log::Log;
use super::making::Making;
use super::notify::Manager;
use super::store::{Container, ContainerId, RECORD_VERSION, Record, Store};
use super::streams::{self, Inherited, Sockets};
use super::time::Timestamp;
use super::update;

/// create
#[derive(Debug, Default)]
pub(crate) struct Flags {
    pub(crate) id: String,
    pub(crate) bundle: Option<PathBuf>,
    pub(crate) no_new_keyring: bool,
    pub(crate) streams: streams::Flags,
}

pub(crate) const FLAGS: &[(&str, &str)] = &[
    ("--bundle DIR, -b DIR", "the directory of config.json; the working directory without it"),
    ("--no-pivot", "refused: the host's root would stay below the container's"),
    ("--no-new-keyring", "stay in the caller's session keyring"),
];

pub(crate) const HELP: Help = Help {
    about: "makes a container that waits for its start",
    usage: "[flags] ID",
    details: "The container's process inherits the standard streams. `start` runs the program of config.json.",
    flags: &[FLAGS, streams::FLAGS],
};

pub(crate) fn parse(parser: &mut lexopt::Parser) -> Result<Flags, Stop> {
    let mut flags = Flags::default();
    flags.id = args::only_id(parser, "create", |name, parser| flags.read(name, parser))?;
    Ok(flags)
}

impl Flags {
    /// The flags that create and run share.
    pub(crate) fn read(&mut self, name: &str, parser: &mut lexopt::Parser) -> Result<(), Stop> {
        match name {
            "-b" | "--bundle" => self.bundle = args::path(parser)?,
            "--no-pivot" => return no_pivot(parser),
            "--no-new-keyring" => self.no_new_keyring = args::switch(parser, name)?,
            name => return self.streams.read(name, parser),
        }
        Ok(())
    }
}

/// A root that was moved over the host's can be left by whoever may unmount it; the kernel refuses pivot_root on a
/// ramdisk only, and a host can leave that by switch_root.
pub(crate) fn no_pivot(parser: &mut lexopt::Parser) -> Result<(), Stop> {
    match args::switch(parser, "--no-pivot")? {
        true => Err("--no-pivot is not supported: the host's root would stay below the container's".into()),
        false => Ok(()),
    }
}

/// The container waits behind exec.fifo, with our streams.
pub(crate) fn create(store: &Store<'_>, flags: &Flags, inherited: Inherited, log: &mut Log) -> Result<u8, Error> {
    let bundle = bundle::load(flags.bundle.as_deref(), log)?;
    streams::check_terminal(&flags.streams, bundle.plan.process.terminal, true)?;
    let sockets = Sockets::connect(&flags.streams)?;
    let request = Request { flags, bundle, inherited: &inherited, stdio: streams::own(), behind_fifo: true };
    let New { container, created } = make(store, request, log)?;
    created.warnings.iter().for_each(|warning| log.warn(warning));
    let handed_over = sockets
        .send(created.console.as_ref(), created.pidfd.as_ref())
        .and_then(|()| streams::write_pid_file(flags.streams.pid_file.as_deref(), created.pid));
    handed_over.inspect_err(|_| undo(&container, &created, log))?;
    Ok(0)
}

/// What a container is made of.
pub(crate) struct Request<'a> {
    pub(crate) flags: &'a Flags,
    pub(crate) bundle: Bundle,
    pub(crate) inherited: &'a Inherited,
    pub(crate) stdio: StdioFds,
    /// Else behind a pipe of ours.
    pub(crate) behind_fifo: bool,
}

/// A container that waits for its start.
pub(crate) struct New {
    pub(crate) container: Container,
    pub(crate) created: Created,
}

/// Makes a container and its record; after a failure neither is there.
pub(crate) fn make(store: &Store<'_>, request: Request<'_>, log: &mut Log) -> Result<New, Error> {
    let id = ContainerId::parse(&request.flags.id)?;
    let making = store.reserve(&id)?;
    make_in(&making, &id, request, log).inspect_err(|_| {
        // The error that led here is the one to tell.
        let _ = making.remove();
    })
}

fn make_in(making: &Making, id: &ContainerId, request: Request<'_>, log: &mut Log) -> Result<New, Error> {
    let dir = making.dir.as_path();
    let Request { flags, bundle, inherited, stdio, behind_fifo } = request;
    bundle.keep(dir)?;
    let Bundle { path, spec, mut plan, filter, .. } = bundle;
    let layout = complete(&mut plan, id)?;
    let record = record(id, &path, &spec, &plan)?;
    plan.process.env.extend(inherited.environment());
    if let Some(manager) = Manager::of_environment()? {
        manager.mount(dir, &mut plan)?;
    }
    let fifo = dir.join("exec.fifo");
    if behind_fifo {
        make_fifo(dir)?;
    }
    if let Some(filter) = &filter {
        sys::fs::atomic_write(dir.join("seccomp.bpf"), &filter.encode(), Durability::Rename, 0o600)?;
    }
    let record = Record { keeps_keyring: flags.no_new_keyring, ..record };
    making.begin(&record)?;
    let (mut told_groups, mut told_cgroup) = (Ok(()), Ok(()));
    let mut tell_group = |group: &Path| {
        if told_groups.is_ok() {
            told_groups = making.makes_group(group);
        }
    };
    let mut tell_cgroup = || told_cgroup = making.has_cgroup();
    let mut silent = |_: &str| {};
    let identity = hooks::identity(&record);
    let hooks = plan.hooks.clone();
    let inputs = Inputs {
        identity: identity.clone(),
        environment: hooks::environment(&hooks),
        stdio,
        seccomp: filter,
        gate: if behind_fifo { Gate::Fifo(fifo) } else { Gate::Pipe },
        preserve_fds: inherited.count(),
        keep_keyring: flags.no_new_keyring,
        cgroups: Some(layout.clone()),
        group_announced: Some(&mut tell_group),
        cgroup_made: Some(&mut tell_cgroup),
        ..Inputs::new(Root::Path(record.rootfs.clone()), &mut silent)
    };
    // As runc: whoever was told of the container's making is told of its end.
    let created = oci_runtime::create(plan, inputs).inspect_err(|_| hooks::poststop(&hooks, &identity, log))?;
    let record = Record {
        pid: created.pid,
        start_time: created.start_time,
        created: Timestamp::now(),
        resctrl: created.resctrl.clone(),
        ..record
    };
    let container = Container::in_layout(dir.to_owned(), record, layout);
    match told_groups.and(told_cgroup).and_then(|()| container.save()) {
        Ok(()) => Ok(New { container, created }),
        Err(error) => {
            undo(&container, &created, log);
            Err(error)
        }
    }
}

/// A config without a cgroup gets one by the container's name; a relative path becomes what it means here, so that what is
/// recorded holds wherever the other verbs are run.
pub(crate) fn complete(plan: &mut Plan, id: &ContainerId) -> Result<Layout, Error> {
    let cgroup = plan.cgroup.take().map_or_else(|| CgroupPath::parse(&id.to_string()), Ok)?;
    let layout = Layout::detect()?;
    plan.cgroup = Some(layout.locate(&cgroup)?);
    Ok(layout)
}

/// What is kept of a container, before it has a process.
pub(crate) fn record(id: &ContainerId, bundle: &Path, spec: &Spec, plan: &Plan) -> Result<Record, Error> {
    Ok(Record {
        version: RECORD_VERSION,
        id: id.to_string(),
        bundle: bundle.to_owned(),
        rootfs: plan.root.clone().ok_or("root: missing")?,
        pid: 0,
        start_time: 0,
        created: Timestamp::now(),
        cgroup: plan.cgroup.as_ref().map(ToString::to_string).unwrap_or_default(),
        shares_pids: plan.namespaces.pid != Namespace::New,
        annotations: spec.annotations().clone().unwrap_or_default(),
        for_all: ContainerWide::from_spec(spec),
        resctrl: Default::default(),
        hooks: spec.hooks().clone(),
        resources: resources(spec)?,
        keeps_keyring: false,
    })
}

/// What an update is merged over.
fn resources(spec: &Spec) -> Result<Value, Error> {
    let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    let value = serde_json::to_value(resources).map_err(|error| format!("encode linux.resources: {error}"))?;
    Ok(update::without_devices(value))
}

/// Whoever may write there can't start the container: that takes reading.
fn make_fifo(dir: &Path) -> Result<(), Error> {
    let opened = std::fs::File::open(dir).map_err(|error| format!("open {}: {error}", dir.display()))?;
    sys::at::mknodat(&opened, "exec.fifo", sys::at::SFlag::S_IFIFO, 0o622, 0)?;
    // Our umask does not count: the container's user opens it.
    Ok(sys::at::fchmodat(&opened, "exec.fifo", 0o622)?)
}

/// Ends and removes a container of which something later failed. Best effort: that failure is the one to tell.
pub(crate) fn undo(container: &Container, created: &Created, log: &mut Log) {
    end(created);
    let _ = hooks::destroy(container, log);
}

/// Ends a process that nobody else has been told of. Best effort, as [`undo`].
pub(crate) fn end(created: &Created) {
    let process = Process { pid: Pid::from_raw(created.pid), start_time: created.start_time };
    if let Ok(process) = process.open() {
        let _ = process.send_signal(sys::signal::Signal::SIGKILL);
        let _ = process.wait();
    }
}
