//! `orlop`: the front door. Arguments, configuration, wiring; every capability lives in a crate of its own.

mod args;
mod commands;
mod logging;
mod settings;

use args::{Cli, Command};
use clap::{CommandFactory, Parser};
use settings::layers::{self, Layered};
use std::path::Path;
use std::process::ExitCode;

/// sysexits.h EX_CONFIG: a supervisor can tell a configuration that will not mend itself from a crash.
const EX_CONFIG: u8 = 78;

/// Read unless `--config` names another.
const DEFAULT_CONFIG: &str = "/etc/orlop/config.toml";

fn main() -> ExitCode {
    let cli = Cli::parse();
    let named = cli.global.config.as_deref();
    let layered = match layers::load(named.unwrap_or(Path::new(DEFAULT_CONFIG)), named.is_some(), &cli.global.flags()) {
        Ok(layered) => layered,
        Err(error) => {
            eprintln!("{:#}", anyhow::Error::from(error));
            return ExitCode::from(EX_CONFIG);
        }
    };
    match run(cli.command, &layered) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("orlop: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command, layered: &Layered) -> anyhow::Result<()> {
    let settings = &layered.settings;
    match command {
        Command::Cri => {
            logging::start(&settings.log)?;
            commands::cri::run(settings)
        }
        Command::Image(image) => commands::image::run(image, settings),
        Command::Config(args::Config::Show { origin }) => commands::config::show(layered, origin),
        Command::Kubelet => anyhow::bail!("the kubelet is not built yet; point an upstream kubelet at `orlop cri`"),
        Command::Version => {
            println!("orlop {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "orlop", &mut std::io::stdout());
            Ok(())
        }
    }
}
