//! The kubelet's flags, as its own table has them.

use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches, value_parser};
use kubelet::config::flags::{Argument, arguments};
use std::ffi::OsStr;
use std::path::PathBuf;

/// Flags that were given, in the kubelet's form: name without dashes, value.
#[derive(Debug, Clone, Default)]
pub(crate) struct KubeletFlags {
    pub(crate) given: Vec<(String, String)>,
}

impl KubeletFlags {
    /// Whether a flag was given.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.given.iter().any(|(given, _)| given == name)
    }

    /// What a flag was given last.
    pub(crate) fn last(&self, name: &str) -> Option<&str> {
        self.given.iter().rev().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// Takes a flag's values over, as they were typed: `--config` is a path, all others are texts.
    fn take(&mut self, matches: &ArgMatches, name: &str) {
        if let Ok(Some(values)) = matches.try_get_raw(name) {
            self.given.extend(values.map(OsStr::to_string_lossy).map(|text| (name.to_owned(), text.into_owned())));
        }
    }

    /// Gives one more, over those of the same name.
    pub(crate) fn set(&mut self, name: &str, value: impl Into<String>) {
        self.given.push((name.to_owned(), value.into()));
    }
}

/// The flags of `orlop up`: without those that it answers itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct UpFlags(pub(crate) KubeletFlags);

/// What `orlop up` answers: it is the runtime, --config is its own, and it has --manifests.
const OF_UP: [&str; 4] = ["config", "container-runtime-endpoint", "image-service-endpoint", "pod-manifest-path"];

impl clap::Args for KubeletFlags {
    fn augment_args(command: Command) -> Command {
        command.args(arguments().map(|argument| arg(&argument)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for KubeletFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = KubeletFlags::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        arguments().for_each(|argument| self.take(matches, argument.name));
        Ok(())
    }
}

impl clap::Args for UpFlags {
    fn augment_args(command: Command) -> Command {
        let passed = arguments().filter(|argument| !OF_UP.contains(&argument.name));
        command.args(passed.map(|argument| arg(&argument)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for UpFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = UpFlags::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        let passed = arguments().filter(|argument| !OF_UP.contains(&argument.name));
        passed.for_each(|argument| self.0.take(matches, argument.name));
        Ok(())
    }
}

fn arg(argument: &Argument) -> Arg {
    let arg = Arg::new(argument.name)
        .long(argument.name)
        .help(argument.help)
        .hide_short_help(argument.rare)
        .help_heading(if argument.rare { "Further flags of the kubelet, by their field" } else { "Kubelet" });
    let arg = if argument.name == "v" { arg.short('v') } else { arg };
    if argument.name == "config" {
        // The same id as the program's own flag, so that here it stands for this one; see `Command::Kubelet`.
        return arg.value_name("FILE").value_parser(value_parser!(PathBuf));
    }
    match argument.value {
        Some(value) => arg.value_name(value).action(ArgAction::Append).value_parser(value_parser!(String)),
        None => arg
            .value_name("BOOL")
            .action(ArgAction::Append)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .value_parser(value_parser!(String)),
    }
}
