//! pause, resume, ps, spec, features, help: what engines ask for beside the life of a container.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use tests::{World, eventually, output};

use super::{Container, STAY, check_refused, is_ours};

#[test]
fn a_paused_container_stands_still_until_it_is_resumed() {
    let world = World::enter();
    let container = Container::started(&world);
    container.verb(&["pause"]).success();
    assert_eq!(container.status(), "paused");
    check_refused(&container.verb(&["pause"]), 1, "container not running");
    check_refused(&container.verb(&["start"]), 1, "cannot start a container in the paused state");
    check_refused(&container.exec(&[], &["true"]), 255, "cannot exec in a paused container");
    container.verb(&["resume"]).success();
    assert_eq!(container.status(), "running");
    check_refused(&container.verb(&["resume"]), 1, "container not paused");
    container.exec(&[], &["true"]).success();
}

#[test]
fn a_container_that_waits_for_its_start_can_be_paused_too() {
    let world = World::enter();
    let container = Container::new(&world, STAY);
    container.create(&[]).success();
    container.verb(&["pause"]).success();
    assert_eq!(container.status(), "paused");
    container.verb(&["resume"]).success();
    assert_eq!(container.status(), "created");
}

#[test]
fn a_paused_container_can_be_killed() {
    let world = World::enter();
    let container = Container::started(&world);
    container.verb(&["pause"]).success();
    output(container.command(&["kill"]).arg("KILL")).success();
    container.has_stopped();
    check_refused(&container.verb(&["pause"]), 1, "container not running");
    check_refused(&container.verb(&["resume"]), 1, "container not paused");
}

#[test]
fn ps_lists_the_processes_of_the_container_and_no_others() {
    let world = World::enter();
    let container = Container::started(&world);
    container.leave_behind(&["sleep", "1000"]);
    let listed: BTreeSet<i64> =
        serde_json::from_str(&container.verb(&["ps", "--format", "json"]).success()).expect("JSON from ps");
    assert!(listed.contains(&container.state()["pid"].as_i64().expect("a number")), "{listed:?}");
    // The kernel tells a program's arguments a moment after it has closed what its caller waits for.
    let table = eventually("its arguments are told", Duration::from_secs(10), || {
        let table = output(container.command(&["ps"]).args(["-o", "pid,args", "-e"])).success();
        if table.contains("sleep 1000") { Ok(table) } else { Err(table) }
    });
    let (header, lines) = table.split_once('\n').expect("a header");
    assert_eq!(header.split_whitespace().collect::<Vec<_>>(), ["PID", "COMMAND"]);
    for line in lines.lines().filter(|line| !line.is_empty()) {
        let pid = line.split_whitespace().next().and_then(|pid| pid.parse::<u32>().ok()).expect("a number");
        let group = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        // A process that ended since has none any more.
        assert!(group.is_empty() || group.contains(&container.bundle.id), "{line}: {group}");
    }
    check_refused(&output(container.command(&["ps"]).args(["-o", "comm"])), 1, "couldn't find PID field in ps output");
    check_refused(&container.verb(&["ps", "-f", "xml"]), 1, "invalid format option");
    output(container.command(&["kill"]).arg("KILL")).success();
    container.has_stopped();
    assert_eq!(container.verb(&["ps", "-f", "json"]).success(), "null\n");
}

/// The runtime's own config.json, in the bundle.
fn spec(container: &Container<'_>, flags: &[&str]) -> Value {
    let path = container.bundle.dir.join("config.json");
    let _none = std::fs::remove_file(&path);
    output(container.bundle.runtime().arg("spec").args(flags).current_dir(&container.bundle.dir)).success();
    serde_json::from_slice(&std::fs::read(&path).expect("config.json")).expect("JSON in config.json")
}

#[test]
fn the_config_that_spec_writes_is_one_that_runs() {
    let world = World::enter();
    let mut container = Container::new(&world, STAY);
    let mut config = spec(&container, &[]);
    assert_eq!(config["process"]["args"], json!(["sh"]));
    let again = output(container.bundle.runtime().arg("spec").current_dir(&container.bundle.dir));
    check_refused(&again, 1, "config.json exists. Remove it first");
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["sh", "-c", "echo $TERM; ls -d /proc/1"]);
    config["linux"]["cgroupsPath"] = container.bundle.config["linux"]["cgroupsPath"].clone();
    container.bundle.config = config;
    assert_eq!(container.bundle.run().success(), "xterm\n/proc/1\n");
}

#[test]
fn spec_writes_into_another_directory_if_it_is_told_to() {
    let world = World::enter();
    let container = Container::new(&world, STAY);
    let path = container.bundle.rootfs("config.json");
    output(container.bundle.runtime().args(["spec", "--bundle"]).arg(container.bundle.rootfs(""))).success();
    assert!(path.exists());
}

#[test]
fn what_features_claims_of_system_calls_and_capabilities_is_taken_by_a_container() {
    let world = World::enter();
    let mut container = Container::new(&world, "echo runs");
    let features: Value =
        serde_json::from_str(&output(container.bundle.runtime().arg("features")).success()).expect("JSON");
    assert_eq!((&features["ociVersionMin"], &features["ociVersionMax"]), (&json!("1.0.0"), &json!("1.3.0")));
    let seccomp = &features["linux"]["seccomp"];
    assert_eq!(seccomp["enabled"], true);
    container.bundle.set(
        "/linux/seccomp",
        json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            // runc claims some that its libseccomp does not have.
            "architectures": if is_ours() { seccomp["archs"].clone() } else { json!(["SCMP_ARCH_X86_64"]) },
            "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"],
            "syscalls": seccomp["operators"].as_array().expect("operators").iter().map(|operator| json!({
                "names": ["kcmp"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 1, "op": operator}],
            })).collect::<Vec<_>>(),
        }),
    );
    container.bundle.set("/process/capabilities", json!({"bounding": features["linux"]["capabilities"]}));
    assert_eq!(container.bundle.run().success(), "runs\n");
}

#[test]
fn every_namespace_that_features_claims_is_made() {
    let world = World::enter();
    let mut container = Container::new(&world, "ls -l /proc/self/ns");
    let features: Value =
        serde_json::from_str(&output(container.bundle.runtime().arg("features")).success()).expect("JSON");
    let claimed: Vec<&str> =
        features["linux"]["namespaces"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    // A user namespace takes mappings and a root file system of its ids.
    let kinds = claimed.iter().filter(|kind| **kind != "user");
    container.bundle.set("/linux/namespaces", kinds.clone().map(|kind| json!({"type": kind})).collect());
    let inside = container.bundle.run().success();
    for kind in kinds {
        let name = match *kind {
            "mount" => "mnt",
            "network" => "net",
            kind => kind,
        };
        let own = std::fs::read_link(format!("/proc/self/ns/{name}")).expect("our own namespace");
        let own = own.display().to_string();
        assert!(inside.contains(&format!("{name}:[")) && !inside.contains(&own), "{kind}: {own} {inside}");
    }
}

#[test]
fn help_is_there_for_every_verb() {
    let world = World::enter();
    let container = Container::new(&world, STAY);
    let help = |arguments: &[&str]| output(container.bundle.runtime().args(arguments));
    for verb in [
        "create", "delete", "events", "exec", "features", "kill", "list", "pause", "ps", "resume", "run", "spec",
        "start", "state", "update",
    ] {
        let text = help(&[verb, "--help"]).success();
        assert!(text.starts_with("NAME:\n") && text.contains(&format!("{verb} - ")), "{text}");
        assert!(help(&["--help"]).success().contains(&format!("\n   {verb} ")), "{verb}");
    }
    let misused = help(&["start"]);
    assert!(misused.stdout.starts_with("Incorrect Usage.\n"), "{misused:?}");
    check_refused(&misused, 1, "\\\"start\\\" requires exactly 1 argument(s)");
    check_refused(&help(&["teleport"]), 3, "No help topic for 'teleport'");
    check_refused(&help(&["create", "--teleport", "c"]), 1, "flag provided but not defined: -teleport");
}

#[test]
fn what_is_not_built_is_refused_by_name() {
    if !is_ours() {
        return;
    }
    let world = World::enter();
    let container = Container::new(&world, STAY);
    let refused = |arguments: &[&str]| output(container.bundle.runtime().args(arguments));
    check_refused(&refused(&["--systemd-cgroup", "list"]), 1, "systemd cgroup driver is not built yet");
    check_refused(&refused(&["--rootless", "true", "list"]), 1, "containers without root are not built yet");
    check_refused(&refused(&["create", "--no-pivot", "c"]), 1, "--no-pivot is not supported");
}
