//! System call filters: their flags, and agents that decide on calls.

use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};
use sys::poll::Interest;
use tests::{World, slow};

use super::bundle::{Bundle, message};

const PATIENCE: Duration = Duration::from_secs(10);

/// An agent that is asked once by each filter, and then leaves: the calls fail with ENOSYS from there on.
struct Agent {
    path: PathBuf,
    told: Receiver<Value>,
    /// Ended with the agent: a World is left by a process of one thread.
    thread: Option<JoinHandle<()>>,
}

impl Agent {
    fn start(world: &World) -> Agent {
        let path = world.new_dir("agent").join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let (tell, told) = channel();
        let thread = std::thread::spawn(move || {
            for connection in listener.incoming() {
                let mut buffer = vec![0; 64 * 1024];
                let (length, fds) = sys::socket::recv(&connection.unwrap(), &mut buffer).unwrap();
                if length == 0 {
                    return;
                }
                let [listener]: [OwnedFd; 1] = fds.try_into().expect("one fd beside the message");
                let asked = sys::poll::poll(&[(listener.as_fd(), Interest::READ)], Some(PATIENCE * slow())).unwrap();
                assert!(!asked[0].is_empty(), "nobody asked");
                tell.send(serde_json::from_slice(&buffer[..length]).unwrap()).unwrap();
            }
        });
        Agent { path, told, thread: Some(thread) }
    }

    fn told(&self) -> Value {
        self.told.recv_timeout(PATIENCE * slow()).expect("an agent that was asked")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Nothing comes over this connection.
        drop(UnixStream::connect(&self.path).unwrap());
        if let Err(panic) = self.thread.take().expect("a thread").join() {
            eprintln!("the agent failed: {panic:?}");
        }
    }
}

/// Calls that the agent decides on; those of the shell's `mkdir` among them.
fn asking(agent: &Path, more: &[&str]) -> Value {
    let names = [&["mkdir", "mkdirat"], more].concat();
    json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "listenerPath": agent,
        "listenerMetadata": "for the agent", "syscalls": [{"names": names, "action": "SCMP_ACT_NOTIFY"}]})
}

#[test]
fn an_agent_decides_on_the_calls_of_a_container_and_is_told_whose_they_are() {
    let world = World::enter();
    let agent = Agent::start(&world);
    for no_new_privileges in [true, false] {
        let mut bundle = Bundle::new(&world, "mkdir /x 2>&1; grep Seccomp: /proc/self/status");
        bundle.set("/linux/seccomp", asking(&agent.path, &[]));
        bundle.set("/annotations", json!({"org.example/key": "value"}));
        bundle.set("/process/noNewPrivileges", json!(no_new_privileges));
        let seen = bundle.run().success();
        assert!(seen.contains("Function not implemented") && seen.ends_with("Seccomp:\t2\n"), "{seen}");
        let told = agent.told();
        assert_eq!(told["fds"], json!(["seccompFd"]));
        assert_eq!(told["metadata"], "for the agent");
        assert_eq!(told["state"]["id"], bundle.id);
        assert_eq!(told["state"]["status"], "creating");
        assert_eq!(told["state"]["bundle"], json!(bundle.dir));
        assert_eq!(told["state"]["annotations"], json!({"org.example/key": "value"}));
        assert_eq!(told["state"]["pid"], told["pid"]);
        assert!(told["pid"].as_i64().unwrap() > 1, "{told}");
    }
}

/// Between filter and program the process makes calls of its own: the agent decides on them as well, with the listener that it
/// got before. Only `write` may not be asked about.
#[test]
fn an_agent_gets_its_listener_though_every_call_that_could_send_it_waits_for_the_agent() {
    let world = World::enter();
    let agent = Agent::start(&world);
    for no_new_privileges in [true, false] {
        let mut bundle = Bundle::new(&world, "echo runs");
        bundle.set("/linux/seccomp", asking(&agent.path, &["sendmsg", "sendto", "recvmsg"]));
        bundle.set("/process/noNewPrivileges", json!(no_new_privileges));
        assert_eq!(bundle.run().success(), "runs\n");
        agent.told();
    }
}

/// runc needs libseccomp 2.6 for the second flag.
#[test]
fn the_wait_for_an_agent_can_be_made_killable_only() {
    let world = World::enter();
    let agent = Agent::start(&world);
    let mut profile = asking(&agent.path, &[]);
    profile["flags"] = json!(["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]);
    let mut bundle = Bundle::new(&world, "mkdir /x 2>/dev/null || echo asked");
    bundle.set("/linux/seccomp", profile);
    assert_eq!(bundle.run().success(), "asked\n");
    agent.told();
}

#[test]
fn what_is_executed_in_a_container_has_its_filter_with_a_listener_of_its_own() {
    let world = World::enter();
    let agent = Agent::start(&world);
    let mut bundle = Bundle::new(&world, "mkdir /x 2>/dev/null; touch /ready; sleep 100");
    bundle.set("/linux/seccomp", asking(&agent.path, &[]));
    let running = bundle.start();
    let first = agent.told();
    for no_new_privileges in [true, false] {
        let seen = running.exec("mkdir /y 2>&1 || true", json!({"noNewPrivileges": no_new_privileges})).success();
        assert!(seen.contains("Function not implemented"), "{seen}");
        let told = agent.told();
        assert_eq!(told["state"]["status"], "running");
        assert_eq!(told["state"]["pid"], first["pid"]);
        assert_ne!(told["pid"], first["pid"]);
    }
}

#[test]
fn a_profile_that_can_not_ask_is_refused() {
    let world = World::enter();
    let refused = |change: &dyn Fn(&mut Value), expected: &str| {
        let mut profile = asking(Path::new("/nowhere/agent"), &[]);
        change(&mut profile);
        let mut bundle = Bundle::new(&world, "true");
        bundle.set("/linux/seccomp", profile);
        let output = bundle.run();
        assert_ne!(output.code, 0);
        assert!(message(&output).contains(expected), "{expected} in {}", message(&output));
    };
    refused(&|_| {}, "connect");
    refused(&|profile| profile["listenerPath"] = json!(""), "seccomp listenerPath is not set");
    refused(
        &|profile| profile["syscalls"][0]["names"] = json!(["write"]),
        "SCMP_ACT_NOTIFY cannot be used for the write syscall",
    );
    refused(
        &|profile| profile["defaultAction"] = json!("SCMP_ACT_NOTIFY"),
        "SCMP_ACT_NOTIFY cannot be used as default action",
    );
}

#[test]
fn every_architecture_and_flag_of_the_spec_is_taken() {
    let world = World::enter();
    let bare = |fields: Value| {
        let mut profile = json!({"defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]});
        profile.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let mut bundle = Bundle::new(&world, "mkdir /x 2>/dev/null || echo refused");
        bundle.set("/linux/seccomp", profile);
        assert_eq!(bundle.run().success(), "refused\n", "{fields}");
    };
    for flag in ["LOG", "SPEC_ALLOW", "TSYNC"] {
        bare(json!({"flags": [format!("SECCOMP_FILTER_FLAG_{flag}")]}));
    }
    bare(json!({"flags": []}));
    bare(json!({"architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]}));
    bare(json!({"architectures": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM", "SCMP_ARCH_RISCV64"]}));
}

#[test]
fn a_filter_is_kept_whole_for_those_who_join() {
    let world = World::enter();
    let mut bundle = Bundle::new(&world, "touch /ready; sleep 100");
    let rules = json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}]);
    bundle.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}));
    let running = bundle.start();
    // The config may change once a container was made from it.
    fs::remove_file(bundle.dir.join("config.json")).unwrap();
    assert!(running.exec("mkdir /y 2>&1 || true", json!({})).success().contains("Permission denied"));
}
