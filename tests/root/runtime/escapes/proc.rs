//! `/proc` and `/sys`: where they are mounted, what may cover them, and through which procfs the runtime writes.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;
use tests::{World, write};

use super::{Bundle, replace_by_link};
use crate::runtime::canary::Canary;

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

/// CVE-2019-16884: an image's `VOLUME /proc`.
#[test]
fn what_is_no_procfs_is_not_mounted_on_proc() {
    let world = World::enter();
    let volume = world.new_dir("volume");
    for mount in [
        json!({"destination": "/proc", "type": "tmpfs", "source": "tmpfs"}),
        json!({"destination": "/proc", "type": "bind", "source": volume, "options": ["rbind"]}),
        json!({"destination": "/x/../proc/", "type": "none", "source": volume, "options": ["bind"]}),
    ] {
        let mut bundle = Bundle::new(&world, "true");
        bundle.mount(mount);
        let error = bundle.run();
        assert_ne!(error.code, 0, "{}", error.stdout);
        assert!(error.stderr.contains("cannot be mounted because it is not of type proc"), "{}", error.stderr);
    }
    let mut bundle = Bundle::new(&world, "test -e /proc/self/status");
    bundle.mount(json!({"destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind"]}));
    bundle.run().success();
}

/// CVE-2025-52881: without a procfs of its own, a container's `/proc/sys` is the image's.
#[test]
fn a_kernel_parameter_or_label_is_not_written_into_the_image_or_through_it() {
    let world = World::enter();
    for linked in [true, false] {
        let canary = Canary::new(&world);
        let mut bundle = Bundle::new(&world, "true");
        bundle.config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/proc");
        let fakes = ["sys/net/ipv4/ip_forward", "self/attr/apparmor/exec", "self/oom_score_adj"];
        if linked {
            replace_by_link(&bundle, "proc", &canary.dir);
        } else {
            for fake in fakes {
                let path = bundle.rootfs("proc").join(fake);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                write(&path, "fake");
            }
        }
        for list in ["/linux/maskedPaths", "/linux/readonlyPaths"] {
            bundle.set(list, json!([]));
        }
        bundle.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}));
        bundle.set("/process/oomScoreAdj", json!(500));
        bundle.run().success();
        // Applied by the kernel or refused by it, as this machine has the module or not.
        bundle.set("/process/apparmorProfile", json!("unconfined"));
        let _either = bundle.run();
        canary.is_unchanged();
        for fake in fakes.iter().filter(|_| !linked) {
            assert_eq!(fs::read_to_string(bundle.rootfs("proc").join(fake)).unwrap(), "fake", "{fake}");
        }
    }
}

/// CVE-2019-16884, CVE-2025-52881: files that the container put where an exec's label and score go.
#[test]
fn the_label_and_score_of_an_exec_do_not_go_to_files_of_the_container() {
    let world = World::enter();
    let mut bundle = Bundle::new(
        &world,
        "mount -t tmpfs tmpfs /proc; for s in self thread-self 1; do mkdir -p /proc/$s/attr/apparmor; \
         echo fake > /proc/$s/oom_score_adj; for a in exec current apparmor/exec; do echo fake > /proc/$s/attr/$a; done; \
         done; touch /ready; sleep 100",
    );
    for set in ["bounding", "effective", "permitted"] {
        bundle.set(&format!("/process/capabilities/{set}"), json!(["CAP_SYS_ADMIN"]));
    }
    let running = bundle.start();
    let _either = running.exec("true", json!({"apparmorProfile": "unconfined"}));
    let seen = running.exec(
        "cat /proc/*/oom_score_adj /proc/*/attr/*/exec /proc/*/attr/exec /proc/*/attr/current",
        json!({"oomScoreAdj": 777}),
    );
    assert_eq!(seen.success(), "fake\n".repeat(12));
}
