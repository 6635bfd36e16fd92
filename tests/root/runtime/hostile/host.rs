//! What lies outside of every container, looked at again after each start.

use std::fs;
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
    /// Names and types of what lies in the root and in `/dev`.
    names: Vec<(PathBuf, fs::FileType)>,
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
        let mut names = Vec::new();
        for dir in ["/", "/dev"] {
            let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
            names.extend(entries.map(|entry| (entry.path(), entry.file_type().unwrap())));
        }
        names.sort_by(|one, other| one.0.cmp(&other.0));
        Facts {
            parameters: PARAMETERS.iter().map(parameter).collect(),
            mounts: fs::read_to_string("/proc/thread-self/mountinfo").unwrap(),
            names,
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
        if self.names != now.names {
            lines.push(format!("names were {:?} and are {:?}", self.names, now.names));
        }
        if self.inodes != now.inodes {
            lines.push(format!("there were {} files in the World and are {}", self.inodes, now.inodes));
        }
        (!lines.is_empty()).then(|| lines.join("\n"))
    }
}
