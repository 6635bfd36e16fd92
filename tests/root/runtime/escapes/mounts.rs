//! Targets of mounts, and every other name that the runtime makes in a root file system (CVE-2019-18837, CVE-2021-30465,
//! CVE-2021-43784, CVE-2024-45310, CVE-2025-24965).

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::json;
use tests::World;

use super::{Bundle, ROOT_OF_ALL, replace_by_link};
use crate::runtime::canary::Canary;

/// A bundle that makes the runtime make everything that it ever makes in a root file system, on the image's own directories.
fn demanding<'a>(world: &'a World, volume: &Path) -> Bundle<'a> {
    let mut bundle = Bundle::new(world, "true");
    bundle.set("/process/terminal", json!(true));
    bundle.set("/process/cwd", json!("/srv/work/dir"));
    bundle.config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/dev");
    bundle.mount(json!({"destination": "/mnt/volume/dir", "type": "bind", "source": volume, "options": ["rbind"]}));
    bundle.mount(
        json!({"destination": "/mnt/file/name", "type": "bind", "source": volume.join("file"), "options": ["bind"]}),
    );
    bundle.mount(json!({"destination": "/run/tmp", "type": "tmpfs", "source": "tmpfs"}));
    bundle.set(
        "/linux/devices",
        json!([
            {"path": "/dev/extra", "type": "c", "major": 1, "minor": 7},
            {"path": "/lib/dev/pipe", "type": "p", "major": 0, "minor": 0},
        ]),
    );
    bundle
}

/// Every path below `dir`, relative to it.
fn names(dir: &Path) -> BTreeSet<PathBuf> {
    fn walk(dir: &Path, top: &Path, names: &mut BTreeSet<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            names.insert(entry.path().strip_prefix(top).unwrap().to_owned());
            if entry.file_type().unwrap().is_dir() {
                walk(&entry.path(), top, names);
            }
        }
    }
    let mut all = BTreeSet::new();
    walk(dir, dir, &mut all);
    all
}

/// CVE-2019-18837, CVE-2024-45310, CVE-2025-24965: the list is what a run is seen to make, so that it grows with the runtime.
#[test]
fn no_name_that_the_runtime_makes_is_made_through_a_link() {
    let world = World::enter();
    let volume = world.new_dir("volume");
    tests::write(&volume.join("file"), "content");
    let model = demanding(&world, &volume);
    let before = names(&model.rootfs(""));
    model.run().success();
    let after = names(&model.rootfs(""));
    let made: BTreeSet<&PathBuf> = after.difference(&before).collect();
    for expected in
        ["dev/null", "dev/console", "dev/extra", "dev/ptmx", "dev/fd", "lib/dev/pipe", "mnt/file/name", "srv/work"]
    {
        assert!(made.contains(&PathBuf::from(expected)), "{expected} in {made:?}");
    }
    let directories = ["dev", "proc", "sys"].map(PathBuf::from);
    for name in made.into_iter().chain(&directories) {
        for way in ["", ROOT_OF_ALL] {
            for target in ["", "file", "absent", "sub/deep"] {
                let canary = Canary::new(&world);
                let bundle = demanding(&world, &volume);
                let target = format!("{way}{}", canary.dir.join(target).display());
                replace_by_link(&bundle, name.to_str().unwrap(), target.as_ref());
                let _either = bundle.run();
                if let Some(difference) = canary.difference() {
                    panic!("/{} -> {target}: {difference}", name.display());
                }
                fs::remove_dir_all(&bundle.dir).unwrap();
            }
        }
    }
}

/// CVE-2021-30465 without the race: links of the image and of a volume, and `..`, in the targets of mounts.
#[test]
fn targets_of_mounts_that_lead_out_stay_inside() {
    let world = World::enter();
    let canary = Canary::new(&world);
    let volume = world.new_dir("volume");
    symlink(&canary.dir, volume.join("out")).unwrap();
    symlink(format!("{ROOT_OF_ALL}{}", canary.dir.display()), volume.join("up")).unwrap();
    symlink("/proc/self/root", volume.join("magic")).unwrap();
    let inside = canary.dir.strip_prefix("/").unwrap().display();
    for target in
        ["/v/out/sub", "/v/out/new/deep", "/v/up/new/deep", "/v/../../../v/out", "/v/magic/x", "/../../../../v/up"]
    {
        let mut bundle = Bundle::new(&world, &format!("ls -d /{inside}/* 2>/dev/null; cat /proc/self/mountinfo"));
        bundle.mount(json!({"destination": "/v", "type": "bind", "source": volume, "options": ["rbind"]}));
        bundle.mount(json!({"destination": target, "type": "tmpfs", "source": "marked"}));
        let done = bundle.run();
        if done.code == 0 {
            assert_eq!(
                done.stdout.lines().filter(|line| line.contains(" marked ")).count(),
                1,
                "{target}: {}",
                done.stdout
            );
        } else {
            assert!(target.contains("magic"), "{target}: {}", done.stderr);
        }
        canary.is_unchanged();
    }
}

/// CVE-2021-43784: a length of 16 bits lost what came after it.
#[test]
fn more_than_64_kib_of_mounts_are_all_made_and_every_namespace_with_them() {
    let world = World::enter();
    let look = "for n in mnt pid uts ipc net cgroup; do readlink /proc/self/ns/$n; done; grep -c ' marked ' /proc/self/mountinfo";
    let mut bundle = Bundle::new(&world, look);
    let long = "x".repeat(240);
    for number in 0..300 {
        bundle.mount(json!({"destination": format!("/tmp/{long}/{number}"), "type": "tmpfs", "source": "marked"}));
    }
    assert!(bundle.config["mounts"].to_string().len() > 1 << 16);
    let seen = bundle.run().success();
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!(lines.last(), Some(&"300"));
    for (kind, inside) in ["mnt", "pid", "uts", "ipc", "net", "cgroup"].iter().zip(&lines) {
        let outside = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        assert_ne!(outside.to_str(), Some(*inside));
    }
}
