//! Hooks: when each kind runs, where, as whom, with what, and what a failing one leads to.
//!
//! Ours alone, as the runtime-spec 1.3 has it and runc 1.5 has not: `poststart` hooks run at the start and not at the
//! creation, after a failing `poststop` hook the others run. So are the fds of `createContainer` hooks, which see some of
//! runc's, and that a hook is over though its children hold its output open.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::{Output, World, eventually, output, write};

use super::bundle::{Bundle, message};

/// In the order of a container's life.
const KINDS: [&str; 6] = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// Those that run in the container, from its own files.
const INSIDE: &str = "startContainer";

/// A bundle in whose directory hooks leave what they see.
struct Hooked<'a> {
    bundle: Bundle<'a>,
}

impl<'a> Hooked<'a> {
    fn new(world: &'a World, script: &str) -> Hooked<'a> {
        let bundle = Bundle::new(world, script);
        // Hooks of the container write there too.
        fs::set_permissions(bundle.rootfs(""), fs::Permissions::from_mode(0o777)).unwrap();
        Hooked { bundle }
    }

    /// Adds a hook of busybox's shell; in it `$out` is a file for [`Hooked::seen`].
    fn hook(&mut self, kind: &str, script: &str) -> &mut Self {
        self.add(kind, json!({"args": ["sh", "-c", script, "hook"]}))
    }

    fn add(&mut self, kind: &str, mut hook: Value) -> &mut Self {
        let (busybox, out) = match kind == INSIDE {
            true => ("/bin/busybox".to_owned(), format!("/seen-{kind}")),
            false => {
                (self.bundle.rootfs("bin/busybox").display().to_string(), self.seen_path(kind).display().to_string())
            }
        };
        if hook.get("path").is_none() {
            hook["path"] = json!(busybox);
        }
        if let Some(script) = hook.pointer_mut("/args/2") {
            *script = json!(format!("out={out}; {}", script.as_str().unwrap()));
        }
        let hooks = &mut self.bundle.config["hooks"];
        match hooks[kind].as_array_mut() {
            Some(list) => list.push(hook),
            None => hooks[kind] = json!([hook]),
        }
        self
    }

    fn seen_path(&self, kind: &str) -> PathBuf {
        match kind == INSIDE {
            true => self.bundle.rootfs(&format!("seen-{kind}")),
            false => self.bundle.dir.join(format!("seen-{kind}")),
        }
    }

    /// What a hook wrote to `$out`; nothing if it did not run.
    fn seen(&self, kind: &str) -> String {
        fs::read_to_string(self.seen_path(kind)).unwrap_or_default()
    }

    fn order(&self) -> Vec<String> {
        fs::read_to_string(self.bundle.dir.join("order")).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// Adds a hook to each kind that leaves a line in the file `order`; those inside do it through a bind of it.
    fn note_order(&mut self) -> &mut Self {
        let order = self.bundle.dir.join("order");
        write(&order, "");
        fs::set_permissions(&order, fs::Permissions::from_mode(0o666)).unwrap();
        self.bundle.mount(json!({"destination": "/order", "type": "bind", "source": order, "options": ["bind"]}));
        for kind in KINDS {
            let path = if kind == INSIDE { "/order".to_owned() } else { order.display().to_string() };
            self.hook(kind, &format!("echo {kind} >> {path}"));
        }
        self
    }

    fn runtime(&self, arguments: &[&str]) -> Output {
        output(self.bundle.runtime().args(arguments))
    }

    /// Creates the container, which holds none of our pipes.
    fn create(&self) {
        self.bundle.write_config();
        let mut create = self.bundle.runtime();
        create.arg("create").arg("--bundle").arg(&self.bundle.dir).arg(&self.bundle.id);
        create.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        assert!(create.status().unwrap().success());
    }
}

#[test]
fn hooks_run_in_the_order_of_a_containers_life_around_its_program() {
    let world = World::enter();
    let mut hooked = Hooked::new(&world, "echo program >> /order");
    // The second of a kind comes after the first.
    hooked.note_order().note_order();
    hooked.create();
    let before = ["prestart", "createRuntime", "createContainer"].iter().flat_map(|kind| [kind, kind]);
    assert_eq!(hooked.order(), before.map(|kind| (*kind).to_owned()).collect::<Vec<_>>());
    hooked.runtime(&["start", &hooked.bundle.id]).success();
    eventually("the program ran", Duration::from_secs(10), || hooked.order().contains(&"program".to_owned()));
    eventually("it stopped", Duration::from_secs(10), || {
        hooked.runtime(&["state", &hooked.bundle.id]).success().contains("stopped")
    });
    let order = hooked.order();
    assert_eq!(order[6..8], ["startContainer", "startContainer"]);
    let poststart = order.iter().filter(|kind| *kind == "poststart").count();
    assert_eq!((poststart, order.len()), (2, 11), "{order:?}");
    hooked.runtime(&["delete", &hooked.bundle.id]).success();
    assert_eq!(hooked.order()[11..], ["poststop", "poststop"]);
}

#[test]
fn poststart_hooks_run_when_the_program_does() {
    let world = World::enter();
    // As the library's own: runc 1.5 runs them when the container is created.
    for detached in [true, false] {
        let mut hooked = Hooked::new(&world, "touch /ready; sleep 100");
        // The kernel tells a program's arguments a moment after it has closed what its caller waits for.
        let script = "state=$(busybox cat); echo \"$state\" > $out; pid=${state#*\\\"pid\\\":}; \
                      until [ -s $out.cmd ]; do busybox tr '\\0' ' ' < /proc/${pid%%,*}/cmdline > $out.cmd; done";
        hooked.hook("poststart", script);
        let running = match detached {
            true => {
                hooked.create();
                assert_eq!(hooked.seen("poststart"), "");
                hooked.runtime(&["start", &hooked.bundle.id]).success();
                None
            }
            false => Some(hooked.bundle.start()),
        };
        let told = PathBuf::from(format!("{}.cmd", hooked.seen_path("poststart").display()));
        // The foreground's container may be ready before its hook is.
        eventually("the hook has run", Duration::from_secs(10), || told.metadata().is_ok_and(|told| told.len() > 0));
        let state: Value = serde_json::from_str(&hooked.seen("poststart")).unwrap();
        assert_eq!(state["status"], "running");
        let command = fs::read_to_string(&told).unwrap();
        // The shell becomes the last program of its script.
        assert!(command.starts_with("sh -c touch /ready") || command == "sleep 100 ", "{command}");
        drop(running);
        if detached {
            hooked.runtime(&["delete", "--force", &hooked.bundle.id]).success();
        }
    }
}

#[test]
fn each_hook_has_the_state_its_arguments_and_its_environment() {
    let world = World::enter();
    let mut hooked = Hooked::new(&world, "true");
    hooked.bundle.set("/annotations", json!({"org.example": "x"}));
    hooked.bundle.set("/process/env", json!(["PATH=/bin", "OF_PROGRAM=1"]));
    for kind in KINDS {
        let look = "busybox cat > $out; echo >> $out; echo $0 $# $1 >> $out; busybox env >> $out";
        hooked.add(kind, json!({"args": ["sh", "-c", look, "name", "an argument"], "env": ["A=1", "OF_HOOK=2"]}));
    }
    let pid_file = hooked.bundle.dir.join("pid");
    hooked.bundle.write_config();
    let mut run = hooked.bundle.runtime();
    run.arg("run").arg("--pid-file").arg(&pid_file).arg("--bundle").arg(&hooked.bundle.dir).arg(&hooked.bundle.id);
    output(&mut run).success();
    let pid: i32 = fs::read_to_string(&pid_file).unwrap().parse().unwrap();
    for (kind, status, pid) in [
        ("prestart", "creating", json!(pid)),
        ("createRuntime", "creating", json!(pid)),
        // In the container's PID namespace.
        ("createContainer", "creating", json!(1)),
        ("startContainer", "created", json!(1)),
        ("poststart", "running", json!(pid)),
        ("poststop", "stopped", Value::Null),
    ] {
        let seen = hooked.seen(kind);
        let mut lines = seen.lines();
        let state: Value =
            serde_json::from_str(lines.next().unwrap()).unwrap_or_else(|e| panic!("{kind}: {seen}: {e}"));
        assert_eq!((&state["id"], &state["status"]), (&json!(hooked.bundle.id), &json!(status)), "{kind}");
        assert_eq!((&state["pid"], &state["bundle"]), (&pid, &json!(hooked.bundle.dir)), "{kind}");
        assert_eq!(state["annotations"], json!({"org.example": "x"}), "{kind}");
        assert!(state["ociVersion"].is_string(), "{kind}");
        assert_eq!(lines.next(), Some("name 1 an argument"), "{kind}");
        let environment: Vec<&str> = lines.collect();
        assert!(environment.contains(&"A=1") && environment.contains(&"OF_HOOK=2"), "{kind}: {environment:?}");
        assert!(!environment.contains(&"OF_PROGRAM=1"), "{kind}: {environment:?}");
    }
}

#[test]
fn a_hook_without_an_environment_has_that_of_its_surroundings() {
    let world = World::enter();
    let mut hooked = Hooked::new(&world, "true");
    hooked.bundle.set("/process/env", json!(["PATH=/bin", "OF_PROGRAM=1"]));
    for kind in KINDS {
        hooked.hook(kind, "busybox env > $out");
    }
    hooked.bundle.write_config();
    let mut run = hooked.bundle.runtime();
    run.env("OF_CALLER", "1").arg("run").arg("--bundle").arg(&hooked.bundle.dir).arg(&hooked.bundle.id);
    output(&mut run).success();
    for kind in KINDS {
        let environment = hooked.seen(kind);
        let has = |name: &str| environment.lines().any(|line| line == format!("{name}=1"));
        let of_caller = !["createContainer", "startContainer"].contains(&kind);
        assert_eq!((has("OF_CALLER"), has("OF_PROGRAM")), (of_caller, kind == "startContainer"), "{kind}");
    }
}

#[test]
fn each_hook_runs_in_its_namespaces_with_its_root_and_as_its_user() {
    let world = World::enter();
    let mut hooked =
        Hooked::new(&world, "busybox sh -c 'for n in mnt pid net uts; do readlink /proc/self/ns/$n; done' > /program");
    hooked.bundle.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    hooked.bundle.set("/process/cwd", json!("/tmp"));
    let look = "for n in mnt pid net uts; do busybox readlink /proc/self/ns/$n; done > $out; \
                (busybox pwd; busybox id -u; [ -e /etc/hostname ] && echo host || echo container; \
                 busybox grep NoNewPrivs /proc/self/status) > $out.more";
    for kind in KINDS {
        hooked.hook(kind, look);
    }
    // What is mounted is there, at the path of the bundle too.
    hooked.hook(
        "createContainer",
        "busybox mount | busybox grep -q \"on $(busybox pwd)/proc \" && [ -c dev/null ] && echo mounted >> $out.more",
    );
    hooked.bundle.run().success();
    let own: String = ["mnt", "pid", "net", "uts"]
        .map(|kind| format!("{}\n", fs::read_link(format!("/proc/thread-self/ns/{kind}")).unwrap().display()))
        .concat();
    let of_container = fs::read_to_string(hooked.bundle.rootfs("program")).unwrap();
    assert_ne!(own, of_container);
    let here = hooked.bundle.dir.display().to_string();
    for kind in KINDS {
        let more = fs::read_to_string(format!("{}.more", hooked.seen_path(kind).display())).unwrap();
        let (namespaces, expected) = match kind {
            "startContainer" => (&of_container, "/tmp\n1000\ncontainer\nNoNewPrivs:\t1\n".to_owned()),
            "createContainer" => {
                let rootfs = hooked.bundle.rootfs("").display().to_string();
                let rootfs = rootfs.trim_end_matches('/');
                (&of_container, format!("{rootfs}\n0\nhost\nNoNewPrivs:\t0\nmounted\n"))
            }
            _ => (&own, format!("{here}\n0\nhost\nNoNewPrivs:\t0\n")),
        };
        assert_eq!((&hooked.seen(kind), more), (namespaces, expected), "{kind}");
    }
}

#[test]
fn hooks_inherit_their_streams_and_nothing_else() {
    let world = World::enter();
    let mut hooked = Hooked::new(&world, "true");
    for kind in KINDS {
        // busybox's ls runs by itself: a shell has files of its own.
        let (ls, out) = match kind == INSIDE {
            true => ("/bin/busybox".to_owned(), "/seen-startContainer".to_owned()),
            false => (
                hooked.bundle.rootfs("bin/busybox").display().to_string(),
                hooked.seen_path(kind).display().to_string(),
            ),
        };
        hooked.add(kind, json!({"path": ls, "args": ["ln", "-s", "x", format!("{out}.ran")]}));
        // Its output is told only if it fails.
        hooked.add(kind, json!({"path": ls, "args": ["ls", "/proc/self/fd", "/nowhere"]}));
        hooked.bundle.write_config();
        let runtime = hooked.bundle.runtime();
        let mut run = world.command("sh");
        run.args(["-c", "exec \"$@\" 3< /dev/null 4< /dev/null", "sh"])
            .arg(runtime.get_program())
            .args(runtime.get_args());
        run.args(["run", "--preserve-fds", "2", "--bundle"]).arg(&hooked.bundle.dir).arg(&hooked.bundle.id);
        // 3 is ls's own handle of the directory that it lists.
        let told = message(&output(&mut run)).replace("\\n", "\n");
        assert!(told.contains("stdout: /proc/self/fd:\n0\n1\n2\n3\n, stderr: "), "{kind}: {told}");
        assert!(fs::symlink_metadata(format!("{}.ran", hooked.seen_path(kind).display())).is_ok(), "{kind}");
        hooked.bundle.config["hooks"] = json!({});
    }
}

#[test]
fn a_hook_that_fails_ends_the_creation_and_is_named_with_what_it_said() {
    let world = World::enter();
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let mut hooked = Hooked::new(&world, "touch /ran");
        hooked.note_order();
        hooked.hook(kind, "echo out; echo complaint >&2; exit 3");
        hooked.hook(kind, "echo never > $out");
        let failed = hooked.bundle.run();
        assert_eq!(failed.code, 1, "{kind}: {failed:?}");
        let told = message(&failed);
        assert!(told.contains(&format!("error running {kind} hook #1: ")), "{kind}: {told}");
        assert!(told.contains("exit status 3, stdout: out"), "{kind}: {told}");
        assert!(told.contains("stderr: complaint"), "{kind}: {told}");
        assert_eq!((hooked.seen(kind), hooked.bundle.rootfs("ran").exists()), (String::new(), false), "{kind}");
        // The container is destroyed, which the last hooks are told (runtime.md, "Lifecycle").
        let last = KINDS.iter().position(|known| *known == kind).unwrap();
        let ran = KINDS[..=last].iter().chain(["poststop"].iter());
        assert_eq!(hooked.order(), ran.map(|kind| (*kind).to_owned()).collect::<Vec<_>>(), "{kind}");
        assert!(!hooked.bundle.dir.join("state").join(&hooked.bundle.id).exists(), "{kind}");
    }
}

#[test]
fn a_start_hook_that_fails_keeps_the_program_from_running() {
    let world = World::enter();
    let mut hooked = Hooked::new(&world, "touch /ran");
    hooked.hook("startContainer", "exit 3");
    let failed = hooked.bundle.run();
    assert!(failed.code != 0 && message(&failed).contains("error running startContainer hook #0: "), "{failed:?}");
    assert!(!hooked.bundle.rootfs("ran").exists());
}

#[test]
fn a_poststart_hook_that_fails_ends_the_container() {
    let world = World::enter();
    let mut hooked = Hooked::new(&world, "touch /ready; sleep 100");
    hooked.hook("poststart", "exit 3").hook("poststop", "echo stopped > $out");
    let failed = hooked.bundle.run();
    assert!(failed.code == 1 && message(&failed).contains("error running poststart hook #0: "), "{failed:?}");
    assert_eq!(hooked.seen("poststop"), "stopped\n");
}

// As the runtime-spec 1.3 has it; runc 1.5 runs the hook at create.
#[test]
fn a_poststart_hook_that_fails_ends_a_container_that_was_started() {
    let world = World::enter();
    let mut hooked = Hooked::new(&world, "touch /ready; sleep 100");
    hooked.hook("poststart", "exit 3").hook("poststop", "echo stopped > $out");
    hooked.create();
    let failed = hooked.runtime(&["start", &hooked.bundle.id]);
    assert!(failed.code == 1 && message(&failed).contains("error running poststart hook #0: "), "{failed:?}");
    eventually("it stopped", Duration::from_secs(10), || {
        hooked.runtime(&["state", &hooked.bundle.id]).success().contains("stopped")
    });
    assert_eq!(hooked.seen("poststop"), "");
    hooked.runtime(&["delete", &hooked.bundle.id]).success();
    assert_eq!(hooked.seen("poststop"), "stopped\n");
}

#[test]
fn a_poststop_hook_that_fails_is_told_and_keeps_no_other_from_running() {
    let world = World::enter();
    let mut hooked = Hooked::new(&world, "true");
    hooked.hook("poststop", "exit 3").hook("poststop", "echo ran > $out");
    let run = hooked.bundle.run();
    assert_eq!((run.code, hooked.seen("poststop").as_str()), (0, "ran\n"), "{run:?}");
    let told = message(&run);
    assert!(told.contains("level=warning") && told.contains("error running poststop hook #0: "), "{told}");
}

#[test]
fn a_hook_that_takes_too_long_is_killed_and_named() {
    let world = World::enter();
    for kind in ["createRuntime", "createContainer", "startContainer", "poststart", "poststop"] {
        let mut hooked = Hooked::new(&world, "true");
        let args = json!(["sleep", "100"]);
        hooked.add(kind, json!({"args": args, "timeout": 1}));
        let begun = Instant::now();
        let run = hooked.bundle.run();
        let took = begun.elapsed();
        assert!(took > Duration::from_secs(1) && took < Duration::from_secs(8) * tests::slow(), "{kind}: {took:?}");
        let told = message(&run);
        assert!(told.contains(&format!("error running {kind} hook #0: ")), "{kind}: {told}");
        assert!(told.contains("hook ran past specified timeout of 1.0s"), "{kind}: {told}");
        assert_eq!(run.code == 0, kind == "poststop", "{kind}: {run:?}");
    }
}

/// More seconds than a clock can count.
#[test]
fn a_hook_may_have_any_time_that_the_config_can_say() {
    let world = World::enter();
    let mut hooked = Hooked::new(&world, "true");
    for kind in KINDS {
        hooked.add(kind, json!({"args": ["true"], "timeout": i64::MAX}));
    }
    hooked.bundle.run().success();
}

#[test]
fn a_hook_whose_children_keep_its_output_open_is_over_when_it_ends() {
    let world = World::enter();
    let mut hooked = Hooked::new(&world, "true");
    let pid_file = hooked.bundle.dir.join("background");
    // More output than a pipe holds, too.
    hooked.hook(
        "createRuntime",
        &format!("busybox sleep 1000 & echo $! > {}; busybox yes | busybox head -c 300000", pid_file.display()),
    );
    let begun = Instant::now();
    hooked.bundle.run().success();
    assert!(begun.elapsed() < Duration::from_secs(10) * tests::slow(), "{:?}", begun.elapsed());
    let pid = fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    eventually("it is gone", Duration::from_secs(10), || !PathBuf::from(format!("/proc/{pid}/stat")).exists());
}

#[test]
fn what_a_hook_changes_in_the_container_is_there_for_its_program() {
    let world = World::enter();
    let mut hooked = Hooked::new(&world, "cat /file /tmp/mounted/file");
    hooked.bundle.set("/root/readonly", json!(true));
    let rootfs = hooked.bundle.rootfs("");
    let data = hooked.bundle.dir.join("data");
    fs::create_dir_all(&data).unwrap();
    write(&data.join("file"), "mounted\n");
    hooked.hook(
        "createContainer",
        &format!(
            "echo written > file; busybox mkdir {0}tmp/mounted; busybox mount -o bind {1} {0}tmp/mounted",
            rootfs.display(),
            data.display()
        ),
    );
    assert_eq!(hooked.bundle.run().success(), "written\nmounted\n");
    // In the container's mounts alone.
    assert!(!rootfs.join("tmp/mounted/file").exists());
}

#[test]
fn a_start_hook_is_under_the_containers_filter() {
    let world = World::enter();
    for no_new_privileges in [true, false] {
        let mut hooked = Hooked::new(&world, "true");
        let rules = json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13},
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]);
        let profile =
            json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": rules});
        hooked.bundle.set("/linux/seccomp", profile);
        hooked.bundle.set("/process/noNewPrivileges", Value::Bool(no_new_privileges));
        hooked.hook(
            "startContainer",
            "(busybox grep Seccomp: /proc/self/status; busybox mkdir /x 2>/dev/null || echo refused) > $out",
        );
        hooked.hook("createContainer", "busybox grep Seccomp: /proc/self/status > $out");
        hooked.bundle.run().success();
        assert_eq!(hooked.seen("startContainer"), "Seccomp:\t2\nrefused\n", "{no_new_privileges}");
        assert_eq!(hooked.seen("createContainer"), "Seccomp:\t0\n", "{no_new_privileges}");
    }
}

#[test]
fn a_start_hook_that_leads_to_the_runtime_is_refused() {
    let world = World::enter();
    let mut hooked = Hooked::new(&world, "true");
    write(&hooked.bundle.rootfs("hook"), "#!/proc/self/exe\n");
    fs::set_permissions(hooked.bundle.rootfs("hook"), fs::Permissions::from_mode(0o755)).unwrap();
    for path in ["/hook", "/proc/self/exe"] {
        hooked.bundle.config["hooks"] = json!({"startContainer": [{"path": path}]});
        let refused = hooked.bundle.run();
        assert!(refused.code != 0 && message(&refused).contains("it is the runtime itself"), "{path}: {refused:?}");
    }
}

#[test]
fn a_hook_that_is_not_there_or_makes_no_sense_is_named() {
    let world = World::enter();
    let plain = world.dir().join("plain");
    write(&plain, "no program\n");
    let plain = plain.display().to_string();
    for (hook, expected) in [
        (
            json!({"path": "/nowhere/hook"}),
            "error running createRuntime hook #0: fork/exec /nowhere/hook: no such file or directory",
        ),
        (
            json!({"path": plain}),
            &*format!("error running createRuntime hook #0: fork/exec {plain}: permission denied"),
        ),
        (json!({"path": "hook"}), "hooks.createRuntime[0].path: \"hook\" is not an absolute path"),
        (json!({"path": "/x", "timeout": 0}), "hooks.createRuntime[0].timeout: 0 is not above 0"),
    ] {
        let mut hooked = Hooked::new(&world, "true");
        hooked.bundle.config["hooks"] = json!({"createRuntime": [hook]});
        let refused = hooked.bundle.run();
        assert!(refused.code == 1 && message(&refused).contains(expected), "{refused:?}");
    }
}
