//! Who a process becomes (CVE-2026-30892). Groups and capabilities are looked at in `processes.rs`.

use tests::{World, output};

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
