//! What a container with a user namespace can't reach: cgroups that are not its own, groups of its creator, who joins it.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use tests::{World, eventually, output};

use super::bundle::{Bundle, message};
use super::user_namespaces;

/// The paths of `/proc/<pid>/cgroup`, the container's name taken out.
fn cgroups(pid: i32, bundle: &Bundle<'_>) -> String {
    fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap().replace(&bundle.id, "ID")
}

/// CVE-2025-47291: with a user namespace, processes were left in the runtime's cgroup.
#[test]
fn every_process_is_in_the_containers_cgroups() {
    let world = World::enter();
    let script = "touch /ready; sleep 100";
    let plain = Bundle::new(&world, script);
    let plain_running = plain.start();
    let expected = cgroups(plain_running.pid(), &plain);
    assert!(expected.contains("ID"), "{expected}");
    drop(plain_running);

    let bundle = user_namespaces::bundle(&world, script);
    let running = bundle.start();
    assert_eq!(cgroups(running.pid(), &bundle), expected);
    let pid_file = bundle.dir.join("exec.pid");
    let mut exec = bundle.runtime();
    exec.args(["exec", "--detach", "--pid-file"]).arg(&pid_file).args([&bundle.id, "sleep", "100"]);
    exec.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    assert!(exec.status().unwrap().success());
    let pid = fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
    assert_eq!(cgroups(pid, &bundle), expected);
}

fn is_v2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

fn set_cgroup_mount(bundle: &mut Bundle<'_>, read_only: bool) {
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    let mount = mounts.iter_mut().find(|mount| mount["type"] == "cgroup").unwrap();
    mount["options"] = json!(["nosuid", "noexec", "nodev", if read_only { "ro" } else { "rw" }]);
}

const MAKE_CGROUP: &str = "for d in /sys/fs/cgroup /sys/fs/cgroup/*; do [ -e $d/cgroup.procs ] || continue; \
                           mkdir $d/sub 2>/dev/null && echo made; echo 0 2>/dev/null > $d/cgroup.procs && echo moved; done; echo end";

/// CVE-2023-25809: without a cgroup namespace the container could write into the host's cgroups.
#[test]
fn cgroups_that_are_not_delegated_can_not_be_changed() {
    let world = World::enter();
    for (namespace, read_only) in [(true, true), (false, true), (false, false)] {
        let mut bundle = user_namespaces::bundle(&world, MAKE_CGROUP);
        set_cgroup_mount(&mut bundle, read_only);
        if !namespace {
            let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|namespace| namespace["type"] != "cgroup");
        }
        assert_eq!(bundle.run().success(), "end\n", "cgroup namespace {namespace}, read-only {read_only}");
    }
}

/// Only v2 can be delegated safely (cgroups(7)).
#[test]
fn a_writable_cgroup_mount_in_a_cgroup_namespace_is_the_users_own_on_v2_alone() {
    let world = World::enter();
    for uid in [0, 1000] {
        let mut bundle = user_namespaces::bundle(&world, MAKE_CGROUP);
        set_cgroup_mount(&mut bundle, false);
        bundle.set("/process/user/uid", json!(uid));
        let expected = if is_v2() { "made\nmoved\nend\n" } else { "end\n" };
        assert_eq!(bundle.run().success().replace("moved\nmade\nmoved\n", "moved\n"), expected, "{uid}");
    }
}

/// A process in a namespace, until this is dropped.
struct Holder(std::process::Child);

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn groups_of_the_creator_do_not_reach_a_user_namespace_that_forbids_to_change_them() {
    let world = World::enter();
    let mut unshare = world.command("unshare");
    // Which forbids setgroups(2): the one who maps its own group has to.
    unshare.args(["--user", "--map-root-user", "sleep", "100"]);
    let holder = Holder(unshare.stdin(Stdio::null()).spawn().unwrap());
    let pid = holder.0.id();
    let map = format!("/proc/{pid}/gid_map");
    eventually("the maps are written", Duration::from_secs(10), || {
        fs::read_to_string(&map).is_ok_and(|text| text.split_ascii_whitespace().last() == Some("1"))
    });
    let mut bundle = Bundle::new(&world, "grep Groups /proc/self/status; id -u");
    let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.push(json!({"type": "user", "path": format!("/proc/{pid}/ns/user")}));
    // Of its groups this namespace has 0 alone.
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| mount["type"] != "devpts");
    let run = |bundle: &Bundle<'_>| {
        bundle.write_config();
        let mut setpriv = world.command("setpriv");
        setpriv.args(["--groups", "4711,4712"]).arg(bundle.runtime().get_program());
        output(setpriv.args(bundle.runtime().get_args()).arg("run").arg("--bundle").arg(&bundle.dir).arg(&bundle.id))
    };
    assert_eq!(run(&bundle).success(), "Groups:\t\n0\n".replace("\t\n", "\t \n"));
    bundle.set("/process/user/additionalGids", json!([0, 7]));
    let refused = run(&bundle);
    assert!(refused.code != 0 && message(&refused).contains("additionalGids"), "{refused:?}");
    drop(holder);
}

/// As for a container without one (`joins.rs`): what it can see of an exec has nothing of the host.
#[test]
fn a_container_that_may_trace_finds_nothing_of_the_host_in_an_exec() {
    let world = World::enter();
    let mut bundle = user_namespaces::bundle(&world, "");
    let host = bundle.dir.join("config.json").display().to_string();
    let script = format!(
        "touch /ready /files /seen; exec 2>/dev/null; while :; do for d in /proc/[0-9]*; do q=${{d#/proc/}}; [ $q = 1 ] && continue; \
         kill -STOP $q 2>/dev/null || continue; [ -e $d/root{host} ] && echo $q >> /escaped; echo $q >> /seen; \
         for f in $d/fd/*; do readlink $f >> /files; done; grep CapPrm $d/status >> /caps 2>/dev/null; kill -CONT $q; done 2>/dev/null; done"
    );
    bundle.set("/process/args/2", json!(script));
    for set in ["bounding", "effective", "permitted"] {
        let names = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_KILL", "CAP_SYS_PTRACE"];
        bundle.set(&format!("/process/capabilities/{set}"), json!(names));
    }
    let running = bundle.start();
    for _ in 0..30 {
        assert_eq!(running.exec("true", json!({})).code, 0);
    }
    assert_ne!(fs::read_to_string(bundle.rootfs("seen")).unwrap(), "", "it stopped nobody");
    assert_eq!(fs::read_to_string(bundle.rootfs("escaped")).unwrap_or_default(), "");
    let files = fs::read_to_string(bundle.rootfs("files")).unwrap();
    let of_host = |name: &&str| name.contains("cgroup") || name.contains("runtime") || name.contains("bundle");
    assert_eq!(files.lines().filter(of_host).collect::<Vec<_>>(), [""; 0], "open files of the host");
    let caps = fs::read_to_string(bundle.rootfs("caps")).unwrap_or_default();
    for line in caps.lines() {
        let set = u64::from_str_radix(line.split_ascii_whitespace().last().unwrap(), 16).unwrap();
        assert_eq!(set >> 16 & 1, 0, "CAP_SYS_MODULE in {line}");
    }
}
