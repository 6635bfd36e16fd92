//! Who the container's processes are, what they may do and what they inherit, in the first one and in an exec'd one.

use serde_json::{Value, json};
use tests::World;

use super::bundle::Bundle;

/// The value of a line of `/proc/<pid>/status`.
#[track_caller]
fn status(text: &str, key: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{key}:")));
    line.unwrap_or_else(|| panic!("{key} in {text}")).trim().to_owned()
}

#[track_caller]
fn check_status(text: &str, expected: &[(&str, &str)]) {
    for (key, value) in expected {
        assert_eq!(status(text, key), *value, "{key}");
    }
}

const WAIT: &str = "touch /ready; sleep 100";

#[test]
fn a_root_process_has_the_capabilities_of_its_config_and_no_inheritable_or_ambient_one() {
    let world = World::enter();
    let text = Bundle::new(&world, "cat /proc/self/status").run().success();
    check_status(
        &text,
        &[
            ("CapInh", "0000000000000000"),
            ("CapPrm", "00000000a80425fb"),
            ("CapEff", "00000000a80425fb"),
            ("CapBnd", "00000000a80425fb"),
            ("CapAmb", "0000000000000000"),
            ("NoNewPrivs", "1"),
            ("Uid", "0\t0\t0\t0"),
            ("Groups", "0"),
        ],
    );
}

#[test]
fn a_user_has_no_capability_unless_it_is_ambient_and_its_primary_group_is_among_its_groups() {
    let world = World::enter();
    let mut bundle = Bundle::new(&world, "cat /proc/self/status");
    bundle.set("/process/user", json!({"uid": 1000, "gid": 100, "additionalGids": [7, 7]}));
    let expected = [
        ("CapInh", "0000000000000000"),
        ("CapPrm", "0000000000000000"),
        ("CapEff", "0000000000000000"),
        ("CapAmb", "0000000000000000"),
        ("Uid", "1000\t1000\t1000\t1000"),
        ("Gid", "100\t100\t100\t100"),
        ("Groups", "7 100"),
    ];
    check_status(&bundle.run().success(), &expected);

    let capability = json!(["CAP_NET_BIND_SERVICE"]);
    for set in ["inheritable", "ambient"] {
        bundle.set(&format!("/process/capabilities/{set}"), capability.clone());
    }
    let text = bundle.run().success();
    check_status(&text, &[("CapAmb", "0000000000000400"), ("CapEff", "0000000000000400")]);
}

#[test]
fn an_exec_has_what_its_own_process_object_says() {
    let world = World::enter();
    let bundle = Bundle::new(&world, WAIT);
    let running = bundle.start();
    let user = json!({"user": {"uid": 1000, "gid": 100, "umask": 0o027}, "noNewPrivileges": true});
    let text = running.exec("cat /proc/self/status", user).success();
    check_status(
        &text,
        &[
            ("CapInh", "0000000000000000"),
            ("CapEff", "0000000000000000"),
            ("CapBnd", "0000000000000000"),
            ("CapAmb", "0000000000000000"),
            ("Groups", "100"),
            ("NoNewPrivs", "1"),
            ("Umask", "0027"),
        ],
    );
}

#[test]
fn an_exec_is_in_all_namespaces_and_cgroups_of_its_container() {
    let world = World::enter();
    let look = "for n in mnt net ipc uts cgroup pid; do readlink /proc/self/ns/$n; done; cat /proc/self/cgroup";
    let bundle = Bundle::new(&world, &format!("({look}) > /seen; {WAIT}"));
    let running = bundle.start();
    let of_container = std::fs::read_to_string(bundle.rootfs("seen")).unwrap();
    assert_eq!(of_container.lines().next().map(|line| line.starts_with("mnt:[")), Some(true), "{of_container}");
    assert_eq!(running.exec(look, json!({})).success(), of_container);
}

#[test]
fn only_the_standard_streams_survive_into_the_program() {
    let world = World::enter();
    // The shell's own glob is done before ls has opened the directory.
    let script = "for fd in /proc/self/fd/*; do echo ${fd##*/}; done";
    let fds = |text: String| text.lines().filter(|fd| fd.parse::<u32>().is_ok_and(|fd| fd < 3)).count();
    let mut bundle = Bundle::new(&world, &format!("{script}; {WAIT}"));
    bundle.set("/process/args/2", json!("ls /proc/self/fd"));
    // 3 is ls's own handle of the directory that it lists.
    assert_eq!(bundle.run().success(), "0\n1\n2\n3\n");

    let bundle = Bundle::new(&world, WAIT);
    let running = bundle.start();
    assert_eq!(running.exec("ls /proc/self/fd", json!({})).success(), "0\n1\n2\n3\n");
    assert_eq!(fds(running.exec(script, json!({})).success()), 3);
}

#[test]
fn home_comes_from_the_containers_passwd_unless_it_is_set() {
    let world = World::enter();
    let mut bundle = Bundle::new(&world, "echo $HOME");
    assert_eq!(bundle.run().success(), "/root\n");
    bundle.set("/process/user/uid", json!(1000));
    assert_eq!(bundle.run().success(), "/home/web\n");
    bundle.set("/process/user/uid", json!(4711));
    assert_eq!(bundle.run().success(), "/\n");
    bundle.set("/process/env", json!(["PATH=/bin", "HOME=/there", "A=1", "A=2"]));
    bundle.set("/process/args/2", json!("echo $HOME $A"));
    assert_eq!(bundle.run().success(), "/there 2\n");
}

#[test]
fn an_exec_has_the_home_of_its_user_too() {
    let world = World::enter();
    let bundle = Bundle::new(&world, WAIT);
    let running = bundle.start();
    assert_eq!(running.exec("echo $HOME", json!({})).success(), "/root\n");
    let user = json!({"user": {"uid": 1000, "gid": 100}});
    assert_eq!(running.exec("echo $HOME", user).success(), "/home/web\n");
}

#[test]
fn the_working_directory_is_made_and_entered() {
    let world = World::enter();
    let mut bundle = Bundle::new(&world, "pwd");
    bundle.set("/process/cwd", json!("/srv/app"));
    assert_eq!(bundle.run().success(), "/srv/app\n");
}

#[test]
fn limits_umask_names_and_kernel_parameters_are_set() {
    let world = World::enter();
    let mut bundle = Bundle::new(
        &world,
        "ulimit -n; umask; hostname; cat /proc/sys/kernel/domainname /proc/sys/net/ipv4/ip_forward /proc/self/oom_score_adj",
    );
    bundle.set("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]));
    bundle.set("/process/user/umask", json!(0o077));
    bundle.set("/domainname", json!("example"));
    bundle.set("/process/oomScoreAdj", json!(500));
    bundle.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}));
    assert_eq!(bundle.run().success(), "100\n0077\nbox\nexample\n1\n500\n");
}

#[test]
fn the_exit_code_is_the_programs() {
    let world = World::enter();
    assert_eq!(Bundle::new(&world, "exit 42").run().code, 42);
}

#[test]
fn a_terminal_is_the_containers_own_and_its_console() {
    let world = World::enter();
    let mut bundle =
        Bundle::new(&world, "tty; readlink /proc/self/fd/2; stat -c %t:%T /dev/console; echo to-tty > /dev/tty");
    bundle.set("/process/terminal", json!(true));
    let text = bundle.run().success().replace('\r', "");
    assert_eq!(text, "/dev/pts/0\n/dev/pts/0\n88:0\nto-tty\n");
}

#[test]
fn a_seccomp_profile_is_in_force_with_and_without_no_new_privs() {
    let world = World::enter();
    let rules = json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}]);
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": rules});
    for no_new_privileges in [true, false] {
        let mut bundle = Bundle::new(&world, "grep Seccomp: /proc/self/status; mkdir /x 2>/dev/null || echo refused");
        bundle.set("/linux/seccomp", profile.clone());
        bundle.set("/process/noNewPrivileges", Value::Bool(no_new_privileges));
        assert_eq!(bundle.run().success(), "Seccomp:\t2\nrefused\n", "{no_new_privileges}");
    }
}

#[test]
fn half_a_megabyte_is_enough_to_start() {
    let world = World::enter();
    let mut bundle = Bundle::new(&world, "echo alive");
    bundle.set("/linux/resources/memory", json!({"limit": 512 * 1024}));
    assert_eq!(bundle.run().success(), "alive\n");
}
