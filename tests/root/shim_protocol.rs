//! What a shim does with connections and messages that are not as they should be.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::Stdio;

use serde_json::{Value, json};
use tests::{World, binary, eventually, output};

use crate::shim_client::{Connection, LONG, Pod, memfd, sandbox};

#[test]
fn garbage_ends_its_connection_and_nothing_else() {
    let world = World::enter();
    let mut pod = Pod::start(&world);
    let many = vec![b'x'; 66_000];
    let long = format!("{{\"id\":1,\"deadline_ms\":1,\"verb\":\"{}\"}}", "y".repeat(70_000));
    let garbage: [&[u8]; 8] = [b"x", b"\0", b"{", b"[]", b"{\"id\":-1}", b"\"stop_sandbox\"", &many, long.as_bytes()];
    for datagram in garbage {
        let mut connection = pod.connect();
        connection.send_raw(datagram, &[]);
        assert!(connection.is_hung_up(), "{:?}", String::from_utf8_lossy(&datagram[..datagram.len().min(20)]));
    }
    assert_eq!(pod.hello()["ready"], true);
    pod.stop();
}

#[test]
fn a_request_with_an_id_is_answered_whatever_is_wrong_with_it() {
    let world = World::enter();
    let mut pod = Pod::start(&world);
    for (id, request) in (1..).zip([
        json!({"verb": "stop_sandbox"}),
        json!({"deadline_ms": 1000, "verb": {"levitate": {}}}),
        json!({"deadline_ms": 1000, "verb": {"start": {}}}),
        json!({"deadline_ms": 1000, "verb": {"start": {"container": 7}}}),
        json!({"deadline_ms": -5, "verb": "stop_sandbox"}),
        json!({"deadline_ms": 1000, "verb": null}),
    ]) {
        let mut request = request;
        request["id"] = json!(id);
        let mut connection = pod.connect();
        connection.send_raw(request.to_string().as_bytes(), &[]);
        let failure = connection.answer(id).unwrap_err();
        assert_eq!(failure["kind"], "invalid", "{request}");
    }
    assert_eq!(pod.hello()["ready"], true);
    pod.stop();
}

#[test]
fn a_wrong_number_of_fds_is_refused_and_they_are_closed() {
    let world = World::enter();
    let mut pod = Pod::start(&world);
    let document = memfd(&json!({}));
    let before = pod.open_fds();
    let container = pod.container("c", "true");
    for (verb, sent) in [
        (json!({"create": container.create}), 0),
        (json!({"create": container.create}), 1),
        (json!({"create": container.create}), 5),
        (json!({"start": {"container": "c"}}), 1),
        (json!({"update": {"container": "c"}}), 2),
        (json!({"hello": {"version": 1, "subscribe": true}}), 3),
        (json!({"attach": {"container": "c", "stdio": {"stdin": true, "stdout": true, "stderr": false}}}), 1),
    ] {
        let failure = pod.connection.call(&verb, &vec![document.as_fd(); sent]).unwrap_err();
        assert_eq!(failure["kind"], "invalid", "{verb} with {sent}");
    }
    // More than any message has: the datagram is not taken at all.
    let mut flood = pod.connect();
    flood.send_raw(b"{\"id\":1,\"deadline_ms\":1,\"verb\":\"stop_sandbox\"}", &[document.as_fd(); 32]);
    let failure = flood.answer(1).unwrap_err();
    assert_eq!(failure["kind"], "invalid");
    drop(flood);
    eventually("all fds are closed", LONG, || pod.open_fds() == before);
    pod.stop();
}

#[test]
fn what_is_no_sealed_document_is_refused() {
    let world = World::enter();
    let mut pod = Pod::start(&world);
    let container = pod.container("c", "true");
    let (verb, fds) = container.message(pod.rootfs());
    let file = fs::File::open("/etc/hostname").unwrap();
    let swapped: [BorrowedFd<'_>; 2] = [file.as_fd(), fds[1].as_fd()];
    let failure = pod.connection.call(&verb, &swapped).unwrap_err();
    assert_eq!(failure["kind"], "invalid", "{failure}");
    let nonsense = memfd(&json!({"ociVersion": 7}));
    let failure = pod.connection.call(&verb, &[nonsense.as_fd(), fds[1].as_fd()]).unwrap_err();
    assert_eq!(failure["kind"], "invalid", "{failure}");
    let long = memfd(&json!({"annotations": {"org.example.much": "x".repeat(16 << 20)}}));
    let failure = pod.connection.call(&verb, &[long.as_fd(), fds[1].as_fd()]).unwrap_err();
    let message = failure["message"].as_str().unwrap();
    assert!(message.starts_with("read the spec: ") && message.contains("longer than 16777216 bytes"), "{message}");
    let failure = pod.connection.call(&verb, &[fds[0].as_fd(), nonsense.as_fd()]).unwrap_err();
    assert!(failure["message"].is_string(), "a root file system that is none: {failure}");
    assert_eq!(pod.hello()["containers"], json!({}));
    pod.stop();
}

#[test]
fn requests_and_answers_of_several_daemons_do_not_mix() {
    let world = World::enter();
    let mut pod = Pod::start(&world);
    let mut others: Vec<Connection> = (0..5).map(|_| pod.connect()).collect();
    let container = pod.container("c", "exit 3");
    for other in &mut others {
        other.call(&json!({"hello": {"version": 1, "subscribe": true}}), &[]).unwrap();
    }
    let asked: Vec<u64> = others
        .iter_mut()
        .map(|other| other.ask(&json!({"kill": {"container": "nobody", "signal": 9, "all": false}}), &[], LONG))
        .collect();
    pod.run(&container);
    pod.exit("c");
    for (other, id) in others.iter_mut().zip(asked) {
        assert_eq!(other.answer(id).unwrap_err()["kind"], "not_found");
        assert_eq!(other.event("exited", |event| event["container"] == "c")["exit"]["code"], 3);
    }
    let mut silent = pod.connect();
    silent.call(&json!({"hello": {"version": 1, "subscribe": false}}), &[]).unwrap();
    let another = pod.container("d", "exit 4");
    pod.run(&another);
    pod.exit("d");
    assert_eq!(silent.pending_events(), [] as [Value; 0]);
    pod.stop();
}

#[test]
fn another_user_is_turned_away() {
    let world = World::enter();
    let mut pod = Pod::start(&world);
    let socket = pod.dir.join("shim.sock");
    // Even with the doors open: the socket's mode is not the only guard.
    for path in [pod.dir.as_path(), socket.as_path()] {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    }
    let stranger = output(world.command(env!("CARGO_BIN_EXE_sys-probe")).arg("stranger").arg(&socket));
    assert_eq!(stranger.code, 0, "{}", stranger.stderr);
    assert!(pod.notes().contains("only root may"), "{}", pod.notes());
    assert_eq!(pod.hello()["ready"], true);
    pod.stop();
}

#[test]
fn a_listening_socket_can_come_from_the_daemon() {
    let world = World::enter();
    let dir = world.new_dir("shim");
    let path = dir.join("shim.sock");
    let listener = sys::socket::listen(&path).unwrap();
    // Connected before the shim is there: nothing has to be polled for.
    let mut connection = Connection::open(&path);
    let mut command = world.command("/bin/sh");
    let script = "exec 3<&0 </dev/null; exec \"$0\" --dir \"$1\" --listen-fd 3";
    command.args(["-c", script]).arg(binary("orlop-shim")).arg(&dir).stdin(Stdio::from(listener));
    let mut shim = command.spawn().unwrap();
    connection.call(&json!({"start_sandbox": sandbox()}), &[]).unwrap();
    connection.call(&json!("stop_sandbox"), &[]).unwrap();
    let status = eventually("the shim ends", LONG, || shim.try_wait().unwrap());
    assert!(status.success());
}

#[test]
fn signals_that_end_a_daemon_are_not_for_the_pod() {
    let world = World::enter();
    let mut pod = Pod::start(&world);
    for signal in ["HUP", "INT", "QUIT", "TERM", "PIPE"] {
        let signal: sys::signal::Number = signal.parse().unwrap();
        let shim = sys::process::PidFd::open(sys::process::Pid::from_raw(pod.pid())).unwrap();
        shim.send_signal(signal).unwrap();
    }
    let container = pod.container("c", "trap 'exit 9' TERM; echo ready; while :; do usleep 10000; done");
    pod.run(&container);
    eventually("the trap is set", LONG, || pod.log_lines("c") == ["stdout F ready"]);
    // Nor does the container inherit that it should ignore them.
    pod.kill("c", 15).unwrap();
    assert_eq!(pod.exit("c")["code"], 9);
    pod.stop();
}
