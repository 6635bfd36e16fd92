//! The command line.

mod kubelet;

use crate::settings::LogFormat;
use crate::settings::layers::Flag;
use clap::{Args, Parser, Subcommand, ValueEnum};
pub(crate) use kubelet::{KubeletFlags, UpFlags};
use std::path::PathBuf;

/// The lowest deck of a Kubernetes node.
#[derive(Debug, Parser)]
#[command(name = "orlop", version, about, propagate_version = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags that make a private instance; they stand over the configuration files.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Configuration file; the conf.d/*.toml beside it are laid over it
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// What survives a reboot: images, records, writable layers
    #[arg(long, global = true, value_name = "DIR")]
    root: Option<String>,
    /// What does not: sockets, exit records
    #[arg(long, global = true, value_name = "DIR")]
    state: Option<String>,
    /// The CRI socket
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<String>,
    /// error, warn, info, debug, trace, or a filter such as info,image=debug
    #[arg(long, global = true, value_name = "LEVEL")]
    log_level: Option<String>,
    /// How log lines look
    #[arg(long, global = true, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
}

impl Global {
    /// The flags that were given, as values that stand over the files'.
    pub(crate) fn flags(&self) -> Vec<Flag> {
        let log_format = self.log_format.and_then(|format| Some(format.to_possible_value()?.get_name().to_owned()));
        [
            ("root", "--root", self.root.clone()),
            ("state", "--state", self.state.clone()),
            ("socket", "--socket", self.socket.clone()),
            ("log.level", "--log-level", self.log_level.clone()),
            ("log.format", "--log-format", log_format),
        ]
        .into_iter()
        .filter_map(|(key, name, value)| Some(Flag { key, name, value: value? }))
        .collect()
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve the CRI on a Unix socket, for a kubelet or crictl
    Cri,
    /// Pull, list and remove images
    #[command(subcommand)]
    Image(Image),
    /// Show the configuration
    #[command(subcommand)]
    Config(Config),
    /// Run the kubelet: a node of a cluster, or a folder of static pods
    ///
    /// The flags are upstream's; --help shows all, -h the common ones. --config names a KubeletConfiguration here.
    Kubelet(KubeletFlags),
    /// Run pods: the CRI and the kubelet in one process, alone or in a cluster
    ///
    /// Alone, it runs the manifests of a folder. With --kubeconfig, it joins that cluster. Further flags are the
    /// kubelet's; --help shows all.
    Up(Up),
    /// List pods and containers, with what they use
    Ps {
        /// Print again and again
        #[arg(short, long)]
        watch: bool,
        /// How to print
        #[arg(short, long, default_value = "table")]
        output: Output,
    },
    /// Print the version
    Version,
    /// Print a completion script for a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Image {
    /// Pull an image
    Pull {
        /// For example docker.io/library/busybox:1.36
        reference: String,
        /// USER:PASSWORD for the registry; - reads it from standard input
        #[arg(long, value_name = "USER:PASSWORD")]
        creds: Option<String>,
    },
    /// List images
    Ls {
        /// How to print
        #[arg(short, long, default_value = "table")]
        output: Output,
    },
    /// Remove images, with all their names
    Rm {
        /// Names or ids
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
    },
}

/// How a list is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For a person.
    Table,
    /// For a program.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Print all settings as they are in force
    Show {
        /// With the file and line, or the flag, that each comes from
        #[arg(long)]
        origin: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Folder of pod manifests to run; kept up with while they change
    #[arg(long, value_name = "DIR", conflicts_with = "pod")]
    pub(crate) manifests: Option<PathBuf>,
    /// One pod manifest to run
    #[arg(long, value_name = "FILE")]
    pub(crate) pod: Option<PathBuf>,
    /// The kubelet's own configuration file
    #[arg(long, value_name = "FILE")]
    pub(crate) kubelet_config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) kubelet: UpFlags,
}
