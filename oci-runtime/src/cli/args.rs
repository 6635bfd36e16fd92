//! The arguments: flags before the verb, and how the flags of a verb are read. Those stand beside each verb.
//!
//! Flags may stand before and after the container id, except for exec and ps, where everything after the id belongs to
//! another program. What is not built is refused by name.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use lexopt::prelude::*;

use super::verb::{self, Verb};
use super::{SPEC_VERSION, help};

/// What the arguments ask for.
#[derive(Debug)]
pub(crate) enum Parsed {
    /// A verb.
    Command(Command),
    /// Help or the version, to be printed.
    Print(String),
}

/// A verb, and the flags before it.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) global: Global,
    pub(crate) verb: Verb,
}

/// The flags before the verb.
#[derive(Debug)]
pub(crate) struct Global {
    /// Where the state directories are.
    pub(crate) root: Root,
    pub(crate) log: LogFlags,
}

/// `--root`, or its default.
#[derive(Debug)]
pub(crate) struct Root {
    pub(crate) path: PathBuf,
    /// Given: then it has to be there for list.
    pub(crate) given: bool,
}

/// `--log`, `--log-format`.
#[derive(Debug, Clone, Default)]
pub(crate) struct LogFlags {
    pub(crate) file: Option<PathBuf>,
    pub(crate) json: bool,
}

/// Arguments that make no command.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Misuse {
    message: String,
    /// The text of the verb, whose flags were misused; it goes to stdout.
    pub(crate) help: Option<String>,
    pub(crate) exit_code: u8,
    /// Where it is to be told, as far as the arguments could be understood.
    pub(crate) log: LogFlags,
}

/// Why reading a verb's flags came to an end before they did.
#[derive(Debug)]
pub(crate) enum Stop {
    /// `-h`
    Help,
    /// What is wrong.
    Wrong(String),
}

impl From<String> for Stop {
    fn from(message: String) -> Stop {
        Stop::Wrong(message)
    }
}

impl From<&str> for Stop {
    fn from(message: &str) -> Stop {
        Stop::Wrong(message.to_owned())
    }
}

impl From<lexopt::Error> for Stop {
    fn from(error: lexopt::Error) -> Stop {
        match error {
            // In Go's words: podman looks for them to see whether a flag is known.
            lexopt::Error::MissingValue { option: Some(option) } => {
                format!("flag needs an argument: -{}", option.trim_start_matches('-')).into()
            }
            error => error.to_string().into(),
        }
    }
}

/// Of Go's command line library, for a verb that there is not.
const NO_SUCH_VERB: u8 = 3;

/// What comes before the flags of a verb.
enum Before {
    Verb(String),
    Help,
    Version,
}

/// Parses the arguments after the program's name.
pub(crate) fn parse(arguments: Vec<OsString>) -> Result<Parsed, Misuse> {
    let mut parser = lexopt::Parser::from_args(arguments);
    let root = Root { path: "/run/orlop/runtime".into(), given: false };
    let mut global = Global { root, log: LogFlags::default() };
    let before = before_verb(&mut parser, &mut global);
    let wrong = |message: String| Misuse { message, help: None, exit_code: super::FAILED, log: global.log.clone() };
    let mut name = match before {
        Ok(Before::Verb(name)) => name,
        Ok(Before::Version) => return Ok(Parsed::Print(version())),
        Ok(Before::Help) | Err(Stop::Help) => return Ok(Parsed::Print(help::overview())),
        Err(Stop::Wrong(message)) => return Err(wrong(message)),
    };
    let only_help = ["help", "h"].contains(&name.as_str());
    if only_help {
        match parser.value().map(ValueExt::string) {
            Ok(Ok(topic)) => name = topic,
            _ => return Ok(Parsed::Print(help::overview())),
        }
    }
    let Some(entry) = verb::find(&name) else {
        let message = format!("No help topic for '{name}'");
        return Err(Misuse { exit_code: NO_SUCH_VERB, ..wrong(message) });
    };
    let text = || entry.help.text(entry.name);
    let parsed = if only_help { Err(Stop::Help) } else { (entry.parse)(&mut parser) };
    match parsed {
        Ok(verb) => Ok(Parsed::Command(Command { global, verb })),
        Err(Stop::Help) => Ok(Parsed::Print(text())),
        Err(Stop::Wrong(message)) => Err(Misuse { help: Some(text()), ..wrong(message) }),
    }
}

fn before_verb(parser: &mut lexopt::Parser, global: &mut Global) -> Result<Before, Stop> {
    loop {
        let name = match next_token(parser)? {
            Some(Token::Plain(verb)) => return Ok(Before::Verb(verb)),
            Some(Token::Flag(name)) => name,
            None => return Ok(Before::Help),
        };
        match name.as_str() {
            "--root" => global.root = root_of(parser.value()?)?,
            "--log" => global.log.file = path(parser)?,
            "--log-format" => global.log.json = log_format(&text(parser)?)?,
            // Nothing is logged but errors and warnings, which are never left out.
            "--debug" => drop(switch(parser, &name)?),
            "--systemd-cgroup" => {
                if switch(parser, &name)? {
                    return Err("--systemd-cgroup: the systemd cgroup driver is not built yet".into());
                }
            }
            "--rootless" => match text(parser)?.as_str() {
                "auto" | "false" => {}
                other => return Err(format!("--rootless {other}: containers without root are not built yet").into()),
            },
            "-v" | "--version" => return Ok(Before::Version),
            name => return Err(unknown(name)),
        }
    }
}

fn version() -> String {
    format!("orlop-runtime version {}\nspec: {SPEC_VERSION}\n", env!("CARGO_PKG_VERSION"))
}

/// An absolute path without `.` and `..`. The root of the file system would make every directory a container.
fn root_of(value: OsString) -> Result<Root, Stop> {
    let mut path = PathBuf::from("/");
    for component in absolute(value.into())?.components() {
        match component {
            Component::ParentDir => drop(path.pop()),
            Component::Normal(name) => path.push(name),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    match path == Path::new("/") {
        true => Err("Option --root argument should not be set to /".into()),
        false => Ok(Root { path, given: true }),
    }
}

fn log_format(value: &str) -> Result<bool, Stop> {
    match value {
        "" | "text" => Ok(false),
        "json" => Ok(true),
        other => Err(format!("invalid log-format: {other}").into()),
    }
}

/// An argument that does not borrow the parser, which would keep a flag's value from being read.
pub(crate) enum Token {
    /// As it is written: `-b`, `--bundle`.
    Flag(String),
    Plain(String),
}

/// The next argument; `-h` is never one.
pub(crate) fn next_token(parser: &mut lexopt::Parser) -> Result<Option<Token>, Stop> {
    Ok(match parser.next()? {
        Some(Short('h') | Long("help")) => return Err(Stop::Help),
        Some(Short(letter)) => Some(Token::Flag(format!("-{letter}"))),
        Some(Long(name)) => Some(Token::Flag(format!("--{name}"))),
        Some(Value(value)) => Some(Token::Plain(plain(value)?)),
        None => None,
    })
}

/// All that is left, whatever it looks like.
pub(crate) fn rest(parser: &mut lexopt::Parser) -> Result<Vec<String>, Stop> {
    parser.raw_args()?.map(plain).collect()
}

fn plain(value: OsString) -> Result<String, Stop> {
    value.into_string().map_err(|value| format!("{value:?} is not UTF-8").into())
}

/// The value of a flag.
pub(crate) fn text(parser: &mut lexopt::Parser) -> Result<String, Stop> {
    plain(parser.value()?)
}

/// The number that is the value of the flag `name`.
pub(crate) fn number<T: FromStr>(parser: &mut lexopt::Parser, name: &str) -> Result<T, Stop> {
    let value = text(parser)?;
    let bare = name.trim_start_matches('-');
    value.parse().map_err(|_| format!("invalid value {value:?} for flag -{bare}: not a number in its range").into())
}

/// The path that is the value of a flag; an empty one is none.
pub(crate) fn path(parser: &mut lexopt::Parser) -> Result<Option<PathBuf>, Stop> {
    Ok(Some(PathBuf::from(parser.value()?)).filter(|path| path != Path::new("")))
}

/// Before the working directory may be changed.
pub(crate) fn absolute(path: PathBuf) -> Result<PathBuf, Stop> {
    if path.is_absolute() {
        return Ok(path);
    }
    let directory = std::env::current_dir().map_err(|error| format!("read the working directory: {error}"))?;
    Ok(directory.join(path))
}

/// The switch `name`, which may also be given as `--switch=false`.
pub(crate) fn switch(parser: &mut lexopt::Parser, name: &str) -> Result<bool, Stop> {
    let Some(value) = parser.optional_value() else { return Ok(true) };
    match value.to_str() {
        Some("true" | "TRUE" | "True" | "t" | "T" | "1") => Ok(true),
        Some("false" | "FALSE" | "False" | "f" | "F" | "0") => Ok(false),
        _ => Err(format!("invalid boolean value {value:?} for -{}", name.trim_start_matches('-')).into()),
    }
}

/// A flag that there is not; Go knows them with one dash.
pub(crate) fn unknown(name: &str) -> Stop {
    format!("flag provided but not defined: -{}", name.trim_start_matches('-')).into()
}

/// Reads the arguments of a verb that takes an id: `flag` is called for each flag.
pub(crate) fn only_id(
    parser: &mut lexopt::Parser,
    verb: &str,
    mut flag: impl FnMut(&str, &mut lexopt::Parser) -> Result<(), Stop>,
) -> Result<String, Stop> {
    let mut ids = Vec::new();
    while let Some(token) = next_token(parser)? {
        match token {
            Token::Plain(id) => ids.push(id),
            Token::Flag(name) => flag(&name, parser)?,
        }
    }
    match (ids.pop(), ids.is_empty()) {
        (Some(id), true) => Ok(id),
        _ => Err(count_is_wrong(verb, "exactly 1")),
    }
}

/// For a verb without flags of its own.
pub(crate) fn no_flag(name: &str, _: &mut lexopt::Parser) -> Result<(), Stop> {
    Err(unknown(name))
}

/// `how_many` is runc's: "exactly 1", "a minimum of 1".
pub(crate) fn count_is_wrong(verb: &str, how_many: &str) -> Stop {
    format!("orlop-runtime: {verb:?} requires {how_many} argument(s)").into()
}

#[cfg(test)]
mod tests;
