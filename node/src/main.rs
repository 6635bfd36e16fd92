//! `orlop`: the front door. Arguments, configuration, wiring; every capability lives in a crate of its own.

mod args;
mod commands;
mod local;
mod logging;
mod settings;

use args::{Cli, Command};
use clap::{CommandFactory, Parser};
use commands::{config, cri, image, kubelet, ps, up};
use settings::layers::{self, Layered};
use std::path::Path;
use std::process::ExitCode;

/// sysexits.h EX_CONFIG: a supervisor can tell a configuration that will not mend itself from a crash.
const EX_CONFIG: u8 = 78;

/// Read unless `--config` names another.
const DEFAULT_CONFIG: &str = "/etc/orlop/config.toml";

/// Heaps of the daemons' allocator: with two, a burst does not wait, and what it leaves behind stays small.
const ARENAS: u8 = 2;

/// How a command ends that does not end well.
enum Failure {
    /// A configuration that has to be mended; it shows its place.
    Config(anyhow::Error),
    /// Everything else.
    Other(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        Failure::Other(error)
    }
}

impl From<::kubelet::config::ConfigError> for Failure {
    fn from(error: ::kubelet::config::ConfigError) -> Failure {
        Failure::Config(error.into())
    }
}

impl From<layers::ConfigError> for Failure {
    fn from(error: layers::ConfigError) -> Failure {
        Failure::Config(error.into())
    }
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Config(error)) => {
            eprintln!("{error:#}");
            ExitCode::from(EX_CONFIG)
        }
        Err(Failure::Other(error)) => {
            eprintln!("orlop: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    // `orlop kubelet --config` names a KubeletConfiguration, as it does for upstream's kubelet.
    let named = cli.global.config.as_deref().filter(|_| !matches!(cli.command, Command::Kubelet(_)));
    let layered = layers::load(named.unwrap_or(Path::new(DEFAULT_CONFIG)), named.is_some(), &cli.global.flags())?;
    let settings = &layered.settings;
    match cli.command {
        Command::Cri => {
            sys::memory::bound_arenas(ARENAS);
            start_log(&layered, &settings.log)?;
            cri::run(settings)?;
        }
        Command::Kubelet(flags) => {
            sys::memory::bound_arenas(ARENAS);
            let config = kubelet::load(flags, settings)?;
            start_log(&layered, &kubelet_log(&layered, &config))?;
            kubelet::run(config, settings)?;
        }
        Command::Up(arguments) => {
            sys::memory::bound_arenas(ARENAS);
            let config = up::load(arguments, settings)?;
            start_log(&layered, &kubelet_log(&layered, &config))?;
            up::run(config, settings)?;
        }
        Command::Ps { watch, output } => ps::run(settings, watch, output)?,
        Command::Image(image) => image::run(image, settings)?,
        Command::Config(args::Config::Show { origin }) => config::show(&layered, origin)?,
        Command::Version => println!("orlop {}", env!("CARGO_PKG_VERSION")),
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "orlop", &mut std::io::stdout());
        }
    }
    Ok(())
}

/// A filter that can't be used is a mistake of who gave it.
fn start_log(layered: &Layered, log: &settings::Log) -> Result<(), Failure> {
    let origin = layered.origins.get("log.level").map_or("default", String::as_str);
    logging::start(log).map_err(|error| Failure::Config(error.context(format!("error: a setting of {origin}"))))
}

/// Our own settings stand over the kubelet's `--v` and `logging`, where they are given.
fn kubelet_log(layered: &Layered, config: &::kubelet::config::Config) -> settings::Log {
    let mut log = layered.settings.log.clone();
    let given = |key: &str| layered.origins.get(key).is_some_and(|origin| origin != "default");
    if !given("log.level") {
        log.level = logging::filter_of(config.logging.verbosity).to_owned();
    }
    if !given("log.format") && config.logging.json {
        log.format = settings::LogFormat::Json;
    }
    log
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_level_that_is_none_is_a_mistake_of_its_origin() {
        let mut layered = layers::load(Path::new(DEFAULT_CONFIG), false, &[]).unwrap();
        layered.origins.insert("log.level".to_owned(), "--log-level".to_owned());
        layered.settings.log.level = "a=b=c".to_owned();
        let Err(Failure::Config(error)) = start_log(&layered, &layered.settings.log) else { panic!("it is taken") };
        let text = format!("{error:#}");
        assert!(text.contains("--log-level") && text.contains("a=b=c"), "{text}");
    }
}
