//! restore: a container made of what checkpoint saved.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use oci_runtime::StdioFds;
use oci_runtime::cgroup::{Cgroup, Kind, Layout, Mode};
use oci_runtime::plan::Plan;
use sys::fs::Durability;
use sys::mount::{Attr, OpenTree, Propagation};
use sys::namespace;
use sys::process::{CloneFlags, Pid, Process};

use super::args::{self, Stop};
use super::bundle::{self, Bundle};
use super::checkpoint::{STREAMS, external_mounts, external_namespaces, open_joined};
use super::criu::wire::Message;
use super::criu::{self, Criu, Notice, Request};
use super::foreground::Foreground;
use super::help::Help;
use super::log::Log;
use super::making::Making;
use super::store::{Container, ContainerId, Store};
use super::streams::{self, Sockets};
use super::{Error, create, hooks};

/// restore
#[derive(Debug, Default)]
pub(crate) struct Flags {
    pub(crate) id: String,
    criu: criu::Flags,
    bundle: Option<PathBuf>,
    detach: bool,
    no_subreaper: bool,
    lsm_profile: Option<String>,
    lsm_mount_context: Option<String>,
    streams: streams::Flags,
}

const FLAGS: &[(&str, &str)] = &[
    ("--bundle DIR, -b DIR", "the directory of config.json; the working directory without it"),
    ("--detach, -d", "leave the container running, with the standard streams"),
    ("--console-socket PATH", "hand the terminal's master to whoever listens on this socket"),
    ("--pid-file FILE", "write the process's number there"),
    ("--no-subreaper", "don't become the parent of what the container leaves behind"),
    ("--no-pivot", "refused: the host's root would stay below the container's"),
    ("--lsm-profile TYPE:NAME", "another LSM profile than the saved one"),
    ("--lsm-mount-context CONTEXT", "another context of mounts than the saved one"),
];

pub(crate) const HELP: Help = Help {
    about: "makes a container of what checkpoint has saved",
    usage: "[flags] ID",
    details: criu::DETAILS,
    flags: &[FLAGS, criu::FLAGS],
};

pub(crate) fn parse(parser: &mut lexopt::Parser) -> Result<Flags, Stop> {
    let mut flags = Flags::default();
    flags.id = args::only_id(parser, "restore", |name, parser| {
        match name {
            "-b" | "--bundle" => flags.bundle = args::path(parser)?,
            "-d" | "--detach" => flags.detach = args::switch(parser, name)?,
            "--console-socket" | "--pid-file" => flags.streams.read(name, parser)?,
            "--no-subreaper" => flags.no_subreaper = args::switch(parser, name)?,
            "--no-pivot" => create::no_pivot(parser)?,
            "--lsm-profile" => flags.lsm_profile = Some(args::text(parser)?),
            "--lsm-mount-context" => flags.lsm_mount_context = Some(args::text(parser)?),
            name => flags.criu.read(name, parser)?,
        }
        Ok(())
    })?;
    Ok(flags)
}

/// The exit code is the container's own, or 0 if it was detached.
pub(crate) fn restore(store: &Store<'_>, flags: &Flags, log: &mut Log) -> Result<u8, Error> {
    let bundle = bundle::load(flags.bundle.as_deref(), log)?;
    refuse_unrestorable(&bundle)?;
    let terminal = bundle.plan.process.terminal;
    streams::check_terminal(&flags.streams, terminal, flags.detach)?;
    let sockets = Sockets::connect(&flags.streams)?;
    let (foreground, stdio) = match flags.detach {
        true => (None, [Stdio::inherit(), Stdio::inherit(), Stdio::inherit()]),
        false => {
            if !flags.no_subreaper {
                sys::process::set_child_subreaper(true)?;
            }
            let (foreground, StdioFds { stdin, stdout, stderr }) = Foreground::prepare(terminal)?;
            (Some(foreground), [stdin, stdout, stderr].map(|stream| stream.map_or_else(Stdio::null, Stdio::from)))
        }
    };
    let id = ContainerId::parse(&flags.id)?;
    let making = store.reserve(&id)?;
    let Restored { container, console } = restore_in(&making, &id, flags, bundle, stdio).inspect_err(|_| {
        // The error that led here is the one to tell.
        let _ = making.remove();
    })?;
    drop(making);
    let process = container.process();
    let handed_over = sockets
        .send(console.as_ref(), None)
        .and_then(|()| streams::write_pid_file(flags.streams.pid_file.as_deref(), container.record.pid));
    handed_over.inspect_err(|_| {
        // The error that led here is the one to tell.
        let _ = container.kill().and_then(|()| hooks::destroy(&container, log));
    })?;
    let Some(foreground) = foreground else { return Ok(0) };
    let code = foreground.attend(container.record.pid, process, console)?;
    hooks::destroy(&container, log)?;
    Ok(code)
}

/// A container that runs again.
struct Restored {
    container: Container,
    console: Option<OwnedFd>,
}

const LOG: &str = "restore.log";

fn restore_in(
    making: &Making,
    id: &ContainerId,
    flags: &Flags,
    mut bundle: Bundle,
    stdio: [Stdio; 3],
) -> Result<Restored, Error> {
    let layout = create::complete(&mut bundle.plan, id)?;
    let plan = &bundle.plan;
    let record = create::record(id, &bundle.path, &bundle.spec, plan)?;
    let root = making.dir.join("criu-root");
    let aside = Aside::make(&record.rootfs, &root)?;
    // Opened where criu is: it mounts below the directory of its log.
    let (images, work, work_path) = aside.within(|| flags.criu.directories())?;
    let mut options = flags.criu.options(&images, &work, LOG);
    options.switch(6, true).text(13, &root.display().to_string()).switch(26, true);
    options.text(53, flags.lsm_profile.as_deref().unwrap_or_default());
    options.text(63, flags.lsm_mount_context.as_deref().unwrap_or_default());
    criu::add_config(&mut options, &record.annotations);
    add_cgroups(&mut options, &layout, &record.cgroup);
    add_mounts(&mut options, plan, &record.cgroup)?;
    // Held until criu has them too: its program inherits them.
    let _inherited = add_fds(&mut options, plan, flags)?;
    let mut container = Container::new(making.dir.clone(), record);
    if let Some(filter) = &bundle.filter {
        sys::fs::atomic_write(container.filter(), &filter.encode(), Durability::Rename, 0o600)?;
    }
    bundle.keep(&making.dir)?;
    making.begin(&container.record)?;
    Cgroup::create(&layout, &container.record.cgroup, &plan.resources)?;
    let mut console = None;
    let mut attend = |notice: Notice<'_>| {
        match (notice.script, notice.pid) {
            ("orphan-pts-master", _) => console = notice.fd,
            ("post-restore", Some(pid)) => {
                let process = Process::of(Pid::from_raw(pid))?;
                (container.record.pid, container.record.start_time) = (pid, process.start_time);
                making.has_process(&process)?;
            }
            _ => {}
        }
        Ok(())
    };
    let restored = making
        .has_cgroup()
        .and_then(|()| aside.within(|| Criu::start(stdio)))
        .and_then(|criu| criu.ask(Request::Restore, &options, &work_path.join(LOG), &mut attend))
        .and_then(|_| match container.record.pid {
            0 => Err("criu did not say which process it restored".into()),
            _ => container.save(),
        });
    restored.inspect_err(|_| {
        // The error that led here is the one to tell.
        let _ = container.kill().and_then(|()| container.destroy());
    })?;
    Ok(Restored { container, console })
}

/// What a container gets while it is made, and can't be given to processes that have long been made: hooks, which would
/// see them, and what is set up beside them.
fn refuse_unrestorable(bundle: &Bundle) -> Result<(), Error> {
    let beside = [
        ("linux.intelRdt", bundle.plan.intel_rdt.is_some()),
        ("linux.netDevices", !bundle.plan.net_devices.is_empty()),
    ];
    if let Some((field, _)) = beside.into_iter().find(|(_, is_used)| *is_used) {
        return Err(format!("{field}: can't be set up for a container that is restored").into());
    }
    let Some(all) = bundle.spec.hooks() else { return Ok(()) };
    let lists = [
        ("hooks.prestart", hooks::list(all.prestart())),
        ("hooks.createRuntime", hooks::list(all.create_runtime())),
        ("hooks.createContainer", hooks::list(all.create_container())),
        ("hooks.startContainer", hooks::list(all.start_container())),
        ("hooks.poststart", hooks::list(all.poststart())),
    ];
    match lists.into_iter().find(|(_, is_used)| *is_used) {
        Some((field, _)) => Err(format!("{field}: a container with such hooks can't be restored").into()),
        None => Ok(()),
    }
}

/// A mount namespace of its own for criu, with the root file system as a mount, which criu asks for. It ends with the last process
/// in it: whatever becomes of us, nothing of the root file system is ever below the state directory where others look.
struct Aside {
    inside: Place,
    outside: Place,
}

impl Aside {
    /// The mount is at `path`, which is made.
    fn make(rootfs: &Path, path: &Path) -> Result<Aside, Error> {
        std::fs::create_dir(path).map_err(|error| format!("make {}: {error}", path.display()))?;
        let outside = Place::here()?;
        namespace::unshare(CloneFlags::CLONE_NEWNS)?;
        let inside = mount_root(rootfs, path).and_then(|()| Place::here());
        outside.enter()?;
        Ok(Aside { inside: inside?, outside })
    }

    /// Does it there: what it starts stays there, and what it opens is of the mounts there.
    fn within<T>(&self, action: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        self.inside.enter()?;
        let done = action();
        self.outside.enter()?;
        done
    }
}

/// A mount namespace, and the working directory in it: entering a namespace alone leads to its root.
struct Place {
    namespace: OwnedFd,
    directory: OwnedFd,
}

impl Place {
    fn here() -> Result<Place, Error> {
        let directory = std::fs::File::open(".").map_err(|error| format!("open the working directory: {error}"))?;
        Ok(Place { namespace: namespace::current(namespace::Kind::Mount)?, directory: directory.into() })
    }

    fn enter(&self) -> Result<(), Error> {
        namespace::setns(&self.namespace, namespace::Kind::Mount)?;
        Ok(sys::process::change_directory(&self.directory)?)
    }
}

fn mount_root(rootfs: &Path, path: &Path) -> Result<(), Error> {
    let set = |mount: &OwnedFd, propagation| {
        sys::mount::mount_setattr(mount, true, &Attr { propagation: Some(propagation), ..Attr::default() })
    };
    // What is unmounted on the host is not to be held here.
    set(&sys::mount::open_tree_at("/", OpenTree::empty())?, Propagation::Slave)?;
    // The mount's parent too has to pass nothing on: the directory becomes a mount first.
    for source in [path, rootfs] {
        let mount = sys::mount::clone_tree(source, source == rootfs)?;
        set(&mount, Propagation::Private)?;
        sys::mount::attach(&mount, path)?;
    }
    Ok(())
}

/// Where the saved cgroups go: to the one that was made for this container.
fn add_cgroups(options: &mut Message, layout: &Layout, path: &str) {
    for hierarchy in layout.hierarchies() {
        let controllers = match &hierarchy.kind {
            Kind::V1 { controllers } => controllers.join(","),
            Kind::V2 if layout.mode() == Mode::V2 => String::new(),
            Kind::V2 => continue,
        };
        let mut root = Message::default();
        root.text(1, &controllers).text(2, path);
        options.message(25, &root);
    }
}

/// By the names under which the images know them.
fn add_mounts(options: &mut Message, plan: &Plan, cgroup: &str) -> Result<(), Error> {
    let mut names: Vec<String> = Vec::new();
    for external in external_mounts(plan, None, cgroup)? {
        if !names.contains(&external.name) {
            let mut map = Message::default();
            map.text(1, &external.name).text(2, &external.source);
            options.message(23, &map);
            names.push(external.name);
        }
    }
    Ok(())
}

/// Pipes that the saved standard streams were become those that criu has, and joined namespaces those of the config.
fn add_fds(options: &mut Message, plan: &Plan, flags: &Flags) -> Result<Vec<OwnedFd>, Error> {
    let mut inherit = |key: &str, number: i32| {
        let mut fd = Message::default();
        fd.text(1, key).number(2, number.cast_unsigned().into());
        options.message(27, &fd);
    };
    let path = flags.criu.image_path.clone().unwrap_or_else(|| PathBuf::from("checkpoint")).join(STREAMS);
    let json = std::fs::read(&path).map_err(|error| format!("read {}: {error}", path.display()))?;
    let streams: Vec<String> =
        serde_json::from_slice(&json).map_err(|error| format!("parse {}: {error}", path.display()))?;
    for (number, stream) in (0..).zip(&streams) {
        if stream.starts_with("pipe:") {
            inherit(stream, number);
        }
    }
    let mut held = Vec::new();
    for (kind, name) in external_namespaces(plan) {
        if let Some(namespace) = open_joined(plan, kind)? {
            sys::fd::set_cloexec(&namespace.as_fd(), false)?;
            inherit(name, sys::fd::number(&namespace));
            held.push(namespace);
        }
    }
    Ok(held)
}
