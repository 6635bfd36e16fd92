//! checkpoint: the processes of a container, saved to files by CRIU.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;

use oci_runtime::cgroup::{Kind, Layout};
use oci_runtime::plan::{MountKind, Namespace, Plan};
use sys::fs::Durability;
use sys::namespace;
use sys::process::Pid;
use sys::rootfd::RootFd;

use super::args::{self, Stop};
use super::criu::wire::Message;
use super::criu::{self, Criu, Request};
use super::help::Help;
use super::log::Log;
use super::store::{Container, Status, Store};
use super::{Error, bundle, hooks};

/// checkpoint
#[derive(Debug, Default)]
pub(crate) struct Flags {
    pub(crate) id: String,
    criu: criu::Flags,
    parent_path: Option<PathBuf>,
    leave_running: bool,
    tcp_skip_in_flight: bool,
    link_remap: bool,
    pre_dump: bool,
    /// Of ours; criu writes a NUL there once pages can be asked for.
    status_fd: Option<i32>,
    page_server: Option<(String, u16)>,
}

const FLAGS: &[(&str, &str)] = &[
    ("--parent-path DIR", "images of a pre-dump, relative to the images' directory"),
    ("--leave-running", "let the container run on; it is removed without this"),
    ("--tcp-skip-in-flight", "leave out TCP connections that are not established yet"),
    ("--link-remap", "give unlinked files a name again where that helps"),
    ("--pre-dump", "save memory only, and let the container run on"),
    ("--status-fd N", "write a NUL to this fd once lazy pages can be asked for"),
    ("--page-server ADDRESS:PORT", "send pages there instead of writing them"),
];

pub(crate) const HELP: Help = Help {
    about: "saves a running container to files",
    usage: "[flags] ID",
    details: criu::DETAILS,
    flags: &[criu::FLAGS, FLAGS],
};

pub(crate) fn parse(parser: &mut lexopt::Parser) -> Result<Flags, Stop> {
    let mut flags = Flags::default();
    flags.id = args::only_id(parser, "checkpoint", |name, parser| flags.read(name, parser))?;
    Ok(flags)
}

impl Flags {
    fn read(&mut self, name: &str, parser: &mut lexopt::Parser) -> Result<(), Stop> {
        match name {
            "--parent-path" => self.parent_path = args::path(parser)?,
            "--leave-running" => self.leave_running = args::switch(parser, name)?,
            "--tcp-skip-in-flight" => self.tcp_skip_in_flight = args::switch(parser, name)?,
            "--link-remap" => self.link_remap = args::switch(parser, name)?,
            "--pre-dump" => self.pre_dump = args::switch(parser, name)?,
            "--status-fd" => self.status_fd = Some(args::number(parser, name)?).filter(|fd| *fd >= 0),
            "--page-server" => {
                let text = args::text(parser)?;
                let parsed = text.rsplit_once(':').and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?)));
                self.page_server = Some(parsed.ok_or("Use --page-server ADDRESS:PORT to specify page server")?);
            }
            name => return self.criu.read(name, parser),
        }
        Ok(())
    }
}

/// Saves it, and unless it is to run on removes it.
pub(crate) fn checkpoint(store: &Store<'_>, flags: &Flags, log: &mut Log) -> Result<(), Error> {
    let (container, _lock) = store.load_locked(&flags.id)?;
    match container.status()? {
        status @ (Status::Created | Status::Stopped) => {
            return Err(format!("Container cannot be checkpointed in {status} state").into());
        }
        Status::Running | Status::Paused => {}
    }
    let plan = bundle::plan_of(&container, log)?;
    let (images, work, work_path) = flags.criu.directories()?;
    let mut options = flags.criu.options(&images, &work, LOG);
    flags.add_to(&mut options)?;
    criu::add_config(&mut options, &container.record.annotations);
    add_container(&mut options, &container, &plan)?;
    write_streams(flags, &container)?;
    let request = if flags.pre_dump { Request::PreDump } else { Request::Dump };
    let criu = Criu::start([Stdio::null(), Stdio::null(), Stdio::null()])?;
    criu.ask(request, &options, &work_path.join(LOG), &mut |_| Ok(()))?;
    match flags.leave_running || flags.pre_dump {
        true => Ok(()),
        false => {
            container.kill()?;
            hooks::destroy(&container, log)
        }
    }
}

const LOG: &str = "dump.log";

/// Where the links of the standard streams are kept, in the images' directory; runc's name and form.
pub(crate) const STREAMS: &str = "descriptors.json";

impl Flags {
    fn add_to(&self, options: &mut Message) -> Result<(), Error> {
        options
            .switch(3, self.leave_running || self.pre_dump)
            .switch(18, self.link_remap)
            .switch(46, self.tcp_skip_in_flight);
        if let Some(parent) = &self.parent_path {
            if parent.is_absolute() {
                return Err("--parent-path must be relative to --image-path".into());
            }
            options.text(14, &parent.display().to_string()).switch(15, true);
        }
        if let Some((host, port)) = &self.page_server {
            let mut server = Message::default();
            server.text(1, host).number(2, (*port).into());
            options.message(11, &server);
        }
        if self.criu.lazy_pages && self.page_server.is_none() {
            return Err("--lazy-pages needs --page-server".into());
        }
        if let Some(fd) = self.status_fd {
            options.number(49, fd.cast_unsigned().into());
        }
        Ok(())
    }
}

/// What of the container is the host's: criu must not look for it inside.
fn add_container(options: &mut Message, container: &Container, plan: &Plan) -> Result<(), Error> {
    let record = &container.record;
    options.number(2, record.pid.cast_unsigned().into()).text(13, &record.rootfs.display().to_string());
    if let Some(freezer) = freezer(&record.cgroup)? {
        options.text(44, &freezer.display().to_string());
    }
    for External { target, name, .. } in external_mounts(plan, Some(&root_of(container)?), &record.cgroup)? {
        let mut map = Message::default();
        map.text(1, &target).text(2, &name);
        options.message(23, &map);
    }
    for (kind, name) in external_namespaces(plan) {
        let inode = namespace::of(Pid::from_raw(record.pid), kind).and_then(|fd| sys::at::fstat(&fd))?.st_ino;
        options.text(37, &format!("{}[{inode}]:{name}", kind.file_name()));
    }
    Ok(())
}

/// The directory whose freezer stops the container: v1's, or that of v2.
fn freezer(cgroup: &str) -> Result<Option<PathBuf>, Error> {
    let layout = Layout::detect()?;
    let mut hierarchies = layout.hierarchies().iter();
    let v1 = hierarchies.clone().find(|hierarchy| hierarchy.kind.controls("freezer"));
    let found = v1.or_else(|| hierarchies.find(|hierarchy| hierarchy.kind == Kind::V2));
    Ok(found.map(|hierarchy| hierarchy.root.path().join(cgroup.trim_start_matches('/'))))
}

/// A mount of the container whose content is the host's.
pub(crate) struct External {
    pub(crate) target: String,
    /// What the images call it.
    pub(crate) name: String,
    pub(crate) source: String,
}

impl External {
    fn new(target: String, source: String) -> External {
        External { name: target.clone(), target, source }
    }
}

/// The root of the container's first process. It is still that process's when its number is known to be so afterwards.
fn root_of(container: &Container) -> Result<RootFd, Error> {
    let root = RootFd::open(format!("/proc/{}/root", container.record.pid))?;
    container.process().open()?;
    Ok(root)
}

/// All of them; `root` is that of the container, where there is one.
pub(crate) fn external_mounts(plan: &Plan, root: Option<&RootFd>, cgroup: &str) -> Result<Vec<External>, Error> {
    let mut mounts = Vec::new();
    for mount in &plan.mounts {
        let target = mount.target.display().to_string();
        match &mount.kind {
            MountKind::Bind { source, .. } => mounts.push(External::new(target, source.display().to_string())),
            MountKind::Cgroup => mounts.extend(cgroup_mounts(&target, cgroup)?),
            MountKind::Filesystem { .. } | MountKind::Remount { .. } => {}
        }
    }
    for path in &plan.masked_paths {
        // Files are covered with the host's null device; directories with a tmpfs, which criu knows how to make.
        let is_file = |root: &RootFd| {
            let found = root.open_path(path).and_then(|found| sys::at::fstat(&found));
            found.is_ok_and(|found| sys::at::file_type(&found) != sys::at::SFlag::S_IFDIR)
        };
        if root.is_none_or(is_file) {
            let null = "/dev/null".to_owned();
            mounts.push(External { target: path.display().to_string(), name: null.clone(), source: null });
        }
    }
    Ok(mounts)
}

/// v2 is one mount, v1 one for each hierarchy.
fn cgroup_mounts(target: &str, cgroup: &str) -> Result<Vec<External>, Error> {
    let layout = Layout::detect()?;
    let mut mounts = Vec::new();
    for hierarchy in layout.hierarchies() {
        let root = hierarchy.root.path();
        let own = root.join(cgroup.trim_start_matches('/')).display().to_string();
        match (hierarchy.kind == Kind::V2, layout.mode() == oci_runtime::cgroup::Mode::V2) {
            (true, true) => mounts.push(External::new(target.to_owned(), own)),
            (true, false) => {}
            (false, _) => {
                let name = root.file_name().unwrap_or_default().to_string_lossy();
                mounts.push(External::new(format!("{target}/{name}"), own));
            }
        }
    }
    Ok(mounts)
}

/// Namespaces that the container has joined by path, as criu is told of them; the names are runc's.
pub(crate) fn external_namespaces(plan: &Plan) -> Vec<(namespace::Kind, &'static str)> {
    let joined = |namespace: &Namespace| matches!(namespace, Namespace::Joined(_));
    [
        (namespace::Kind::Net, &plan.namespaces.network, "extRootNetNS"),
        (namespace::Kind::Pid, &plan.namespaces.pid, "extRootPidNS"),
    ]
    .into_iter()
    .filter(|(_, namespace, _)| joined(namespace))
    .map(|(kind, _, name)| (kind, name))
    .collect()
}

/// Keeps what the standard streams were: restore gives others in their place.
fn write_streams(flags: &Flags, container: &Container) -> Result<(), Error> {
    let path = flags.criu.image_path.clone().unwrap_or_else(|| PathBuf::from("checkpoint")).join(STREAMS);
    let mut streams = Vec::new();
    for number in 0..3 {
        let link = format!("/proc/{}/fd/{number}", container.record.pid);
        let target = std::fs::read_link(&link).map_err(|error| format!("read {link}: {error}"))?;
        streams.push(target.display().to_string());
    }
    let json = serde_json::to_vec(&streams).map_err(|error| format!("encode {STREAMS}: {error}"))?;
    Ok(sys::fs::atomic_write(path, &json, Durability::Rename, 0o644)?)
}

/// Opens what a namespace was joined by.
pub(crate) fn open_joined(plan: &Plan, kind: namespace::Kind) -> Result<Option<OwnedFd>, Error> {
    let namespace = match kind {
        namespace::Kind::Net => &plan.namespaces.network,
        _ => &plan.namespaces.pid,
    };
    match namespace {
        Namespace::Joined(path) => Ok(Some(namespace::open(path, kind)?)),
        Namespace::Inherited | Namespace::New => Ok(None),
    }
}
