//! restore: a container made of what checkpoint saved.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use oci_runtime::StdioFds;
use oci_runtime::cgroup::{Cgroup, Kind, Layout, Mode};
use oci_runtime::plan::Plan;
use sys::fs::Durability;
use sys::mount::{Attr, Propagation};
use sys::process::{Pid, Process};
use sys::signal::Signal;

use super::args::{self, Stop};
use super::bundle::{self, Bundle};
use super::checkpoint::{STREAMS, external_mounts, external_namespaces, open_joined};
use super::criu::wire::Message;
use super::criu::{self, Criu, Notice, Request};
use super::foreground::Foreground;
use super::help::Help;
use super::log::Log;
use super::store::{self, Container, ContainerId, Record, Store};
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
    details: "It takes the program criu.",
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
    refuse_hooks(&bundle)?;
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
    let dir = store.reserve(&id)?;
    let Restored { container, console } = restore_in(&dir, &id, flags, bundle, stdio).inspect_err(|_| {
        // The error that led here is the one to tell.
        let _ = store::remove(&dir);
    })?;
    let process = container.process();
    let handed_over = sockets
        .send(console.as_ref(), None)
        .and_then(|()| streams::write_pid_file(flags.streams.pid_file.as_deref(), container.record.pid));
    handed_over.inspect_err(|_| {
        end(&process);
        let _ = hooks::destroy(&container, log);
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
    dir: &Path,
    id: &ContainerId,
    flags: &Flags,
    mut bundle: Bundle,
    stdio: [Stdio; 3],
) -> Result<Restored, Error> {
    let layout = create::complete(&mut bundle.plan, id)?;
    let plan = &bundle.plan;
    let rootfs = plan.root.clone().ok_or("root: missing")?;
    let path = plan.cgroup.as_ref().map(ToString::to_string).unwrap_or_default();
    let (images, work, work_path) = flags.criu.directories()?;
    let cgroup = Cgroup::create(&layout, &path, &plan.resources)?;
    let root = Root::mount(&rootfs, dir)?;
    let mut options = flags.criu.options(&images, &work, LOG);
    options.switch(6, true).text(13, &root.0.display().to_string()).switch(26, true);
    options.text(53, flags.lsm_profile.as_deref().unwrap_or_default());
    options.text(63, flags.lsm_mount_context.as_deref().unwrap_or_default());
    add_cgroups(&mut options, &layout, &path);
    add_mounts(&mut options, plan, &path)?;
    // Held until criu has them too: its program inherits them.
    let _inherited = add_fds(&mut options, plan, flags)?;
    let (mut pid, mut console) = (None, None);
    let mut attend = |notice: Notice<'_>| {
        match notice.script {
            "orphan-pts-master" => console = notice.fd,
            "post-restore" => pid = notice.pid,
            _ => {}
        }
        Ok(())
    };
    let restored = Criu::start(stdio)
        .and_then(|criu| criu.ask(Request::Restore, &options, &work_path.join(LOG), &mut attend))
        .and_then(|_| pid.ok_or_else(|| "criu did not say which process it restored".into()))
        .and_then(|pid| Ok(Process::of(Pid::from_raw(pid))?));
    let process = restored.inspect_err(|_| {
        let _ = cgroup.kill(super::kill::PATIENCE).and_then(|()| cgroup.delete());
    })?;
    let container = keep(dir, id, &bundle, process).inspect_err(|_| {
        end(&process);
        let _ = cgroup.delete();
    })?;
    Ok(Restored { container, console })
}

fn keep(dir: &Path, id: &ContainerId, bundle: &Bundle, process: Process) -> Result<Container, Error> {
    if let Some(filter) = &bundle.filter {
        sys::fs::atomic_write(dir.join("seccomp.bpf"), &filter.encode(), Durability::Rename, 0o600)?;
    }
    let record = create::record(id, &bundle.path, &bundle.spec, &bundle.plan)?;
    let record = Record { pid: process.pid.as_raw(), start_time: process.start_time, ..record };
    Container::create(dir.to_owned(), record)
}

/// The hooks of a container's making would see processes that have long been made.
fn refuse_hooks(bundle: &Bundle) -> Result<(), Error> {
    let Some(all) = bundle.spec.hooks() else { return Ok(()) };
    let lists = [
        ("hooks.prestart", hooks::list(all.prestart())),
        ("hooks.createRuntime", hooks::list(all.create_runtime())),
        ("hooks.createContainer", hooks::list(all.create_container())),
        ("hooks.startContainer", hooks::list(all.start_container())),
    ];
    match lists.into_iter().find(|(_, is_used)| *is_used) {
        Some((field, _)) => Err(format!("{field}: a container with such hooks can't be restored").into()),
        None => Ok(()),
    }
}

/// The root file system as a mount of its own, which criu asks for; gone when this is dropped.
struct Root(PathBuf);

impl Root {
    fn mount(rootfs: &Path, dir: &Path) -> Result<Root, Error> {
        let path = dir.join("criu-root");
        std::fs::create_dir(&path).map_err(|error| format!("make {}: {error}", path.display()))?;
        let mount = sys::mount::clone_tree(rootfs, true)?;
        let private = Attr { propagation: Some(Propagation::Private), ..Attr::default() };
        sys::mount::mount_setattr(&mount, true, &private)?;
        // Its parent too has to pass nothing on: the directory becomes a mount first.
        let below = sys::mount::clone_tree(&path, false)?;
        sys::mount::mount_setattr(&below, false, &private)?;
        sys::mount::attach(&below, &path)?;
        let root = Root(path);
        sys::mount::attach(&mount, &root.0)?;
        Ok(root)
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        // Both; what can't be unmounted makes the removal of the directory fail, which is told.
        while sys::mount::umount_detach(&self.0).is_ok() {}
        let _ = std::fs::remove_dir(&self.0);
    }
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

/// Best effort: the error that led here is the one to tell.
fn end(process: &Process) {
    if let Ok(process) = process.open() {
        let _ = process.send_signal(Signal::SIGKILL);
        let _ = process.wait();
    }
}
