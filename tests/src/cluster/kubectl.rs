//! `kubectl` with its kubeconfig, as a person would have it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::programs::cluster_program;
use crate::world::MARK;
use crate::{Output, output, slow};

/// The client of one cluster, for any thread of the World. Copies start processes of their own.
#[derive(Debug, Clone)]
pub struct Kubectl {
    kubeconfig: PathBuf,
    cache: PathBuf,
    world: String,
}

/// The option of a verb that waits: for a minute, times [`slow`].
pub fn a_minute() -> String {
    format!("--timeout={}s", 60 * slow())
}

impl Kubectl {
    pub(super) fn new(world: &str, kubeconfig: &Path, cache: &Path) -> Kubectl {
        Kubectl { kubeconfig: kubeconfig.to_owned(), cache: cache.to_owned(), world: world.to_owned() }
    }

    /// The command, for a caller who starts it himself.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(cluster_program("kubectl"));
        command.env(MARK, &self.world).env_remove("KUBECONFIG").arg("--kubeconfig").arg(&self.kubeconfig);
        command.arg("--cache-dir").arg(&self.cache).args(arguments);
        command
    }

    /// Runs one command to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        output(&mut self.command(arguments))
    }

    /// The standard output of a command that must succeed.
    ///
    /// # Panics
    /// If it does not.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> String {
        let done = self.run(arguments);
        assert_eq!(done.code, 0, "kubectl {}: {}{}", arguments.join(" "), done.stdout, done.stderr);
        done.stdout
    }

    /// What a command with `-o json` prints.
    ///
    /// # Panics
    /// If it fails.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let text = self.ok(&[arguments, &["-o", "json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("kubectl {}: {error}", arguments.join(" ")))
    }

    /// `kubectl apply` of YAML documents.
    ///
    /// # Panics
    /// If the server refuses one.
    #[track_caller]
    pub fn apply(&self, namespace: &str, manifests: &str) {
        let mut command = self.command(&["apply", "--namespace", namespace, "-f", "-"]);
        let mut process =
            command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("start kubectl");
        let written = process.stdin.take().expect("its input").write_all(manifests.as_bytes());
        let done = process.wait_with_output().expect("kubectl's end");
        let errors = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success() && written.is_ok(), "kubectl apply: {errors}\n{manifests}");
    }
}
