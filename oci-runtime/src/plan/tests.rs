//! Whole configurations: one valid one, and what each change to it leads to.

use serde_json::{Value, json};

use super::*;

/// How long the processor has worked for this thread. A bound on work is measured so: in the time of the wall the thread
/// stands still for as long as others run.
pub(super) fn worked() -> std::time::Duration {
    nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID.now().expect("a clock of every thread").into()
}

fn config() -> Value {
    json!({
        "ociVersion": "1.2.0",
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "box",
        "process": {"args": ["sh"], "cwd": "/", "user": {"uid": 0, "gid": 0}},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            {"destination": "/data", "type": "bind", "source": "data", "options": ["rbind", "rro", "rprivate"]},
        ],
        "linux": {
            "cgroupsPath": "/orlop/box",
            "namespaces": [
                {"type": "mount"}, {"type": "pid"}, {"type": "uts"}, {"type": "ipc"},
                {"type": "network", "path": "/run/netns/box"},
            ],
        },
    })
}

/// The plan of [`config`] with the value at each JSON pointer replaced (or, in an object, added).
fn plan(changes: &[(&str, Value)]) -> Result<Plan, PlanError> {
    let mut config = config();
    for (pointer, value) in changes {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        config.pointer_mut(parent).unwrap()[key] = value.clone();
    }
    Plan::from_spec(&serde_json::from_value(config).unwrap(), Some(Path::new("/bundle")))
}

#[track_caller]
fn check_refused(pointer: &str, value: Value, expected: &str) {
    assert_eq!(
        plan(&[(pointer, value.clone())]).map_err(|e| e.to_string()).map(|_| ()),
        Err(expected.to_owned()),
        "{value}"
    );
}

#[test]
fn a_config_is_resolved_against_its_bundle() {
    let plan = plan(&[]).unwrap();
    assert_eq!(plan.root, Some("/bundle/rootfs".into()));
    assert_eq!(plan.mounts[2].kind, MountKind::Bind { source: "/bundle/data".into(), recursive: true });
    assert_eq!(plan.namespaces.network, Namespace::Joined("/run/netns/box".into()));
    assert_eq!(plan.namespaces.cgroup, Namespace::Inherited);
    assert_eq!(plan.cgroup.map(|path| path.to_string()).as_deref(), Some("/orlop/box"));
    assert!(plan.root_readonly && plan.own_dev);
}

#[test]
fn every_container_has_the_default_devices_and_an_empty_list_allows_no_more() {
    let plan = plan(&[("/linux/resources", json!({"devices": []}))]).unwrap();
    let paths: Vec<_> = plan.devices.iter().map(|device| device.path.to_str().unwrap()).collect();
    assert_eq!(paths, ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"]);
    assert!(plan.resources.devices.iter().all(|rule| rule.kind != cgroup::DeviceKind::All));
}

#[test]
fn a_device_of_the_config_replaces_the_default_one() {
    let replaced =
        json!({"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600, "uid": 7, "gid": 8});
    let fifo = json!({"path": "/dev/pipe", "type": "p", "major": 0, "minor": 0});
    let ptmx = json!({"path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2});
    let plan = plan(&[("/linux/devices", json!([replaced, fifo, ptmx]))]).unwrap();
    assert_eq!(plan.devices.len(), 7);
    assert_eq!((plan.devices[0].mode, plan.devices[0].uid, plan.devices[0].gid), (0o600, 7, 8));
    assert_eq!(plan.devices[1].kind, NodeKind::Fifo);
    assert_eq!(plan.warnings, [""; 0]);
}

#[test]
fn a_device_in_the_place_of_the_terminals_is_warned_of() {
    let other = json!({"path": "/dev/ptmx", "type": "c", "major": 1, "minor": 3});
    let plan = plan(&[("/linux/devices", json!([other]))]).unwrap();
    assert!(plan.devices.iter().all(|device| device.path != Path::new("/dev/ptmx")));
    let expected = "linux.devices[0]: not made, since /dev/ptmx is a link to the container's own terminals";
    assert_eq!(plan.warnings, [expected]);
}

#[test]
fn a_dev_of_the_host_is_left_alone() {
    let dev = json!({"destination": "/dev/", "type": "bind", "source": "/dev", "options": ["rbind"]});
    let ptmx = json!({"path": "/dev/ptmx", "type": "c", "major": 1, "minor": 3});
    let plan = plan(&[("/mounts", json!([dev])), ("/linux/devices", json!([ptmx]))]).unwrap();
    assert!(!plan.own_dev);
    // Nothing is made there, and nothing in place of anything.
    assert_eq!(plan.warnings, [""; 0]);
}

#[test]
fn versions_of_the_spec_up_to_the_next_major_are_taken() {
    for version in ["1.0.0", "1.0.2-dev", "1.3.1"] {
        assert!(plan(&[("/ociVersion", json!(version))]).is_ok(), "{version}");
    }
    check_refused("/ociVersion", json!("2.0.0"), "ociVersion is not supported: 2.0.0; 1.0.0 to 1.3 are");
    check_refused("/ociVersion", json!("1"), "ociVersion: \"1\" is not a version");
}

#[test]
fn what_is_not_built_is_refused_by_name() {
    for (pointer, value, field) in
        [("/linux/personality", json!({"domain": "LINUX", "flags": ["X"]}), "linux.personality.flags")]
    {
        match plan(&[(pointer, value)]) {
            Err(PlanError::Unsupported { field: named, .. }) => assert_eq!(named, field),
            other => panic!("{field}: {other:?}"),
        }
    }
}

#[test]
fn file_systems_of_the_container_have_its_selinux_context() {
    let label = "system_u:object_r:container_file_t:s0:c1,c2";
    let mounts = json!([
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs"},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance"]},
        {"destination": "/own", "type": "tmpfs", "source": "tmpfs", "options": ["context=mine"]},
        {"destination": "/data", "type": "bind", "source": "data", "options": ["bind"]},
    ]);
    let plan = plan(&[("/linux/mountLabel", json!(label)), ("/mounts", mounts)]).unwrap();
    assert_eq!(plan.mount_label.as_deref(), Some(label));
    let contexts = plan.mounts.iter().map(|mount| match &mount.kind {
        MountKind::Filesystem { parameters, .. } => parameters.iter().find_map(|parameter| match parameter {
            Parameter::Value(name, value) if name == "context" => Some(value.as_str()),
            _ => None,
        }),
        _ => None,
    });
    assert_eq!(contexts.collect::<Vec<_>>(), [None, None, None, Some(label), Some(label), Some("mine"), None]);
}

#[test]
fn namespaces_that_do_not_fit_together_are_refused() {
    check_refused(
        "/linux/namespaces",
        json!([{"type": "user"}]),
        "linux.namespaces: a user namespace needs a mount namespace: its root may not mount anything on the host",
    );
    check_refused(
        "/linux/namespaces",
        json!([{"type": "mount"}, {"type": "pid"}, {"type": "pid"}]),
        "linux.namespaces[2]: a second namespace of type pid",
    );
}

#[test]
fn ids_that_a_user_namespace_does_not_have_are_refused_by_their_field() {
    let mapping = json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]);
    let namespaces = json!([{"type": "mount"}, {"type": "pid"}, {"type": "uts"}, {"type": "user"}]);
    let user = [
        ("/linux/namespaces", namespaces),
        ("/linux/uidMappings", mapping.clone()),
        ("/linux/gidMappings", mapping.clone()),
    ];
    let maps = plan(&user).unwrap().id_maps.unwrap();
    assert_eq!((maps.root(), maps.groups.outside(1000)), (Ok((100_000, 100_000)), None));
    let devpts = |gid: u32| json!([{"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": [format!("gid={gid}")]}]);
    let device = json!([{"path": "/dev/x", "type": "c", "major": 1, "minor": 3, "uid": 4000}]);
    let high = json!([{"containerID": 1, "hostID": 100_000, "size": 1000}]);
    let not_mapped = |what: &str, id: u32| format!("{what}: {id} is not mapped in the container's user namespace");
    for (pointer, value, expected) in [
        ("/process/user", json!({"uid": 1000, "gid": 0}), not_mapped("process.user.uid", 1000)),
        ("/process/user", json!({"uid": 0, "gid": 1000}), not_mapped("process.user.gid", 1000)),
        (
            "/process/user",
            json!({"uid": 0, "gid": 0, "additionalGids": [5, 1001]}),
            not_mapped("process.user.additionalGids", 1001),
        ),
        ("/mounts", devpts(1005), not_mapped("mounts: option gid=1005 of devpts on /dev/pts", 1005)),
        ("/linux/devices", device, not_mapped("linux.devices: uid of /dev/x", 4000)),
        ("/linux/gidMappings", high, "linux.gidMappings: the container's id 0 is not mapped".to_owned()),
        (
            "/linux/gidMappings",
            json!([]),
            "linux.gidMappings: missing: users and groups have to be mapped both".to_owned(),
        ),
    ] {
        let mut changes = user.to_vec();
        changes.push((pointer, value));
        assert_eq!(plan(&changes).unwrap_err().to_string(), expected);
    }
    assert!(plan(&[user[0].clone(), ("/linux/uidMappings", json!([]))]).unwrap_err().to_string().contains("missing"));
    let error = plan(&user[1..]).unwrap_err().to_string();
    assert!(error.starts_with("linux.uidMappings: there is no user namespace"), "{error}");
}

#[test]
fn names_need_a_uts_namespace() {
    let namespaces = ("/linux/namespaces", json!([{"type": "mount"}]));
    let error = plan(&[namespaces]).unwrap_err().to_string();
    assert_eq!(error, "hostname: can't be set without a UTS namespace of the container's own");
}

#[test]
fn a_systemd_cgroup_path_and_the_root_are_refused() {
    for path in ["system.slice:cri:abc", "/", "/a/.."] {
        let error = plan(&[("/linux/cgroupsPath", json!(path))]).unwrap_err().to_string();
        assert!(error.starts_with("linux.cgroupsPath: "), "{error}");
    }
}

#[test]
fn paths_that_are_hidden_have_to_be_absolute() {
    let plan = plan(&[("/linux/maskedPaths", json!(["/proc/kcore", "/proc/../sys//firmware"]))]).unwrap();
    assert_eq!(plan.masked_paths, [PathBuf::from("/proc/kcore"), PathBuf::from("/sys/firmware")]);
    check_refused("/linux/maskedPaths", json!(["proc"]), "linux.maskedPaths: \"proc\" is not an absolute path");
    check_refused("/linux/readonlyPaths", json!(["/"]), "linux.readonlyPaths: holds the root");
}

#[test]
fn sixty_four_kib_of_mounts_keep_every_namespace() {
    // CVE-2021-43784 lost namespaces to a length that wrapped at 16 bits.
    let mount = json!({"destination": format!("/{}", "x".repeat(200)), "type": "tmpfs"});
    let plan = plan(&[("/mounts", Value::Array(vec![mount; 1000]))]).unwrap();
    assert_eq!(plan.mounts.len(), 1000);
    assert!(plan.namespaces.pid.is_private() && plan.namespaces.mount.is_private());
}
