//! Configurations as clients write them, to be mutated: each starts a container as it is.

use std::path::PathBuf;

use serde_json::{Value, json};
use tests::World;

use crate::runtime::bundle::Bundle;
use crate::runtime::user_namespaces::{ROOT, give_to_root};

/// The script of every seed's container.
const SCRIPT: &str = "echo alive";

/// Docker's, `runc spec`'s, podman's and a CRI's, and Docker's with a user namespace, for the bundle in `dir`.
pub(super) fn all(world: &World, dir: PathBuf) -> (Bundle<'_>, Vec<Value>) {
    let bundle = Bundle::new_in(world, dir, SCRIPT);
    let docker = bundle.config.clone();
    give_to_root(&bundle.rootfs(""));
    let mut mapped = docker.clone();
    map_ids(&mut mapped);
    let seeds = vec![docker.clone(), runc_spec(docker.clone()), podman(docker.clone(), &bundle), cri(docker), mapped];
    (bundle, seeds)
}

/// Adds a user namespace.
pub(super) fn map_ids(config: &mut Value) {
    config["linux"]["namespaces"].as_array_mut().expect("namespaces").push(json!({"type": "user"}));
    let map = json!([{"containerID": 0, "hostID": ROOT, "size": 65_536}]);
    set(config, &[("/linux/uidMappings", map.clone()), ("/linux/gidMappings", map)]);
}

fn set(config: &mut Value, fields: &[(&str, Value)]) {
    for (pointer, value) in fields {
        let (parent, key) = pointer.rsplit_once('/').expect("a JSON pointer");
        config.pointer_mut(parent).expect("an object")[key] = value.clone();
    }
}

fn runc_spec(mut config: Value) -> Value {
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    let sets = json!({"bounding": capabilities, "effective": capabilities, "permitted": capabilities});
    set(
        &mut config,
        &[
            ("/ociVersion", json!("1.3.0")),
            ("/root/readonly", json!(true)),
            ("/hostname", json!("runc")),
            ("/process/capabilities", sets),
            (
                "/process/env",
                json!(["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"]),
            ),
            ("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}])),
        ],
    );
    config
}

fn podman(mut config: Value, bundle: &Bundle<'_>) -> Value {
    set(
        &mut config,
        &[
            ("/annotations", json!({"io.container.manager": "libpod", "org.opencontainers.image.stopSignal": "15"})),
            ("/hooks", json!({})),
            ("/process/user", json!({"uid": 0, "gid": 0, "umask": 18, "additionalGids": [0, 10]})),
            ("/process/env", json!(["PATH=/bin", "container=podman", "HOME=/root"])),
            ("/process/oomScoreAdj", json!(0)),
            ("/linux/rootfsPropagation", json!("rslave")),
            ("/linux/sysctl", json!({"net.ipv4.ping_group_range": "0 0"})),
            ("/linux/resources/pids", json!({"limit": 2048})),
            ("/linux/seccomp", seccomp()),
        ],
    );
    let mounts = config["mounts"].as_array_mut().expect("mounts");
    let source = bundle.dir.join("config.json");
    mounts
        .push(json!({"destination": "/etc/hosts", "type": "bind", "source": source, "options": ["bind", "rprivate"]}));
    config
}

fn cri(mut config: Value) -> Value {
    let namespaces = json!([{"type": "pid"}, {"type": "mount"}, {"type": "cgroup"},
        {"type": "ipc"}, {"type": "uts"}, {"type": "network", "path": "/proc/self/ns/net"}]);
    let device =
        json!({"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 438, "uid": 0, "gid": 0});
    let rules = json!([{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 10, "minor": 229,
        "access": "rwm"}]);
    set(
        &mut config,
        &[
            (
                "/annotations",
                json!({"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": "x"}),
            ),
            ("/process/user", json!({"uid": 1000, "gid": 1000, "additionalGids": [2000]})),
            ("/process/oomScoreAdj", json!(1000)),
            ("/process/apparmorProfile", json!("")),
            ("/process/selinuxLabel", json!("")),
            ("/linux/namespaces", namespaces),
            ("/linux/devices", json!([device])),
            ("/linux/resources/devices", rules),
            ("/linux/resources/cpu", json!({"shares": 102, "quota": 50000, "period": 100_000, "cpus": "", "mems": ""})),
            ("/linux/resources/memory", json!({"limit": 67_108_864, "swap": 67_108_864})),
            ("/linux/resources/hugepageLimits", json!([{"pageSize": "2MB", "limit": 0}])),
            ("/linux/seccomp", seccomp()),
        ],
    );
    config
}

fn seccomp() -> Value {
    let masked = json!([{"index": 0, "value": 2_114_060_288_u64, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]);
    json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [{"names": ["mkdir", "reboot"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1},
            {"names": ["clone"], "action": "SCMP_ACT_ERRNO", "args": masked}]})
}

/// Values for the fields that no seed has, so that every part of the specification meets the mutations.
pub(super) fn grafts() -> Vec<(&'static str, Value)> {
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    let hook = json!([{"path": "/bin/true", "args": ["true"], "env": ["A=1"], "timeout": 5}]);
    // Until the end of time, and past it: in seconds, milliseconds and nanoseconds.
    let waits = [i64::MAX, i64::MAX / 1000, i64::MAX / 1_000_000_000 + 1, 1 << 32]
        .map(|timeout| json!({"path": "/bin/true", "timeout": timeout}));
    let rate = json!([{"major": 8, "minor": 0, "rate": 600}]);
    vec![
        ("/domainname", json!("example")),
        (
            "/hooks",
            json!({"prestart": hook, "createRuntime": hook, "createContainer": hook, "startContainer": hook,
            "poststart": hook, "poststop": hook}),
        ),
        ("/hooks", json!({"prestart": waits, "createRuntime": waits, "createContainer": waits, "poststop": waits})),
        ("/annotations", json!({"a": "b"})),
        ("/process/scheduler", json!({"policy": "SCHED_BATCH", "nice": 5, "flags": ["SCHED_FLAG_RESET_ON_FORK"]})),
        ("/process/ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 3})),
        ("/process/execCPUAffinity", json!({"initial": "0", "final": "0-1"})),
        ("/process/selinuxLabel", json!("system_u:system_r:container_t:s0")),
        ("/process/apparmorProfile", json!("nosuch")),
        ("/process/terminal", json!(true)),
        ("/process/consoleSize", json!({"height": 24, "width": 80})),
        ("/process/umask", json!(63)),
        ("/linux/uidMappings", map.clone()),
        ("/linux/gidMappings", map.clone()),
        ("/linux/timeOffsets", json!({"monotonic": {"secs": 100, "nanosecs": 5}, "boottime": {"secs": 7}})),
        ("/linux/netDevices", json!({"lo": {"name": "lo2"}, "nosuch": {}})),
        ("/linux/mountLabel", json!("system_u:object_r:container_file_t:s0")),
        ("/linux/intelRdt", json!({"closID": "guaranteed", "l3CacheSchema": "L3:0=f", "enableMonitoring": true})),
        ("/linux/personality", json!({"domain": "LINUX32", "flags": []})),
        ("/linux/memoryPolicy", json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]})),
        ("/linux/sysctl", json!({"net.ipv4.ip_forward": "1", "kernel.shm_rmid_forced": "1"})),
        ("/linux/namespaces/0", json!({"type": "user"})),
        ("/linux/namespaces/1", json!({"type": "time"})),
        (
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/run/nosuch.sock",
            "listenerMetadata": "x", "flags": ["SECCOMP_FILTER_FLAG_LOG"], "defaultErrnoRet": 7}),
        ),
        ("/linux/resources/network", json!({"classID": 7, "priorities": [{"name": "lo", "priority": 5}]})),
        ("/linux/resources/rdma", json!({"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10}})),
        ("/linux/resources/unified", json!({"memory.high": "max", "nosuch": "1"})),
        ("/linux/resources/unified", json!({"cgroup.freeze": "1"})),
        ("/linux/resources/hugepageLimits", json!([{"pageSize": "2MB", "limit": 209_715_200}])),
        (
            "/linux/resources/blockIO",
            json!({"weight": 10, "leafWeight": 10, "throttleReadBpsDevice": rate,
            "throttleWriteIOPSDevice": rate, "weightDevice": [{"major": 8, "minor": 0, "weight": 500}]}),
        ),
        (
            "/linux/resources/memory",
            json!({"limit": 8_388_608, "reservation": 4_194_304, "swap": -1, "swappiness": 50,
            "disableOOMKiller": false, "kernel": 1, "kernelTCP": 1, "useHierarchy": true, "checkBeforeUpdate": true}),
        ),
        (
            "/linux/resources/cpu",
            json!({"shares": 1024, "quota": 100_000, "burst": 1000, "period": 100_000, "idle": 1,
            "realtimeRuntime": 950_000, "realtimePeriod": 1_000_000, "cpus": "0", "mems": "0"}),
        ),
        ("/mounts/0/uidMappings", map.clone()),
        ("/mounts/0/gidMappings", map),
        ("/mounts/1/options", json!(["tmpcopyup", "rro", "idmap", "size=10%", "mode=1777", "uid=5"])),
    ]
}
