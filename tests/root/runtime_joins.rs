//! Joining a container through the shim: what is visible only where a stage child makes the processes.

use std::fs;
use std::os::fd::AsFd;

use serde_json::json;
use tests::World;

use crate::shim_client::{LONG, Pod, exec_verb, memfd, process};

#[test]
fn a_created_container_of_a_shim_has_its_streams_and_one_socket() {
    let world = World::enter();
    let mut pod = Pod::start(&world);
    let container = pod.container("c", "true");
    let (answer, _) = pod.create(&container).unwrap();
    let pid = &answer["process"]["pid"];
    let mut files: Vec<String> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .map(|entry| fs::read_link(entry.unwrap().path()).unwrap().display().to_string())
        .map(|name| name.split(':').next().unwrap().to_owned())
        .collect();
    files.sort();
    assert_eq!(files, ["/dev/null", "pipe", "pipe", "socket"]);
    pod.stop();
}

#[test]
fn an_exec_in_a_container_that_ends_meanwhile_is_told_that_it_does_not_run() {
    let world = World::enter();
    let mut pod = Pod::start(&world);
    let stdio = json!({"stdin": false, "stdout": false, "stderr": false});
    let program = memfd(&process(&["/bin/true"]));
    for round in 0..tests::rounds(30) {
        let id = format!("c{round}");
        let container = pod.container(&id, "exec sleep 1000");
        pod.run(&container);
        let execs: Vec<u64> = (0..3)
            .map(|number| {
                let verb = exec_verb(&id, &format!("e{round}-{number}"), &stdio, false);
                pod.connection.ask(&verb, &[program.as_fd()], LONG)
            })
            .collect();
        pod.kill(&id, 9).unwrap();
        for exec in execs {
            if let Err(failure) = pod.connection.answer(exec) {
                assert_eq!(failure["kind"], "not_running", "{failure}");
            }
        }
        pod.exit(&id);
        pod.delete(&id).unwrap();
    }
    pod.stop();
}

#[test]
fn what_is_executed_in_a_container_is_the_shims_child() {
    let world = World::enter();
    let mut pod = Pod::start(&world);
    let container = pod.container("c", "exec sleep 1000");
    pod.run(&container);
    let stdio = json!({"stdin": false, "stdout": false, "stderr": false});
    let program = memfd(&process(&["/bin/sleep", "1000"]));
    let verb = exec_verb("c", "e", &stdio, false);
    let (answer, _) = pod.connection.call(&verb, &[program.as_fd()]).unwrap();
    let pid = answer["process"]["pid"].as_i64().unwrap() as i32;
    let stat = sys::process::stat(sys::process::Pid::from_raw(pid)).unwrap();
    assert_eq!(stat.parent.as_raw(), pod.pid());
    assert_eq!(answer["process"]["start_time"], stat.start_time);
    pod.stop();
}
