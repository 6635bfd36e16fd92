//! `/dev`: the directory, the null device, terminals (CVE-2025-31133, CVE-2025-52565, CVE-2026-41579, CVE-2026-88264).

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::json;
use tests::{World, eventually};

use super::{Bundle, ROOT_OF_ALL, replace_by_link};
use crate::runtime::canary::Canary;

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

/// CVE-2025-52565: what lies at the terminal's name in `/dev/pts` is not what comes to `/dev/console`.
#[test]
fn the_console_is_the_terminal_whatever_covers_its_name() {
    let world = World::enter();
    let volume = world.new_dir("volume");
    for name in ["0", "1"] {
        symlink("/proc/version", volume.join(name)).unwrap();
    }
    let mut bundle = Bundle::new(&world, "stat -c '%F %t' /dev/console; readlink /dev/ptmx");
    bundle.set("/process/terminal", json!(true));
    bundle.mount(json!({"destination": "/dev/pts", "type": "bind", "source": volume, "options": ["rbind"]}));
    assert_eq!(bundle.run().success(), "character special file 88\r\npts/ptmx\r\n");
}

/// CVE-2025-52565: a container that may mount puts other files where terminals come from.
#[test]
fn a_terminal_for_an_exec_comes_from_a_devpts_or_not_at_all() {
    let world = World::enter();
    let elsewhere = "mkdir /dev/pts/other; mount -t devpts -o newinstance,ptmxmode=0666 devpts /dev/pts/other; \
                     ln -s other/ptmx /dev/pts/ptmx";
    for fake in [
        "ln -s /dev/null /dev/pts/ptmx",
        "touch /dev/pts/ptmx",
        "mknod /dev/pts/ptmx p",
        "mknod /dev/pts/ptmx c 1 5",
        elsewhere,
    ] {
        let script = format!("mount -t tmpfs tmpfs /dev/pts && {fake}; touch /ready; sleep 100");
        let mut bundle = Bundle::new(&world, &script);
        for set in ["bounding", "effective", "permitted"] {
            bundle.set(&format!("/process/capabilities/{set}"), json!(["CAP_SYS_ADMIN", "CAP_MKNOD"]));
        }
        let running = bundle.start();
        let begun = Instant::now();
        let refused = running.exec("tty", json!({"terminal": true}));
        assert_eq!(refused.code, 255, "{fake}: {}", refused.stdout);
        assert!(begun.elapsed() < Duration::from_secs(15) * tests::slow(), "{fake}");
    }
}

/// What a detached process, whose streams are the null device, leaves in `/seen`.
fn exec_on_null(bundle: &Bundle<'_>, script: &str) -> String {
    let process = bundle.dir.join("process.json");
    let user = json!({"uid": 0, "gid": 0});
    let json = json!({"args": ["sh", "-c", script], "cwd": "/", "env": ["PATH=/bin"], "user": user});
    tests::write(&process, json.to_string());
    let mut exec = bundle.runtime();
    exec.args(["exec", "--detach", "--process"]).arg(&process).arg(&bundle.id);
    exec.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = exec.spawn().unwrap();
    eventually("the exec's end", Duration::from_secs(20), || child.try_wait().unwrap());
    eventually("what it saw", Duration::from_secs(20), || fs::read_to_string(bundle.rootfs("seen")))
}

/// CVE-2025-31133: a FIFO would hold the exec for ever, another device would hear of it.
#[test]
fn a_null_device_that_was_replaced_is_neither_opened_nor_waited_for() {
    let world = World::enter();
    for fake in ["mknod /dev/null p", "ln -s /etc/passwd /dev/null", "mknod /dev/null c 1 5", "touch /dev/null", "true"]
    {
        let bundle = Bundle::new(&world, &format!("rm /dev/null; {fake}; touch /ready; while :; do sleep 1; done"));
        for applet in ["rm", "mv"] {
            symlink("busybox", bundle.rootfs("bin").join(applet)).unwrap();
        }
        let _running = bundle.start();
        let script = "stat -L -c %t:%T /proc/self/fd/0; echo x >&0; echo end";
        let seen = exec_on_null(&bundle, &format!("({script}) > /seen.new; mv /seen.new /seen"));
        assert_eq!(seen, "1:3\nend\n", "{fake}");
        assert!(fs::read_to_string(bundle.rootfs("etc/passwd")).unwrap().starts_with("root:"));
    }
}

/// CVE-2026-41579: every way in which `/dev` can lead out of the root.
#[test]
fn a_dev_that_leads_anywhere_changes_nothing_there() {
    let world = World::enter();
    for to_canary in ["", ROOT_OF_ALL] {
        for name in ["dev", "dev/pts", "dev/shm", "dev/mqueue"] {
            let canary = Canary::new(&world);
            let mut bundle = Bundle::new(&world, "true");
            bundle.set("/process/terminal", json!(true));
            bundle.config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/dev");
            let target = format!("{to_canary}{}", canary.dir.display());
            replace_by_link(&bundle, name, target.as_ref());
            let _either = bundle.run();
            canary.is_unchanged();
        }
    }
}
