//! Cgroup files and devices (CVE-2023-25809, GHSA-g54h-m393-cpwq).

use serde_json::json;
use tests::World;

use super::Bundle;

/// CVE-2023-25809 and the escapes through `release_agent`.
#[test]
fn cgroup_files_cannot_be_written() {
    let world = World::enter();
    let script = "for f in /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/*/cgroup.procs /sys/fs/cgroup/*/notify_on_release; do \
                  echo 1 2>/dev/null > $f && echo wrote $f; done; echo end";
    assert_eq!(Bundle::new(&world, script).run().success(), "end\n");
}
/// GHSA-g54h-m393-cpwq.
#[test]
fn a_device_that_is_not_listed_can_be_made_and_not_opened() {
    let world = World::enter();
    for rules in [json!([]), json!([{"allow": false, "access": "rwm"}])] {
        // fuse: where it is allowed anybody may open it, whatever his capabilities.
        let mut bundle = Bundle::new(&world, "mknod /tmp/fuse c 10 229 && cat /tmp/fuse");
        bundle.set("/linux/resources/devices", rules);
        let output = bundle.run();
        assert!(output.stderr.contains("can't open '/tmp/fuse': Operation not permitted"), "{}", output.stderr);
    }
}

/// CVE-2025-52881: a container that may mount covers its cgroup files with its own; an exec is counted all the same.
#[test]
fn an_exec_joins_the_real_cgroup_whatever_covers_its_files() {
    let world = World::enter();
    let mut bundle = Bundle::new(
        &world,
        "cat /proc/self/cgroup > /own; mount -t tmpfs tmpfs /sys/fs/cgroup; for c in . memory pids freezer unified; do \
         mkdir -p /sys/fs/cgroup/$c; for f in tasks cgroup.procs cgroup.threads; do echo fake > /sys/fs/cgroup/$c/$f; done; \
         done; touch /ready; sleep 100",
    );
    for set in ["bounding", "effective", "permitted"] {
        bundle.set(&format!("/process/capabilities/{set}"), json!(["CAP_SYS_ADMIN"]));
    }
    // Without a cgroup namespace of its own the paths are the host's, and tell.
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "cgroup");
    let running = bundle.start();
    let own = std::fs::read_to_string(bundle.rootfs("own")).unwrap();
    assert!(own.contains(&bundle.id), "{own}");
    assert_eq!(running.exec("cat /proc/self/cgroup", json!({})).success(), own);
    let fakes =
        running.exec("cat /sys/fs/cgroup/tasks /sys/fs/cgroup/*/tasks /sys/fs/cgroup/*/cgroup.procs", json!({}));
    assert_eq!(fakes.success(), "fake\n".repeat(9));
}
