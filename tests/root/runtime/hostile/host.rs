//! What lies outside of every container, looked at again after each start.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use tests::World;

use crate::runtime::bundle::Bundle;
use crate::runtime::canary::Canary;
use crate::runtime::tmpfs::inodes;

/// Parameters of the kernel that the peers' escapes wrote to, and some that are easily hit.
const PARAMETERS: [&str; 8] = [
    "kernel/core_pattern",
    "kernel/modprobe",
    "kernel/hostname",
    "kernel/domainname",
    "kernel/sysrq",
    "kernel/shmmax",
    "net/ipv4/ip_forward",
    "vm/overcommit_memory",
];

/// Names in the host's root and `/dev` that a start would change if it took them for the container's.
const NAMES: [&str; 20] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/tty",
    "/dev/console",
    "/dev/ptmx",
    "/dev/pts",
    "/dev/pts/ptmx",
    "/dev/shm",
    "/dev/mqueue",
    "/dev/fd",
    "/dev/stdin",
    "/dev/core",
    "/dev/extra",
    "/v",
    "/srv/work",
    "/tmp/hidden",
    "/tmp/ro",
    "/run/secrets",
];

/// A canary and the facts of the World's part of the host.
pub(super) struct Host<'a> {
    world: &'a World,
    pub(super) canary: Canary,
    before: Facts,
}

#[derive(Debug)]
struct Facts {
    parameters: Vec<String>,
    mounts: String,
    /// Type, mode, owner and device of each of [`NAMES`] that is there.
    names: Vec<Option<[u64; 4]>>,
    /// On the World's tmpfs, which holds its `/run`, `/etc` and `/var/lib` and the canary, and not the bundle.
    inodes: u64,
}

impl<'a> Host<'a> {
    /// Everything that the tries need has to be there by now, the bundle's own file system included.
    pub(super) fn new(world: &'a World) -> Host<'a> {
        let canary = Canary::new(world);
        Host { world, canary, before: Facts::look(world) }
    }

    /// What is not as it was, or left of the container.
    pub(super) fn difference(&self, bundle: &Bundle<'_>, cgroup: &str) -> Option<String> {
        if let Some(difference) = self.canary.difference() {
            return Some(difference);
        }
        let state = fs::read_dir(bundle.dir.join("state")).into_iter().flatten().flatten().map(|entry| entry.path());
        let cgroups =
            self.world.cgroup_dirs(cgroup).into_iter().flat_map(|dir| fs::read_dir(dir).into_iter().flatten());
        let cgroups = cgroups.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let left: Vec<PathBuf> = state.chain(cgroups.map(|entry| entry.path())).collect();
        if !left.is_empty() {
            return Some(format!("left behind: {left:?}"));
        }
        let now = Facts::look(self.world);
        self.before.difference(&now)
    }
}

impl Facts {
    fn look(world: &World) -> Facts {
        let parameter = |name: &&str| fs::read_to_string(Path::new("/proc/sys").join(name)).unwrap_or_default();
        let name = |name: &&str| {
            let facts = fs::symlink_metadata(name).ok()?;
            Some([facts.mode().into(), facts.uid().into(), facts.gid().into(), facts.rdev()])
        };
        Facts {
            parameters: PARAMETERS.iter().map(parameter).collect(),
            mounts: fs::read_to_string("/proc/thread-self/mountinfo").unwrap(),
            names: NAMES.iter().map(name).collect(),
            inodes: inodes(world.dir()),
        }
    }

    fn difference(&self, now: &Facts) -> Option<String> {
        let parameters = PARAMETERS.iter().zip(self.parameters.iter().zip(&now.parameters));
        let mut lines: Vec<String> = parameters
            .filter(|(_, (before, now))| before != now)
            .map(|(name, (before, now))| format!("{name} was {before:?} and is {now:?}"))
            .collect();
        if self.mounts != now.mounts {
            lines.push(format!("mounts were\n{}and are\n{}", self.mounts, now.mounts));
        }
        let names = NAMES.iter().zip(self.names.iter().zip(&now.names)).filter(|(_, (before, now))| before != now);
        lines.extend(names.map(|(name, (before, now))| format!("{name} was {before:?} and is {now:?}")));
        if self.inodes != now.inodes {
            lines.push(format!("there were {} files in the World and are {}", self.inodes, now.inodes));
        }
        (!lines.is_empty()).then(|| lines.join("\n"))
    }
}
