//! features: what this build does, in the form of the runtime-spec (features-linux.md).
//!
//! Nearly nothing is listed here: what is claimed is what planning and compiling accept, asked with one small config for each claim.
//! A feature that is taken up there, or taken out, is so here too.

use std::io::Write;

use oci_runtime::plan::{Plan, known_options};
use oci_runtime::seccomp::{ACTIONS, ARCHITECTURES, FLAGS, OPERATORS};
use serde::Serialize;
use serde_json::{Value, json};
use sys::credentials::Capabilities;

use super::args::{self, Stop, Token};
use super::criu::CONFIG_ANNOTATION;
use super::help::Help;
use super::{Error, SPEC_VERSION, verb};

pub(crate) const HELP: Help =
    Help { about: "prints what this runtime supports as JSON", usage: "", details: "", flags: &[] };

/// Arguments are ignored, as runc does.
pub(crate) fn parse(parser: &mut lexopt::Parser) -> Result<(), Stop> {
    while let Some(token) = args::next_token(parser)? {
        if let Token::Flag(name) = token {
            return Err(args::unknown(&name));
        }
    }
    Ok(())
}

/// Prints them.
pub(crate) fn features() -> Result<(), Error> {
    let mut bytes = Vec::new();
    let mut serializer =
        serde_json::Serializer::with_formatter(&mut bytes, serde_json::ser::PrettyFormatter::with_indent(b"    "));
    Features::of_this_build().serialize(&mut serializer).map_err(|error| format!("encode the features: {error}"))?;
    bytes.push(b'\n');
    std::io::stdout().write_all(&bytes).map_err(|error| format!("write to stdout: {error}").into())
}

/// features.md, "Top-level".
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Features {
    oci_version_min: &'static str,
    oci_version_max: &'static str,
    hooks: Vec<&'static str>,
    mount_options: Vec<String>,
    linux: Linux,
    annotations: Value,
    /// Of a config: what they say can change what is done on the host.
    potentially_unsafe_config_annotations: [&'static str; 1],
}

/// features-linux.md
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Linux {
    namespaces: Vec<&'static str>,
    capabilities: Vec<String>,
    cgroup: Cgroup,
    seccomp: Seccomp,
    apparmor: Enabled,
    selinux: Enabled,
    intel_rdt: IntelRdt,
    memory_policy: MemoryPolicy,
    mount_extensions: MountExtensions,
    net_devices: Enabled,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Cgroup {
    v1: bool,
    v2: bool,
    systemd: bool,
    systemd_user: bool,
    rdma: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Seccomp {
    enabled: bool,
    actions: Vec<&'static str>,
    operators: Vec<&'static str>,
    archs: Vec<&'static str>,
    known_flags: Vec<&'static str>,
    supported_flags: Vec<&'static str>,
}

#[derive(Debug, Serialize)]
struct IntelRdt {
    enabled: bool,
    schemata: bool,
    monitoring: bool,
}

#[derive(Debug, Serialize)]
struct MemoryPolicy {
    modes: Vec<&'static str>,
    flags: Vec<&'static str>,
}

#[derive(Debug, Serialize)]
struct MountExtensions {
    idmap: Enabled,
}

#[derive(Debug, Serialize)]
struct Enabled {
    enabled: bool,
}

const HOOKS: [&str; 6] = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
const NAMESPACES: [&str; 8] = ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"];
/// Those of the spec that are none of the mount itself but of how its content is made.
const CONTENT_OPTIONS: [&str; 2] = ["remount", "tmpcopyup"];
const MEMORY_MODES: [&str; 7] = [
    "MPOL_BIND",
    "MPOL_DEFAULT",
    "MPOL_INTERLEAVE",
    "MPOL_LOCAL",
    "MPOL_PREFERRED",
    "MPOL_PREFERRED_MANY",
    "MPOL_WEIGHTED_INTERLEAVE",
];
const MEMORY_FLAGS: [&str; 3] = ["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"];

impl Features {
    fn of_this_build() -> Features {
        let sorted = |mut list: Vec<&'static str>| {
            list.sort_unstable();
            list
        };
        let flags: Vec<_> = FLAGS.into_iter().filter(|flag| has_seccomp(&json!({"flags": [flag]}))).collect();
        Features {
            oci_version_min: "1.0.0",
            oci_version_max: SPEC_VERSION,
            hooks: HOOKS.into_iter().filter(|hook| accepts(&["hooks"], &hook_of(hook))).collect(),
            mount_options: mount_options(),
            linux: Linux {
                namespaces: NAMESPACES.into_iter().filter(|kind| has_namespace(kind)).collect(),
                capabilities: Capabilities::ALL.names(),
                cgroup: Cgroup {
                    v1: true,
                    v2: true,
                    // `--systemd-cgroup` is refused.
                    systemd: false,
                    systemd_user: false,
                    rdma: has_linux("resources", json!({"rdma": {"mlx5_1": {"hcaHandles": 3}}})),
                },
                seccomp: Seccomp {
                    enabled: has_seccomp(&json!({})),
                    actions: sorted(
                        ACTIONS.into_iter().filter(|action| has_seccomp(&rule(action, "SCMP_CMP_EQ"))).collect(),
                    ),
                    operators: sorted(
                        OPERATORS.into_iter().filter(|op| has_seccomp(&rule("SCMP_ACT_ERRNO", op))).collect(),
                    ),
                    archs: sorted(
                        ARCHITECTURES
                            .into_iter()
                            .filter(|arch| has_seccomp(&json!({"architectures": [arch]})))
                            .collect(),
                    ),
                    known_flags: FLAGS.to_vec(),
                    supported_flags: flags,
                },
                apparmor: Enabled { enabled: accepts(&["process", "apparmorProfile"], &json!("unconfined")) },
                selinux: Enabled { enabled: accepts(&["process", "selinuxLabel"], &json!("system_u:system_r:a_t:s0")) },
                intel_rdt: IntelRdt {
                    enabled: has_linux("intelRdt", json!({"closID": "guaranteed"})),
                    schemata: has_linux("intelRdt", json!({"closID": "guaranteed", "schemata": ["L3:0=f"]})),
                    monitoring: has_linux("intelRdt", json!({"enableMonitoring": true})),
                },
                memory_policy: MemoryPolicy {
                    modes: MEMORY_MODES.into_iter().filter(|mode| has_memory_mode(mode)).collect(),
                    flags: MEMORY_FLAGS.into_iter().filter(|flag| has_memory_flag(flag)).collect(),
                },
                mount_extensions: MountExtensions { idmap: Enabled { enabled: has_id_mapped_mounts() } },
                net_devices: Enabled { enabled: has_net_devices() },
            },
            annotations: json!({
                "org.opencontainers.runc.checkpoint.enabled": verb::find("checkpoint").is_some().to_string(),
                "org.orlop.runtime.version": env!("CARGO_PKG_VERSION"),
            }),
            potentially_unsafe_config_annotations: [CONFIG_ANNOTATION],
        }
    }
}

/// Whether a config with this value there is one that we make a container of.
fn accepts(place: &[&str], value: &Value) -> bool {
    let mut config = json!({
        "ociVersion": SPEC_VERSION,
        "process": {"args": ["true"], "cwd": "/", "user": {"uid": 0, "gid": 0}},
        "root": {"path": "/rootfs"},
        "linux": {"namespaces": [{"type": "mount"}, {"type": "network"}]},
    });
    // A member that is not there is made, and so is an object.
    let mut target = &mut config;
    for key in place {
        target = &mut target[*key];
    }
    *target = value.clone();
    is_planned(&config)
}

fn is_planned(config: &Value) -> bool {
    let parsed = oci_runtime::config::parse(config.to_string().as_bytes());
    parsed.is_ok_and(|(spec, _)| Plan::from_spec(&spec, None).is_ok())
}

fn has_linux(key: &str, value: Value) -> bool {
    accepts(&["linux", key], &value)
}

fn hook_of(kind: &str) -> Value {
    json!({kind: [{"path": "/bin/true"}]})
}

fn mapping() -> Value {
    json!([{"containerID": 0, "hostID": 100_000, "size": 65536}])
}

fn has_namespace(kind: &str) -> bool {
    let mut linux = json!({"namespaces": [{"type": "mount"}, {"type": kind}]});
    match kind {
        "mount" => linux["namespaces"] = json!([{"type": "mount"}]),
        "user" => {
            linux["uidMappings"] = mapping();
            linux["gidMappings"] = mapping();
        }
        _ => {}
    }
    accepts(&["linux"], &linux)
}

fn mount_options() -> Vec<String> {
    let mut options = known_options();
    for option in CONTENT_OPTIONS {
        let mount = json!([{"destination": "/m", "type": "tmpfs", "source": "tmpfs", "options": [option]}]);
        if accepts(&["mounts"], &mount) && !options.iter().any(|known| known == option) {
            options.push(option.to_owned());
        }
    }
    options.sort();
    options
}

fn has_id_mapped_mounts() -> bool {
    let mount = json!([{"destination": "/m", "type": "bind", "source": "/m", "options": ["rbind"],
                        "uidMappings": mapping(), "gidMappings": mapping()}]);
    accepts(&["mounts"], &mount)
}

fn has_net_devices() -> bool {
    has_linux("netDevices", json!({"eth0": {"name": "container_eth0"}}))
}

/// A profile that allows all, with these members besides.
fn has_seccomp(members: &Value) -> bool {
    let mut profile = json!({"defaultAction": "SCMP_ACT_ALLOW"});
    if let (Some(profile), Some(members)) = (profile.as_object_mut(), members.as_object()) {
        profile.extend(members.clone());
    }
    has_linux("seccomp", profile.clone())
        && serde_json::from_value(profile).is_ok_and(|profile| oci_runtime::seccomp::compile(&profile).is_ok())
}

fn rule(action: &str, operator: &str) -> Value {
    json!({
        // Only asked for where it makes sense.
        "listenerPath": if action == "SCMP_ACT_NOTIFY" { "/run/listener.sock" } else { "" },
        "syscalls": [{"names": ["getcwd"], "action": action, "args": [{"index": 0, "value": 1, "op": operator}]}],
    })
}

fn has_memory_mode(mode: &str) -> bool {
    let bare = ["MPOL_DEFAULT", "MPOL_LOCAL"].contains(&mode);
    let policy = if bare { json!({"mode": mode}) } else { json!({"mode": mode, "nodes": "0"}) };
    has_linux("memoryPolicy", policy)
}

fn has_memory_flag(flag: &str) -> bool {
    has_linux("memoryPolicy", json!({"mode": "MPOL_BIND", "nodes": "0", "flags": [flag]}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mount_option_that_is_claimed_is_accepted() {
        for option in mount_options() {
            // Some mean something for volumes only, some for file systems only.
            let volume = json!([{"destination": "/m", "type": "none", "source": "/m", "options": ["rbind", &option]}]);
            let tmpfs = json!([{"destination": "/m", "type": "tmpfs", "source": "tmpfs", "options": [&option]}]);
            assert!(accepts(&["mounts"], &volume) || accepts(&["mounts"], &tmpfs), "{option}");
        }
    }

    #[test]
    fn what_nobody_knows_is_not_claimed() {
        assert!(!has_namespace("teleport"));
        assert!(!has_seccomp(&json!({"flags": ["SECCOMP_FILTER_FLAG_TELEPORT"]})));
        assert!(!has_seccomp(&rule("SCMP_ACT_TELEPORT", "SCMP_CMP_EQ")));
        assert!(!has_memory_mode("MPOL_TELEPORT"));
    }

    #[test]
    fn what_every_container_uses_is_claimed() {
        let features = Features::of_this_build();
        for kind in ["cgroup", "ipc", "mount", "network", "pid", "uts"] {
            assert!(features.linux.namespaces.contains(&kind), "{kind}");
        }
        assert!(features.linux.seccomp.enabled && features.linux.seccomp.actions.contains(&"SCMP_ACT_ERRNO"));
        assert!(features.linux.seccomp.archs.contains(&"SCMP_ARCH_X86_64"));
        assert!(features.mount_options.iter().any(|option| option == "rro"));
    }
}
