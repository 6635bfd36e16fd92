//! Races: a neighbour exchanges names of a root file system or of a volume all the while that containers start on it.
//!
//! Each row goes on until both enough names were exchanged and enough containers were started, and then looks at what
//! lies outside. The neighbour holds its directories by fd, so that it is never redirected itself.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use nix::fcntl::{RenameFlags, renameat2};
use serde_json::json;
use tests::{Output, World, output, write};

use super::bundle::Bundle;
use super::canary::Canary;
use super::effort;
use super::hostile::attempt::{End, attempt};
use super::tmpfs::{Tmpfs, inodes};

/// Two names of one directory.
struct Pair {
    directory: File,
    names: [&'static str; 2],
}

impl Pair {
    fn new(directory: &Path, names: [&'static str; 2]) -> Pair {
        Pair { directory: File::open(directory).expect("a directory to race in"), names }
    }

    /// The first name as it is, the second a link to `target`.
    fn with_link(directory: &Path, names: [&'static str; 2], target: impl AsRef<Path>) -> Pair {
        symlink(target, directory.join(names[1])).expect("a link to race with");
        Pair::new(directory, names)
    }

    /// False while one of the two is gone: the runtime replaces some.
    fn exchange(&self) -> bool {
        let [one, other] = self.names;
        renameat2(&self.directory, one, &self.directory, other, RenameFlags::RENAME_EXCHANGE).is_ok()
    }
}

/// Starts containers with `start`, which is told how many there were, against a neighbour.
fn race(row: &str, pairs: &[Pair], mut start: impl FnMut(u64) -> Output) {
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let begun = Instant::now();
    let exchanges = u64::from(effort::tries(1_000, 10_000));
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let (mut starts, mut ran) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let exchanged = pairs.iter().filter(|pair| pair.exchange()).count();
                done.fetch_add(exchanged as u64, Ordering::Relaxed);
            }
        });
        let _stop = Stop(&stop); // a failed assertion ends the neighbour too
        // A start that is refused at once has shown little: a part has to come through, where any can.
        while starts < exchanges / 20
            || done.load(Ordering::Relaxed) < exchanges
            || (ran < exchanges / 40 && starts < exchanges / 4)
        {
            ran += u64::from(start(starts).code == 0);
            starts += 1;
        }
    });
    let exchanges = done.load(Ordering::Relaxed);
    effort::report(row, &[("exchanges", exchanges), ("starts", starts), ("containers", ran)], begun);
    assert!(ran > 0, "{row}: of {starts} containers none came through");
}

/// How many files there are at and below `path`.
fn files(path: &Path) -> u64 {
    match fs::symlink_metadata(path).expect("a file").is_dir() {
        true => 1 + fs::read_dir(path).expect("a directory").map(|entry| files(&entry.unwrap().path())).sum::<u64>(),
        false => 1,
    }
}

fn without_mount(bundle: &mut Bundle<'_>, destination: &str) {
    bundle.config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != destination);
}

fn make_dirs(bundle: &Bundle<'_>, names: &[&str]) {
    names.iter().for_each(|name| fs::create_dir_all(bundle.rootfs(name)).unwrap());
}

/// CVE-2021-30465, CVE-2024-45310: two containers mount below the directories of one volume.
#[test]
fn targets_of_mounts_in_a_shared_volume_stay_in_the_root() {
    let world = World::enter();
    let canary = Canary::new(&world);
    let volume = Tmpfs::mount(world.new_dir("volume"));
    for dir in ["one", "two"] {
        fs::create_dir(volume.0.join(dir)).unwrap();
    }
    // Also in the canary: who looks up what was checked once more finds it there.
    fs::create_dir(volume.0.join("one/sub")).unwrap();
    let up = PathBuf::from("../../../../..").join(canary.dir.strip_prefix("/").unwrap());
    let pairs =
        [Pair::with_link(&volume.0, ["one", "out"], &canary.dir), Pair::with_link(&volume.0, ["two", "up"], up)];
    let bundles = [0, 1].map(|_| {
        let mut bundle = Bundle::new(&world, "cat /proc/self/mountinfo");
        bundle.mount(json!({"destination": "/v", "type": "bind", "source": volume.0, "options": ["rbind"]}));
        for target in ["/v/one/fresh", "/v/one/sub", "/v/two/new/deep", "/v/one/../two/x"] {
            bundle.mount(json!({"destination": target, "type": "tmpfs", "source": "marked"}));
        }
        bundle.mount(json!({"destination": "/v/two/file", "type": "bind", "source": bundle.dir.join("config.json")}));
        bundle
    });
    bundles.iter().for_each(|bundle| drop(bundle.run()));
    // Links are followed inside the root, where their targets are made.
    let outside = || inodes(world.dir()) - bundles.iter().map(|bundle| files(&bundle.rootfs(""))).sum::<u64>();
    let before = outside();
    race("targets of mounts", &pairs, |_| {
        let [one, other] = std::thread::scope(|scope| {
            let other = scope.spawn(|| bundles[1].run());
            [bundles[0].run(), other.join().expect("the other container")]
        });
        for done in [&one, &other].into_iter().filter(|done| done.code == 0) {
            let marked = done.stdout.lines().filter(|line| line.contains(" marked ")).count();
            assert_eq!(marked, 4, "{}", done.stdout);
        }
        one
    });
    assert_eq!(outside(), before, "files were made outside of the volume");
    canary.is_unchanged();
}

/// CVE-2024-45310: everything that is made on the way to a new name.
#[test]
fn directories_files_and_nodes_are_made_in_the_root() {
    let world = World::enter();
    let canary = Canary::new(&world);
    let mut bundle = Bundle::new(&world, "true");
    make_dirs(&bundle, &["srv/in"]);
    let up = PathBuf::from("../../../../../..").join(canary.dir.strip_prefix("/").unwrap());
    let pairs = [
        Pair::with_link(&bundle.rootfs(""), ["srv", "out"], &canary.dir),
        Pair::with_link(&bundle.rootfs("srv"), ["in", "up"], up),
    ];
    let mounts = bundle.config["mounts"].clone();
    let file = bundle.dir.join("config.json");
    race("names that are made", &pairs, |number| {
        bundle.set("/mounts", mounts.clone());
        bundle.set("/process/cwd", json!(format!("/srv/cwd{number}/in/deep")));
        bundle.mount(json!({"destination": format!("/srv/in/file{number}"), "type": "bind", "source": file}));
        bundle.mount(json!({"destination": format!("/srv/tmp{number}/in"), "type": "tmpfs", "source": "tmpfs"}));
        let node = |path: String| json!({"path": path, "type": "c", "major": 1, "minor": 3});
        bundle.set(
            "/linux/devices",
            json!([node(format!("/srv/in/null{number}")), node(format!("/srv/n{number}/null"))]),
        );
        bundle.run()
    });
    canary.is_unchanged();
}

/// CVE-2025-31133: what is bound over a masked file.
#[test]
fn a_null_device_that_comes_and_goes_uncovers_no_masked_path() {
    let world = World::enter();
    let canary = Canary::new(&world);
    let mut bundle = Bundle::new(&world, "cat /proc/keys; echo written > /proc/keys; echo end");
    without_mount(&mut bundle, "/dev");
    output(world.command("mknod").arg(bundle.rootfs("dev/null")).args(["c", "1", "3"])).success();
    let pairs = [
        Pair::with_link(&bundle.rootfs("dev"), ["null", "passwd"], "/etc/passwd"),
        Pair::with_link(&bundle.rootfs("dev"), ["zero", "out"], canary.dir.join("file")),
    ];
    let passwd = fs::read(bundle.rootfs("etc/passwd")).unwrap();
    race("the null device", &pairs, |_| {
        let done = bundle.run();
        assert!(done.code != 0 || done.stdout == "end\n", "{}", done.stdout);
        done
    });
    assert_eq!(fs::read(bundle.rootfs("etc/passwd")).unwrap(), passwd);
    canary.is_unchanged();
}

/// CVE-2025-52565, CVE-2026-88264: the terminal, its peer, and where it is bound.
#[test]
fn a_console_and_a_devpts_that_come_and_go_give_a_terminal_or_none() {
    let world = World::enter();
    let canary = Canary::new(&world);
    let mut bundle = Bundle::new(&world, "test -t 0 && test -t 1 && echo terminal");
    bundle.set("/process/terminal", json!(true));
    without_mount(&mut bundle, "/dev");
    make_dirs(&bundle, &["dev/pts"]);
    write(&bundle.rootfs("dev/console"), "");
    let dev = bundle.rootfs("dev");
    let pairs = [
        Pair::with_link(&dev, ["console", "con"], canary.dir.join("file")),
        Pair::with_link(&dev, ["pts", "out"], canary.dir.join("pts")),
        Pair::with_link(&dev, ["ptmx", "mx"], canary.dir.join("ptmx")),
    ];
    race("terminals", &pairs, |_| {
        let done = bundle.run();
        assert!(done.code != 0 || done.stdout == "terminal\r\n", "{}", done.stdout);
        done
    });
    canary.is_unchanged();
}

/// CVE-2026-41579, CVE-2026-47766.
#[test]
fn a_dev_that_comes_and_goes_gets_its_nodes_inside_the_root() {
    let world = World::enter();
    let canary = Canary::new(&world);
    let mut bundle = Bundle::new(&world, "true");
    let pairs = [Pair::with_link(&bundle.rootfs(""), ["dev", "out"], &canary.dir)];
    let with = bundle.config["mounts"].clone();
    without_mount(&mut bundle, "/dev");
    let without = bundle.config["mounts"].clone();
    race("the directory of devices", &pairs, |number| {
        bundle.set("/mounts", if number % 2 == 0 { with.clone() } else { without.clone() });
        bundle.set("/process/terminal", json!(number % 4 < 2));
        bundle.run()
    });
    canary.is_unchanged();
}

/// CVE-2019-19921, CVE-2023-27561, CVE-2025-52881: labels, scores and parameters go to a procfs of the runtime's own.
#[test]
fn a_proc_and_a_sys_that_come_and_go_redirect_no_write() {
    let world = World::enter();
    let canary = Canary::new(&world);
    let mut bundle = Bundle::new(&world, "test ! -e /proc/self/mountinfo || grep -c ' - proc ' /proc/self/mountinfo");
    bundle.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}));
    bundle.set("/process/oomScoreAdj", json!(500));
    let root = bundle.rootfs("");
    let pairs = [
        Pair::with_link(&root, ["proc", "out"], &canary.dir),
        Pair::with_link(&root, ["sys", "up"], "../../../../../../../.."),
    ];
    // A procfs is one mount; what is masked or read-only in it are copies of it and others.
    bundle.set("/linux/maskedPaths", json!([]));
    bundle.set("/linux/readonlyPaths", json!([]));
    race("proc and sys", &pairs, |_| {
        let done = bundle.run();
        assert!(done.code != 0 || ["", "1\n"].contains(&done.stdout.as_str()), "{}", done.stdout);
        done
    });
    canary.is_unchanged();
}

#[test]
fn masked_and_read_only_paths_that_come_and_go_hide_something_of_the_container() {
    let world = World::enter();
    let canary = Canary::new(&world);
    let mut bundle = Bundle::new(&world, "cat /proc/self/mountinfo");
    make_dirs(&bundle, &["tmp/hidden", "tmp/ro", "tmp/other"]);
    for file in ["tmp/secret", "tmp/other/secret"] {
        write(&bundle.rootfs(file), "secret");
    }
    let tmp = bundle.rootfs("tmp");
    let pairs = [
        Pair::with_link(&tmp, ["secret", "other-secret"], "other/secret"),
        Pair::with_link(&tmp, ["hidden", "out"], &canary.dir),
        Pair::with_link(&tmp, ["ro", "up"], "../../../../../../../../../.."),
    ];
    bundle.set("/linux/maskedPaths", json!(["/tmp/secret", "/tmp/hidden"]));
    bundle.set("/linux/readonlyPaths", json!(["/tmp/ro"]));
    let mounts = || fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let before = mounts();
    race("masked paths", &pairs, |_| {
        let done = bundle.run();
        let covered = done.stdout.lines().filter(|line| line.contains(" /null ") || line.contains("/null /")).count();
        assert!(done.code != 0 || covered >= 1, "{}", done.stdout);
        done
    });
    assert_eq!(mounts(), before);
    canary.is_unchanged();
}

/// CVE-2024-21626, CVE-2025-31133, CVE-2026-47262: what an exec opens in a container that is running.
#[test]
fn an_exec_waits_for_nothing_and_leaves_no_root_whatever_is_exchanged() {
    let world = World::enter();
    let canary = Canary::new(&world);
    let mut bundle = Bundle::new(&world, "touch /ready; while :; do sleep 1; done");
    without_mount(&mut bundle, "/dev");
    make_dirs(&bundle, &["srv"]);
    output(world.command("mkfifo").arg(bundle.rootfs("etc/fifo"))).success();
    let _running = bundle.start();
    let pairs = [
        Pair::with_link(&bundle.rootfs("dev"), ["null", "out"], canary.dir.join("file")),
        Pair::with_link(&bundle.rootfs("dev"), ["pts", "mx"], canary.dir.join("pts")),
        Pair::with_link(&bundle.rootfs(""), ["srv", "out"], "/proc/self/fd/3"),
        Pair::new(&bundle.rootfs("etc"), ["passwd", "fifo"]),
    ];
    let process = bundle.dir.join("process.json");
    race("exec", &pairs, |number| {
        let user = json!({"uid": 0, "gid": 0});
        let object =
            json!({"args": ["pwd"], "cwd": "/srv", "env": ["PATH=/bin"], "user": user, "terminal": number % 3 == 0});
        write(&process, object.to_string());
        let mut command = bundle.runtime();
        command.arg("exec").arg("--process").arg(&process).arg(&bundle.id);
        let (end, stdout) = attempt(command, &bundle.dir, 255).unwrap_or_else(|wrong| panic!("{wrong}"));
        assert!(end == End::Refused || ["/srv", "/out"].contains(&stdout.trim()), "{stdout}");
        Output { code: i32::from(end == End::Refused), stdout, stderr: String::new() }
    });
    canary.is_unchanged();
}

/// What was found to be a file may be a FIFO when it is opened.
#[test]
fn a_program_that_comes_and_goes_is_executed_or_not_and_never_waited_for() {
    let world = World::enter();
    let bundle = Bundle::new(&world, "true");
    bundle.write_config();
    output(world.command("mkfifo").arg(bundle.rootfs("bin/fifo"))).success();
    let pairs =
        [Pair::new(&bundle.rootfs("bin"), ["sh", "fifo"]), Pair::new(&bundle.rootfs("bin"), ["busybox", "fifo"])];
    race("programs", &pairs, |_| {
        let mut command = bundle.runtime();
        command.arg("run").arg("--bundle").arg(&bundle.dir).arg(&bundle.id);
        let (end, stdout) = attempt(command, &bundle.dir, 1).unwrap_or_else(|wrong| panic!("{wrong}"));
        Output { code: i32::from(end == End::Refused), stdout, stderr: String::new() }
    });
}
