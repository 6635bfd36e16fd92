//! File descriptors that would lead to the host (CVE-2016-9962, CVE-2024-21626).

use serde_json::json;
use tests::{World, output};

use super::Bundle;

/// CVE-2024-21626: every fd number that could be a directory of the host.
#[test]
fn a_working_directory_behind_an_fd_is_refused_in_init_and_exec() {
    let world = World::enter();
    let mut bundle = Bundle::new(&world, "pwd");
    for fd in (0..32).map(|fd| fd.to_string()).chain(["../cwd".to_owned(), "../root".to_owned()]) {
        bundle.set("/process/cwd", json!(format!("/proc/self/fd/{fd}")));
        let refused = bundle.run();
        assert_ne!(refused.code, 0, "{fd}: {}", refused.stdout);
    }
    let bundle = Bundle::new(&world, "touch /ready; sleep 100");
    let running = bundle.start();
    for fd in 0..32 {
        let refused = running.exec("pwd", json!({"cwd": format!("/proc/self/fd/{fd}")}));
        assert_eq!(refused.code, 255, "{fd}: {}", refused.stdout);
    }
}

#[test]
fn what_an_engine_left_open_does_not_reach_the_program() {
    let world = World::enter();
    let mut bundle = Bundle::new(&world, "");
    bundle.set("/process/args", json!(["ls", "/proc/self/fd"]));
    bundle.write_config();
    let runtime = bundle.runtime();
    let words = std::iter::once(runtime.get_program()).chain(runtime.get_args());
    let runtime: Vec<String> = words.map(|word| word.to_string_lossy().into_owned()).collect();
    // The numbers that a runtime is likely to use itself, and some far above.
    let line =
        format!("exec 5</ 7</etc 9</; exec {} run --bundle {} {}", runtime.join(" "), bundle.dir.display(), bundle.id);
    let listed = output(world.command("bash").arg("-c").arg(&line)).success();
    // 3 is the handle of what is listed.
    assert_eq!(listed, "0\n1\n2\n3\n");
    let stay = Bundle::new(&world, "touch /ready; sleep 100");
    let _running = stay.start();
    let process = stay.dir.join("process.json");
    tests::write(
        &process,
        json!({"args": ["ls", "/proc/self/fd"], "cwd": "/", "env": ["PATH=/bin"],
        "user": {"uid": 0, "gid": 0}})
        .to_string(),
    );
    let (id, process) = (&stay.id, process.display());
    let state = stay.dir.join("state");
    let line =
        format!("exec 5</ 7</etc 9</; exec {} --root {} exec --process {process} {id}", runtime[0], state.display());
    assert_eq!(output(world.command("bash").arg("-c").arg(&line)).success(), "0\n1\n2\n3\n");
}
