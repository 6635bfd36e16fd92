//! One test per way in which containers got out of the peers: the CVE's number stands at each.
//!
//! Most build a root file system in which a name leads to a canary on the host, and look at the canary afterwards.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use serde_json::json;
use tests::{World, binary, write};

use super::bundle::Bundle;

/// A directory of the host with a file in it, and what it looked like.
struct Canary {
    dir: PathBuf,
    before: Vec<(PathBuf, u32, i64, Vec<u8>)>,
}

impl Canary {
    fn new(world: &World) -> Canary {
        let dir = world.new_dir("canary");
        fs::create_dir(dir.join("sub")).unwrap();
        write(&dir.join("file"), "canary");
        write(&dir.join("ptmx"), "canary");
        let before = Self::look(&dir);
        Canary { dir, before }
    }

    fn look(dir: &Path) -> Vec<(PathBuf, u32, i64, Vec<u8>)> {
        let mut seen = Vec::new();
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let metadata = entry.metadata().unwrap();
            let content = if metadata.is_file() { fs::read(entry.path()).unwrap() } else { Vec::new() };
            seen.push((entry.path(), metadata.mode(), metadata.mtime_nsec(), content));
            if metadata.is_dir() {
                seen.extend(Self::look(&entry.path()));
            }
        }
        seen.sort();
        seen
    }

    #[track_caller]
    fn is_unchanged(&self) {
        assert_eq!(Self::look(&self.dir), self.before);
    }
}

/// Replaces a path of the root file system by a link.
fn replace_by_link(bundle: &Bundle<'_>, path: &str, target: &Path) {
    let path = bundle.rootfs(path);
    let _absent = fs::remove_dir_all(&path);
    symlink(target, path).unwrap();
}

/// CVE-2019-16884, CVE-2019-19921, CVE-2023-27561, CVE-2023-28642, CVE-2025-54867.
#[test]
fn a_proc_or_sys_that_is_a_link_is_refused() {
    let world = World::enter();
    for (path, fstype) in [("proc", "proc"), ("sys", "sysfs")] {
        let canary = Canary::new(&world);
        let bundle = Bundle::new(&world, "true");
        replace_by_link(&bundle, path, &canary.dir);
        let error = bundle.run();
        assert_ne!(error.code, 0);
        assert!(error.stderr.contains("must be mounted on ordinary directory"), "{fstype}: {}", error.stderr);
        canary.is_unchanged();
    }
}

/// CVE-2019-16884: a volume over a file of procfs, by name and by a link of the image.
#[test]
fn nothing_is_mounted_inside_proc() {
    let world = World::enter();
    for target in ["/proc/self/attr", "/link/attr"] {
        let mut bundle = Bundle::new(&world, "true");
        symlink("/proc/self", bundle.rootfs("link")).unwrap();
        bundle.mount(json!({"destination": target, "type": "tmpfs", "source": "tmpfs"}));
        let error = bundle.run();
        assert_ne!(error.code, 0, "{target}");
        assert!(error.stderr.contains("cannot be mounted because it is inside /proc"), "{}", error.stderr);
    }
}

/// CVE-2026-41579, CVE-2026-47766, CVE-2026-88264: with and without a tmpfs there.
#[test]
fn a_dev_that_is_a_link_leads_to_nothing_of_the_host() {
    let world = World::enter();
    for with_tmpfs in [true, false] {
        let canary = Canary::new(&world);
        let mut bundle = Bundle::new(&world, "true");
        bundle.set("/process/terminal", json!(true));
        if !with_tmpfs {
            bundle.config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/dev");
        }
        replace_by_link(&bundle, "dev", &canary.dir);
        let _either = bundle.run();
        canary.is_unchanged();
    }
}

/// CVE-2025-31133, CVE-2025-52565: `/dev/null` and `/dev/console` of the image lead elsewhere.
#[test]
fn links_in_place_of_devices_are_neither_followed_nor_mounted() {
    let world = World::enter();
    let canary = Canary::new(&world);
    for name in ["null", "console", "ptmx", "pts", "fd", "zero"] {
        let mut bundle = Bundle::new(&world, "cat /proc/keys; echo x > /proc/keys");
        bundle.set("/process/terminal", json!(true));
        bundle.config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/dev");
        symlink(canary.dir.join("file"), bundle.rootfs("dev").join(name)).unwrap();
        let _either = bundle.run();
        canary.is_unchanged();
    }
}

/// CVE-2017-16539, CVE-2018-10892, CVE-2025-31133: every masked path, whatever of them this kernel has.
#[test]
fn masked_paths_are_empty_and_their_cover_cannot_be_changed() {
    let world = World::enter();
    let mut bundle = Bundle::new(&world, "");
    let paths: Vec<String> = serde_json::from_value(bundle.config["linux"]["maskedPaths"].clone()).unwrap();
    let script = format!(
        "for p in {}; do test -d $p && ls $p; test -f $p -o -c $p && cat $p; \
         chmod 600 $p 2>/dev/null && echo changed $p; test -d $p && touch $p/x 2>/dev/null && echo wrote $p; done; \
         test -c /proc/keys -a -d /sys/firmware && echo covered; echo x > /proc/sys/kernel/domainname || echo kept",
        paths.join(" ")
    );
    bundle.set("/process/args/2", json!(script));
    let mode = || fs::metadata("/dev/null").unwrap().mode();
    let before = mode();
    assert_eq!(bundle.run().success(), "covered\nkept\n");
    assert_eq!(mode(), before);
}

/// CVE-2024-21626: every fd number that could be a directory of the host.
#[test]
fn a_working_directory_behind_an_fd_is_refused_in_init_and_exec() {
    let world = World::enter();
    let mut bundle = Bundle::new(&world, "pwd");
    for fd in (0..32).map(|fd| fd.to_string()).chain(["../cwd".to_owned(), "../root".to_owned()]) {
        bundle.set("/process/cwd", json!(format!("/proc/self/fd/{fd}")));
        let refused = bundle.run();
        assert_ne!(refused.code, 0, "{fd}: {}", refused.stdout);
    }
    let bundle = Bundle::new(&world, "touch /ready; sleep 100");
    let running = bundle.start();
    for fd in 0..32 {
        let refused = running.exec("pwd", json!({"cwd": format!("/proc/self/fd/{fd}")}));
        assert_eq!(refused.code, 255, "{fd}: {}", refused.stdout);
    }
}

/// CVE-2019-5736: the entry point, a link to it and a script's interpreter.
#[test]
fn the_runtimes_own_file_is_not_run_in_a_container_and_cannot_be_written_there() {
    let world = World::enter();
    let runtime = std::env::var_os("ORLOP_RUNTIME").map_or_else(|| binary("orlop-runtime"), PathBuf::from);
    let before = (fs::read(&runtime).unwrap(), fs::metadata(&runtime).unwrap().mtime());
    for program in ["/proc/self/exe", "/entry"] {
        let mut bundle = Bundle::new(&world, "");
        symlink("/proc/self/exe", bundle.rootfs("entry")).unwrap();
        bundle.set("/process/args", json!([program, "--version"]));
        let refused = bundle.run();
        assert_ne!(refused.code, 0, "{}", refused.stdout);
        assert!(refused.stderr.contains("it is the runtime itself"), "{}", refused.stderr);
    }
    let mut bundle = Bundle::new(&world, "");
    write(&bundle.rootfs("entry"), "#!/proc/self/exe --root\n");
    fs::set_permissions(bundle.rootfs("entry"), fs::Permissions::from_mode(0o755)).unwrap();
    bundle.set("/process/args", json!(["/entry"]));
    let _either = bundle.run();
    // A neighbour that tries to open the file of every process that comes and goes, while others join.
    let script = "touch /ready; while true; do for p in /proc/[0-9]*; do \
                  test $p = /proc/1 || test $p = /proc/$$ || echo x 2>/dev/null >> $p/exe; done; done";
    let bundle = Bundle::new(&world, script);
    let running = bundle.start();
    for _ in 0..20 {
        let _either = running.exec("true", json!({}));
    }
    drop(running);
    assert!(
        before == (fs::read(&runtime).unwrap(), fs::metadata(&runtime).unwrap().mtime()),
        "the runtime was changed"
    );
}

/// GHSA-g54h-m393-cpwq.
#[test]
fn a_device_that_is_not_listed_can_be_made_and_not_opened() {
    let world = World::enter();
    for rules in [json!([]), json!([{"allow": false, "access": "rwm"}])] {
        let mut bundle = Bundle::new(&world, "mknod /tmp/kmsg c 1 11 && cat /tmp/kmsg");
        bundle.set("/linux/resources/devices", rules);
        let output = bundle.run();
        assert!(output.stderr.contains("can't open '/tmp/kmsg': Operation not permitted"), "{}", output.stderr);
    }
}

/// CVE-2025-52881: what covers `/proc/self/attr` or `/proc/sys` in the container changes nothing for the runtime.
#[test]
fn an_exec_writes_only_to_its_own_procfs() {
    let world = World::enter();
    let mut bundle = Bundle::new(
        &world,
        "mount -t tmpfs tmpfs /proc && mkdir -p /proc/self && touch /proc/self/oom_score_adj; touch /ready; sleep 100",
    );
    for set in ["bounding", "effective", "permitted"] {
        bundle.set(&format!("/process/capabilities/{set}"), json!(["CAP_SYS_ADMIN"]));
    }
    let running = bundle.start();
    running.exec("test ! -s /proc/self/oom_score_adj", json!({"oomScoreAdj": 777})).success();
}

/// CVE-2021-30465, CVE-2024-45310: a neighbour exchanges directories of a shared volume with links all the while.
#[test]
fn a_race_for_the_targets_of_mounts_never_leaves_the_root() {
    let world = World::enter();
    let canary = Canary::new(&world);
    let volume = world.new_dir("volume");
    fs::create_dir(volume.join("dir")).unwrap();
    symlink(&canary.dir, volume.join("link")).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let (dir, link) = (volume.join("dir"), volume.join("link"));
                renameat2(AT_FDCWD, &dir, AT_FDCWD, &link, RenameFlags::RENAME_EXCHANGE).unwrap();
            }
        });
        for _ in 0..50 {
            let mut bundle = Bundle::new(&world, "true");
            bundle.mount(json!({"destination": "/v", "type": "bind", "source": volume, "options": ["rbind"]}));
            bundle.mount(json!({"destination": "/v/dir/sub", "type": "tmpfs", "source": "tmpfs"}));
            bundle.mount(json!({"destination": "/v/dir/new/deep", "type": "tmpfs", "source": "tmpfs"}));
            let _either = bundle.run();
        }
        stop.store(true, Ordering::Relaxed);
    });
    canary.is_unchanged();
}

/// CVE-2023-25809 and the escapes through `release_agent`.
#[test]
fn cgroup_files_cannot_be_written() {
    let world = World::enter();
    let script = "for f in /sys/fs/cgroup/*/cgroup.procs /sys/fs/cgroup/*/notify_on_release; do \
                  echo 1 2>/dev/null > $f && echo wrote $f; done; echo end";
    assert_eq!(Bundle::new(&world, script).run().success(), "end\n");
}
