//! What exists in a World at one moment, as lines that a person can read, and how to clear it away.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::eventually::within;
use crate::world::MARK;
use crate::{output, write};

/// Mounts, network links, nftables objects, cgroups, processes and files of a World, one line each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// How often each line occurs: one directory may carry several mounts.
    lines: BTreeMap<String, usize>,
}

impl Snapshot {
    /// The lines that `before` does not have.
    pub fn beyond(&self, before: &Snapshot) -> Vec<String> {
        let more = |(line, count): &(&String, &usize)| **count > before.lines.get(*line).copied().unwrap_or(0);
        self.lines.iter().filter(more).map(|(line, _)| line.clone()).collect()
    }

    /// Whether some line contains `text`.
    pub fn names(&self, text: &str) -> bool {
        self.lines.keys().any(|line| line.contains(text))
    }

    /// Fails the test if anything appeared or vanished since `before`, after what ends by itself had time to.
    ///
    /// # Panics
    /// With the lines that differ.
    #[track_caller]
    pub fn assert_restored(before: &Snapshot, now: impl Fn() -> Snapshot) {
        let same = within(Duration::from_secs(20), || {
            let now = now();
            let (more, less) = (now.beyond(before), before.beyond(&now));
            if more.is_empty() && less.is_empty() { Ok(()) } else { Err(format!("+ {more:#?}\n- {less:#?}")) }
        });
        if let Err(difference) = same {
            panic!("the World is not as before:\n{difference}");
        }
    }

    fn add(&mut self, line: String) {
        *self.lines.entry(line).or_default() += 1;
    }
}

/// Describes the calling thread's namespaces, the cgroups below `/world`, the World's processes and the files in `trees`.
pub(crate) fn take(world: &str, trees: &[&Path]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for (mount_point, kind) in mounts() {
        snapshot.add(format!("mount {mount_point} ({kind})"));
    }
    for pin in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        snapshot.add(format!("netns {}", pin.path().display()));
    }
    links(&mut snapshot);
    nftables(&mut snapshot);
    for hierarchy in hierarchies() {
        walk(&hierarchy.join(world), &mut |path, is_dir| {
            if is_dir {
                snapshot.add(format!("cgroup {}", path.display()));
            }
        });
    }
    for pid in processes(world) {
        let command_line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        snapshot.add(format!("process {pid} {}", command_line.replace('\0', " ")));
    }
    for tree in trees {
        walk(tree, &mut |path, _| snapshot.add(format!("file {}", path.display())));
    }
    snapshot
}

/// The mount points of every cgroup hierarchy, v1 and v2.
pub(crate) fn hierarchies() -> Vec<PathBuf> {
    mounts().into_iter().filter(|(_, kind)| kind.starts_with("cgroup")).map(|(path, _)| PathBuf::from(path)).collect()
}

/// Makes the cgroup `path` in one hierarchy. A new v1 cpuset holds nothing until it is given its parent's CPUs and nodes.
pub(crate) fn make_cgroup(hierarchy: &Path, path: &str) {
    let mut dir = hierarchy.to_owned();
    for name in path.split('/').filter(|name| !name.is_empty()) {
        let parent = dir.clone();
        dir.push(name);
        if dir.exists() {
            continue;
        }
        fs::create_dir(&dir).unwrap_or_else(|error| panic!("make {}: {error}", dir.display()));
        // Only a hierarchy of v1 has it.
        if !dir.join("cgroup.clone_children").exists() {
            continue;
        }
        for knob in ["cpuset.cpus", "cpuset.mems"] {
            // On v2 one below may not have what its parent has, and inherits it all the same.
            let here = dir.join(knob).exists();
            if let Some(inherited) = fs::read_to_string(parent.join(knob)).ok().filter(|_| here) {
                write(&dir.join(knob), inherited.trim());
            }
        }
    }
}

/// Removes the cgroup `path` of one hierarchy if it is there and empty; a busy one is left for the leak check to name.
pub(crate) fn remove_empty_cgroup(hierarchy: &Path, path: &str) {
    let _absent_or_busy = fs::remove_dir(hierarchy.join(path.trim_start_matches('/')));
}

/// Kills what is in the cgroup `path` of one hierarchy and below it, and removes it all.
pub(crate) fn remove_cgroup_tree(hierarchy: &Path, path: &str) {
    let top = hierarchy.join(path.trim_start_matches('/'));
    let mut dirs = vec![top.clone()];
    walk(&top, &mut |dir, is_dir| {
        if is_dir {
            dirs.push(dir.to_owned());
        }
    });
    let _best_effort = within(Duration::from_secs(5), || {
        for dir in dirs.iter().rev() {
            let members = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
            members.lines().filter_map(|pid| pid.parse().ok()).for_each(kill_hard);
            let _busy = fs::remove_dir(dir);
        }
        !top.exists()
    });
}

/// Kills every process that the World started and that still runs.
pub(crate) fn kill_processes(world: &str) {
    let _best_effort = within(Duration::from_secs(5), || {
        let left = processes(world);
        left.iter().copied().for_each(kill_hard);
        left.is_empty()
    });
}

fn kill_hard(pid: i32) {
    let _already_gone = kill(Pid::from_raw(pid), Signal::SIGKILL);
}

/// The processes that carry the World's mark or are in its mount or network namespace, without this one.
fn processes(world: &str) -> Vec<i32> {
    let mark = format!("{MARK}={world}");
    let namespaces = ["mnt", "net"].map(|kind| namespace(&format!("/proc/thread-self/ns/{kind}")));
    let machine = ["mnt", "net"].map(|kind| namespace(&format!("/proc/self/ns/{kind}")));
    let belongs = |pid: i32| {
        let dir = format!("/proc/{pid}");
        let marked = fs::read(format!("{dir}/environ"))
            .is_ok_and(|environ| environ.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes()));
        let inside = ["mnt", "net"].iter().zip(&namespaces).zip(&machine).any(|((kind, own), machine)| {
            own != machine && own.is_some() && namespace(&format!("{dir}/ns/{kind}")) == *own
        });
        marked || inside
    };
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let numbers =
        fs::read_dir("/proc").expect("/proc").flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter(|pid| *pid != own && belongs(*pid)).collect()
}

fn namespace(path: &str) -> Option<u64> {
    fs::metadata(path).ok().map(|metadata| metadata.ino())
}

/// Mount point and file system of every mount that the calling thread sees.
fn mounts() -> Vec<(String, String)> {
    let table = fs::read_to_string("/proc/thread-self/mountinfo").expect("mountinfo");
    let parse = |line: &str| {
        let (fixed, rest) = line.split_once(" - ")?;
        Some((fixed.split(' ').nth(4)?.to_owned(), rest.split(' ').next()?.to_owned()))
    };
    table.lines().filter_map(parse).collect()
}

fn links(snapshot: &mut Snapshot) {
    let listed = output(Command::new("ip").args(["-json", "-details", "link", "show"])).success();
    let links: Value = serde_json::from_str(&listed).expect("JSON of ip link");
    for link in links.as_array().into_iter().flatten() {
        let kind = link["linkinfo"]["info_kind"].as_str().unwrap_or("-");
        snapshot.add(format!("link {} ({kind})", link["ifname"].as_str().unwrap_or("?")));
    }
}

/// Tables, chains, sets, rules and set elements, each named with the table and chain it is in.
fn nftables(snapshot: &mut Snapshot) {
    let listed = output(Command::new("nft").args(["--json", "--stateless", "list", "ruleset"])).success();
    let ruleset: Value = serde_json::from_str(&listed).expect("JSON of nft");
    for object in ruleset["nftables"].as_array().into_iter().flatten().filter_map(Value::as_object).flatten() {
        let (kind, body) = object;
        let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
        let place = format!("{} {}", text("family"), text("table"));
        match kind.as_str() {
            "metainfo" => {}
            "table" => snapshot.add(format!("nft {} {}", text("family"), text("name"))),
            "rule" => snapshot.add(format!("nft {place} {} {}", text("chain"), body["expr"])),
            "set" | "map" => snapshot.add(format!("nft {place} {kind} {} {}", text("name"), body["elem"])),
            _ => snapshot.add(format!("nft {place} {kind} {}", text("name"))),
        }
    }
}

/// Visits everything below `dir` without following links, and `dir` itself if it exists.
fn walk(dir: &Path, visit: &mut impl FnMut(&Path, bool)) {
    if let Ok(metadata) = dir.symlink_metadata() {
        visit(dir, metadata.is_dir());
    }
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    for entry in entries {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), visit);
        } else {
            visit(&entry.path(), false);
        }
    }
}
