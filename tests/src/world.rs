//! [`World`]: the private corner of the machine in which a root suite runs.
//!
//! The calling thread unshares its mount and network namespace; everything that it starts inherits them. `/run` is an
//! empty tmpfs, `/etc`, `/var/lib` and `/var/log` are overlays whose changes stay in the World, `lo` is up, mount
//! propagation to the machine is cut. Cgroups are the one thing that Linux does not let us privatise per thread: a suite
//! gets them from [`World::cgroup`], below a prefix of its own.
//!
//! Dropping the World brings the thread back and fails the test if anything that was made in it still exists.

use std::fs::{self, File};
use std::marker::PhantomData;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use crate::eventually::within;
use crate::snapshot::{self, Snapshot};
use crate::{output, write};

/// The environment variable that marks a process as started by a World, whatever namespace it is in by now.
pub(crate) const MARK: &str = "ORLOP_WORLD";

/// A mount and a network namespace, private directories and a cgroup prefix, for the thread that entered it. Threads that
/// it starts are in the World too and may share it; only the first one may leave it.
pub struct World {
    name: String,
    dir: PathBuf,
    cgroups: Mutex<Vec<String>>,
    tolerated: Mutex<Vec<String>>,
    before: Mutex<Option<Snapshot>>,
    home: [(File, CloneFlags); 2],
    next: AtomicU32,
    /// A guard is `Sync` and not `Send`, which is what a World has to be.
    not_send: PhantomData<MutexGuard<'static, ()>>,
}

impl World {
    /// Moves the calling thread into a new World. Threads and processes that it starts from now on are in it too.
    ///
    /// # Panics
    /// If the caller is not root or the kernel refuses; a test that cannot run fails.
    pub fn enter() -> World {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("orlop-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let home = [("mnt", CloneFlags::CLONE_NEWNS), ("net", CloneFlags::CLONE_NEWNET)]
            .map(|(kind, flag)| (File::open(format!("/proc/thread-self/ns/{kind}")).expect("own namespace"), flag));
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).expect("unshare a World's namespaces (root?)");
        let dir = PathBuf::from("/run/world");
        make_private_directories(&dir);
        let world = World {
            name,
            dir,
            cgroups: Mutex::default(),
            tolerated: Mutex::default(),
            before: Mutex::default(),
            home,
            next: AtomicU32::new(1),
            not_send: PhantomData,
        };
        output(world.command("ip").args(["link", "set", "lo", "up"])).success();
        *locked(&world.before) = Some(world.snapshot(&[]));
        world
    }

    /// The World's name, unique on the machine: `orlop-test-<pid>-<n>`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// An empty directory on the World's tmpfs; gone with the World. It is for whatever the suite likes.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A new empty directory below [`World::dir`], its name beginning with `prefix`. Anyone may enter it: the root of a user
    /// namespace has to.
    pub fn new_dir(&self, prefix: &str) -> PathBuf {
        let dir = self.dir.join(format!("{prefix}-{}", self.count()));
        fs::DirBuilder::new().mode(0o755).create(&dir).expect("directory in the World");
        dir
    }

    /// A new cgroup below the World's prefix, in every hierarchy, for the suite to hand to a runtime as parent; as a
    /// kubelet makes one for each pod. The World removes it at the end; what is below it by then is a leak.
    pub fn cgroup(&self, name: &str) -> String {
        let path = format!("/{}/{name}", self.name);
        // Threads that share the World make the same parents.
        let mut cgroups = locked(&self.cgroups);
        snapshot::hierarchies().iter().for_each(|hierarchy| snapshot::make_cgroup(hierarchy, &path));
        cgroups.push(path.clone());
        path
    }

    /// Declares that a program under test makes the cgroup `path`, below one of [`World::cgroup`], and keeps it: the World
    /// removes it at the end, and what is below it by then is a leak.
    pub fn adopt_cgroup(&self, path: &str) {
        locked(&self.cgroups).push(path.to_owned());
    }

    /// The directories of the cgroup `path` in every hierarchy that has it.
    pub fn cgroup_dirs(&self, path: &str) -> Vec<PathBuf> {
        let relative = path.trim_matches('/');
        snapshot::hierarchies().iter().map(|hierarchy| hierarchy.join(relative)).filter(|dir| dir.is_dir()).collect()
    }

    /// A command that is found again if it outlives the World, even if it leaves the World's namespaces.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env(MARK, &self.name).current_dir(&self.dir);
        command
    }

    /// What exists in the World now: mounts, links, nftables, cgroups, processes, and every file below `trees`.
    pub fn snapshot(&self, trees: &[&Path]) -> Snapshot {
        snapshot::take(&self.name, trees)
    }

    /// Declares that things whose line in a [`Snapshot`] begins with `prefix` may stay until the World ends: the bridge
    /// that the bridge plugin never removes, for one.
    pub fn tolerate(&self, prefix: &str) {
        locked(&self.tolerated).push(prefix.to_owned());
    }

    /// A number that this World has not given before.
    pub fn count(&self) -> u32 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn remove_own_cgroups(&self) {
        let mut paths = locked(&self.cgroups);
        // A child is removed before its parent; the prefix itself comes last.
        paths.sort_by_key(|path| std::cmp::Reverse(path.len()));
        for path in paths.iter().map(String::as_str).chain([format!("/{}", self.name).as_str()]) {
            for hierarchy in snapshot::hierarchies() {
                snapshot::remove_empty_cgroup(&hierarchy, path);
            }
        }
    }

    /// What was made in the World and still exists, after things that end by themselves had time to.
    fn leaks(&self) -> Vec<String> {
        let before = locked(&self.before).take().unwrap_or_default();
        let tolerated = locked(&self.tolerated).clone();
        let mut leaks = Vec::new();
        within(Duration::from_secs(10), || {
            self.remove_own_cgroups();
            leaks = self.snapshot(&[]).beyond(&before);
            leaks.retain(|leak| !tolerated.iter().any(|prefix| leak.starts_with(prefix.as_str())));
            leaks.is_empty()
        })
        .err()
        .map_or_else(Vec::new, |_reason| leaks)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // After a failure the leaks are its consequence, not news: clean up and let the failure speak.
        let leaks = if std::thread::panicking() { Vec::new() } else { self.leaks() };
        snapshot::kill_processes(&self.name);
        for hierarchy in snapshot::hierarchies() {
            snapshot::remove_cgroup_tree(&hierarchy, &format!("/{}", self.name));
        }
        // A thread that was joined may still be on its way out, and as long as it shares our root and working directory the
        // kernel moves us into no other mount namespace.
        unshare(CloneFlags::CLONE_FS).expect("a root and a working directory of our own");
        for (namespace, kind) in &self.home {
            setns(namespace, *kind).expect("back to the machine's namespaces");
        }
        assert!(leaks.is_empty(), "left behind in {}:\n  {}", self.name, leaks.join("\n  "));
    }
}

/// A step that panicked while it held the lock has been reported by then.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Cuts propagation and gives the thread an empty `/run` and copies on write of `/etc`, `/var/lib` and `/var/log`.
fn make_private_directories(dir: &Path) {
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("cut mount propagation");
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), Some("mode=0755")).expect("tmpfs on /run");
    fs::create_dir_all(dir).expect("World directory");
    for (name, target) in [("etc", "/etc"), ("var-lib", "/var/lib"), ("var-log", "/var/log")] {
        let layers = PathBuf::from("/run/.overlay").join(name);
        fs::create_dir_all(layers.join("upper")).expect("overlay layer");
        fs::create_dir_all(layers.join("work")).expect("overlay layer");
        let options = format!("lowerdir={target},upperdir={0}/upper,workdir={0}/work", layers.display());
        mount(Some("overlay"), target, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
            .unwrap_or_else(|error| panic!("private copy of {target}: {error}"));
    }
    // The machine's plugins and results are none of the World's business; the folders are there because people expect them.
    for inherited in ["/etc/cni", "/var/lib/cni", "/etc/orlop", "/var/lib/orlop", "/var/lib/kubelet"] {
        let _absent = umount2(inherited, MntFlags::MNT_DETACH);
        let _absent = fs::remove_dir_all(inherited);
    }
    fs::create_dir_all("/etc/cni/net.d").expect("/etc/cni/net.d");
    fs::create_dir_all("/run/netns").expect("/run/netns");
    // On many machines it is a link into the /run that is hidden now.
    if !Path::new("/etc/resolv.conf").exists() {
        let _dangling = fs::remove_file("/etc/resolv.conf");
        write(Path::new("/etc/resolv.conf"), "nameserver 127.0.0.1\n");
    }
}
