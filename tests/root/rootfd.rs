//! `RootFd` against a hostile neighbour: a tree that changes while it is resolved, and a host that mounts meanwhile.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sys::Errno;
use sys::at::{OFlag, RenameFlags, SFlag};
use sys::mount::{Fs, MountFlags};
use sys::namespace::CloneFlags;
use sys::rootfd::RootFd;

/// How long whoever attacks may take to come to it.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs `attack` over and over on a second thread until `work` returns, which is told how often it ran so far.
fn against(attack: impl Fn() + Sync, work: impl FnOnce(&AtomicU64)) {
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let (stop, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                attack();
                rounds.fetch_add(1, Ordering::Relaxed);
            }
        });
        let _stop = Stop(&stop); // a failed assertion ends the attack too
        while rounds.load(Ordering::Relaxed) == 0 {
            std::thread::yield_now();
        }
        work(&rounds);
    });
}

/// One entry of a tree: everything that an escape would change.
type Entry = (PathBuf, u32, u64, i64, i64, Option<Vec<u8>>);

/// The whole tree at `path`.
fn tree(path: &Path) -> Vec<Entry> {
    let meta = fs::symlink_metadata(path).unwrap();
    let content = meta.is_file().then(|| fs::read(path).unwrap());
    let mut entries = vec![(path.to_owned(), meta.mode(), meta.nlink(), meta.mtime(), meta.mtime_nsec(), content)];
    if meta.is_dir() {
        let mut children: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        children.sort();
        entries.extend(children.iter().flat_map(|child| tree(child)));
    }
    entries
}

/// A root in which `target` is now a directory, now a symbolic link to a canary outside.
struct Trap {
    _directory: tempfile::TempDir,
    canary: PathBuf,
    root: RootFd,
}

impl Trap {
    fn new(link: impl FnOnce(&Path) -> PathBuf) -> Trap {
        let directory = tempfile::tempdir().unwrap();
        let (canary, inside) = (directory.path().join("canary"), directory.path().join("root"));
        fs::create_dir_all(canary.join("sub/deep")).unwrap();
        fs::File::create(canary.join("sub/file")).unwrap();
        fs::create_dir_all(inside.join("target/sub")).unwrap();
        symlink(link(&canary), inside.join("other")).unwrap();
        Trap { canary, root: RootFd::open(&inside).unwrap(), _directory: directory }
    }

    fn swap(&self) {
        sys::at::renameat(&self.root, "target", &self.root, "other", RenameFlags::RENAME_EXCHANGE).unwrap();
    }

    /// Does `work` 10,000 times and more while the two are swapped; the canary must be as before.
    fn spring(&self, work: impl Fn(&RootFd, usize)) {
        const TRIES: usize = 10_000;
        let before = tree(&self.canary);
        let begun = Instant::now();
        let few = |swaps: &AtomicU64| swaps.load(Ordering::Relaxed) <= 100;
        let run = |swaps: &AtomicU64| {
            // Whoever swaps may stand still, but not for ever.
            let waits = || few(swaps) && begun.elapsed() < PATIENCE * tests::slow();
            (0..).take_while(|number| *number < TRIES || waits()).for_each(|number| work(&self.root, number));
            assert!(!few(swaps), "only {swaps:?} swaps: that was no race");
        };
        against(|| self.swap(), run);
        assert_eq!(tree(&self.canary), before);
    }
}

/// Both ways out that a link can take.
fn traps() -> [Trap; 2] {
    [Trap::new(Path::to_owned), Trap::new(|_| PathBuf::from("../canary"))]
}

#[test]
fn mkdir_all_through_a_swapped_directory_makes_nothing_outside() {
    for trap in traps() {
        trap.spring(|root, number| {
            let _ = root.mkdir_all(Path::new(&format!("target/sub/new{number}/x")), 0o777);
            let _ = root.mkdir_all(Path::new("target"), 0o777);
        });
    }
}

#[test]
fn a_file_made_through_a_swapped_directory_is_not_outside() {
    for trap in traps() {
        trap.spring(|root, number| {
            let name = format!("target/sub/file{number}");
            let _ = root.create_file(Path::new(&name), 0o666);
            let _ = root.ensure_file(Path::new(&format!("target/sub/other{number}")), 0o666);
            let _ = root.symlink("x", Path::new(&format!("target/sub/link{number}")));
            let _ = root.mknod(Path::new(&format!("target/sub/fifo{number}")), SFlag::S_IFIFO, 0o666, 0);
            let _ = root.hard_link(Path::new("target/sub/file"), Path::new(&format!("hard{number}")));
        });
    }
}

#[test]
fn what_is_opened_through_a_swapped_directory_lies_in_the_root() {
    for trap in traps() {
        let secrets: Vec<u64> =
            tree(&trap.canary).iter().map(|entry| fs::symlink_metadata(&entry.0).unwrap().ino()).collect();
        trap.spring(|root, _| {
            for path in ["target", "target/sub", "target/sub/../sub/file", "target/../target/../../canary/sub"] {
                if let Ok(file) = root.open_with(Path::new(path), OFlag::O_PATH) {
                    assert!(!secrets.contains(&sys::at::fstat(&file).unwrap().st_ino), "{path}");
                }
            }
        });
    }
}

#[test]
fn a_removal_of_a_swapped_directory_takes_nothing_outside() {
    for trap in traps() {
        trap.spring(|root, _| {
            let _ = root.mkdir_all(Path::new("target/sub/deep"), 0o777);
            // Not the swapped name itself, or the race would be over; what lies in it.
            let _ = root.remove_all(Path::new("target/sub"));
            let _ = root.remove_file(Path::new("target/sub/file"));
        });
    }
}

/// A mount namespace of the calling thread, and of the threads it starts, whose mounts nobody else sees.
fn private_mounts() {
    sys::namespace::unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS).unwrap();
    sys::mount::set_propagation_root(sys::mount::Propagation::Private).unwrap();
}

fn tmpfs() -> std::os::fd::OwnedFd {
    Fs::open("tmpfs").unwrap().mount(MountFlags::empty()).unwrap()
}

#[test]
fn paths_with_dot_dot_resolve_in_a_storm_of_mounts_and_renames() {
    private_mounts();
    let directory = tempfile::tempdir().unwrap();
    let (mount_point, name) = (directory.path().join("mount"), directory.path().join("name"));
    fs::create_dir(&mount_point).unwrap();
    fs::create_dir(&name).unwrap();
    let root = RootFd::open(directory.path()).unwrap();
    root.mkdir_all(Path::new("a/b/c"), 0o755).unwrap();
    let expected = fs::metadata(directory.path().join("a/b")).unwrap().ino();
    let storm = || {
        sys::mount::attach(&tmpfs(), &mount_point).unwrap();
        sys::mount::umount_detach(&mount_point).unwrap();
        fs::rename(&name, directory.path().join("renamed")).unwrap();
        fs::rename(directory.path().join("renamed"), &name).unwrap();
    };
    let path = Path::new("a/b/c/../../b/c/../../../a/b/c/..");
    let mut refused_at_first = 0;
    against(storm, |_| {
        let (begun, mut number) = (Instant::now(), 0);
        while number < tests::rounds(20_000) || (refused_at_first == 0 && begun.elapsed() < PATIENCE * tests::slow()) {
            number += 1;
            assert_eq!(root.metadata(path).unwrap().ino(), expected);
            refused_at_first += u32::from(one_attempt(&root, path) == Err(Errno::EAGAIN));
        }
    });
    assert!(refused_at_first > 0, "the storm never reached us: nothing was tested");
}

/// What the kernel says when it is asked once.
fn one_attempt(root: &RootFd, path: &Path) -> Result<(), Errno> {
    use nix::fcntl::{OpenHow, ResolveFlag, openat2};
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_IN_ROOT);
    openat2(root, path, how).map(drop)
}

#[test]
fn a_removal_stops_at_a_mount() {
    private_mounts();
    let directory = tempfile::tempdir().unwrap();
    let mount_point = directory.path().join("tree/mount");
    fs::create_dir_all(&mount_point).unwrap();
    let mounted = RootFd::from_fd(tmpfs());
    mounted.create_file(Path::new("kept"), 0o600).unwrap();
    sys::mount::attach(&mounted, &mount_point).unwrap();
    let root = RootFd::open(directory.path()).unwrap();
    let error = root.remove_all(Path::new("tree")).unwrap_err();
    assert!(error.is(Errno::EXDEV) && error.to_string().contains("\"mount\" is a mount point"), "{error}");
    assert!(mounted.metadata(Path::new("kept")).unwrap().is_file());
    sys::mount::umount_detach(&mount_point).unwrap();
    root.remove_all(Path::new("tree")).unwrap();
}

#[test]
fn a_namespace_lives_as_long_as_its_pin() {
    private_mounts();
    let directory = tempfile::tempdir().unwrap();
    let pin = directory.path().join("netns");
    fs::File::create(&pin).unwrap();
    let home = sys::namespace::current(sys::namespace::Kind::Net).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            sys::namespace::unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let new = sys::namespace::current(sys::namespace::Kind::Net).unwrap();
            sys::namespace::pin(&new, &pin).unwrap();
        });
    });
    let pinned = sys::namespace::open(&pin, sys::namespace::Kind::Net).unwrap();
    assert!(!sys::namespace::same(&pinned, &home).unwrap());
    let inside = {
        let guard = sys::namespace::enter(&pinned, sys::namespace::Kind::Net).unwrap();
        let now = sys::namespace::current(sys::namespace::Kind::Net).unwrap();
        guard.leave().unwrap();
        now
    };
    assert!(sys::namespace::same(&inside, &pinned).unwrap());
    let back = sys::namespace::current(sys::namespace::Kind::Net).unwrap();
    assert!(sys::namespace::same(&back, &home).unwrap());
    sys::namespace::unpin(&pin).unwrap();
    sys::namespace::unpin(&pin).unwrap();
    assert!(!pin.exists());
}

#[test]
fn an_overlay_is_made_of_layers_by_name_and_says_why_it_is_not() {
    private_mounts();
    let directory = tempfile::tempdir().unwrap();
    for name in ["low1", "low2", "upper", "work", "merged"] {
        fs::create_dir(directory.path().join(name)).unwrap();
    }
    fs::File::create(directory.path().join("low1/file")).unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let overlay = Fs::open("overlay").unwrap();
    for (key, value) in [("lowerdir+", "low2"), ("lowerdir+", "low1"), ("upperdir", "upper"), ("workdir", "work")] {
        overlay.set_string(key, &path(value)).unwrap();
    }
    let mounted = overlay.mount(MountFlags::NODEV);
    if !sys::kernel::is_at_least(sys::kernel::Version { major: 6, minor: 8 }) {
        // It takes every key and says at the end that it knows none of them: by this an image's mount goes another way.
        assert!(mounted.unwrap_err().is(Errno::EINVAL));
        let by_fd = Fs::open("overlay")
            .unwrap()
            .set_fd("lowerdir+", &RootFd::open(directory.path()).unwrap())
            .map(drop)
            .unwrap_err();
        assert!(by_fd.is(Errno::EOPNOTSUPP), "{by_fd}");
        return;
    }
    let root = RootFd::from_fd(mounted.unwrap());
    assert!(root.metadata(Path::new("file")).unwrap().is_file());
    root.create_file(Path::new("new"), 0o600).unwrap();
    assert!(directory.path().join("upper/new").exists());

    let broken = Fs::open("overlay").unwrap();
    let error = broken.set_string("lowerdir+", &path("low1/file")).map(drop);
    let error = error.and_then(|()| broken.mount(MountFlags::empty()).map(drop)).unwrap_err().to_string();
    assert!(error.starts_with("fsconfig([") && error.contains("overlay: "), "{error}");
}
