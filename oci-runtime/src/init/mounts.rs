//! The config's mounts, in its order.
//!
//! Each is made or copied detached, has its attributes before anybody can see it, and is attached to a target that was
//! resolved inside the root and is held by fd: what a neighbour does to a shared volume meanwhile moves nothing
//! (CVE-2021-30465, CVE-2024-45310).

use std::os::fd::OwnedFd;
use std::path::Path;

use sys::Errno;
use sys::at::{self, SFlag};
use sys::mount::{Attr, Fs, MountFlags, filesystem_magic, mount_setattr, move_mount};
use sys::procfs::ProcFd;
use sys::rootfd::RootFd;

use super::{cgroup_mount, labels};
use crate::error::{Error, Step};
use crate::filesystem;
use crate::host::{Host, Source};
use crate::launch::Channel;
use crate::plan::{MountKind, MountPlan, NOT_OF_TYPE_PROC, PROC_OVERMOUNTS, Parameter, Plan};
use crate::volume::Bind;

/// `PROC_SUPER_MAGIC` of linux/magic.h.
const PROC_MAGIC: i64 = 0x9fa0;

/// The mounts that were made, by fd: what a later step does to one reaches that one, whatever its path leads to by then.
pub(super) struct Mounted<'a> {
    plan: &'a Plan,
    host: &'a Host,
    /// File systems that were made in here, at the places that they have in the plan.
    made: Vec<Option<OwnedFd>>,
}

impl Mounted<'_> {
    /// The container's own devpts, from which its console comes.
    pub(super) fn terminals(&self) -> Option<&OwnedFd> {
        let is_devpts =
            |mount: &MountPlan| matches!(&mount.kind, MountKind::Filesystem { fstype, .. } if fstype == "devpts");
        let last = self.plan.mounts.iter().zip(&self.made).rfind(|(mount, made)| is_devpts(mount) && made.is_some());
        last.and_then(|(_, made)| made.as_ref())
    }

    /// What was mounted as the plan's mount `index`.
    fn mount(&self, index: usize) -> Option<&OwnedFd> {
        match &self.host.sources[index] {
            Source::Bind(bind) => Some(&bind.mount),
            Source::Filesystem(made) => Some(made),
            Source::Cgroups(trees) => self.made[index].as_ref().or(trees.first().map(|tree| &tree.mount)),
            Source::None | Source::Link(_) => self.made[index].as_ref(),
        }
    }

    /// What was mounted last at a target of the plan, or will be.
    fn last_at(&self, target: &Path) -> Option<&OwnedFd> {
        if let Some((_, bind)) = self.host.shared_memory.as_ref().filter(|(place, _)| place == target) {
            return Some(&bind.mount);
        }
        let mounts = self.plan.mounts[..self.made.len()].iter().enumerate();
        mounts.rev().filter(|(_, mount)| mount.target == target).find_map(|(index, _)| self.mount(index))
    }
}

/// Makes them all.
pub(super) fn make_all<'a>(
    plan: &'a Plan,
    host: &'a Host,
    root: &RootFd,
    channel: &Channel,
) -> Result<Mounted<'a>, Error> {
    let mut mounted = Mounted { plan, host, made: Vec::with_capacity(plan.mounts.len()) };
    for (mount, source) in plan.mounts.iter().zip(&host.sources) {
        let is_remount = matches!(mount.kind, MountKind::Remount { .. });
        if !is_remount && host.shared_memory.as_ref().is_some_and(|(target, _)| *target == mount.target) {
            mounted.made.push(None);
            continue;
        }
        let stage = describe(mount);
        channel.stage(&stage);
        let made = match &mount.kind {
            MountKind::Remount { parameters } => {
                let there = mounted.last_at(&mount.target);
                let there = there.ok_or_else(|| Error::Refused(format!("{stage}: nothing was mounted there")))?;
                remount(there, mount, parameters.as_deref()).step(|| stage.clone()).map(|()| None)?
            }
            _ => make(mount, source, root, &host.procfs, &stage)?,
        };
        if let Some(made) = &made {
            labels::label_queues(plan, mount, made).step(|| stage)?;
        }
        mounted.made.push(made);
    }
    if let Some((target, bind)) = &host.shared_memory {
        let stage = format!("mount shared memory on {}", target.display());
        let directory = directory(root, target, &stage)?;
        move_mount(&bind.mount, &directory).step(|| stage)?;
    }
    Ok(mounted)
}

fn describe(mount: &MountPlan) -> String {
    let target = mount.target.display();
    match &mount.kind {
        MountKind::Bind { source, .. } => format!("bind {} on {target}", source.display()),
        MountKind::Filesystem { fstype, .. } => format!("mount {fstype} on {target}"),
        MountKind::Cgroup => format!("mount cgroup on {target}"),
        MountKind::Remount { .. } => format!("remount {target}"),
    }
}

/// Makes and attaches one; the new mount, where a later step needs it.
fn make(
    mount: &MountPlan,
    from_host: &Source,
    root: &RootFd,
    procfs: &ProcFd,
    stage: &str,
) -> Result<Option<OwnedFd>, Error> {
    let step = || stage.to_owned();
    match (&mount.kind, from_host) {
        (_, Source::Bind(bind)) => attach_bind(bind, mount, root, stage).map(|()| None),
        (_, Source::Link(points_to)) => make_link(points_to, &mount.target, root).step(step).map(|()| None),
        (_, Source::Filesystem(made)) => {
            let target = directory(root, &mount.target, stage)?;
            move_mount(made, &target).step(step).map(|()| None)
        }
        (_, Source::Cgroups(trees)) => {
            let target = directory(root, &mount.target, stage)?;
            cgroup_mount::make(mount, trees, &target).step(step)
        }
        (MountKind::Bind { .. } | MountKind::Cgroup | MountKind::Remount { .. }, Source::None) => {
            Err(Error::Refused(format!("{stage}: its source was not opened")))
        }
        (MountKind::Filesystem { fstype, .. }, Source::None) => {
            make_filesystem(fstype, mount, root, procfs, stage).map(Some)
        }
    }
}

fn make_filesystem(
    fstype: &str,
    mount: &MountPlan,
    root: &RootFd,
    procfs: &ProcFd,
    stage: &str,
) -> Result<OwnedFd, Error> {
    let step = || stage.to_owned();
    let looks_like_it = fstype == "tmpfs" && !names(mount, "mode");
    let existed = (looks_like_it || mount.copy_up) && matches!(root.find(&mount.target), Ok(Some(_)));
    let target = match fstype {
        "proc" | "sysfs" => ordinary_directory(root, &mount.target, fstype, stage)?,
        _ => directory(root, &mount.target, stage)?,
    };
    // As runc: a tmpfs over a directory of the image looks like it, unless the config says how.
    let mode = match looks_like_it && existed {
        true => Some(at::fstat(&target).step(step)?.st_mode & 0o7777),
        false => None,
    };
    let mode = mode.map(|mode| Parameter::Value("mode".to_owned(), format!("{mode:o}")));
    let made = filesystem::make(mount, mode.as_slice()).step(step)?;
    if mount.copy_up && existed {
        copy_up(mount, &target, &made, procfs).step(|| format!("{stage}: copy what the image has there"))?;
    }
    move_mount(&made, &target).step(step)?;
    Ok(made)
}

/// Copies from what the mount will cover; an owner or mode that the config names stays the tmpfs's own.
fn copy_up(mount: &MountPlan, covered: &OwnedFd, made: &OwnedFd, procfs: &ProcFd) -> sys::Result<()> {
    // Not by its O_PATH fd, which some kernels change modes of through `/proc` only.
    let made = &at::reopen_directory(made)?;
    let before = at::fstat(made)?;
    sys::copy::copy_content(covered, made, procfs)?;
    let after = at::fstat(made)?;
    let uid = if names(mount, "uid") { before.st_uid } else { after.st_uid };
    let gid = if names(mount, "gid") { before.st_gid } else { after.st_gid };
    at::fchown(made, uid, gid)?;
    let mode = if names(mount, "mode") { before.st_mode } else { after.st_mode };
    at::fchmod(made, mode & 0o7777)
}

/// Whether the config sets this parameter of the file system.
fn names(mount: &MountPlan, name: &str) -> bool {
    let MountKind::Filesystem { parameters, .. } = &mount.kind else { return false };
    parameters.iter().any(|known| matches!(known, Parameter::Value(key, _) if key == name))
}

/// Changes a mount that was made before.
fn remount(target: &OwnedFd, mount: &MountPlan, parameters: Option<&[Parameter]>) -> sys::Result<()> {
    if let Some(parameters) = parameters {
        let fs = Fs::pick(target)?;
        fs.set_flag(if mount.attributes.read_only() { "ro" } else { "rw" })?;
        parameters.iter().try_for_each(|parameter| filesystem::set(&fs, "", parameter))?;
        fs.reconfigure()?;
    }
    mount_setattr(target, false, &mount.attributes.exactly().into())?;
    if !mount.recursive.is_empty() {
        mount_setattr(target, true, &mount.recursive.into())?;
    }
    mount.propagation.iter().try_for_each(|change| {
        mount_setattr(target, change.recursive, &Attr { propagation: Some(change.kind), ..Attr::default() })
    })
}

/// The same link may be there already.
fn make_link(points_to: &Path, target: &Path, root: &RootFd) -> sys::Result<()> {
    root.mkdir_all(target.parent().unwrap_or(Path::new("/")), 0o755)?;
    match root.symlink(points_to, target) {
        Err(error) if error.is(Errno::EEXIST) && root.readlink(target).is_ok_and(|link| link == points_to) => Ok(()),
        made => made,
    }
}

fn attach_bind(bind: &Bind, plan: &MountPlan, root: &RootFd, stage: &str) -> Result<(), Error> {
    let target = &plan.target;
    if target == Path::new("/proc") && filesystem_magic(&bind.mount).step(|| stage.to_owned())? != PROC_MAGIC {
        return Err(Error::Refused(format!("{stage}: {NOT_OF_TYPE_PROC}")));
    }
    let link =
        plan.links.cover_target.then(|| open_link(target, root)).transpose().step(|| stage.to_owned())?.flatten();
    let covered = match link {
        Some(link) => refuse_inside_proc(link, target, stage)?,
        None if bind.is_directory => directory(root, target, stage)?,
        None => {
            let file = root.ensure_file(target, 0o644).step(|| stage.to_owned())?;
            refuse_inside_proc(file, target, stage)?
        }
    };
    move_mount(&bind.mount, &covered).step(|| stage.to_owned())
}

/// The symbolic link that stands there, if one does.
fn open_link(target: &Path, root: &RootFd) -> sys::Result<Option<OwnedFd>> {
    match root.open_path_nofollow(target) {
        Ok(link) => Ok((at::file_type(&at::fstat(&link)?) == SFlag::S_IFLNK).then_some(link)),
        Err(error) if error.is(Errno::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

fn directory(root: &RootFd, target: &Path, stage: &str) -> Result<OwnedFd, Error> {
    let directory = root.mkdir_all(target, 0o755).step(|| stage.to_owned())?;
    refuse_inside_proc(directory, target, stage)
}

/// The plan looked at the name; a symbolic link of the image can lead there all the same (CVE-2019-16884).
fn refuse_inside_proc(opened: OwnedFd, target: &Path, stage: &str) -> Result<OwnedFd, Error> {
    let inside = filesystem_magic(&opened).step(|| stage.to_owned())? == PROC_MAGIC;
    // /proc itself may be mounted over: a config can have two entries for it.
    let allowed = target == Path::new("/proc") || PROC_OVERMOUNTS.iter().any(|path| target == Path::new(path));
    match inside && !allowed {
        true => Err(Error::Refused(format!("{stage}: {target:?} cannot be mounted because it is inside /proc"))),
        false => Ok(opened),
    }
}

/// For `/proc` and `/sys`: a link there would put the kernel's files where nobody looks for them, and the image's where
/// everybody does (CVE-2019-19921, CVE-2023-27561, CVE-2025-54867).
fn ordinary_directory(root: &RootFd, target: &Path, fstype: &str, stage: &str) -> Result<OwnedFd, Error> {
    let not_ordinary =
        || Err(Error::Refused(format!("{stage}: filesystem {fstype:?} must be mounted on ordinary directory")));
    match root.open_path_no_symlinks(target) {
        Err(error) if error.is(Errno::ENOENT) => {
            root.mkdir_all(target, 0o755).step(|| stage.to_owned())?;
            root.open_path_no_symlinks(target).step(|| stage.to_owned())
        }
        Err(error) if error.is(Errno::ELOOP) => not_ordinary(),
        opened => {
            let opened = opened.step(|| stage.to_owned())?;
            match at::file_type(&at::fstat(&opened).step(|| stage.to_owned())?) {
                SFlag::S_IFDIR => Ok(opened),
                _ => not_ordinary(),
            }
        }
    }
}

/// What had to stay writable until everything was in place: tmpfs mounts, and the root itself.
pub(super) fn make_read_only(mounted: &Mounted<'_>, root: &RootFd) -> Result<(), Error> {
    let read_only = Attr { set: MountFlags::RDONLY, ..Attr::default() };
    let mounts = mounted.plan.mounts.iter().enumerate();
    for (index, mount) in mounts.filter(|(_, mount)| filesystem::is_deferred(mount)) {
        let Some(made) = mounted.mount(index) else { continue };
        mount_setattr(made, false, &read_only).step(|| format!("make {} read-only", mount.target.display()))?;
    }
    if mounted.plan.root_readonly {
        mount_setattr(root, false, &read_only).step(|| "make the root file system read-only".to_owned())?;
    }
    Ok(())
}
