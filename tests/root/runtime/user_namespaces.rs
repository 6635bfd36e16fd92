//! Containers in user namespaces, new and joined: whose everything is, inside and outside.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tests::{World, eventually, output, write};

use super::bundle::{Bundle, message};

/// The host's id of the container's root.
pub(super) const ROOT: u32 = 100_000;

fn mapping(count: u32) -> Value {
    json!([{"containerID": 0, "hostID": ROOT, "size": count}])
}

/// A bundle whose container has a user namespace and a root file system that belongs to its root.
pub(super) fn bundle<'a>(world: &'a World, script: &str) -> Bundle<'a> {
    let mut bundle = Bundle::new(world, script);
    give_to_root(&bundle.rootfs(""));
    add_namespace(&mut bundle, json!({"type": "user"}));
    bundle.set("/linux/uidMappings", mapping(65_536)).set("/linux/gidMappings", mapping(65_536));
    bundle
}

fn add_namespace(bundle: &mut Bundle<'_>, namespace: Value) {
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().push(namespace);
}

/// Gives a tree to the container's root; links stay whose they are.
pub(super) fn give_to_root(path: &Path) {
    if !path.is_symlink() {
        chown(path, Some(ROOT), Some(ROOT)).unwrap();
    }
    if path.is_dir() && !path.is_symlink() {
        fs::read_dir(path).unwrap().for_each(|entry| give_to_root(&entry.unwrap().path()));
    }
}

#[test]
fn ids_inside_are_other_ids_outside() {
    let world = World::enter();
    let mut bundle = bundle(
        &world,
        "cat /proc/self/uid_map; id -u; id -g; touch /file /dev/shm/x; stat -c %u:%g /file /dev /proc/self/ /dev/null; \
         grep -E 'Groups|CapEff' /proc/self/status",
    );
    bundle.set("/process/user", json!({"uid": 1000, "gid": 100, "additionalGids": [7]}));
    fs::set_permissions(bundle.rootfs(""), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let text = bundle.run().success();
    let map = text.lines().next().unwrap().split_ascii_whitespace().collect::<Vec<_>>();
    assert_eq!(map, ["0", "100000", "65536"]);
    let rest: Vec<&str> = text.lines().skip(1).collect();
    assert_eq!(rest[..6], ["1000", "100", "1000:100", "0:0", "1000:100", "0:0"]);
    assert_eq!(rest[6..], ["Groups:\t7 100 ", "CapEff:\t0000000000000000"]);
    let file = fs::metadata(bundle.rootfs("file")).unwrap();
    assert_eq!((file.uid(), file.gid()), (ROOT + 1000, ROOT + 100));
}

#[test]
fn the_containers_root_has_its_mounts_devices_and_terminal() {
    let world = World::enter();
    let mut bundle = bundle(
        &world,
        "echo x > /dev/null && head -c 3 /dev/zero | wc -c; tty; stat -c %u /dev/pts/0; mkdir /tmp/d && echo made; \
         cat /sys/fs/cgroup/*/tasks /sys/fs/cgroup/cgroup.procs > /dev/null 2>&1; ls /dev/mqueue && echo queues; hostname; \
         echo typed > /dev/console; stat -c %t:%T /dev/console",
    );
    bundle.set("/process/terminal", json!(true));
    let text = bundle.run().success().replace('\r', "");
    assert_eq!(text, "3\n/dev/pts/0\n0\nmade\nqueues\nbox\ntyped\n88:0\n");
}

/// runc binds the host's nodes, with the host's owners and modes.
#[test]
fn devices_have_the_owners_and_modes_of_the_config_and_are_not_the_hosts() {
    let world = World::enter();
    let mut bundle = bundle(
        &world,
        "for n in null tty alias; do stat -c '%n %a %u:%g %t:%T' /dev/$n; done; stat -c '%F %a' /dev/sub/pipe; \
         chmod 600 /dev/zero; stat -c %a /dev/zero; echo x > /dev/alias && echo written",
    );
    let devices = json!([
        {"path": "/dev/alias", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640, "uid": 5, "gid": 6},
        {"path": "/dev/sub/pipe", "type": "p", "major": 0, "minor": 0, "fileMode": 0o600},
    ]);
    bundle.set("/linux/devices", devices);
    let mode = fs::metadata("/dev/zero").unwrap().mode();
    assert_eq!(
        bundle.run().success(),
        "/dev/null 666 0:0 1:3\n/dev/tty 666 0:0 5:0\n/dev/alias 640 5:6 1:3\nfifo 600\n600\nwritten\n"
    );
    assert_eq!(fs::metadata("/dev/zero").unwrap().mode(), mode);
}

#[test]
fn devices_on_the_root_itself_are_there_at_each_start_whatever_file_the_image_has_for_them() {
    let world = World::enter();
    let mut bundle = bundle(&world, "stat -c '%n %t:%T' /dev/null /dev/zero /opt/alias");
    bundle.config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] == "/proc");
    bundle.set("/linux/devices", json!([{"path": "/opt/alias", "type": "c", "major": 1, "minor": 3}]));
    write(&bundle.rootfs("dev/zero"), "of the image");
    for _ in 0..2 {
        assert_eq!(bundle.run().success(), "/dev/null 1:3\n/dev/zero 1:5\n/opt/alias 1:3\n");
    }
    assert_eq!(fs::read_to_string(bundle.rootfs("dev/zero")).unwrap(), "of the image");
}

#[test]
fn every_namespace_of_the_container_belongs_to_its_user_namespace() {
    let world = World::enter();
    // Each takes a capability over the namespace itself.
    let mut bundle = bundle(
        &world,
        "hostname inside && hostname; mount -t proc proc /tmp && echo pid; mount -t sysfs -o ro sysfs /tmp && echo net; \
         mount -t mqueue mqueue /tmp && echo ipc; mount -t tmpfs tmpfs /tmp && echo mnt; \
         echo 1 > /proc/sys/net/ipv4/ip_forward && echo sysctl",
    );
    for set in ["bounding", "effective", "permitted"] {
        let names = ["CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_DAC_OVERRIDE"];
        bundle.set(&format!("/process/capabilities/{set}"), json!(names));
    }
    bundle.set("/linux/readonlyPaths", json!([])).set("/linux/maskedPaths", json!([]));
    assert_eq!(bundle.run().success(), "inside\npid\nnet\nipc\nmnt\nsysctl\n");
}

#[test]
fn an_exec_has_the_ids_namespaces_and_cgroups_of_its_container() {
    let world = World::enter();
    let look =
        "for n in user mnt net ipc uts cgroup pid time; do readlink /proc/self/ns/$n; done; cat /proc/self/cgroup";
    let bundle = bundle(&world, &format!("({look}) > /seen; touch /ready; sleep 100"));
    let running = bundle.start();
    let of_container = fs::read_to_string(bundle.rootfs("seen")).unwrap();
    assert_ne!(of_container.lines().next(), Some(&*link("/proc/self/ns/user")));
    assert_eq!(running.exec(look, json!({})).success(), of_container);
    assert_eq!(running.exec("ls /ready", json!({})).success(), "/ready\n");
    let script = "id -u; id -g; grep -E 'Groups|CapPrm|CapBnd' /proc/self/status; echo x > /proc/self/fd/1";
    let user = json!({"user": {"uid": 7, "gid": 8, "additionalGids": [9]}});
    assert_eq!(
        running.exec(script, user).success(),
        "7\n8\nGroups:\t8 9 \nCapPrm:\t0000000000000000\nCapBnd:\t0000000000000000\nx\n"
    );
    let refused = running.exec("true", json!({"user": {"uid": 70_000, "gid": 0}}));
    assert!(refused.code != 0, "{refused:?}");
}

fn link(path: &str) -> String {
    fs::read_link(path).unwrap().display().to_string()
}

#[test]
fn a_user_namespace_is_joined_by_its_path_with_what_belongs_to_it_and_what_does_not() {
    let world = World::enter();
    let script = "readlink /proc/self/ns/user; readlink /proc/self/ns/net; cat /proc/self/uid_map; id -u";
    let first = bundle(&world, &format!("({script}) > /seen; touch /ready; sleep 100"));
    let running = first.start();
    let seen = fs::read_to_string(first.rootfs("seen")).unwrap();
    let pid = running.pid();
    let mut second = Bundle::new(&world, script);
    give_to_root(&second.rootfs(""));
    add_namespace(&mut second, json!({"type": "user", "path": format!("/proc/{pid}/ns/user")}));
    let namespaces = second.config["linux"]["namespaces"].as_array_mut().unwrap();
    let network = namespaces.iter_mut().find(|namespace| namespace["type"] == "network").unwrap();
    network["path"] = json!(format!("/proc/{pid}/ns/net"));
    assert_eq!(second.run().success(), seen);
    // Clients say both the path and its maps.
    second.set("/linux/uidMappings", mapping(65_536)).set("/linux/gidMappings", mapping(65_536));
    assert_eq!(second.run().success(), seen);
    second.set("/linux/uidMappings", mapping(65_535));
    assert_ne!(second.run().code, 0);
    // A namespace of the host's, which the container's user namespace does not own, is joined all the same.
    second.set("/linux/uidMappings", mapping(65_536));
    let namespaces = second.config["linux"]["namespaces"].as_array_mut().unwrap();
    for namespace in namespaces.iter_mut().filter(|namespace| namespace["type"] == "network") {
        namespace["path"] = json!("/proc/self/ns/net");
    }
    let mounts = second.config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| mount["type"] != "sysfs" && mount["type"] != "cgroup");
    let host = second.run().success();
    assert_eq!(host.lines().nth(1), Some(&*link("/proc/thread-self/ns/net")));
    drop(running);
}

#[test]
fn a_pid_namespace_is_joined_together_with_its_user_namespace() {
    let world = World::enter();
    let first = bundle(&world, "touch /ready; exec sleep 100");
    let running = first.start();
    let pid = running.pid();
    let mut second = Bundle::new(
        &world,
        "cat /proc/1/cmdline | grep -c sleep; test $$ != 1 && echo second; readlink /proc/self/ns/pid",
    );
    give_to_root(&second.rootfs(""));
    add_namespace(&mut second, json!({"type": "user", "path": format!("/proc/{pid}/ns/user")}));
    let namespaces = second.config["linux"]["namespaces"].as_array_mut().unwrap();
    let joined = namespaces.iter_mut().find(|namespace| namespace["type"] == "pid").unwrap();
    joined["path"] = json!(format!("/proc/{pid}/ns/pid"));
    let expected = link(&format!("/proc/{pid}/ns/pid"));
    assert_eq!(second.run().success(), format!("1\nsecond\n{expected}\n"));
    drop(running);
}

#[test]
fn hooks_run_as_the_host_outside_and_as_the_containers_root_inside() {
    let world = World::enter();
    let mut bundle = bundle(&world, "cat /seen-startContainer");
    for kind in ["createRuntime", "createContainer", "startContainer"] {
        let (shell, seen) = match kind {
            "startContainer" => ("/bin/sh".into(), format!("/seen-{kind}").into()),
            _ => (bundle.rootfs("bin/busybox"), bundle.rootfs(&format!("seen-{kind}"))),
        };
        let script =
            format!("read owner outside count < /proc/self/uid_map; echo $owner $outside > {}", seen.display());
        bundle.config["hooks"][kind] = json!([{"path": shell, "args": ["sh", "-c", script], "env": ["PATH=/bin"]}]);
    }
    assert_eq!(bundle.run().success(), "0 100000\n");
    let seen = |kind: &str| {
        let path = bundle.rootfs(&format!("seen-{kind}"));
        (fs::read_to_string(&path).unwrap(), fs::metadata(path).unwrap().uid())
    };
    assert_eq!(seen("createRuntime"), ("0 0\n".to_owned(), 0));
    assert_eq!(seen("createContainer"), ("0 100000\n".to_owned(), ROOT));
}

#[test]
fn maps_that_make_no_sense_are_refused() {
    let world = World::enter();
    let refused = |change: &dyn Fn(&mut Bundle<'_>), expected: &str| {
        let mut bundle = bundle(&world, "true");
        change(&mut bundle);
        let output = bundle.run();
        assert_ne!(output.code, 0);
        if ours() {
            assert!(message(&output).contains(expected), "{expected} in {output:?}");
        }
    };
    let overlap =
        json!([{"containerID": 0, "hostID": ROOT, "size": 10}, {"containerID": 9, "hostID": 200_000, "size": 10}]);
    refused(
        &|bundle| {
            bundle.set("/linux/uidMappings", overlap.clone());
        },
        "linux.uidMappings[1]: overlaps",
    );
    let many: Vec<Value> = (0..341).map(|id| json!({"containerID": id, "hostID": 2 * id, "size": 1})).collect();
    refused(
        &|bundle| {
            bundle.set("/linux/gidMappings", json!(many));
        },
        "linux.gidMappings: 341 ranges",
    );
    refused(
        &|bundle| {
            bundle.set("/linux/gidMappings", json!([]));
        },
        "linux.gidMappings: missing",
    );
    refused(
        &|bundle| {
            bundle.set("/process/user/uid", json!(65_536));
        },
        "process.user.uid: 65536 is not mapped in the container's user namespace",
    );
    refused(
        &|bundle| {
            bundle.set("/linux/gidMappings", mapping(5));
        },
        "mounts: option gid=5 of devpts on /dev/pts: 5 is not mapped",
    );
    refused(
        &|bundle| {
            let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|namespace| namespace["type"] != "user");
        },
        "linux.uidMappings: there is no user namespace",
    );
}

/// Whether the runtime under test is ours, whose words are ours.
fn ours() -> bool {
    std::env::var_os("ORLOP_RUNTIME").is_none()
}

#[test]
fn a_container_behind_its_fifo_is_started_as_any_user() {
    let world = World::enter();
    for uid in [0, 1000] {
        let mut bundle = bundle(&world, "id -u > /tmp/id");
        chown(bundle.rootfs("tmp"), Some(ROOT + uid), Some(ROOT)).unwrap();
        bundle.set("/process/user/uid", json!(uid));
        let waiting = bundle.create();
        let fifo = fs::metadata(bundle.dir.join("state").join(&bundle.id).join("exec.fifo")).unwrap();
        assert_eq!((fifo.uid(), fifo.mode() & 0o777), (ROOT, 0o622));
        output(bundle.runtime().args(["start", &bundle.id])).success();
        eventually("the program has run", Duration::from_secs(10), || {
            fs::read_to_string(bundle.rootfs("tmp/id")).is_ok_and(|text| text == format!("{uid}\n"))
        });
        eventually("the container is stopped", Duration::from_secs(10), || bundle.state()["status"] == "stopped");
        drop(waiting);
    }
}

#[test]
fn what_takes_the_hosts_privileges_is_done_before_they_are_lost() {
    let world = World::enter();
    let mut bundle = bundle(
        &world,
        "ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj /proc/sys/kernel/msgmax /proc/sys/net/ipv4/ip_forward \
         /proc/sys/user/max_mnt_namespaces",
    );
    bundle.set("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 50, "hard": 60}]));
    bundle.set("/process/oomScoreAdj", json!(500));
    bundle.set(
        "/linux/sysctl",
        json!({"kernel.msgmax": "5000", "net.ipv4.ip_forward": "1", "user.max_mnt_namespaces": "77"}),
    );
    assert_eq!(bundle.run().success(), "50\n60\n500\n5000\n1\n77\n");
}
