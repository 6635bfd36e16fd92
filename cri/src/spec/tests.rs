//! Whole specs: a request in, what matters of the spec out.

use super::*;
use crate::sandbox::Phase;
use proto::{
    ContainerMetadata, KeyValue, LinuxContainerConfig, LinuxPodSandboxConfig, LinuxSandboxSecurityContext, Mount,
    MountPropagation, PodSandboxConfig, PodSandboxMetadata,
};
use serde_json::{Value, json};

struct Case {
    sandbox: SandboxRecord,
    config: ContainerConfig,
    image: ImageConfig,
    pid: PidNamespace,
    volumes: Vec<Volume>,
}

impl Case {
    fn new() -> Case {
        let metadata = PodSandboxMetadata { name: "pod".into(), uid: "uid".into(), namespace: "ns".into(), attempt: 0 };
        let security = LinuxSandboxSecurityContext { privileged: true, ..LinuxSandboxSecurityContext::default() };
        let linux = LinuxPodSandboxConfig { security_context: Some(security), ..LinuxPodSandboxConfig::default() };
        Case {
            sandbox: SandboxRecord {
                id: "s1".into(),
                config: PodSandboxConfig {
                    metadata: Some(metadata),
                    linux: Some(linux),
                    ..PodSandboxConfig::default()
                },
                runtime_handler: String::new(),
                created_at: 1,
                hostname: Some("pod-host".into()),
                cgroup_parent: "/pods".into(),
                netns: None,
                network: None,
                processes: None,
                phase: Phase::Ready,
            },
            config: ContainerConfig {
                metadata: Some(ContainerMetadata { name: "web".into(), attempt: 0 }),
                linux: Some(LinuxContainerConfig::default()),
                ..ContainerConfig::default()
            },
            image: ImageConfig { cmd: vec!["run".into()], ..ImageConfig::default() },
            pid: PidNamespace::New,
            volumes: Vec::new(),
        }
    }

    fn security(&mut self, change: impl FnOnce(&mut LinuxContainerSecurityContext)) -> &mut Case {
        let linux = self.config.linux.get_or_insert_default();
        change(linux.security_context.get_or_insert_default());
        self
    }

    fn build(&self) -> Result<Value> {
        let user = ResolvedUser { uid: 7, gid: 8, groups: vec![8, 9] };
        let files =
            PodFiles { hostname: "/s/hostname".into(), hosts: "/s/hosts".into(), resolv_conf: "/s/resolv.conf".into() };
        let host = Host {
            capabilities: (1 << 41) - 1,
            open_files: (1024, 4096),
            unified_cgroups: false,
            hostname: "node".into(),
        };
        let inputs = Inputs {
            sandbox: &self.sandbox,
            config: &self.config,
            image: &self.image,
            image_name: "busybox",
            user: &user,
            pid: &self.pid,
            files: &files,
            volumes: &self.volumes,
            devices: &[],
            host: &host,
            cgroup: "/pods/c1",
        };
        build(&inputs).map(|spec| serde_json::to_value(spec).unwrap())
    }

    fn mounts(&self) -> Vec<(String, String, Vec<String>)> {
        let spec = self.build().unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let options = |mount: &Value| mount["options"].as_array().unwrap().iter().map(text).collect();
        let mounts = spec["mounts"].as_array().unwrap();
        mounts.iter().map(|mount| (text(&mount["destination"]), text(&mount["source"]), options(mount))).collect()
    }
}

fn mount(host: &str, container: &str) -> Mount {
    Mount { host_path: host.into(), container_path: container.into(), ..Mount::default() }
}

#[test]
fn a_plain_container_runs_as_its_user_in_its_cgroup_with_the_pod_s_annotations() {
    let spec = Case::new().build().unwrap();
    assert_eq!(spec["process"]["user"], json!({"uid": 7, "gid": 8, "additionalGids": [8, 9]}));
    assert_eq!(spec["process"]["args"], json!(["run"]));
    assert_eq!(spec["process"]["rlimits"], json!([{"type": "RLIMIT_NOFILE", "hard": 4096, "soft": 1024}]));
    assert_eq!(spec["linux"]["cgroupsPath"], "/pods/c1");
    assert_eq!(spec["annotations"]["io.kubernetes.cri.sandbox-name"], "pod");
    assert_eq!(spec["linux"]["namespaces"], json!([{"type": "mount"}, {"type": "pid"}]));
}

#[test]
fn the_environment_is_ours_then_the_image_s_then_the_request_s() {
    let mut case = Case::new();
    case.image.env = vec!["PATH=/image".into(), "A=1".into(), "not an assignment".into(), "B=2".into()];
    let env = |key: &str, value: &str| KeyValue { key: key.into(), value: value.into() };
    case.config.envs = vec![env("A", "3"), env("C", "x=y")];
    let want = json!(["PATH=/image", "HOSTNAME=pod-host", "A=3", "B=2", "C=x=y"]);
    assert_eq!(case.build().unwrap()["process"]["env"], want);
    case.config.tty = true;
    case.sandbox.hostname = None;
    let env = case.build().unwrap()["process"]["env"].clone();
    assert_eq!((&env[1], &env[2]), (&json!("HOSTNAME=node"), &json!("TERM=xterm")));
}

#[test]
fn an_environment_that_a_spec_cannot_hold_is_refused() {
    for (key, value) in [("A", vec![0xff]), ("A=B", vec![b'x']), ("", vec![b'x']), ("A", vec![b'a', 0])] {
        let mut case = Case::new();
        case.config.envs = vec![KeyValue { key: key.into(), value }];
        assert_eq!(case.build().unwrap_err().code, tonic::Code::InvalidArgument);
    }
}

#[test]
fn a_mount_of_the_request_takes_the_place_of_ours_and_parents_come_first() {
    let mut case = Case::new();
    case.volumes = vec![Volume { target: "/data".into(), source: "/v/0".into() }];
    case.config.mounts = vec![mount("/h/deep", "/data/a/b"), mount("/h/hosts", "/etc//hosts"), mount("/h/dev", "/dev")];
    let mounts = case.mounts();
    let sources =
        |target: &str| mounts.iter().filter(|mount| mount.0 == target).map(|mount| &mount.1).collect::<Vec<_>>();
    assert_eq!(sources("/etc/hosts"), ["/h/hosts"]);
    assert_eq!(sources("/dev"), ["/h/dev"]);
    assert_eq!(sources("/etc/resolv.conf"), ["/s/resolv.conf"]);
    let position = |target: &str| mounts.iter().position(|mount| mount.0 == target).unwrap();
    assert!(position("/data") < position("/data/a/b"));
}

#[test]
fn propagation_and_access_become_options() {
    use MountPropagation::{PropagationBidirectional, PropagationHostToContainer, PropagationPrivate};
    for (propagation, readonly, recursive, want) in [
        (PropagationPrivate, false, false, Ok((["rbind", "rprivate", "rw"], None))),
        (PropagationPrivate, true, false, Ok((["rbind", "rprivate", "ro"], None))),
        (PropagationPrivate, true, true, Ok((["rbind", "rprivate", "rro"], None))),
        (PropagationHostToContainer, false, false, Ok((["rbind", "rslave", "rw"], Some("rslave")))),
        (PropagationBidirectional, false, false, Ok((["rbind", "rshared", "rw"], Some("rshared")))),
        (PropagationHostToContainer, true, true, Err(())),
        (PropagationBidirectional, true, true, Err(())),
        (PropagationPrivate, false, true, Err(())),
    ] {
        let mut case = Case::new();
        case.config.mounts = vec![Mount {
            propagation: propagation.into(),
            readonly,
            recursive_read_only: recursive,
            ..mount("/h", "/c")
        }];
        let options = |case: &Case| case.mounts().into_iter().find(|mount| mount.0 == "/c").unwrap().2;
        let got = case.build().map(|spec| (options(&case), spec["linux"]["rootfsPropagation"].clone()));
        match (got, want) {
            (Ok((options, root)), Ok((want, want_root))) => {
                assert_eq!(options, want);
                assert_eq!(root.as_str(), want_root);
            }
            (got, want) => assert!(got.is_err() && want.is_err(), "{propagation:?} {readonly} {recursive}: {got:?}"),
        }
    }
}

#[test]
fn masked_and_read_only_paths_are_those_of_the_request_and_none_if_privileged() {
    let mut case = Case::new();
    case.security(|security| {
        security.masked_paths = vec!["/proc/kcore".into()];
        security.readonly_paths = vec!["/proc/sys".into()];
    });
    let linux = case.build().unwrap()["linux"].clone();
    assert_eq!((&linux["maskedPaths"], &linux["readonlyPaths"]), (&json!(["/proc/kcore"]), &json!(["/proc/sys"])));
    case.security(|security| security.privileged = true);
    let spec = case.build().unwrap();
    assert_eq!((&spec["linux"]["maskedPaths"], &spec["linux"]["readonlyPaths"]), (&json!([]), &json!([])));
    assert_eq!(spec["linux"]["resources"]["devices"], json!([{"allow": true, "access": "rwm"}]));
    let sys = case.mounts().into_iter().find(|mount| mount.0 == "/sys").unwrap();
    assert!(sys.2.contains(&"rw".to_owned()));
}

#[test]
fn a_privileged_container_needs_a_privileged_sandbox() {
    let mut case = Case::new();
    case.sandbox.config.linux = None;
    case.security(|security| security.privileged = true);
    assert_eq!(case.build().unwrap_err().code, tonic::Code::InvalidArgument);
}

#[test]
fn what_is_not_built_is_refused_by_name() {
    let image = Some(proto::ImageSpec { image: "busybox".into(), ..proto::ImageSpec::default() });
    let mapped = vec![proto::IdMapping { host_id: 1, container_id: 0, length: 1 }];
    for (mount, want) in [
        (Mount { image, readonly: true, ..mount("", "/c") }, "mount an image on /c"),
        (Mount { uid_mappings: mapped, ..mount("/h", "/c") }, "id-mapped mount on /c"),
    ] {
        let mut case = Case::new();
        case.config.mounts = vec![mount];
        let error = case.build().unwrap_err();
        assert_eq!(error.code, tonic::Code::Unimplemented);
        assert!(error.message.contains(want), "{error}");
    }
}

#[test]
fn a_volume_backs_what_no_mount_of_the_request_covers() {
    let mut case = Case::new();
    case.image.volumes = ["/data", "/data/", "/../etc/x", "/", "/m"].map(String::from).into();
    case.config.mounts = vec![mount("/h", "/m")];
    let volumes = mounts::volumes(&case.config, &case.image, Path::new("/v"));
    let targets: Vec<_> = volumes.iter().map(|volume| volume.target.to_str().unwrap()).collect();
    assert_eq!(targets, ["/etc/x", "/data"]);
}
