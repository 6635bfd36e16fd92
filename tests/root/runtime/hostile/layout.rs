//! What an image's author, or a neighbour who shares a volume, can put at the names that a runtime touches; and the
//! neighbour who goes on doing so while the container starts.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use sys::at::{self, OFlag, RenameFlags, SFlag};

use super::random::Random;
use crate::runtime::user_namespaces::give_to_root;

/// Names in a root file system, each after what it lies in.
const NAMES: [&str; 40] = [
    "dev",
    "dev/null",
    "dev/zero",
    "dev/console",
    "dev/ptmx",
    "dev/pts",
    "dev/pts/ptmx",
    "dev/shm",
    "dev/mqueue",
    "dev/fd",
    "dev/stdin",
    "dev/tty",
    "dev/core",
    "dev/extra",
    "proc",
    "proc/self",
    "proc/sys",
    "proc/keys",
    "sys",
    "sys/fs",
    "sys/fs/cgroup",
    "sys/fs/cgroup/memory",
    "sys/firmware",
    "etc",
    "etc/passwd",
    "etc/group",
    "tmp",
    "tmp/ro",
    "tmp/hidden",
    "srv",
    "srv/work",
    "v",
    "v/dir",
    "v/dir/file",
    "v/up",
    "run",
    "run/secrets",
    "bin/sh",
    "bin/busybox",
    "root",
];

/// Those of them that most configurations lead through.
const FAVOURITES: [&str; 10] =
    ["dev", "dev/null", "dev/console", "dev/pts", "srv", "srv/work", "v", "v/dir", "tmp/hidden", "etc/passwd"];

/// How many things lie ready to be exchanged with what is in the root.
const SHELF: usize = 16;

/// A root file system and a shelf beside it, both in one directory.
pub(super) struct Layout<'a> {
    pub(super) dir: &'a Path,
    pub(super) canary: &'a Path,
}

impl Layout<'_> {
    fn root(&self) -> PathBuf {
        self.dir.join("rootfs")
    }

    /// Makes it all anew. Nothing follows a link: the canary must not be changed by us.
    pub(super) fn make(&self, random: &mut Random) {
        for dir in ["rootfs", "shelf", "volume"] {
            let path = self.dir.join(dir);
            let _absent = fs::remove_dir_all(&path);
            fs::create_dir(&path).unwrap();
        }
        let root = self.root();
        for dir in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
            fs::create_dir(root.join(dir)).unwrap();
        }
        fs::hard_link(self.dir.join("busybox"), root.join("bin/busybox")).unwrap();
        for applet in ["sh", "echo", "true"] {
            symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        tests::write(&root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n");
        symlink(self.canary, self.dir.join("volume/out")).unwrap();
        symlink(self.way_up("sub"), self.dir.join("volume/up")).unwrap();
        let directory = open(&root).unwrap();
        for name in NAMES.iter().filter(|name| !name.starts_with("bin")) {
            if random.once_in(20) {
                self.put_at(&directory, name, random);
            }
        }
        let shelf = open(&self.dir.join("shelf")).unwrap();
        (0..SHELF).for_each(|number| self.put(&shelf, &number.to_string(), random));
        // Also the root of a user namespace can do all of it.
        give_to_root(&root);
    }

    fn put_at(&self, root: &OwnedFd, name: &str, random: &mut Random) {
        let Some((parent, name)) = parent(root, Path::new(name)) else { return };
        let _absent = sys::remove::remove_all(&parent, &name);
        self.put(&parent, &name, random);
    }

    /// Something at a name where nothing is.
    fn put(&self, directory: &OwnedFd, name: &str, random: &mut Random) {
        let made = match random.below(12) {
            0 => at::mkdirat(directory, name, *random.pick(&[0o755, 0o000])),
            1 => at::mknodat(directory, name, SFlag::S_IFREG, 0o666, 0),
            2 => at::mknodat(directory, name, SFlag::S_IFIFO, 0o666, 0),
            3 => at::mknodat(directory, name, SFlag::S_IFSOCK, 0o666, 0),
            4 => at::mknodat(directory, name, SFlag::S_IFCHR, 0o666, at::device(1, *random.pick(&[3, 5, 7]))),
            _ => at::symlinkat(self.link(name, random), directory, name),
        };
        // A directory of mode 0 keeps even root's neighbour from nothing.
        made.unwrap_or_else(|error| panic!("put something at {name}: {error}"));
    }

    fn link(&self, name: &str, random: &mut Random) -> PathBuf {
        let canary = |below: &str| self.canary.join(below);
        let below = *random.pick(&["", "file", "absent", "sub", "sub/deep", "ptmx", "pts", "self"]);
        match random.below(10) {
            0..3 => canary(below),
            3..6 => self.way_up(below),
            6 => PathBuf::from(random.pick(&["/proc/self/root", "/proc/1/root", "/proc/self/cwd", "/proc/self/exe"])),
            7 => PathBuf::from(format!("/proc/self/fd/{}", random.below(12))),
            8 => {
                PathBuf::from(random.pick(&["..", ".", "/", "/dev", "/tmp", "../dev/null", "/etc/passwd", "absent/x"]))
            }
            _ => PathBuf::from(name),
        }
    }

    /// To the canary from any depth of the root.
    fn way_up(&self, below: &str) -> PathBuf {
        let canary = self.canary.strip_prefix("/").unwrap();
        PathBuf::from("../../../../../../../../../../..").join(canary).join(below)
    }

    /// Exchanges names of the root with things of the shelf until told to stop.
    pub(super) fn exchange(&self, mut random: Random, stop: &AtomicBool, exchanges: &AtomicU64) {
        let root = open(&self.root()).unwrap();
        let shelf = open(&self.dir.join("shelf")).unwrap();
        // By fd, and opened before anything moves: what we do stays in these directories. A few names, so that the start gets far.
        let name = |random: &mut Random| match random.once_in(2) {
            true => *random.pick(&FAVOURITES),
            false => *random.pick(&NAMES),
        };
        let names: Vec<&str> = (0..=random.below(4)).map(|_| name(&mut random)).collect();
        let mut places: Vec<(OwnedFd, String)> =
            names.iter().filter_map(|name| parent(&root, Path::new(name))).collect();
        if places.is_empty() {
            places.extend(parent(&root, Path::new("tmp")));
        }
        while !stop.load(Ordering::Relaxed) {
            let (directory, name) = random.pick(&places);
            let thing = random.below(SHELF).to_string();
            let exchanged = at::renameat(directory, name, &shelf, &thing, RenameFlags::RENAME_EXCHANGE);
            // A name that is not there: something appears.
            let done =
                exchanged.or_else(|_| at::renameat(&shelf, &thing, directory, name, RenameFlags::RENAME_NOREPLACE));
            exchanges.fetch_add(u64::from(done.is_ok()), Ordering::Relaxed);
        }
    }
}

fn open(path: &Path) -> std::io::Result<OwnedFd> {
    File::open(path).map(OwnedFd::from)
}

/// The directory that holds a name, unless a link or something else stands on the way.
fn parent(root: &OwnedFd, path: &Path) -> Option<(OwnedFd, String)> {
    let mut directory = root.try_clone().ok()?;
    for component in path.parent()?.components() {
        directory = at::openat(&directory, component, OFlag::O_RDONLY | OFlag::O_DIRECTORY, 0).ok()?;
    }
    Some((directory, path.file_name()?.to_str()?.to_owned()))
}
