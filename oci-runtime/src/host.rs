//! What a container takes from the host, opened before it is cloned: in there, no path of the host is resolved.
//!
//! Volumes are opened as [`volume`] has it.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use cgroup::{Cgroup, Kind, Layout, Mode};
use sys::Errno;
use sys::at::{self, OFlag, SFlag};
use sys::kernel::Version;
use sys::mount::{Attr, Fs, MountFlags, Propagation, clone_fd, clone_tree, mount_setattr};
use sys::namespace::Kind as NamespaceKind;
use sys::process::Pid;
use sys::procfs::ProcFd;
use sys::rootfd::RootFd;

use crate::delegation::delegate;
use crate::error::{Error, Step};
use crate::filesystem;
use crate::id_mapped::map_sources;
use crate::init::refuse_labels_without_selinux;
use crate::inputs::{Gate, Inputs, Root};
use crate::plan::{Device, IdMaps, MountKind, MountPlan, Namespace, NodeKind, Plan, SysctlNamespace};
use crate::resctrl::Prepared;
use crate::user_namespace::UserNamespace;
use crate::volume::{self, Bind, Volume};

/// Everything of the host that the container's first process works with.
pub(crate) struct Host {
    /// The root file system, detached.
    pub(crate) root: OwnedFd,
    /// Where it is attached until it is the only one: there hooks look for it. `None` if none does.
    pub(crate) root_at: Option<RootAt>,
    /// For each mount of the plan, what it takes from the host.
    pub(crate) sources: Vec<Source>,
    /// The pod's shared memory, detached, and where it goes.
    pub(crate) shared_memory: Option<(PathBuf, Bind)>,
    /// The host's `/dev/null` as a read-only detached mount: bound over a masked file, nobody in the container can change
    /// the mode of the host's device through it.
    pub(crate) null: OwnedFd,
    /// Namespaces to join, the user and the PID namespace excepted.
    pub(crate) joined: Vec<(NamespaceKind, OwnedFd)>,
    /// The PID namespace to be born in.
    pub(crate) pid_namespace: Option<OwnedFd>,
    /// The user namespace to join, which was made just now or is that of others.
    pub(crate) user: Option<UserNamespace>,
    /// With a user namespace, in which nobody can make a device: all nodes of the plan, named by their place in it, in a
    /// detached tmpfs, to be bound from.
    pub(crate) devices: Option<OwnedFd>,
    /// Groups of resctrl to be in.
    pub(crate) resctrl: Option<Prepared>,
    /// For all writes below `/proc`.
    pub(crate) procfs: ProcFd,
    /// The FIFO to wait behind.
    pub(crate) fifo: Option<Fifo>,
}

/// What a mount takes from the host.
pub(crate) enum Source {
    /// Nothing: a new file system.
    None,
    /// A volume.
    Bind(Bind),
    /// A symbolic link, which the container gets as well.
    Link(PathBuf),
    /// A file system from a device or directories of the host, detached.
    Filesystem(OwnedFd),
    /// The container's own directory in every v1 hierarchy, or the one tree of v2.
    Cgroups(Vec<CgroupTree>),
}

/// One hierarchy as the container shall see it.
pub(crate) struct CgroupTree {
    /// The name of its directory below the host's mount of cgroups, for example `cpu` or `cpu,cpuacct`.
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// What is shown of it, detached, with its attributes.
    pub(crate) mount: OwnedFd,
}

/// A FIFO, by the directory that holds it: opened for writing, it blocks until there is a reader.
pub(crate) struct Fifo {
    pub(crate) directory: OwnedFd,
    pub(crate) name: std::ffi::OsString,
}

impl Host {
    /// Opens it all.
    pub(crate) fn open(plan: &Plan, inputs: &mut Inputs<'_>, layout: &Layout, cgroup: &Cgroup) -> Result<Host, Error> {
        let root_at = root_at(plan, inputs)?;
        let progress = &mut *inputs.progress;
        let procfs = ProcFd::open().step(|| "open a private procfs".to_owned())?;
        refuse_labels_without_selinux(plan, &procfs)?;
        let user = UserNamespace::open(plan, &procfs)?;
        let maps = user.as_ref().map(|user| &user.maps);
        delegate(plan, cgroup, maps)?;
        let joined = open_namespaces(plan)?;
        refuse_sysctls_of_host(plan, &joined)?;
        let pid_namespace = match &plan.namespaces.pid {
            Namespace::Joined(path) => Some(open_namespace(path, NamespaceKind::Pid)?),
            _ => None,
        };
        let sources = open_sources(plan, layout, cgroup, progress)?;
        map_sources(plan, &sources, user.as_ref(), &procfs)?;
        Ok(Host {
            root_at,
            resctrl: None,
            root: open_root(&mut inputs.root, progress)?,
            sources,
            shared_memory: inputs.shared_memory.take().map(open_shared_memory).transpose()?,
            null: open_null()?,
            joined,
            pid_namespace,
            devices: maps.map(|maps| make_devices(plan, maps)).transpose()?,
            fifo: open_fifo(&inputs.gate, maps)?,
            user,
            procfs,
        })
    }
}

impl Host {
    /// The null device, for reading and writing; its mode can't be changed through this fd.
    pub(crate) fn open_null(&self) -> sys::Result<OwnedFd> {
        self.procfs.reopen(&self.null, OFlag::O_RDWR)
    }
}

/// A path of the host, with what makes sure that it is still the same in a copy of the host's mounts.
pub(crate) struct RootAt {
    pub(crate) path: PathBuf,
    pub(crate) is: at::FileStat,
}

fn root_at(plan: &Plan, inputs: &Inputs<'_>) -> Result<Option<RootAt>, Error> {
    let path = match (&inputs.root, &inputs.root_at) {
        (Root::Path(path), _) | (_, Some(path)) if plan.hooks.see_root() => path,
        _ => return Ok(None),
    };
    let step = || format!("look at root {}", path.display());
    // Hooks of the CDI look for the path without links.
    let path = path.canonicalize().map_err(|error| sys::Error::from_io("realpath", &error, format_args!("{path:?}")));
    let path = path.step(step)?;
    let is = RootFd::open(&path).and_then(|directory| at::fstat(&directory)).step(step)?;
    Ok(Some(RootAt { path, is }))
}

fn open_root(root: &mut Root, progress: &mut dyn FnMut(&str)) -> Result<OwnedFd, Error> {
    // As a copy it could be a peer of a shared host mount: what the container mounts would show up there.
    let private = Attr { propagation: Some(Propagation::Private), ..Attr::default() };
    match root {
        Root::Mount(mount) => {
            let step = || "take the root file system".to_owned();
            mount_setattr(mount, true, &private).step(step)?;
            sys::fd::duplicate(mount).step(step)
        }
        Root::Path(path) => {
            let stage = format!("open root {}", path.display());
            progress(&stage);
            let mount = clone_tree(&*path, true).step(|| stage.clone())?;
            mount_setattr(&mount, true, &private).step(|| stage)?;
            Ok(mount)
        }
    }
}

fn open_sources(
    plan: &Plan,
    layout: &Layout,
    cgroup: &Cgroup,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<Source>, Error> {
    let base = volume::base_propagation(plan);
    let mut sources = Vec::with_capacity(plan.mounts.len());
    for mount in &plan.mounts {
        sources.push(match &mount.kind {
            MountKind::Bind { source, recursive } => {
                let stage = format!("open volume {}", source.display());
                progress(&stage);
                match volume::open(source, *recursive, mount, base, &stage)? {
                    Volume::Bind(bind) => Source::Bind(bind),
                    Volume::Link(target) => Source::Link(target),
                }
            }
            MountKind::Filesystem { fstype, .. } if filesystem::is_made_from_host(mount) => {
                let stage = format!("make {fstype} for {}", mount.target.display());
                progress(&stage);
                Source::Filesystem(filesystem::make(mount, &[]).step(|| stage)?)
            }
            MountKind::Cgroup => Source::Cgroups(open_cgroups(plan, mount, layout, cgroup)?),
            MountKind::Filesystem { .. } | MountKind::Remount { .. } => Source::None,
        });
    }
    Ok(sources)
}

fn open_shared_memory((target, mount): (PathBuf, OwnedFd)) -> Result<(PathBuf, Bind), Error> {
    let copy = clone_fd(&mount, false).step(|| "copy the pod's shared memory".to_owned())?;
    Ok((target, Bind { mount: copy, is_directory: true }))
}

/// What the container sees of the cgroup trees: on v1 its own directory in every hierarchy, on v2 the tree as its cgroup
/// namespace has it. In a namespace of its own the container's directory looks the same as a mount of the whole tree
/// would, whose root it is there, for a quarter of the calls. Without one, `/proc/self/cgroup` names places in the host's
/// tree, so on v2 the whole of it is shown, as other runtimes do; read-only unless the config wants it otherwise. A joined
/// one shows its own root to whoever mounts the tree from inside: nothing is taken from here.
fn open_cgroups(plan: &Plan, mount: &MountPlan, layout: &Layout, cgroup: &Cgroup) -> Result<Vec<CgroupTree>, Error> {
    let mut trees = Vec::new();
    let is_v2 = layout.mode() == Mode::V2;
    if is_v2 && matches!(plan.namespaces.cgroup, Namespace::Joined(_)) {
        return Ok(trees);
    }
    for hierarchy in layout.hierarchies().iter().filter(|hierarchy| is_v2 || hierarchy.kind != Kind::V2) {
        let root = hierarchy.root.path();
        let path = match (is_v2, &plan.namespaces.cgroup) {
            (true, Namespace::Inherited) => root.to_owned(),
            _ => root.join(cgroup.path().relative()),
        };
        let opened = open_cgroup(&path, mount).step(|| format!("open cgroup {}", path.display()))?;
        let name = root.file_name().unwrap_or_default().to_string_lossy().into_owned();
        trees.push(CgroupTree { name, kind: hierarchy.kind.clone(), mount: opened });
    }
    Ok(trees)
}

fn open_cgroup(path: &Path, plan: &MountPlan) -> sys::Result<OwnedFd> {
    let mount = clone_tree(path, false)?;
    let change = Attr {
        set: plan.attributes.set | plan.recursive.set,
        clr: plan.attributes.clear | plan.recursive.clear,
        propagation: Some(Propagation::Private),
        userns: None,
    };
    mount_setattr(&mount, false, &change)?;
    Ok(mount)
}

/// CVE-2025-31133: what covers a masked file has to be the null device, whatever stands at its path.
pub(crate) fn open_null() -> Result<OwnedFd, Error> {
    let step = || "open /dev/null".to_owned();
    let mount = clone_tree("/dev/null", false).step(step)?;
    if !is_null(&mount).step(step)? {
        return Err(Error::Refused("/dev/null of the host is not the null device".to_owned()));
    }
    let read_only = Attr { set: MountFlags::RDONLY, propagation: Some(Propagation::Private), ..Attr::default() };
    mount_setattr(&mount, false, &read_only).step(step)?;
    Ok(mount)
}

/// Whether an fd refers to the null device (char 1:3).
pub(crate) fn is_null(file: &impl std::os::fd::AsFd) -> sys::Result<bool> {
    let stat = at::fstat(file)?;
    Ok(at::file_type(&stat) == SFlag::S_IFCHR && stat.st_rdev == at::device(1, 3))
}

/// Nodes with the owners and modes of the plan. What a container does to its nodes, it does to these alone.
fn make_devices(plan: &Plan, maps: &IdMaps) -> Result<OwnedFd, Error> {
    let tmpfs = Fs::open("tmpfs").and_then(|fs| {
        // The container's root has to find them by their names.
        fs.set_string("mode", "711")?;
        fs.mount(MountFlags::NOSUID | MountFlags::NOEXEC)
    });
    let tmpfs = tmpfs.step(|| "make a tmpfs for devices".to_owned())?;
    for (index, device) in plan.devices.iter().enumerate() {
        make_device(&tmpfs, &index.to_string(), device, maps)
            .step(|| format!("make device {}", device.path.display()))?;
    }
    Ok(tmpfs)
}

fn make_device(tmpfs: &OwnedFd, name: &str, device: &Device, maps: &IdMaps) -> sys::Result<()> {
    let kind = match device.kind {
        NodeKind::Char => SFlag::S_IFCHR,
        NodeKind::Block => SFlag::S_IFBLK,
        // Everybody may make one.
        NodeKind::Fifo => return Ok(()),
    };
    at::mknodat(tmpfs, name, kind, 0, at::device(device.major.into(), device.minor.into()))?;
    if let (Some(uid), Some(gid)) = (maps.users.outside(device.uid), maps.groups.outside(device.gid)) {
        at::fchownat(tmpfs, name, uid, gid)?;
    }
    // The creator's umask does not count.
    at::fchmodat(tmpfs, name, device.mode)
}

fn open_namespaces(plan: &Plan) -> Result<Vec<(NamespaceKind, OwnedFd)>, Error> {
    let namespaces = &plan.namespaces;
    // The mount namespace comes last: paths of the host have no meaning after it.
    let all = [
        (NamespaceKind::Ipc, &namespaces.ipc),
        (NamespaceKind::Uts, &namespaces.uts),
        (NamespaceKind::Net, &namespaces.network),
        (NamespaceKind::Cgroup, &namespaces.cgroup),
        (NamespaceKind::Time, &namespaces.time),
        (NamespaceKind::Mount, &namespaces.mount),
    ];
    let mut joined = Vec::new();
    for (kind, namespace) in all {
        if let Namespace::Joined(path) = namespace {
            joined.push((kind, open_namespace(path, kind)?));
        }
    }
    refuse_mounts_of_host(&joined)?;
    if !namespaces.mount.is_private() && !sys::kernel::is_at_least(MOUNTS_ON_DETACHED) {
        return Err(Error::Refused(format!(
            "linux.namespaces: a container in the runtime's mount namespace needs Linux {MOUNTS_ON_DETACHED}, which can mount \
             on what is attached nowhere"
        )));
    }
    Ok(joined)
}

/// Without it the container's mounts would be the host's.
const MOUNTS_ON_DETACHED: Version = Version { major: 6, minor: 15 };

/// The container's root becomes the root of a mount namespace that is joined, and of all who are in it.
fn refuse_mounts_of_host(joined: &[(NamespaceKind, OwnedFd)]) -> Result<(), Error> {
    let Some((kind, namespace)) = joined.iter().find(|(kind, _)| *kind == NamespaceKind::Mount) else { return Ok(()) };
    if is_of_host(namespace, *kind).step(|| "compare with the host's mount namespace".to_owned())? {
        let text =
            "linux.namespaces: the mount namespace to join is the host's, whose root would become the container's";
        return Err(Error::Refused(text.to_owned()));
    }
    Ok(())
}

fn open_namespace(path: &Path, kind: NamespaceKind) -> Result<OwnedFd, Error> {
    sys::namespace::open(path, kind).step(|| format!("open namespace {}", path.display()))
}

/// A namespace that is joined by path may be the host's own, or ours: its parameters are not the container's to set.
fn refuse_sysctls_of_host(plan: &Plan, joined: &[(NamespaceKind, OwnedFd)]) -> Result<(), Error> {
    for sysctl in &plan.sysctls {
        let kind = match sysctl.namespace {
            SysctlNamespace::Network => NamespaceKind::Net,
            SysctlNamespace::Ipc => NamespaceKind::Ipc,
            SysctlNamespace::Uts => NamespaceKind::Uts,
            // A namespace that is the runtime's own is not joined.
            SysctlNamespace::User => continue,
        };
        let Some((_, namespace)) = joined.iter().find(|(known, _)| *known == kind) else { continue };
        if is_of_host(namespace, kind).step(|| "compare with the host's namespace".to_owned())? {
            let name = sysctl.path.replace('/', ".");
            return Err(Error::Refused(format!(
                "linux.sysctl[{name}]: the container shares that namespace with the host"
            )));
        }
    }
    Ok(())
}

/// Whether it is that of PID 1, or ours, which need not be the same: whoever runs us in a namespace of their own has it for
/// their host. PID 1 can't be looked into where it has more capabilities than we.
fn is_of_host(namespace: &OwnedFd, kind: NamespaceKind) -> sys::Result<bool> {
    if sys::namespace::same(namespace, &sys::namespace::current(kind)?)? {
        return Ok(true);
    }
    match sys::namespace::of(Pid::from_raw(1), kind) {
        Err(error) if error.is(Errno::EACCES) => Ok(false),
        first => sys::namespace::same(namespace, &first?),
    }
}

/// The FIFO is given to the container's root: it is the one who opens it.
fn open_fifo(gate: &Gate, maps: Option<&IdMaps>) -> Result<Option<Fifo>, Error> {
    let Gate::Fifo(path) = gate else { return Ok(None) };
    let refuse = || Error::Refused(format!("{} is not the path of a FIFO", path.display()));
    let (directory, name) = path.parent().zip(path.file_name()).ok_or_else(refuse)?;
    // As a mount of its own, which no `..` leads out of: the container's process holds it while it waits.
    let read_only = Attr { set: MountFlags::RDONLY, propagation: Some(Propagation::Private), ..Attr::default() };
    let step = || format!("open {}", directory.display());
    let mount = clone_tree(directory, false).step(step)?;
    let stat = at::fstatat(&mount, name).step(|| format!("look at {}", path.display()))?;
    if at::file_type(&stat) != SFlag::S_IFIFO {
        return Err(refuse());
    }
    if let Some((uid, gid)) = maps.and_then(|maps| maps.root().ok()) {
        at::fchownat(&mount, name, uid, gid).step(|| format!("give {} to the container's root", path.display()))?;
    }
    mount_setattr(&mount, false, &read_only).step(step)?;
    Ok(Some(Fifo { directory: mount, name: name.to_owned() }))
}
