//! A kubelet, ours or upstream's, with directories of its own; it can be killed and started again.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::kernel_settings::KernelSettings;
use super::{CLUSTER_DNS, ControlPlane, port};
use crate::{World, binary, eventually, peer, write};

/// Whose kubelet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Implementation {
    /// `orlop kubelet`.
    Orlop,
    /// The upstream kubelet of `scripts/tools peers`.
    Upstream,
}

/// What a kubelet is started with.
pub(super) struct Start<'a> {
    pub implementation: Implementation,
    pub name: &'a str,
    pub ip: Ipv4Addr,
    /// The CRI, as `unix://` and its socket.
    pub endpoint: String,
    /// Fields of the KubeletConfiguration beyond, or in place of, the harness's own.
    pub config: Value,
    /// Verbose logs cost time: measurements do without.
    pub quiet: bool,
}

/// A kubelet. Dropping it kills it; its pods stay.
pub struct Kubelet<'w> {
    world: &'w World,
    implementation: Implementation,
    name: String,
    ip: Ipv4Addr,
    endpoint: String,
    kubeconfig: PathBuf,
    dir: PathBuf,
    port: u16,
    cgroup: String,
    quiet: bool,
    process: Mutex<Option<Child>>,
    // Dropped last: the kubelet has ended by then.
    _settings: KernelSettings,
}

impl<'w> Kubelet<'w> {
    /// Starts a kubelet; it has not joined yet when this returns.
    pub(super) fn start(world: &'w World, cluster: &ControlPlane<'w>, start: Start<'_>) -> Kubelet<'w> {
        let dir = world.new_dir("kubelet");
        mount_own(&dir);
        for folder in ["root", "pods", "manifests"] {
            fs::create_dir(dir.join(folder)).expect("the kubelet's directories");
        }
        let cgroup = world.cgroup(&format!("node-{}", start.name));
        for kept in ["kubepods", "kubepods/besteffort", "kubepods/burstable"] {
            world.adopt_cgroup(&format!("{cgroup}/{kept}"));
        }
        let kubelet = Kubelet {
            world,
            implementation: start.implementation,
            name: start.name.to_owned(),
            ip: start.ip,
            endpoint: start.endpoint,
            kubeconfig: cluster.node_kubeconfig(start.name),
            port: port(world),
            cgroup,
            dir,
            quiet: start.quiet,
            process: Mutex::default(),
            _settings: KernelSettings::remember(),
        };
        write(&kubelet.dir.join("resolv.conf"), "nameserver 192.0.2.53\nsearch node.example\n");
        let mut config = kubelet.configuration(&cluster.authority(), port(world));
        for (field, value) in start.config.as_object().into_iter().flatten() {
            config[field] = value.clone();
        }
        // YAML is a superset of JSON.
        write(&kubelet.dir.join("config.yaml"), format!("{config:#}\n"));
        kubelet.spawn();
        kubelet
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The node's address.
    pub fn ip(&self) -> Ipv4Addr {
        self.ip
    }

    /// The port of its HTTPS server.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whose kubelet it is.
    pub fn implementation(&self) -> Implementation {
        self.implementation
    }

    /// The folder that it watches for static pods.
    pub fn manifests(&self) -> PathBuf {
        self.dir.join("manifests")
    }

    /// Its `--root-dir`.
    pub fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// Its folder of pods' logs, in place of /var/log/pods.
    pub fn pod_logs(&self) -> PathBuf {
        self.dir.join("pods")
    }

    /// Its `cgroupRoot`, in which it makes `kubepods`.
    pub fn cgroup(&self) -> &str {
        &self.cgroup
    }

    /// What it has logged so far, over all its lives.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Where it logs to.
    pub fn log_file(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// Its process id; `None` while it does not run.
    pub fn pid(&self) -> Option<u32> {
        self.process.lock().expect("the kubelet's process").as_ref().map(Child::id)
    }

    /// Whether its process has not ended.
    pub fn runs(&self) -> bool {
        let mut process = self.process.lock().expect("the kubelet's process");
        process.as_mut().is_some_and(|process| matches!(process.try_wait(), Ok(None)))
    }

    /// Kills it as a crash would, and returns when it is gone.
    pub fn kill(&self) {
        if let Some(mut process) = self.process.lock().expect("the kubelet's process").take() {
            let _already_gone = process.kill();
            let _reaped = process.wait();
        }
    }

    /// Ends it with SIGTERM, and returns when it is gone.
    ///
    /// # Panics
    /// If it does not end in time.
    pub fn terminate(&self) {
        if let Some(mut process) = self.process.lock().expect("the kubelet's process").take() {
            let pid = Pid::from_raw(i32::try_from(process.id()).expect("a process id"));
            let _already_gone = kill(pid, Signal::SIGTERM);
            eventually("the kubelet ends on SIGTERM", Duration::from_secs(20), || process.try_wait().ok().flatten());
        }
    }

    /// Sets fields of its configuration; in force after [`Kubelet::restart`].
    pub fn configure(&self, fields: &Value) {
        let path = self.dir.join("config.yaml");
        let text = fs::read_to_string(&path).expect("the kubelet's configuration");
        let mut config: Value = serde_json::from_str(&text).expect("it was written as JSON");
        for (field, value) in fields.as_object().into_iter().flatten() {
            config[field] = value.clone();
        }
        write(&path, format!("{config:#}\n"));
    }

    /// Starts it again over the same directories.
    ///
    /// # Panics
    /// If it still runs.
    pub fn restart(&self) {
        assert!(self.pid().is_none(), "the kubelet still runs");
        self.spawn();
    }

    fn spawn(&self) {
        let log = File::options().create(true).append(true).open(self.log_file()).expect("the kubelet's log");
        let errors = log.try_clone().expect("the kubelet's log");
        let mut command = self.program();
        command.arg("--config").arg(self.dir.join("config.yaml")).arg("--kubeconfig").arg(&self.kubeconfig);
        command.arg(format!("--container-runtime-endpoint={}", self.endpoint));
        command.arg(format!("--hostname-override={}", self.name)).arg(format!("--node-ip={}", self.ip));
        command.arg(format!("--root-dir={}", self.root().display()));
        command.arg(format!("--cert-dir={}", self.dir.join("pki").display()));
        let process = command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn().expect("start the kubelet");
        *self.process.lock().expect("the kubelet's process") = Some(process);
    }

    fn program(&self) -> Command {
        match self.implementation {
            Implementation::Orlop => {
                let mut command = self.world.command(binary("orlop"));
                command.arg("--state").arg(self.dir.join("state"));
                command.args(["--log-level", if self.quiet { "info" } else { "info,kubelet=debug" }, "kubelet"]);
                command
            }
            Implementation::Upstream => {
                let mut command = self.world.command(peer("kubelet"));
                command.arg(if self.quiet { "--v=0" } else { "--v=2" });
                command
            }
        }
    }

    fn configuration(&self, authority: &Path, healthz_port: u16) -> Value {
        json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "port": self.port,
            "healthzPort": healthz_port,
            "authentication": {
                "anonymous": { "enabled": false },
                "webhook": { "enabled": true },
                "x509": { "clientCAFile": authority },
            },
            "authorization": { "mode": "Webhook" },
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": self.cgroup,
            // This may be a machine with the hybrid hierarchy, where the pods' controllers are v1.
            "failCgroupV1": false,
            "failSwapOn": false,
            "clusterDNS": [CLUSTER_DNS],
            "clusterDomain": "cluster.local",
            "resolvConf": self.dir.join("resolv.conf"),
            "staticPodPath": self.manifests(),
            "podLogsDir": self.pod_logs(),
            "makeIPTablesUtilChains": false,
            // A disk that is nearly full is the machine's affair, not the test's.
            "evictionHard": { "memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%" },
        })
    }
}

/// A file system of its own for each kubelet: upstream's fails to start when another's volumes come and go on the same.
fn mount_own(dir: &Path) {
    mount(Some("tmpfs"), dir, Some("tmpfs"), MsFlags::empty(), Some("mode=0755"))
        .unwrap_or_else(|error| panic!("tmpfs on {}: {error}", dir.display()));
}

impl Drop for Kubelet<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("the end of the log of {}:\n{}", self.name, lines[lines.len().saturating_sub(20)..].join("\n"));
        }
        self.kill();
        let _gone_with_the_world = umount2(&self.dir, MntFlags::MNT_DETACH);
    }
}
