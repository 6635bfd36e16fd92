//! A real Kubernetes control plane in a World: etcd, kube-apiserver (Node and RBAC authorisers, NodeRestriction),
//! kube-controller-manager and kube-scheduler on loopback, and the nodes that join it.
//!
//! Several run side by side in one World: every program gets ports and a directory of its own. Certificates are made in
//! code. What a test wants is [`ControlPlane::start`], [`ControlPlane::kubectl`], [`ControlPlane::api`] and [`Node`].

mod api;
mod certificates;
mod kernel_settings;
mod kubectl;
mod kubelet;
mod node;

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use certificates::Authority;
use serde_json::json;

use crate::programs::cluster_program;
use crate::{World, eventually, write};

pub use api::{Api, Watch};
pub use certificates::Identity;
pub use kubectl::{Kubectl, a_minute};
pub use kubelet::{Implementation, Kubelet};
pub use node::{Node, Runtime, Settings};

/// Where the ports of a World's control planes begin: below the kernel's ephemeral ones, so nothing takes them by chance.
const FIRST_PORT: u16 = 20_000;
/// The addresses of services; nothing routes them, there is no kube-proxy.
const SERVICES: &str = "10.96.0.0/16";
/// The first of them, the API server's own.
const SERVICE_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// What pods are told to ask for names.
pub const CLUSTER_DNS: &str = "10.96.0.10";

/// A running control plane. Dropping it ends its programs.
pub struct ControlPlane<'w> {
    world: &'w World,
    dir: PathBuf,
    authority: Authority,
    kubelet_client: Identity,
    token_keys: (PathBuf, PathBuf),
    ports: Ports,
    api: Api,
    kubectl: Kubectl,
    /// In the order in which they started: etcd, kube-apiserver, kubectl proxy, the controllers, the scheduler.
    processes: Mutex<Vec<(&'static str, Child)>>,
}

struct Ports {
    etcd: u16,
    etcd_peers: u16,
    api_server: u16,
    controllers: u16,
    scheduler: u16,
}

impl<'w> ControlPlane<'w> {
    /// Starts a control plane and waits until it admits pods.
    ///
    /// # Panics
    /// If it is not ready in 20 s, times `SLOW`.
    pub fn start(world: &'w World) -> ControlPlane<'w> {
        let dir = world.new_dir("control-plane");
        let authority = Authority::new(&dir);
        let ports = Ports {
            etcd: port(world),
            etcd_peers: port(world),
            api_server: port(world),
            controllers: port(world),
            scheduler: port(world),
        };
        let admin = dir.join("admin.kubeconfig");
        let cluster = ControlPlane {
            world,
            kubelet_client: authority.client("apiserver-kubelet-client", "kube-apiserver", Some("system:masters")),
            token_keys: authority.token_keys(),
            api: Api { port: port(world) },
            kubectl: Kubectl::new(world.name(), &admin, &dir.join("kubectl-cache")),
            dir,
            authority,
            ports,
            processes: Mutex::default(),
        };
        let identity = cluster.authority.client("admin", "kubernetes-admin", Some("system:masters"));
        cluster.write_kubeconfig(&admin, &identity);
        cluster.spawn_etcd();
        cluster.spawn_api_server();
        cluster.spawn_proxy();
        cluster.wait_for_api_server();
        cluster.spawn_controllers();
        cluster.wait_for_namespace("default");
        cluster
    }

    /// The administrator's `kubectl`.
    pub fn kubectl(&self) -> &Kubectl {
        &self.kubectl
    }

    /// The administrator's connection for reading often.
    pub fn api(&self) -> Api {
        self.api
    }

    /// Where the API server serves: `https://127.0.0.1:<port>`.
    pub fn server(&self) -> String {
        format!("https://127.0.0.1:{}", self.ports.api_server)
    }

    /// The certificate of the cluster's authority.
    pub fn authority(&self) -> PathBuf {
        self.authority.certificate()
    }

    /// The directory with certificates, kubeconfigs and `<program>.log`.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A client certificate for `user` in `group`.
    pub fn identity(&self, file: &str, user: &str, group: Option<&str>) -> Identity {
        self.authority.client(file, user, group)
    }

    /// A kubeconfig for the node `name`: a client certificate of `system:node:<name>` in `system:nodes`.
    pub fn node_kubeconfig(&self, name: &str) -> PathBuf {
        let identity =
            self.authority.client(&format!("node-{name}"), &format!("system:node:{name}"), Some("system:nodes"));
        let path = self.dir.join(format!("node-{name}.kubeconfig"));
        self.write_kubeconfig(&path, &identity);
        path
    }

    /// Makes a namespace and waits until pods are admitted to it.
    ///
    /// # Panics
    /// If the server refuses, or its default service account does not appear.
    #[track_caller]
    pub fn create_namespace(&self, name: &str) {
        let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
        self.api.post("/api/v1/namespaces", &namespace).expect("a namespace");
        self.wait_for_namespace(name);
    }

    /// Kills the API server as a crash would. etcd, the controllers and the scheduler stay.
    pub fn kill_api_server(&self) {
        self.end("kube-apiserver");
    }

    /// Starts the API server again and waits until it is ready. The controllers and the scheduler start anew, too: in a
    /// real cluster they end when they can't renew their leases, and their supervisor starts them again.
    ///
    /// # Panics
    /// If it is not ready in time.
    pub fn restart_api_server(&self) {
        self.spawn_api_server();
        self.wait_for_api_server();
        ["kube-controller-manager", "kube-scheduler"].iter().for_each(|program| self.end(program));
        self.spawn_controllers();
    }

    fn wait_for_api_server(&self) {
        eventually("kube-apiserver is ready", Duration::from_secs(20), || {
            self.api.text("/readyz").map_err(|reason| format!("{reason}\n{}", self.log_end("kube-apiserver")))
        });
    }

    /// Pods are refused before the controllers have made the namespace's service account and its root certificates.
    fn wait_for_namespace(&self, name: &str) {
        eventually("the namespace's default service account exists", Duration::from_secs(20), || {
            self.api.get(&format!("/api/v1/namespaces/{name}/serviceaccounts/default"))?;
            self.api.get(&format!("/api/v1/namespaces/{name}/configmaps/kube-root-ca.crt"))
        });
    }

    fn spawn_etcd(&self) {
        let clients = format!("http://127.0.0.1:{}", self.ports.etcd);
        let peers = format!("http://127.0.0.1:{}", self.ports.etcd_peers);
        self.spawn(
            "etcd",
            &[
                // Nothing here has to survive a power cut.
                "--unsafe-no-fsync".to_owned(),
                format!("--data-dir={}", self.dir.join("etcd").display()),
                format!("--listen-client-urls={clients}"),
                format!("--advertise-client-urls={clients}"),
                format!("--listen-peer-urls={peers}"),
                format!("--initial-advertise-peer-urls={peers}"),
                format!("--initial-cluster=default={peers}"),
                "--log-level=warn".to_owned(),
            ],
        );
    }

    fn spawn_api_server(&self) {
        let serving = self.authority.server("apiserver", SERVICE_IP);
        let (private, public) = &self.token_keys;
        self.spawn(
            "kube-apiserver",
            &[
                format!("--etcd-servers=http://127.0.0.1:{}", self.ports.etcd),
                format!("--secure-port={}", self.ports.api_server),
                "--bind-address=127.0.0.1".to_owned(),
                "--advertise-address=127.0.0.1".to_owned(),
                // It would refuse the loopback address as an endpoint of its own service.
                "--endpoint-reconciler-type=none".to_owned(),
                format!("--tls-cert-file={}", serving.certificate.display()),
                format!("--tls-private-key-file={}", serving.key.display()),
                format!("--client-ca-file={}", self.authority().display()),
                "--authorization-mode=Node,RBAC".to_owned(),
                "--enable-admission-plugins=NodeRestriction".to_owned(),
                format!("--service-cluster-ip-range={SERVICES}"),
                "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
                format!("--service-account-key-file={}", public.display()),
                format!("--service-account-signing-key-file={}", private.display()),
                "--kubelet-preferred-address-types=InternalIP".to_owned(),
                format!("--kubelet-client-certificate={}", self.kubelet_client.certificate.display()),
                format!("--kubelet-client-key={}", self.kubelet_client.key.display()),
                "--allow-privileged=true".to_owned(),
            ],
        );
    }

    /// What [`Api`] speaks to. The filters protect a person's browser; here they would only refuse.
    fn spawn_proxy(&self) {
        let mut command = self.world.command("setpriv");
        let kubectl = self.kubectl.command(&["proxy", &format!("--port={}", self.api.port), "--disable-filter=true"]);
        command.args(["--pdeathsig", "KILL", "--"]).arg(kubectl.get_program()).args(kubectl.get_args());
        self.spawn_command("kubectl-proxy", &mut command);
    }

    fn spawn_controllers(&self) {
        let kubeconfig = |user: &str| {
            let path = self.dir.join(format!("{user}.kubeconfig"));
            self.write_kubeconfig(&path, &self.authority.client(user, &format!("system:{user}"), None));
            format!("--kubeconfig={}", path.display())
        };
        let common = ["--leader-elect=false".to_owned(), "--bind-address=127.0.0.1".to_owned()];
        let controllers = [
            kubeconfig("kube-controller-manager"),
            format!("--secure-port={}", self.ports.controllers),
            format!("--root-ca-file={}", self.authority().display()),
            format!("--service-account-private-key-file={}", self.token_keys.0.display()),
            "--use-service-account-credentials=true".to_owned(),
        ];
        let scheduler = [kubeconfig("kube-scheduler"), format!("--secure-port={}", self.ports.scheduler)];
        self.spawn("kube-controller-manager", &[&common[..], &controllers].concat());
        self.spawn("kube-scheduler", &[&common[..], &scheduler].concat());
    }

    /// Starts a program that dies with the thread that started it, should the tests be killed.
    fn spawn(&self, program: &'static str, arguments: &[String]) {
        let mut command = self.world.command("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(cluster_program(program)).args(arguments);
        self.spawn_command(program, &mut command);
    }

    fn spawn_command(&self, program: &'static str, command: &mut std::process::Command) {
        let log = File::options().create(true).append(true).open(self.log(program)).expect("a program's log");
        let errors = log.try_clone().expect("a program's log");
        let process = command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn();
        let process = process.unwrap_or_else(|error| panic!("start {program}: {error}"));
        self.processes.lock().expect("the control plane's processes").push((program, process));
    }

    fn end(&self, program: &str) {
        let mut processes = self.processes.lock().expect("the control plane's processes");
        for (_, process) in processes.extract_if(.., |(name, _)| *name == program) {
            kill(process);
        }
    }

    fn log(&self, program: &str) -> PathBuf {
        self.dir.join(format!("{program}.log"))
    }

    fn log_end(&self, program: &str) -> String {
        let log = fs::read_to_string(self.log(program)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    fn write_kubeconfig(&self, path: &Path, identity: &Identity) {
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "test", "cluster": {
                "server": self.server(),
                "certificate-authority": self.authority(),
            }}],
            "users": [{ "name": "me", "user": {
                "client-certificate": identity.certificate,
                "client-key": identity.key,
            }}],
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "me" } }],
            "current-context": "test",
        });
        // YAML is a superset of JSON.
        write(path, format!("{kubeconfig:#}\n"));
    }
}

impl Drop for ControlPlane<'_> {
    fn drop(&mut self) {
        let processes = self.processes.get_mut().map(std::mem::take).unwrap_or_default();
        // The last first: nothing then complains about what went away.
        processes.into_iter().rev().for_each(|(_, process)| kill(process));
    }
}

fn kill(mut process: Child) {
    let _already_gone = process.kill();
    let _reaped = process.wait();
}

/// A port that nothing else in the World uses.
fn port(world: &World) -> u16 {
    FIRST_PORT + u16::try_from(world.count()).expect("a small number")
}
