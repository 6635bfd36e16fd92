//! What the runtime refuses, in whose words, and that nothing of it stays behind: the World's leak check sees to that.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};
use tests::{World, write};

use super::bundle::{Bundle, message};

#[track_caller]
fn check_refused(bundle: &Bundle<'_>, expected: &str) {
    let output = bundle.run();
    assert_ne!(output.code, 0, "{}", output.stdout);
    assert!(message(&output).contains(expected), "{expected} in {}", message(&output));
}

#[test]
fn a_program_that_cannot_run_says_why() {
    let world = World::enter();
    let mut bundle = Bundle::new(&world, "");
    let busybox = fs::read(bundle.rootfs("bin/busybox")).unwrap();
    let mut arm = busybox.clone();
    arm[18] = 183;
    for (name, content) in [
        ("entrypoint.sh", &b"#!/bin/bash\r\necho hi\r\n"[..]),
        ("script.py", b"#!/usr/bin/python3\n"),
        ("empty", b""),
        ("text", b"just words\n"),
        ("arm", &arm),
    ] {
        write(&bundle.rootfs(name), content);
        fs::set_permissions(bundle.rootfs(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    for (program, expected) in [
        ("nope", r#"exec: "nope": executable file not found in $PATH"#),
        ("/nope", r#"exec: "/nope": stat /nope: no such file or directory"#),
        ("/etc", r#"exec: "/etc": is a directory"#),
        ("/etc/passwd", r#"exec: "/etc/passwd": permission denied"#),
        (
            "/entrypoint.sh",
            r#"exec /entrypoint.sh: no such file or directory: interpreter "/bin/bash\r" not found (CRLF)"#,
        ),
        ("/script.py", r#"no such file or directory: interpreter "/usr/bin/python3" not found"#),
        ("/empty", "exec format error: the file is empty"),
        ("/text", "exec format error: neither a program nor a script with a #! line"),
        ("/arm", "exec format error: image is arm64, host amd64"),
    ] {
        bundle.set("/process/args", json!([program]));
        check_refused(&bundle, expected);
    }
}

#[test]
fn an_exec_that_cannot_run_says_why_and_leaves_the_container_alone() {
    let world = World::enter();
    let bundle = Bundle::new(&world, "touch /ready; sleep 100");
    let running = bundle.start();
    let refused = running.exec("", json!({"args": ["nope"]}));
    assert_eq!(refused.code, 255);
    assert!(message(&refused).contains(r#"exec: "nope": executable file not found in $PATH"#), "{}", refused.stderr);
    running.exec("true", json!({})).success();
}

#[test]
fn a_mount_that_fails_names_its_target_and_the_kernels_reason() {
    let world = World::enter();
    let refused = |mount: Value, expected: &str| {
        let mut bundle = Bundle::new(&world, "true");
        bundle.mount(mount);
        check_refused(&bundle, expected);
    };
    refused(
        json!({"destination": "/v", "type": "bind", "source": "/nowhere", "options": ["rbind"]}),
        "open volume /nowhere: open_tree(",
    );
    refused(
        json!({"destination": "/v", "type": "tmpfs", "source": "tmpfs", "options": ["bogus=1"]}),
        "tmpfs: Unknown parameter 'bogus'",
    );
    refused(json!({"destination": "/v", "type": "nofs", "source": "x"}), "mount nofs on /v: fsopen(");
    refused(
        json!({"destination": "/etc", "type": "bind", "source": "/etc/passwd", "options": ["bind"]}),
        "bind /etc/passwd on /etc: move_mount(",
    );
}

#[test]
fn a_kernel_parameter_of_the_host_is_refused_and_the_host_keeps_its_value() {
    let world = World::enter();
    let core_pattern = || fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let before = core_pattern();
    for (name, value) in [
        ("kernel.core_pattern", "|/x"),
        ("kernel.shm_rmid_forced", "1\nkernel.core_pattern=|/x"),
        ("net/../kernel/core_pattern", "|/x"),
        ("vm.overcommit_memory", "1"),
        ("kernel.hostname", "other"),
    ] {
        let mut bundle = Bundle::new(&world, "true");
        bundle.set("/linux/sysctl", json!({ name: value }));
        check_refused(&bundle, &format!("linux.sysctl[{name}]"));
    }
    // Where PID 1 has more capabilities than the tests, its namespaces can't be opened. Those of a World are not PID 1's.
    let host = fs::File::open("/proc/1/ns/net").is_ok().then_some("/proc/1/ns");
    for (name, kind, file) in [
        ("net.ipv4.ip_forward", "network", "net"),
        ("kernel.msgmax", "ipc", "ipc"),
        ("kernel.domainname", "uts", "uts"),
    ] {
        let joined = ["/proc/self/ns"].into_iter().chain(host).map(|of| Some(format!("{of}/{file}")));
        for path in joined.chain([None]) {
            let mut bundle = Bundle::new(&world, "true");
            bundle.set("/hostname", json!(""));
            bundle.set("/linux/sysctl", json!({ name: "1" }));
            let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|namespace| namespace["type"] != kind);
            namespaces.extend(path.map(|path| json!({"type": kind, "path": path})));
            check_refused(&bundle, "the container shares that namespace with the host");
        }
    }
    assert_eq!(core_pattern(), before);
}

#[test]
fn what_the_host_does_not_allow_is_an_error_that_names_it() {
    let world = World::enter();
    let mut bundle = Bundle::new(&world, "true");
    bundle.set("/linux/resources/memory", json!({"limit": 3}));
    check_refused(&bundle, "linux.resources.memory.limit: 3 bytes is below the 512 KiB");
    let mut bundle = Bundle::new(&world, "true");
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    check_refused(&bundle, "linux.uidMappings: missing");
    let mut bundle = Bundle::new(&world, "true");
    bundle.set("/linux/namespaces/0", json!({"type": "mount", "path": "/proc/self/ns/net"}));
    check_refused(&bundle, "open namespace /proc/self/ns/net");
}
