//! `/dev`: nodes, links and the null device.

use std::os::fd::OwnedFd;
use std::path::Path;

use sys::Errno;
use sys::at::{self, OFlag, SFlag};
use sys::mount::{OpenTree, move_mount, open_tree};
use sys::rootfd::RootFd;

use crate::error::{Error, Step};
use crate::host::is_null;
use crate::plan::{Device, NodeKind, Plan};

/// Name in `/dev` and target, from config-linux.md.
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
];

/// Makes the plan's nodes and the links that programs count on. In a user namespace the nodes are bound from those that were
/// `made` outside of it.
///
/// `/dev` is opened once and every name is made relative to that fd, so an image in which it is a link changes nothing
/// on the host (CVE-2026-41579, CVE-2026-47766).
pub(super) fn make_nodes(plan: &Plan, made: Option<&OwnedFd>, root: &RootFd) -> Result<(), Error> {
    let dev = root.mkdir_all(Path::new("/dev"), 0o755).step(|| "open /dev".to_owned())?;
    for (index, device) in plan.devices.iter().enumerate() {
        let made = made.filter(|_| device.kind != NodeKind::Fifo).map(|made| (made, index));
        let step = || format!("make device {}", device.path.display());
        match device.path.strip_prefix("/dev").ok().filter(|name| name.components().count() == 1) {
            Some(name) => make_node(device, made, &dev, name).step(step)?,
            None => {
                let parent = device.path.parent().unwrap_or(Path::new("/"));
                let parent = root.mkdir_all(parent, 0o755).step(step)?;
                let name = Path::new(device.path.file_name().unwrap_or_default());
                make_node(device, made, &parent, name).step(step)?;
            }
        }
    }
    for (name, target) in LINKS {
        // A kernel without it has no link to it either.
        if name != "core" || matches!(root.find(Path::new(target)), Ok(Some(_))) {
            link(&dev, name, target).step(|| format!("make link /dev/{name}"))?;
        }
    }
    // The container's own terminals, never the host's node.
    match at::symlinkat("pts/ptmx", &dev, "ptmx") {
        Err(error) if error.is(Errno::EEXIST) => {
            at::unlinkat(&dev, "ptmx").and_then(|()| at::symlinkat("pts/ptmx", &dev, "ptmx"))
        }
        made => made,
    }
    .step(|| "make link /dev/ptmx".to_owned())
}

fn link(dev: &OwnedFd, name: &str, target: &str) -> sys::Result<()> {
    match at::symlinkat(target, dev, name) {
        Err(error) if error.is(Errno::EEXIST) => Ok(()),
        made => made,
    }
}

fn make_node(device: &Device, made: Option<(&OwnedFd, usize)>, parent: &OwnedFd, name: &Path) -> sys::Result<()> {
    let kind = match device.kind {
        NodeKind::Char => SFlag::S_IFCHR,
        NodeKind::Block => SFlag::S_IFBLK,
        NodeKind::Fifo => SFlag::S_IFIFO,
    };
    let number = at::device(device.major.into(), device.minor.into());
    let done = match made {
        Some((nodes, index)) => bind_node(nodes, index, parent, name),
        None => at::mknodat(parent, name, kind, device.mode, number),
    };
    match done {
        // The umask is 0 while the container is set up: the mode is as asked.
        Ok(()) if made.is_some() => Ok(()),
        Ok(()) if device.uid == 0 && device.gid == 0 => Ok(()),
        Ok(()) => at::fchownat(parent, name, device.uid, device.gid),
        Err(error) if error.is(Errno::EEXIST) && is_same(parent, name, kind, number)? => Ok(()),
        Err(error) => Err(error),
    }
}

/// Onto an empty file, or the file that is there: of an earlier start in the same root, or of the image.
fn bind_node(nodes: &OwnedFd, index: usize, parent: &OwnedFd, name: &Path) -> sys::Result<()> {
    let target = match at::openat(parent, name, OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY, 0o600) {
        Err(error) if error.is(Errno::EEXIST) => {
            let there = at::openat(parent, name, OFlag::O_PATH, 0)?;
            match at::file_type(&at::fstat(&there)?) {
                SFlag::S_IFREG => there,
                _ => return Err(error),
            }
        }
        made => made?,
    };
    let node = open_tree(nodes, Path::new(&index.to_string()), OpenTree::CLONE | OpenTree::SYMLINK_NOFOLLOW)?;
    move_mount(&node, &target)
}

/// Whether the node that is there is the one that is wanted.
fn is_same(parent: &OwnedFd, name: &Path, kind: SFlag, number: u64) -> sys::Result<bool> {
    let stat = at::fstatat(parent, name)?;
    Ok(at::file_type(&stat) == kind && (kind == SFlag::S_IFIFO || stat.st_rdev == number))
}

/// The null device for standard streams that are not given: the container's own, if what stands at `/dev/null` is one, so
/// that the host's can't be changed through it; else `fallback`.
///
/// Looked at before it is opened, since opening another device could have effects, and again after.
pub(super) fn open_null(root: &RootFd, fallback: &OwnedFd) -> sys::Result<OwnedFd> {
    let path = Path::new("/dev/null");
    match root.open_path(path).and_then(|null| is_null(&null)) {
        Ok(true) => {}
        Ok(false) | Err(_) => return sys::fd::duplicate(fallback),
    }
    let own = root.open_with(path, OFlag::O_RDWR | OFlag::O_NOCTTY)?;
    if is_null(&own)? { Ok(own) } else { sys::fd::duplicate(fallback) }
}
