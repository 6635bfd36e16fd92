//! create, start, state, kill, delete, list: the states of a container and what each verb says in them.

use std::time::Duration;

use serde_json::{Value, json};
use tests::{World, eventually, output};

use super::{Container, STAY, check_refused, is_ours};

#[test]
fn a_created_container_waits_for_start() {
    let world = World::enter();
    let container = Container::new(&world, STAY);
    container.create(&[]).success();
    assert_eq!(container.status(), "created");
    assert!(!container.bundle.rootfs("ready").exists());
    container.verb(&["start"]).success();
    container.is_ready();
    assert_eq!(container.status(), "running");
}

#[test]
fn state_tells_the_facts_of_the_container() {
    let world = World::enter();
    let mut container = Container::new(&world, STAY);
    container.bundle.set("/annotations", json!({"org.example.key": "value"}));
    container.create(&["--pid-file", "pid"]).success();
    let state = container.state();
    let pid = std::fs::read_to_string(container.bundle.dir.join("pid")).expect("the pid file");
    assert_eq!(state["pid"].to_string(), pid);
    assert_eq!(state["id"], container.bundle.id.as_str());
    assert!(state["ociVersion"].as_str().is_some_and(|version| version.starts_with("1.")), "{state}");
    assert_eq!(state["bundle"], container.bundle.dir.to_str().expect("a path in UTF-8"));
    assert_eq!(state["rootfs"], container.bundle.rootfs("").to_str().expect("a path in UTF-8").trim_end_matches('/'));
    assert_eq!(state["annotations"], json!({"org.example.key": "value"}));
    assert!(state["created"].as_str().is_some_and(|time| time.starts_with("20") && time.ends_with('Z')), "{state}");
}

#[test]
fn a_killed_container_is_stopped_until_it_is_deleted() {
    let world = World::enter();
    let container = Container::started(&world);
    container.verb(&["kill"]).success();
    // The script is PID 1 and has no handler for SIGTERM.
    assert_eq!(container.status(), "running");
    output(container.command(&["kill"]).arg("SIGKILL")).success();
    container.has_stopped();
    assert_eq!(container.state()["pid"], 0);
    container.verb(&["delete"]).success();
    check_refused(&container.verb(&["state"]), 1, "container does not exist");
}

#[test]
fn a_signal_is_known_by_name_and_number() {
    let world = World::enter();
    let container = Container::new(
        &world,
        "for s in USR1 USR2 HUP; do trap \"echo $s >> /got\" $s; done; touch /ready; while :; do sleep 0.1; done",
    );
    container.start();
    let got = || std::fs::read_to_string(container.bundle.rootfs("got")).unwrap_or_default();
    for (signal, name) in [("SIGUSR1", "USR1\n"), ("usr2", "USR2\n"), ("1", "HUP\n")] {
        output(container.command(&["kill"]).arg(signal)).success();
        eventually("the signal is there", Duration::from_secs(10), || got().ends_with(name));
    }
    check_refused(&output(container.command(&["kill"]).arg("FROB")), 1, "unknown signal");
}

#[test]
fn killing_a_stopped_container_is_an_error_that_engines_know() {
    let world = World::enter();
    let container = Container::new(&world, "true");
    container.create(&[]).success();
    container.verb(&["start"]).success();
    container.has_stopped();
    check_refused(&container.verb(&["kill"]), 1, "container not running");
    container.verb(&["kill", "--all"]).success();
}

#[test]
fn an_id_is_taken_once() {
    let world = World::enter();
    let container = Container::started(&world);
    check_refused(&container.create(&[]), 1, "container with given ID already exists");
    assert_eq!(container.status(), "running");
}

#[test]
fn a_container_is_started_once() {
    let world = World::enter();
    let container = Container::started(&world);
    check_refused(&container.verb(&["start"]), 1, "cannot start an already running container");
    output(container.command(&["kill"]).arg("KILL")).success();
    container.has_stopped();
    check_refused(&container.verb(&["start"]), 1, "cannot start a container that has stopped");
}

#[test]
fn of_many_starts_at_once_one_succeeds_and_none_hangs() {
    let world = World::enter();
    let container = Container::new(&world, STAY);
    container.create(&[]).success();
    let starts: Vec<_> = (0..5).map(|_| container.command(&["start"]).spawn().expect("start the runtime")).collect();
    let succeeded = starts.into_iter().filter_map(|mut start| start.wait().ok()).filter(|status| status.success());
    assert_eq!(succeeded.count(), 1);
    container.is_ready();
}

#[test]
fn a_running_container_is_deleted_by_force_alone() {
    let world = World::enter();
    let container = Container::started(&world);
    check_refused(&container.verb(&["delete"]), 1, "that is not stopped: running");
    assert_eq!(container.status(), "running");
    container.verb(&["delete", "--force"]).success();
    check_refused(&container.verb(&["state"]), 1, "container does not exist");
}

#[test]
fn deleting_a_container_that_was_never_started_ends_it() {
    let world = World::enter();
    let container = Container::new(&world, STAY);
    container.create(&[]).success();
    container.verb(&["delete"]).success();
    check_refused(&container.verb(&["state"]), 1, "container does not exist");
}

#[test]
fn an_unknown_id_is_an_error_that_engines_know() {
    let world = World::enter();
    let container = Container::new(&world, STAY);
    std::fs::create_dir(container.bundle.dir.join("state")).expect("the root directory");
    for verb in ["start", "state", "kill", "delete"] {
        check_refused(&container.verb(&[verb]), 1, "container does not exist");
    }
    check_refused(&container.exec(&[], &["true"]), 255, "container does not exist");
    container.verb(&["delete", "--force"]).success();
}

#[test]
fn an_id_that_is_no_name_is_refused() {
    let world = World::enter();
    let mut container = Container::new(&world, STAY);
    for id in ["a/b", "..", "a b", "ä"] {
        container.bundle.id = id.to_owned();
        check_refused(&container.create(&[]), 1, "invalid container ID format");
    }
    container.bundle.id = String::new();
    check_refused(&container.create(&[]), 1, "container id cannot be empty");
}

#[test]
fn a_failed_create_leaves_nothing_and_its_reason_in_the_log() {
    let world = World::enter();
    let mut container = Container::new(&world, STAY);
    container.bundle.set("/process/args", json!(["nonesuch"]));
    container.bundle.write_config();
    let log = container.bundle.dir.join("log.json");
    let mut command = container.bundle.runtime();
    command.arg("--log").arg(&log).args(["--log-format", "json", "create", "--bundle"]);
    let failed = output(command.arg(&container.bundle.dir).arg(&container.bundle.id));
    check_refused(&failed, 1, "executable file not found in $PATH");
    let log = std::fs::read_to_string(log).expect("the log");
    let last: Value = serde_json::from_str(log.lines().last().expect("a line")).expect("JSON in the log");
    assert_eq!(last["level"], "error");
    assert!(last["msg"].as_str().is_some_and(|text| text.contains("executable file not found in $PATH")), "{last}");
    let left = std::fs::read_dir(container.bundle.dir.join("state")).expect("the root directory").count();
    assert_eq!(left, 0, "state directories");
    // That its cgroups are gone the World proves.
}

#[test]
fn arguments_that_are_refused_are_told_in_the_log_too() {
    if !is_ours() {
        return;
    }
    let world = World::enter();
    let container = Container::new(&world, STAY);
    let log = container.bundle.dir.join("log.json");
    for (arguments, code, reason) in [
        (vec!["create", "--nonesuch", "id"], 1, "nonesuch"),
        (vec!["--systemd-cgroup", "create", "id"], 1, "the systemd cgroup driver"),
        (vec!["teleport"], 3, "No help topic for 'teleport'"),
        (vec!["create", "--preserve-fds", "900", "id"], 1, "preserved-fd"),
    ] {
        let mut command = container.bundle.runtime();
        command.arg("--log").arg(&log).args(["--log-format", "json"]).args(&arguments);
        check_refused(&output(&mut command), code, reason);
        let text = std::fs::read_to_string(&log).expect("the log");
        let last: Value = serde_json::from_str(text.lines().last().expect("a line")).expect("JSON in the log");
        assert_eq!(last["level"], "error", "{arguments:?}");
        assert!(last["msg"].as_str().is_some_and(|message| message.contains(reason)), "{last}");
    }
}

#[test]
fn poststart_hooks_are_not_run_for_a_program_that_could_not_be() {
    if !is_ours() {
        return;
    }
    let world = World::enter();
    let mut container = Container::new(&world, STAY);
    let (program, seen) = (container.bundle.rootfs("program"), container.bundle.dir.join("seen"));
    std::fs::copy(container.bundle.rootfs("bin/busybox"), &program).expect("a program");
    container.bundle.set("/process/args", json!(["/program"]));
    container.bundle.set("/hooks", json!({"poststart": [{"path": "/usr/bin/touch", "args": ["touch", seen]}]}));
    container.create(&[]).success();
    std::fs::remove_file(&program).expect("the program is removed");
    check_refused(&container.verb(&["start"]), 1, "ended before its program could run");
    assert!(!seen.exists(), "the hook has run");
}

#[test]
fn what_joins_a_container_has_the_process_that_it_was_made_with() {
    let world = World::enter();
    let mut container = Container::new(&world, STAY);
    container.bundle.set("/process/env", json!(["PATH=/bin", "MADE_WITH=this"]));
    container.start();
    let config = container.bundle.dir.join("config.json");
    let edited = std::fs::read_to_string(&config).expect("config.json").replace("MADE_WITH=this", "MADE_WITH=that");
    tests::write(&config, edited);
    assert_eq!(container.exec(&[], &["sh", "-c", "echo $MADE_WITH"]).success(), "this\n");
    std::fs::remove_file(&config).expect("config.json is removed");
    assert_eq!(container.exec(&[], &["sh", "-c", "echo $MADE_WITH"]).success(), "this\n");
}

#[test]
fn list_shows_a_table_json_or_ids() {
    let world = World::enter();
    let container = Container::started(&world);
    let id = container.bundle.id.clone();
    let list = |flags: &[&str]| output(container.bundle.runtime().arg("list").args(flags)).success();
    let table = list(&[]);
    let (header, row) = table.trim_end().split_once('\n').expect("two lines");
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(header), ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
    let state = container.state();
    let expected = [&id, &state["pid"].to_string(), "running", state["bundle"].as_str().expect("a bundle")];
    assert_eq!(words(row)[..4], expected.map(str::to_owned));
    assert_eq!(header.find("PID"), row.find(&state["pid"].to_string()), "columns are aligned:\n{table}");
    assert_eq!(words(row)[5], "root");

    let json: Value = serde_json::from_str(&list(&["--format", "json"])).expect("JSON from list");
    assert_eq!((json[0]["id"].as_str(), json[0]["owner"].as_str()), (Some(id.as_str()), Some("root")));
    assert_eq!(list(&["-q"]), format!("{id}\n"));

    container.verb(&["delete", "--force"]).success();
    assert_eq!(list(&["--format", "json"]), "null\n");
}

#[test]
fn two_containers_do_not_know_of_each_other() {
    let world = World::enter();
    let (one, other) = (Container::started(&world), Container::started(&world));
    output(one.command(&["kill"]).arg("KILL")).success();
    one.has_stopped();
    assert_eq!(other.status(), "running");
}

#[test]
fn a_config_and_a_process_beyond_16_mebibytes_are_refused_unread() {
    if !is_ours() {
        return;
    }
    let world = World::enter();
    let mut container = Container::started(&world);
    let process = container.bundle.dir.join("process.json");
    let much = "x".repeat(16 << 20);
    tests::write(
        &process,
        json!({"args": ["true"], "cwd": "/", "user": {"uid": 0, "gid": 0}, "more": &much}).to_string(),
    );
    let exec = container.verb(&["exec", "--process", process.to_str().expect("a path in UTF-8")]);
    check_refused(&exec, 255, "process.json: ");
    check_refused(&exec, 255, "longer than 16777216 bytes");
    container.verb(&["delete", "--force"]).success();
    container.bundle.set("/annotations", json!({"org.example.much": much}));
    let create = container.create(&[]);
    check_refused(&create, 1, "config.json: ");
    check_refused(&create, 1, "longer than 16777216 bytes");
}
