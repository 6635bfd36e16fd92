//! `orlop cri` in a World: private directories, a network, registry mirrors; it can be killed and started again.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cri::Cri;
use crate::eventually::within;
use crate::{World, binary, eventually, tool, write};

/// Whose CNI plugins set up the pods' network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plugins {
    /// `orlop-cni`, under the plugins' names.
    Ours,
    /// The reference plugins of `tests/tools/cni-plugins`.
    Reference,
}

/// A running `orlop cri`. Dropping it removes its pods through the CRI and stops it; on a failed test it shows its log.
pub struct CriDaemon<'w> {
    world: &'w World,
    dir: PathBuf,
    log_level: &'static str,
    process: Option<Child>,
}

impl<'w> CriDaemon<'w> {
    /// Starts a daemon with our own plugins and waits until it answers.
    ///
    /// # Panics
    /// If it does not start; the message holds its log.
    pub fn start(world: &'w World) -> CriDaemon<'w> {
        CriDaemon::with(world, Plugins::Ours)
    }

    /// As [`CriDaemon::start`], with the log level that people run: for measurements.
    ///
    /// # Panics
    /// If it does not start; the message holds its log.
    pub fn start_quiet(world: &'w World) -> CriDaemon<'w> {
        CriDaemon::launch(world, Plugins::Ours, "info")
    }

    /// Starts a daemon with a choice of plugins and waits until it answers.
    ///
    /// # Panics
    /// If it does not start; the message holds its log.
    pub fn with(world: &'w World, plugins: Plugins) -> CriDaemon<'w> {
        CriDaemon::launch(world, plugins, "debug")
    }

    fn launch(world: &'w World, plugins: Plugins, log_level: &'static str) -> CriDaemon<'w> {
        let dir = world.new_dir("cri");
        for folder in ["cni-conf", "cni-bin", "cni-cache", "certs.d", "logs"] {
            fs::create_dir(dir.join(folder)).expect("the daemon's directories");
        }
        install_plugins(&dir.join("cni-bin"), plugins);
        write(&dir.join("cni-conf/10-bridge.conflist"), network(&dir, world.count()));
        // The reference bridge plugin never removes its bridge, and both portmaps leave their empty tables and chains.
        for stays in ["link orlop", "nft "] {
            world.tolerate(stays);
        }
        let config = configuration(&dir, &world.cgroup("pods"));
        write(&dir.join("config.toml"), config);
        let mut daemon = CriDaemon { world, dir, log_level, process: None };
        daemon.spawn();
        daemon
    }

    /// A client. Each has a connection of its own.
    pub fn client(&self) -> Cri {
        Cri::at(&self.socket())
    }

    /// The CRI socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("orlop.sock")
    }

    /// `unix://` and the socket: the form in which upstream clients want it.
    pub fn endpoint(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// The daemon's private directory: `config.toml`, `root/`, `state/`, `cni-conf/`, `cni-bin/`, `certs.d/`, `logs/`.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The folder of `<host>/hosts.toml` that it reads at each pull.
    pub fn hosts_dir(&self) -> PathBuf {
        self.dir.join("certs.d")
    }

    /// An existing directory for pods' logs.
    pub fn logs(&self) -> PathBuf {
        self.dir.join("logs")
    }

    /// The daemon's process id.
    ///
    /// # Panics
    /// While it is killed.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("a running daemon").id()
    }

    /// Serves pulls from `host` (`registry.k8s.io`, `_default`, …) by the plain-HTTP registry at `mirror` instead.
    pub fn mirror(&self, host: &str, mirror: &str) {
        mirror_host(&self.hosts_dir(), host, mirror);
    }

    /// Kills the daemon as a crash would, and returns when it is gone.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _already_gone = process.kill();
            let _reaped = process.wait();
        }
    }

    /// Ends the daemon with SIGTERM, and returns when it is gone.
    ///
    /// # Panics
    /// If it does not end in time.
    pub fn terminate(&mut self) {
        if let Some(mut process) = self.process.take() {
            let pid = Pid::from_raw(i32::try_from(process.id()).expect("a process id"));
            let _already_gone = kill(pid, Signal::SIGTERM);
            eventually("orlop cri ends on SIGTERM", Duration::from_secs(40), || process.try_wait().ok().flatten());
        }
    }

    /// Starts the daemon again over the same directories and waits until it answers.
    ///
    /// # Panics
    /// If it still runs or does not answer.
    pub fn restart(&mut self) {
        assert!(self.process.is_none(), "the daemon still runs");
        self.spawn();
    }

    /// What the daemon has logged so far, over all its lives.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// Stops and removes every pod.
    ///
    /// # Panics
    /// If the server refuses.
    pub fn remove_pods(&self) {
        self.client().remove_all_pods();
    }

    fn spawn(&mut self) {
        let log = File::options().create(true).append(true).open(self.dir.join("log")).expect("the daemon's log");
        let mut command = self.world.command(binary("orlop"));
        let (config, root, state) = (self.dir.join("config.toml"), self.dir.join("root"), self.dir.join("state"));
        command.arg("--config").arg(config).arg("--root").arg(root).arg("--state").arg(state);
        command.arg("--socket").arg(self.socket()).args(["--log-level", self.log_level, "cri"]);
        let errors = log.try_clone().expect("the daemon's log");
        let process = command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn();
        self.process = Some(process.expect("start orlop"));
        let client = self.client();
        let ready = within(Duration::from_secs(20), || {
            let request = proto::VersionRequest::default();
            client.runtime(async |mut client| client.version(request).await)
        });
        if let Err(reason) = ready {
            panic!("orlop cri does not answer: {reason}");
        }
    }
}

impl Drop for CriDaemon<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(60).collect();
            eprintln!("the end of orlop cri's log:");
            tail.iter().rev().for_each(|line| eprintln!("  {line}"));
            self.kill();
        } else if self.process.is_some() {
            self.remove_pods();
            self.terminate();
        }
    }
}

/// Writes the `hosts.toml` below `hosts_dir` by which a daemon asks the plain-HTTP registry at `mirror` instead of `host`.
pub fn mirror_host(hosts_dir: &Path, host: &str, mirror: &str) {
    let folder = hosts_dir.join(host);
    fs::create_dir_all(&folder).expect("a host's folder");
    // `server` too, or the real host would be asked after the mirror: a test must not leave the machine.
    let hosts = format!("server = \"http://{mirror}\"\n");
    write(&folder.join("hosts.toml"), hosts);
}

/// The plugins by their names in `dir`, which a daemon searches.
pub fn install_plugins(dir: &Path, plugins: Plugins) {
    for name in ["bridge", "host-local", "loopback", "portmap"] {
        let program = match plugins {
            Plugins::Ours => binary("orlop-cni"),
            Plugins::Reference => tool(&format!("cni/{name}")),
        };
        symlink(program, dir.join(name)).expect("a plugin's link");
    }
}

/// A bridge with addresses and host ports. The subnet is the World's own affair: it is in a network namespace.
pub fn network(dir: &Path, number: u32) -> String {
    let ranges = format!("[[{{\"subnet\": \"10.{}.0.0/16\"}}]]", 64 + number % 128);
    let data = dir.join("cni-cache/networks");
    format!(
        r#"{{"cniVersion": "1.0.0", "name": "orlop-test-{number}", "plugins": [
  {{"type": "bridge", "bridge": "orlop{number}", "isDefaultGateway": true, "ipMasq": true, "ipMasqBackend": "nftables", "hairpinMode": true,
    "ipam": {{"type": "host-local", "dataDir": "{}", "ranges": {ranges}}}}},
  {{"type": "portmap", "backend": "nftables", "capabilities": {{"portMappings": true}}}}
]}}
"#,
        data.display()
    )
}

fn configuration(dir: &Path, cgroup_parent: &str) -> String {
    let dir = dir.display();
    format!(
        "[cri]\nshim = \"{}\"\ncgroup_parent = \"{cgroup_parent}\"\n\n\
         [cni]\nconf_dir = \"{dir}/cni-conf\"\nbin_dirs = [\"{dir}/cni-bin\"]\ncache_dir = \"{dir}/cni-cache\"\n\n\
         [registry]\nhosts_dirs = [\"{dir}/certs.d\"]\n",
        binary("orlop-shim").display()
    )
}
