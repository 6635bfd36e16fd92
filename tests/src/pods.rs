//! Pod and container configurations, as small as a suite needs them or as a kubelet sends them.

use std::path::Path;

use proto as cri;
use proto::{NamespaceMode, security_profile::ProfileType};

/// A pod with a name of its own, logging to `log_directory`, its cgroups below `cgroup_parent`.
pub fn pod(name: &str, log_directory: &Path, cgroup_parent: &str) -> cri::PodSandboxConfig {
    cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: name.to_owned(),
            uid: format!("uid-{name}"),
            namespace: "default".to_owned(),
            attempt: 0,
        }),
        hostname: name.to_owned(),
        log_directory: log_directory.display().to_string(),
        linux: Some(cri::LinuxPodSandboxConfig { cgroup_parent: cgroup_parent.to_owned(), ..Default::default() }),
        ..Default::default()
    }
}

/// The same pod as a kubelet sends it: a PID namespace per container, RuntimeDefault seccomp, DNS, labels, and a host
/// port if there is one.
pub fn as_kubelet(mut pod: cri::PodSandboxConfig, host_port: Option<i32>) -> cri::PodSandboxConfig {
    let name = pod.metadata.clone().unwrap_or_default().name;
    pod.labels = [("io.kubernetes.pod.name", name.as_str()), ("io.kubernetes.pod.namespace", "default")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
    pod.dns_config = Some(cri::DnsConfig {
        servers: vec!["10.96.0.10".to_owned()],
        searches: ["default.svc.cluster.local", "svc.cluster.local", "cluster.local"].map(str::to_owned).into(),
        options: vec!["ndots:5".to_owned()],
    });
    pod.port_mappings = host_port
        .map(|host_port| cri::PortMapping { container_port: 80, host_port, ..Default::default() })
        .into_iter()
        .collect();
    pod.linux.get_or_insert_default().security_context = Some(cri::LinuxSandboxSecurityContext {
        namespace_options: Some(container_pid()),
        seccomp: Some(runtime_default()),
        ..Default::default()
    });
    pod
}

/// A container that runs `command` of `image` and logs to `<name>.log`.
pub fn container(name: &str, image: &str, command: &[&str]) -> cri::ContainerConfig {
    cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: name.to_owned(), attempt: 0 }),
        image: Some(crate::cri::image_spec(image)),
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        log_path: format!("{name}.log"),
        linux: Some(cri::LinuxContainerConfig::default()),
        ..Default::default()
    }
}

/// The same container as a kubelet sends it: its own PID namespace, RuntimeDefault seccomp, the usual masked paths, small
/// CPU and memory requests.
pub fn container_as_kubelet(mut container: cri::ContainerConfig) -> cri::ContainerConfig {
    let paths = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
    container.linux = Some(cri::LinuxContainerConfig {
        resources: Some(cri::LinuxContainerResources { cpu_shares: 102, oom_score_adj: 1000, ..Default::default() }),
        security_context: Some(cri::LinuxContainerSecurityContext {
            namespace_options: Some(container_pid()),
            seccomp: Some(runtime_default()),
            masked_paths: paths(&[
                "/proc/acpi",
                "/proc/kcore",
                "/proc/keys",
                "/proc/timer_list",
                "/proc/scsi",
                "/sys/firmware",
            ]),
            readonly_paths: paths(&["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]),
            ..Default::default()
        }),
    });
    container
}

fn container_pid() -> cri::NamespaceOption {
    cri::NamespaceOption { pid: NamespaceMode::Container.into(), ..Default::default() }
}

fn runtime_default() -> cri::SecurityProfile {
    cri::SecurityProfile { profile_type: ProfileType::RuntimeDefault.into(), localhost_ref: String::new() }
}
