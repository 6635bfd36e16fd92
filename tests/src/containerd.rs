//! The peer: containerd with runc and the reference CNI plugins, private to a World. For benches and `--peers` only.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::cri::Cri;
use crate::daemon::{Plugins, install_plugins, network};
use crate::{World, eventually, peer, tool, write};

/// A running containerd. Dropping it removes its pods through the CRI and ends it.
pub struct Containerd {
    dir: PathBuf,
    process: Child,
}

impl Containerd {
    /// Starts it and waits until it answers.
    ///
    /// # Panics
    /// If it does not start in time.
    pub fn start(world: &World) -> Containerd {
        Containerd::start_on(world, &peer("runc"))
    }

    /// As [`Containerd::start`], with the runtime that its pods run on; `ctr` names its own.
    ///
    /// # Panics
    /// If it does not start in time.
    pub fn start_on(world: &World, runtime: &Path) -> Containerd {
        let dir = world.new_dir("containerd");
        for folder in ["cni-conf", "cni-bin", "cni-cache", "certs.d", "logs"] {
            fs::create_dir(dir.join(folder)).expect("containerd's directories");
        }
        install_plugins(&dir.join("cni-bin"), Plugins::Reference);
        write(&dir.join("cni-conf/10-bridge.conflist"), network(&dir, world.count()));
        for stays in ["link orlop", "nft ", "mount /run/containerd"] {
            world.tolerate(stays);
        }
        write(&dir.join("config.toml"), configuration(&dir, runtime));
        let log = File::create(dir.join("log")).expect("containerd's log");
        let programs = tool("containerd").parent().expect("a folder").display().to_string();
        let process = world
            .command(tool("containerd"))
            .arg("--config")
            .arg(dir.join("config.toml"))
            .env("PATH", format!("{programs}:{}", std::env::var("PATH").unwrap_or_default()))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("containerd's log"))
            .stderr(log)
            .spawn()
            .expect("start containerd");
        let containerd = Containerd { dir, process };
        let client = containerd.client();
        eventually("containerd answers", Duration::from_secs(30), || {
            let request = proto::StatusRequest { verbose: false };
            client.runtime(async |mut client| client.status(request).await)
        });
        containerd
    }

    /// A client. Each has a connection of its own.
    pub fn client(&self) -> Cri {
        Cri::at(&self.dir.join("containerd.sock"))
    }

    /// `unix://` and the socket.
    pub fn endpoint(&self) -> String {
        format!("unix://{}/containerd.sock", self.dir.display())
    }

    /// The folder of `<host>/hosts.toml`.
    pub fn hosts_dir(&self) -> PathBuf {
        self.dir.join("certs.d")
    }

    /// An existing directory for pods' logs.
    pub fn logs(&self) -> PathBuf {
        self.dir.join("logs")
    }

    /// Its debugging client; the command is missing.
    pub fn ctr(&self) -> Command {
        let mut command = Command::new(tool("ctr"));
        command.arg("--address").arg(self.dir.join("containerd.sock")).current_dir(&self.dir);
        command
    }

    /// The bundle of a task that `ctr` started.
    pub fn task_dir(&self, id: &str) -> PathBuf {
        self.dir.join("state/io.containerd.runtime.v2.task/default").join(id)
    }

    /// The daemon's process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Stops and removes every pod.
    pub fn remove_pods(&self) {
        self.client().remove_all_pods();
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("the end of containerd's log:\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
        } else {
            self.remove_pods();
        }
        let _already_gone = self.process.kill();
        let _reaped = self.process.wait();
    }
}

/// Traps: without `restrict_oom_score_adj` no sandbox starts where CAP_SYS_RESOURCE is missing, and the sandbox image is
/// one that the registry mirror has.
fn configuration(dir: &Path, runtime: &Path) -> String {
    let dir = dir.display();
    format!(
        r#"version = 3
root = "{dir}/root"
state = "{dir}/state"
[grpc]
  address = "{dir}/containerd.sock"
[ttrpc]
  address = "{dir}/containerd.sock.ttrpc"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["{dir}/cni-bin"]
    conf_dir = "{dir}/cni-conf"
  [plugins."io.containerd.cri.v1.runtime".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
        BinaryName = "{}"
        SystemdCgroup = false
[plugins."io.containerd.cri.v1.images"]
  [plugins."io.containerd.cri.v1.images".registry]
    config_path = "{dir}/certs.d"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "registry.k8s.io/pause:3.9"
"#,
        runtime.display()
    )
}
