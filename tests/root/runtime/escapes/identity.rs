//! Who a process becomes: ids, groups (CVE-2026-30892, CVE-2022-36109). Capabilities are looked at in `processes.rs`.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};

use serde_json::json;
use tests::{World, output, write};

use super::Bundle;

/// CVE-2026-30892: what is not wholly a number is never taken for one.
#[test]
fn the_user_of_an_exec_is_the_one_that_was_written_or_an_error() {
    let world = World::enter();
    let bundle = Bundle::new(&world, "touch /ready; sleep 100");
    let _running = bundle.start();
    let exec = |user: &str| {
        let script = "grep -E '^(Uid|Gid):' /proc/self/status";
        output(bundle.runtime().args(["exec", "--user", user, &bundle.id, "sh", "-c", script]))
    };
    for (user, uid, gid) in [("1", 1, 0), ("0", 0, 0), ("1000:7", 1000, 7), ("4294967294:1", 4_294_967_294_u32, 1)] {
        let shown = exec(user).success();
        assert_eq!(shown, format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}\nGid:\t{gid}\t{gid}\t{gid}\t{gid}\n"), "{user}");
    }
    for user in [
        "1x",
        "x1",
        "0x1",
        "1 ",
        " 1",
        "+1",
        "-1",
        "-0",
        "1:",
        ":1",
        "1:2:3",
        "1:x",
        "1.0",
        "1e3",
        "٣",
        "１",
        "4294967295",
        "4294967296",
        "4294968296",
        "18446744073709551617",
        "0:4294967296",
        "root",
        "web",
        "1\n",
        "1\t2",
        ":",
        "::",
    ] {
        let refused = exec(user);
        assert_eq!(refused.code, 255, "{user:?}: {refused:?}");
    }
}

/// CVE-2022-36109 and its siblings: a set-group-ID program would otherwise shed the group, and with it what is denied to it.
#[test]
fn what_is_denied_to_the_primary_group_stays_denied() {
    let world = World::enter();
    let mut bundle = Bundle::new(
        &world,
        "cat /denied 2>/dev/null || echo denied; /bin/groups-cat /denied 2>/dev/null || echo denied",
    );
    write(&bundle.rootfs("denied"), "open\n");
    // All but the group may read it.
    fs::set_permissions(bundle.rootfs("denied"), fs::Permissions::from_mode(0o604)).unwrap();
    chown(bundle.rootfs("denied"), Some(0), Some(100)).unwrap();
    let program = bundle.rootfs("bin/groups-cat");
    fs::copy(bundle.rootfs("bin/cat"), &program).unwrap();
    chown(&program, Some(0), Some(5)).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o2755)).unwrap();
    bundle.set("/process/user", json!({"uid": 1000, "gid": 100}));
    bundle.set("/process/noNewPrivileges", json!(false));
    assert_eq!(bundle.run().success(), "denied\ndenied\n");
}
