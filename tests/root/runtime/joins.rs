//! What a container can take hold of while a process joins it or waits for its start, and what its filter may forbid.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::{Value, json};
use tests::{World, eventually, output, write};

use super::bundle::{Bundle, message};

/// A profile that allows all but these calls.
fn all_but(names: &[&str]) -> Value {
    let rules = json!([{"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]);
    json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": rules})
}

#[test]
fn a_container_that_may_trace_and_stop_an_exec_at_birth_finds_nothing_of_the_host_in_it() {
    let world = World::enter();
    let mut bundle = Bundle::new(&world, "");
    let host = bundle.dir.join("config.json").display().to_string();
    // It stops whatever appears, looks at its leisure and lets it go on.
    let script = format!(
        "touch /ready /files; exec 2>/dev/null; while :; do for d in /proc/[0-9]*; do q=${{d#/proc/}}; [ $q = 1 ] && continue; \
         kill -STOP $q 2>/dev/null || continue; [ -e $d/root{host} ] && echo $q >> /escaped; \
         for f in $d/fd/*; do readlink $f >> /files; done; grep CapPrm $d/status >> /caps 2>/dev/null; kill -CONT $q; done 2>/dev/null; done"
    );
    bundle.set("/process/args/2", json!(script));
    for set in ["bounding", "effective", "permitted"] {
        let names = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_KILL", "CAP_SYS_PTRACE"];
        bundle.set(&format!("/process/capabilities/{set}"), json!(names));
    }
    let running = bundle.start();
    for _ in 0..tests::rounds(30) {
        assert_eq!(running.exec("true", json!({})).code, 0);
    }
    drop(running);
    let escaped = fs::read_to_string(bundle.rootfs("escaped")).unwrap_or_default();
    assert_eq!(escaped, "", "the host's root was seen through these processes");
    let files = fs::read_to_string(bundle.rootfs("files")).unwrap();
    let of_host = |name: &&str| name.contains("cgroup") || name.contains("runtime") || name.contains("bundle");
    let seen: BTreeSet<&str> = files.lines().filter(of_host).collect();
    assert_eq!(seen, BTreeSet::new(), "open files of the host");
    let caps = fs::read_to_string(bundle.rootfs("caps")).unwrap_or_default();
    for line in caps.lines() {
        let set = u64::from_str_radix(line.split_ascii_whitespace().last().unwrap(), 16).unwrap();
        assert_eq!(set >> 16 & 1, 0, "CAP_SYS_MODULE in {line}");
    }
}

/// The root of a namespace is found from its bottom: an old root that is left on top of the container's would be entered.
#[test]
fn an_exec_lands_in_the_containers_root_whatever_lay_over_the_hosts() {
    let world = World::enter();
    let bundle = Bundle::new(&world, "touch /ready; sleep 100");
    bundle.write_config();
    let mut covered = world.command("unshare");
    covered
        .args(["--mount", "sh", "-c", "mount -t tmpfs tmpfs / && exec \"$@\"", "sh"])
        .arg(bundle.runtime().get_program());
    covered.args(bundle.runtime().get_args()).args(["run", "--detach", "--bundle"]).arg(&bundle.dir).arg(&bundle.id);
    covered.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
    assert!(covered.status().unwrap().success());
    eventually("the container is ready", Duration::from_secs(10), || bundle.rootfs("ready").exists());
    let exec = output(bundle.runtime().args(["exec", &bundle.id, "sh", "-c", "ls /ready; wc -l < /proc/mounts"]));
    let mounts = fs::read_to_string(format!("/proc/{}/mounts", bundle.state()["pid"])).unwrap();
    output(bundle.runtime().args(["delete", "--force", &bundle.id]));
    assert_eq!(exec.success().lines().next(), Some("/ready"));
    let targets: Vec<&str> = mounts.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    assert_eq!(targets.iter().filter(|target| **target == "/").count(), 1, "{mounts}");
}

#[test]
fn a_container_in_the_runtimes_mount_namespace_leaves_no_mount_there() {
    let world = World::enter();
    let mut bundle = Bundle::new(&world, "ls / /proc/self/exe; while [ ! -e /done ]; do sleep 0.1; done");
    let namespaces = ["pid", "uts", "ipc", "network"].map(|kind| json!({"type": kind}));
    bundle.set("/linux/namespaces", json!(namespaces));
    if !sys::kernel::is_at_least(sys::kernel::Version { major: 6, minor: 15 }) {
        assert!(message(&bundle.run()).contains("needs Linux 6.15"), "{:?}", bundle.run());
        return;
    }
    let before = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let (told, exec, during) = std::thread::scope(|scope| {
        let run = scope.spawn(|| bundle.run());
        let state = || output(bundle.runtime().args(["state", &bundle.id])).stdout;
        eventually("the container runs", Duration::from_secs(10), || state().contains("\"running\""));
        let exec = output(bundle.runtime().args(["exec", &bundle.id, "true"]));
        let during = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        write(&bundle.rootfs("done"), "");
        (run.join().unwrap(), exec, during)
    });
    assert_eq!(told.code, 0, "{told:?}");
    assert!(told.stdout.contains("/bin/busybox") || told.stdout.contains("/proc/self/exe"), "{told:?}");
    assert!(!told.stdout.contains("home"), "the host's root: {told:?}");
    assert_eq!(during, before);
    assert!(exec.stderr.contains("shares its mount namespace with the runtime"), "{exec:?}");
}

/// A process of the host's PID namespace that opens a path of the container's `/proc` waits for a writer that never comes.
#[test]
fn an_exec_opens_nothing_of_what_stands_at_the_containers_proc() {
    let world = World::enter();
    let mut bundle = Bundle::new(&world, "touch /ready; sleep 100");
    bundle.config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/proc");
    bundle.set("/linux/maskedPaths", json!([]));
    let fds = bundle.rootfs("proc/self/fd");
    fs::create_dir_all(&fds).unwrap();
    for number in 3..80 {
        mkfifo(&fds.join(number.to_string()), Mode::S_IRWXU).unwrap();
    }
    let _running = bundle.start();
    let mut exec = world.command("timeout");
    exec.arg((20 * tests::slow()).to_string()).arg(bundle.runtime().get_program()).args(bundle.runtime().get_args());
    exec.args(["exec", &bundle.id, "sh", "-c", "echo $HOME"]);
    assert_eq!(output(&mut exec).success(), "/root\n");
}

#[test]
fn the_mount_namespace_of_another_container_is_joined_by_a_process_that_its_proc_does_not_show() {
    let world = World::enter();
    let first = Bundle::new(&world, "touch /ready; sleep 100");
    let running = first.start();
    let mut second = Bundle::new(&world, "echo $HOME; cat /new/file /filled/kept; stat -c %F /dev/null");
    let file = second.dir.join("file");
    write(&file, "bound\n");
    fs::create_dir(second.rootfs("filled")).unwrap();
    write(&second.rootfs("filled/kept"), "kept\n");
    let path = format!("/proc/{}/ns/mnt", running.pid());
    second.set("/linux/namespaces/0", json!({"type": "mount", "path": path}));
    second.mount(json!({"destination": "/new/file", "type": "bind", "source": file, "options": ["bind", "ro"]}));
    second.mount(
        json!({"destination": "/filled", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "mode=700"]}),
    );
    assert_eq!(second.run().success(), "/root\nbound\nkept\ncharacter special file\n");
}

#[test]
fn a_mount_namespace_of_the_host_is_not_joined() {
    let world = World::enter();
    let mut bundle = Bundle::new(&world, "true");
    bundle.set("/linux/namespaces/0", json!({"type": "mount", "path": "/proc/self/ns/mnt"}));
    assert!(message(&bundle.run()).contains("the mount namespace to join is the host's"), "{:?}", bundle.run());
}

#[test]
fn a_container_that_waits_for_its_start_holds_no_file_but_its_streams_and_what_it_waits_on() {
    let world = World::enter();
    let bundle = Bundle::new(&world, "true");
    bundle.write_config();
    let pid_file = bundle.dir.join("pid");
    let mut create = bundle.runtime();
    create.arg("create").arg("--bundle").arg(&bundle.dir).arg("--pid-file").arg(&pid_file).arg(&bundle.id);
    create.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    assert!(create.status().unwrap().success());
    let pid = fs::read_to_string(&pid_file).unwrap();
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(|entry| entry.unwrap());
    let others: Vec<String> = fds
        .filter(|entry| entry.file_name().to_str().unwrap().parse::<u32>().unwrap() > 2)
        .map(|entry| fs::read_link(entry.path()).unwrap().display().to_string())
        .collect();
    let (sockets, rest): (Vec<_>, Vec<_>) = others.iter().partition(|name| name.starts_with("socket:"));
    assert_eq!((sockets.len(), rest.len()), (1, 1), "{others:?}");
    // The directory of the FIFO has no way up: it is the root of a mount of its own.
    assert_eq!(rest[0], "/", "{others:?}");
    output(bundle.runtime().args(["delete", "--force", &bundle.id]));
}

#[test]
fn a_profile_may_forbid_what_only_the_runtime_calls() {
    let world = World::enter();
    for no_new_privileges in [true, false] {
        let mut bundle = Bundle::new(&world, "pwd");
        bundle.set("/process/cwd", json!("/tmp"));
        bundle.set("/process/noNewPrivileges", Value::Bool(no_new_privileges));
        bundle.set("/linux/seccomp", all_but(&["openat2", "close_range", "chdir", "fchdir", "sendmsg", "recvmsg"]));
        assert_eq!(bundle.run().success(), "/tmp\n", "{no_new_privileges}");
    }
}

#[test]
fn a_profile_that_lets_nothing_be_said_fails_at_once() {
    let world = World::enter();
    let mut bundle = Bundle::new(&world, "true");
    bundle.set("/process/noNewPrivileges", Value::Bool(false));
    bundle.set("/linux/seccomp", all_but(&["sendmsg", "write"]));
    let begun = Instant::now();
    let run = bundle.run();
    assert_ne!(run.code, 0);
    assert!(begun.elapsed() < Duration::from_secs(5) * tests::slow(), "{:?}", begun.elapsed());
    assert!(message(&run).contains("before it could say why"), "{run:?}");
}

#[test]
fn an_exec_that_fails_is_no_success_even_if_its_filter_lets_it_say_nothing() {
    let world = World::enter();
    for forbidden in [&["sendmsg"][..], &["sendmsg", "write"]] {
        let mut bundle = Bundle::new(&world, "touch /ready; sleep 100");
        write(&bundle.rootfs("bin/bad"), "\x7fELF is all that is right");
        fs::set_permissions(bundle.rootfs("bin/bad"), fs::Permissions::from_mode(0o755)).unwrap();
        bundle.set("/linux/seccomp", all_but(forbidden));
        let running = bundle.start();
        let exec = running.exec("", json!({"args": ["/bin/bad"], "noNewPrivileges": true}));
        assert!(exec.code != 0 && exec.stderr.contains("exec"), "{forbidden:?}: {exec:?}");
    }
}

#[test]
fn a_script_whose_interpreters_lead_to_the_runtime_is_refused() {
    let world = World::enter();
    let bundle = Bundle::new(&world, "touch /ready; sleep 100");
    let script = |name: &str, interpreter: &str, mode: u32| {
        write(&bundle.rootfs(name), format!("#!{interpreter}\n"));
        fs::set_permissions(bundle.rootfs(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    script("bin/direct", "/proc/self/exe", 0o755);
    script("bin/chain", "/bin/direct", 0o111);
    let running = bundle.start();
    for name in ["/bin/direct", "direct", "chain", "/proc/self/exe"] {
        for user in [0, 1000] {
            let exec = running.exec("", json!({"args": [name], "user": {"uid": user, "gid": 0}}));
            assert!(message(&exec).contains("it is the runtime itself"), "{name} as {user}: {exec:?}");
        }
    }
    let mut entry = Bundle::new(&world, "");
    write(&entry.rootfs("bin/direct"), "#!/proc/self/exe\n");
    fs::set_permissions(entry.rootfs("bin/direct"), fs::Permissions::from_mode(0o755)).unwrap();
    entry.set("/process/args", json!(["direct"]));
    assert!(message(&entry.run()).contains("it is the runtime itself"));
}
