//! Hooks of containers in a pod: they run as any runtime runs them, in stage children with their verb's deadline.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::{World, eventually};

use crate::shim_client::{Container, LONG, Pod};

/// The file that a hook of the host leaves what it sees in; one of the container leaves it in `/tmp/seen`.
fn seen(pod: &Pod, kind: &str) -> PathBuf {
    pod.dir.join(format!("seen-{kind}"))
}

/// Gives a container a hook of busybox's shell, for which `$out` is [`seen`].
fn with_hook(mut container: Container, pod: &Pod, kind: &str, script: &str) -> Container {
    let (busybox, out) = match kind == "startContainer" {
        true => ("/bin/busybox".to_owned(), "/tmp/seen".to_owned()),
        false => (pod.rootfs().join("bin/busybox").display().to_string(), seen(pod, kind).display().to_string()),
    };
    let hook = json!({"path": busybox, "args": ["sh", "-c", format!("out={out}; {script}")]});
    container.spec["hooks"][kind] = json!([hook]);
    container
}

#[test]
fn hooks_of_every_kind_run_with_the_containers_state_and_root() {
    let world = World::enter();
    let mut pod = Pod::start(&world);
    let mut container = pod.container("web", "sleep 100");
    container.spec["annotations"] = json!({"org.example": "x"});
    for kind in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"] {
        container = with_hook(container, &pod, kind, "busybox cat > $out");
    }
    // It works on the root by its path, as those of the CDI do.
    let script = "state=$(busybox cat); echo \"$state\" > $out; bundle=${state#*\\\"bundle\\\":\\\"}; bundle=${bundle%%\\\"*}; \
                  busybox grep -q \"$bundle/rootfs\" $bundle/config.json && echo made > $bundle/rootfs/tmp/made";
    container = with_hook(container, &pod, "createContainer", script);
    let (answer, _) = pod.create(&container).unwrap();
    let pid = answer["process"]["pid"].clone();
    let state = |kind: &str| -> Value {
        let text = fs::read_to_string(seen(&pod, kind)).unwrap_or_else(|error| panic!("{kind}: {error}"));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{kind}: {error}: {text}"))
    };
    for (kind, pid) in [("prestart", &pid), ("createRuntime", &pid), ("createContainer", &json!(1))] {
        let state = state(kind);
        assert_eq!((&state["status"], &state["id"], &state["pid"]), (&json!("creating"), &json!("web"), pid), "{kind}");
        assert_eq!(state["annotations"], json!({"org.example": "x"}), "{kind}");
    }
    let bundle = PathBuf::from(state("prestart")["bundle"].as_str().unwrap());
    assert!(bundle.join("config.json").exists());
    assert!(!seen(&pod, "poststart").exists());

    pod.connection.call(&json!({"start": {"container": "web"}}), &[]).unwrap();
    let state =
        |pod: &Pod, kind: &str| -> Value { serde_json::from_slice(&fs::read(seen(pod, kind)).unwrap()).unwrap() };
    // Both in the container's own /tmp, which is read where it is.
    let (inside, _) = pod.exec("web", "look", "cat /tmp/made /tmp/seen");
    let (made, told) = inside.split_once('\n').unwrap();
    let told: Value = serde_json::from_str(told).unwrap();
    assert_eq!((made, &told["status"], &told["pid"]), ("made", &json!("created"), &json!(1)));
    assert_eq!((&state(&pod, "poststart")["status"], &state(&pod, "poststart")["pid"]), (&json!("running"), &pid));
    pod.kill("web", 9).unwrap();
    pod.exit("web");
    assert!(!seen(&pod, "poststop").exists());
    pod.delete("web").unwrap();
    assert_eq!(state(&pod, "poststop")["status"], "stopped");
    assert!(!bundle.exists());
    pod.stop();
}

#[test]
fn a_hook_that_hangs_delays_nothing_else_and_dies_at_the_deadline() {
    let world = World::enter();
    let mut pod = Pod::start(&world);
    let container = pod.container("slow", "sleep 100");
    let container = with_hook(container, &pod, "poststop", "echo told > $out");
    let container = with_hook(container, &pod, "createRuntime", "echo $$ > $out; exec busybox sleep 100");
    let (verb, fds) = container.message(pod.rootfs());
    let fds: Vec<_> = fds.iter().map(std::os::fd::AsFd::as_fd).collect();
    let begun = Instant::now();
    let deadline = Duration::from_secs(6) * tests::slow();
    let hanging = pod.connection.ask(&verb, &fds, deadline);
    let hook = eventually("the hook runs", LONG, || {
        fs::read_to_string(seen(&pod, "createRuntime")).ok().filter(|pid| pid.ends_with('\n'))
    });
    let other = pod.container("other", "sleep 100");
    pod.run(&other);
    assert!(begun.elapsed() < deadline, "{:?}", begun.elapsed());
    let failure = pod.connection.answer(hanging).unwrap_err();
    assert_eq!(failure["kind"], "deadline", "{failure}");
    assert!(failure["message"].as_str().unwrap().contains("run createRuntime hook #0"), "{failure}");
    let process = PathBuf::from(format!("/proc/{}", hook.trim()));
    eventually("the hook is dead", LONG, || !process.exists());
    // What is left of the container is removed, and who was told of its making is told of its end.
    eventually("its end is told", LONG, || {
        fs::read_to_string(seen(&pod, "poststop")).is_ok_and(|told| told == "told\n")
    });
    eventually("its id is free", LONG, || !pod.dir.join("bundles/slow").exists());
    pod.stop();
}

#[test]
fn a_hook_that_fails_is_the_verbs_failure() {
    let world = World::enter();
    let mut pod = Pod::start(&world);
    for kind in ["createRuntime", "createContainer"] {
        let container = with_hook(pod.container("web", "sleep 100"), &pod, kind, "echo no >&2; exit 3");
        let container = with_hook(container, &pod, "poststop", "echo told > $out");
        let failure = pod.create(&container).unwrap_err();
        let message = failure["message"].as_str().unwrap();
        assert!(
            message.contains(&format!("error running {kind} hook #0: ")) && message.contains("stderr: no"),
            "{failure}"
        );
        assert_eq!(fs::read_to_string(seen(&pod, "poststop")).unwrap(), "told\n", "{kind}");
        fs::remove_file(seen(&pod, "poststop")).unwrap();
    }
    let container = with_hook(pod.container("web", "sleep 100"), &pod, "poststart", "exit 3");
    pod.create(&container).unwrap();
    let failure = pod.start_container("web").unwrap_err();
    assert!(failure["message"].as_str().unwrap().contains("error running poststart hook #0: "), "{failure}");
    assert_eq!(pod.exit("web")["code"], 137);
    pod.delete("web").unwrap();
    pod.stop();
}

#[test]
fn a_sandbox_that_stops_tells_the_hooks_of_its_containers() {
    let world = World::enter();
    let mut pod = Pod::start(&world);
    let container = with_hook(pod.container("web", "sleep 100"), &pod, "poststop", "echo told > $out; exit 3");
    pod.run(&container);
    let told = seen(&pod, "poststop");
    let log = pod.dir.join("shim.log");
    pod.stop();
    assert_eq!(fs::read_to_string(told).unwrap(), "told\n");
    let notes = fs::read_to_string(log).unwrap();
    assert!(notes.contains("container web: error running poststop hook #0: "), "{notes}");
}
