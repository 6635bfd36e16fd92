//! Flags, as runc 1.5 has them: one struct per verb.
//!
//! Flags may stand before and after the container id, except for exec, where everything after the id belongs to
//! the program. What is not built is refused by name.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use lexopt::prelude::*;

use super::{Error, SPEC_VERSION};

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
#[derive(Debug, Default)]
pub(crate) struct LogFlags {
    pub(crate) file: Option<PathBuf>,
    pub(crate) json: bool,
}

/// What to do.
#[derive(Debug)]
pub(crate) enum Verb {
    Create(Create),
    Run(Run),
    Exec(Box<Exec>),
    Start { id: String },
    State { id: String },
    Kill { id: String, signal: String, all: bool },
    Delete { id: String, force: bool },
    List(List),
}

impl Verb {
    /// How many fds beyond the standard streams `--preserve-fds` says we were given.
    pub(crate) fn preserve_fds(&self) -> u32 {
        match self {
            Verb::Create(create) => create.streams.preserve_fds,
            Verb::Run(run) => run.create.streams.preserve_fds,
            Verb::Exec(exec) => exec.streams.preserve_fds,
            _ => 0,
        }
    }

    /// Whether the sockets of `LISTEN_FDS` are for the process that this makes.
    pub(crate) fn takes_sockets(&self) -> bool {
        matches!(self, Verb::Create(_) | Verb::Run(_))
    }
}

/// create
#[derive(Debug, Default)]
pub(crate) struct Create {
    pub(crate) id: String,
    pub(crate) bundle: Option<PathBuf>,
    pub(crate) streams: Streams,
}

/// run
#[derive(Debug, Default)]
pub(crate) struct Run {
    pub(crate) create: Create,
    pub(crate) detach: bool,
    pub(crate) keep: bool,
    pub(crate) no_subreaper: bool,
}

/// What create, run and exec have in common.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    pub(crate) console_socket: Option<PathBuf>,
    pub(crate) pidfd_socket: Option<PathBuf>,
    /// Absolute: the working directory may be changed before it is written.
    pub(crate) pid_file: Option<PathBuf>,
    pub(crate) preserve_fds: u32,
}

/// exec
#[derive(Debug, Default)]
pub(crate) struct Exec {
    pub(crate) id: String,
    pub(crate) args: Vec<String>,
    /// A process.json, which makes the flags on the process void.
    pub(crate) process: Option<PathBuf>,
    pub(crate) detach: bool,
    pub(crate) ignore_paused: bool,
    pub(crate) tty: bool,
    pub(crate) cwd: Option<String>,
    pub(crate) env: Vec<String>,
    pub(crate) user: Option<String>,
    pub(crate) additional_gids: Vec<u32>,
    pub(crate) capabilities: Vec<String>,
    pub(crate) no_new_privs: Option<bool>,
    pub(crate) apparmor: Option<String>,
    pub(crate) process_label: Option<String>,
    pub(crate) streams: Streams,
}

/// list
#[derive(Debug, Default)]
pub(crate) struct List {
    pub(crate) json: bool,
    pub(crate) quiet: bool,
}

const NOT_BUILT: [&str; 9] = ["checkpoint", "events", "features", "pause", "ps", "restore", "resume", "spec", "update"];

const HELP: &str = "\
orlop-runtime - runs containers as the Open Container Initiative describes them

usage: orlop-runtime [--root DIR] [--log FILE] [--log-format text|json] [--debug] VERB …

  create [-b BUNDLE] [--console-socket PATH] [--pidfd-socket PATH] [--pid-file FILE] [--preserve-fds N] ID
  start ID
  run [create's flags] [-d] [--keep] [--no-subreaper] ID
  exec [-d] [-t] [-p FILE] [--cwd DIR] [-e NAME=VALUE]… [-u UID[:GID]] [-g GID]… [-c CAP]… [--no-new-privs]
       [--apparmor PROFILE] [--ignore-paused] [create's flags without -b] ID COMMAND…
  state ID
  kill ID [SIGNAL]
  delete [-f] ID
  list [-f table|json] [-q]

Not built yet: checkpoint events features pause ps restore resume spec update.
";

/// Parses the arguments after the program's name.
pub(crate) fn parse(arguments: Vec<OsString>) -> Result<Parsed, Error> {
    let mut parser = lexopt::Parser::from_args(arguments);
    let mut global =
        Global { root: Root { path: "/run/orlop/runtime".into(), given: false }, log: LogFlags::default() };
    let verb = loop {
        match parser.next()? {
            Some(Long("root")) => global.root = root(parser.value()?)?,
            Some(Long("log")) => {
                global.log.file = Some(parser.value()?.into()).filter(|path: &PathBuf| path != Path::new(""))
            }
            Some(Long("log-format")) => global.log.json = log_format(&parser.value()?.string()?)?,
            // Nothing is logged but errors and warnings, which are never left out.
            Some(Long("debug")) => drop(bool_value(&mut parser)?),
            Some(Long("systemd-cgroup")) => {
                if bool_value(&mut parser)? {
                    return Err("--systemd-cgroup: the systemd cgroup driver is not built yet".into());
                }
            }
            Some(Long("rootless")) => match parser.value()?.string()?.as_str() {
                "auto" | "false" => {}
                other => return Err(format!("--rootless {other}: containers without root are not built yet").into()),
            },
            Some(Long("version") | Short('v')) => return Ok(Parsed::Print(version())),
            Some(Long("help") | Short('h')) | None => return Ok(Parsed::Print(HELP.to_owned())),
            Some(Value(verb)) => break verb.string()?,
            Some(other) => return Err(other.unexpected().into()),
        }
    };
    let verb = match verb.as_str() {
        "create" => Verb::Create(create(&mut parser)?),
        "run" => Verb::Run(run(&mut parser)?),
        "exec" => Verb::Exec(Box::new(exec(&mut parser)?)),
        "start" => Verb::Start { id: only_id(&mut parser, "start")? },
        "state" => Verb::State { id: only_id(&mut parser, "state")? },
        "kill" => kill(&mut parser)?,
        "delete" => delete(&mut parser)?,
        "list" => Verb::List(list(&mut parser)?),
        "help" => return Ok(Parsed::Print(HELP.to_owned())),
        verb if NOT_BUILT.contains(&verb) => return Err(format!("{verb} is not built yet").into()),
        verb => return Err(format!("No help topic for '{verb}'").into()),
    };
    Ok(Parsed::Command(Command { global, verb }))
}

fn version() -> String {
    format!("orlop-runtime version {}\nspec: {SPEC_VERSION}\n", env!("CARGO_PKG_VERSION"))
}

/// An absolute path without `.` and `..`. The root of the file system would make every directory a container.
fn root(value: OsString) -> Result<Root, Error> {
    let mut path = PathBuf::from("/");
    for component in absolute(value)?.components() {
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

fn absolute(value: OsString) -> Result<PathBuf, Error> {
    let directory = std::env::current_dir().map_err(|error| format!("read the working directory: {error}"))?;
    Ok(directory.join(value))
}

fn log_format(value: &str) -> Result<bool, Error> {
    match value {
        "" | "text" => Ok(false),
        "json" => Ok(true),
        other => Err(format!("invalid log-format: {other}").into()),
    }
}

/// A switch, which may also be given as `--switch=false`.
fn bool_value(parser: &mut lexopt::Parser) -> Result<bool, Error> {
    match parser.optional_value() {
        None => Ok(true),
        Some(value) => match value.string()?.as_str() {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            other => Err(format!("{other:?} is neither true nor false").into()),
        },
    }
}

/// The arguments of a verb without flags of its own.
fn only_id(parser: &mut lexopt::Parser, verb: &str) -> Result<String, Error> {
    let mut id = Vec::new();
    while let Some(argument) = parser.next()? {
        match argument {
            Value(value) => id.push(value.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    exactly_one(id, verb)
}

fn exactly_one(mut values: Vec<String>, verb: &str) -> Result<String, Error> {
    match (values.pop(), values.is_empty()) {
        (Some(value), true) => Ok(value),
        _ => Err(format!("orlop-runtime: {verb:?} requires exactly 1 argument(s)").into()),
    }
}

/// An argument that does not borrow the parser, which would keep a flag's value from being read.
enum Token {
    /// As it is written: `-b`, `--bundle`.
    Flag(String),
    Plain(String),
}

fn next(parser: &mut lexopt::Parser) -> Result<Option<Token>, Error> {
    Ok(match parser.next()? {
        Some(Short(letter)) => Some(Token::Flag(format!("-{letter}"))),
        Some(Long(name)) => Some(Token::Flag(format!("--{name}"))),
        Some(Value(value)) => Some(Token::Plain(value.string()?)),
        None => None,
    })
}

fn create(parser: &mut lexopt::Parser) -> Result<Create, Error> {
    let (mut create, mut ids) = (Create::default(), Vec::new());
    while let Some(token) = next(parser)? {
        match token {
            Token::Plain(id) => ids.push(id),
            Token::Flag(name) => create_flag(&mut create, &name, parser)?,
        }
    }
    create.id = exactly_one(ids, "create")?;
    Ok(create)
}

fn run(parser: &mut lexopt::Parser) -> Result<Run, Error> {
    let (mut run, mut ids) = (Run::default(), Vec::new());
    while let Some(token) = next(parser)? {
        let name = match token {
            Token::Plain(id) => {
                ids.push(id);
                continue;
            }
            Token::Flag(name) => name,
        };
        match name.as_str() {
            "-d" | "--detach" => run.detach = bool_value(parser)?,
            "--keep" => run.keep = bool_value(parser)?,
            "--no-subreaper" => run.no_subreaper = bool_value(parser)?,
            name => create_flag(&mut run.create, name, parser)?,
        }
    }
    run.create.id = exactly_one(ids, "run")?;
    Ok(run)
}

fn unknown(name: &str) -> Error {
    format!("flag provided but not defined: {name}").into()
}

fn create_flag(create: &mut Create, name: &str, parser: &mut lexopt::Parser) -> Result<(), Error> {
    match name {
        "-b" | "--bundle" => create.bundle = path(parser)?,
        "--no-pivot" if bool_value(parser)? => {
            return Err(
                "--no-pivot is not supported: a root file system on a ramdisk works with pivot_root here".into()
            );
        }
        "--no-new-keyring" if bool_value(parser)? => {
            return Err("--no-new-keyring is not supported: a container never shares the session keyring".into());
        }
        "--no-pivot" | "--no-new-keyring" => {}
        name => return stream_flag(&mut create.streams, name, parser),
    }
    Ok(())
}

/// The flags that create, run and exec share.
fn stream_flag(streams: &mut Streams, name: &str, parser: &mut lexopt::Parser) -> Result<(), Error> {
    match name {
        "--console-socket" => streams.console_socket = path(parser)?,
        "--pidfd-socket" => streams.pidfd_socket = path(parser)?,
        "--pid-file" => streams.pid_file = path(parser)?.map(|path| absolute(path.into())).transpose()?,
        "--preserve-fds" => streams.preserve_fds = parser.value()?.parse()?,
        name => return Err(unknown(name)),
    }
    Ok(())
}

/// An empty path is none.
fn path(parser: &mut lexopt::Parser) -> Result<Option<PathBuf>, Error> {
    Ok(Some(PathBuf::from(parser.value()?)).filter(|path| path != Path::new("")))
}

/// Everything after the id is the program's, whatever it looks like.
fn exec(parser: &mut lexopt::Parser) -> Result<Exec, Error> {
    let mut exec = Exec::default();
    while let Some(token) = next(parser)? {
        match token {
            Token::Flag(name) => exec_flag(&mut exec, &name, parser)?,
            Token::Plain(id) => {
                exec.id = id;
                exec.args = parser.raw_args()?.map(ValueExt::string).collect::<Result<_, _>>()?;
                break;
            }
        }
    }
    match exec.id.as_str() {
        "" => Err("orlop-runtime: \"exec\" requires a minimum of 1 argument(s)".into()),
        _ => Ok(exec),
    }
}

fn exec_flag(exec: &mut Exec, name: &str, parser: &mut lexopt::Parser) -> Result<(), Error> {
    match name {
        "-p" | "--process" => exec.process = path(parser)?,
        "-d" | "--detach" => exec.detach = bool_value(parser)?,
        "-t" | "--tty" => exec.tty = bool_value(parser)?,
        "-e" | "--env" => exec.env.push(parser.value()?.string()?),
        "-u" | "--user" => exec.user = Some(parser.value()?.string()?),
        "-g" | "--additional-gids" => exec.additional_gids.push(parser.value()?.parse()?),
        "-c" | "--cap" => exec.capabilities.push(parser.value()?.string()?),
        "--cwd" => exec.cwd = Some(parser.value()?.string()?),
        "--no-new-privs" => exec.no_new_privs = Some(bool_value(parser)?),
        "--apparmor" => exec.apparmor = Some(parser.value()?.string()?),
        "--process-label" => exec.process_label = Some(parser.value()?.string()?),
        "--ignore-paused" => exec.ignore_paused = bool_value(parser)?,
        "--cgroup" => return Err("--cgroup is not supported: exec joins the container's own cgroup".into()),
        name => return stream_flag(&mut exec.streams, name, parser),
    }
    Ok(())
}

fn kill(parser: &mut lexopt::Parser) -> Result<Verb, Error> {
    let (mut all, mut values) = (false, Vec::new());
    while let Some(token) = next(parser)? {
        match token {
            Token::Plain(value) => values.push(value),
            // Obsolete: means that a container which does not run is no error.
            Token::Flag(name) if ["-a", "--all"].contains(&name.as_str()) => all = bool_value(parser)?,
            Token::Flag(name) => return Err(unknown(&name)),
        }
    }
    match values.as_slice() {
        [id] => Ok(Verb::Kill { id: id.clone(), signal: "SIGTERM".to_owned(), all }),
        [id, signal] => Ok(Verb::Kill { id: id.clone(), signal: signal.clone(), all }),
        [] => Err("orlop-runtime: \"kill\" requires a minimum of 1 argument(s)".into()),
        _ => Err("orlop-runtime: \"kill\" requires a maximum of 2 argument(s)".into()),
    }
}

fn delete(parser: &mut lexopt::Parser) -> Result<Verb, Error> {
    let (mut force, mut ids) = (false, Vec::new());
    while let Some(token) = next(parser)? {
        match token {
            Token::Plain(id) => ids.push(id),
            Token::Flag(name) if ["-f", "--force"].contains(&name.as_str()) => force = bool_value(parser)?,
            Token::Flag(name) => return Err(unknown(&name)),
        }
    }
    Ok(Verb::Delete { id: exactly_one(ids, "delete")?, force })
}

fn list(parser: &mut lexopt::Parser) -> Result<List, Error> {
    let mut list = List::default();
    while let Some(token) = next(parser)? {
        let name = match token {
            Token::Plain(_) => return Err("orlop-runtime: \"list\" requires exactly 0 argument(s)".into()),
            Token::Flag(name) => name,
        };
        match name.as_str() {
            "-q" | "--quiet" => list.quiet = bool_value(parser)?,
            "-f" | "--format" => match parser.value()?.string()?.as_str() {
                "table" => list.json = false,
                "json" => list.json = true,
                _ => return Err("invalid format option".into()),
            },
            name => return Err(unknown(name)),
        }
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, String> {
        match parse(line.split_whitespace().map(OsString::from).collect()) {
            Ok(Parsed::Command(command)) => Ok(command),
            Ok(Parsed::Print(text)) => Err(text),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn containerds_way_of_calling_is_understood() {
        let line = "--root /run/x --log /l/log.json --log-format json create --bundle /b --pid-file /b/init.pid c1";
        let Command { global, verb: Verb::Create(create) } = parsed(line).unwrap() else { panic!("not create") };
        assert_eq!(global.root.path, Path::new("/run/x"));
        assert!(global.log.json);
        assert_eq!((create.id.as_str(), create.bundle.as_deref()), ("c1", Some(Path::new("/b"))));
        assert_eq!(create.streams.pid_file.as_deref(), Some(Path::new("/b/init.pid")));
    }

    #[test]
    fn flags_may_follow_the_id_but_not_in_exec() {
        let Verb::Delete { force, .. } = parsed("delete c1 --force").unwrap().verb else { panic!("not delete") };
        assert!(force);
        let Verb::Exec(exec) = parsed("exec -e A=1 c1 sh -c -d --tty").unwrap().verb else { panic!("not exec") };
        assert_eq!(exec.args, ["sh", "-c", "-d", "--tty"]);
        assert!(!exec.detach && !exec.tty);
    }

    #[test]
    fn kill_all_is_still_accepted() {
        let Verb::Kill { signal, all, .. } = parsed("kill --all c1 KILL").unwrap().verb else { panic!("not kill") };
        assert_eq!((signal.as_str(), all), ("KILL", true));
        let Verb::Kill { signal, .. } = parsed("kill c1").unwrap().verb else { panic!("not kill") };
        assert_eq!(signal, "SIGTERM");
    }

    #[test]
    fn what_is_not_built_is_refused_by_name() {
        for verb in NOT_BUILT {
            assert_eq!(parsed(verb).unwrap_err(), format!("{verb} is not built yet"));
        }
        assert!(parsed("--systemd-cgroup list").unwrap_err().starts_with("--systemd-cgroup"));
        assert!(parsed("--rootless true list").unwrap_err().starts_with("--rootless true"));
        assert!(parsed("run --no-pivot c1").unwrap_err().starts_with("--no-pivot"));
        assert_eq!(parsed("run --teleport c1").unwrap_err(), "flag provided but not defined: --teleport");
    }

    #[test]
    fn a_root_that_is_the_root_is_refused() {
        for root in ["/", "/..", "../../../../../../../../../..", "/a/.."] {
            let error = parsed(&format!("--root {root} list")).unwrap_err();
            assert_eq!(error, "Option --root argument should not be set to /", "{root}");
        }
    }

    #[test]
    fn a_number_with_something_behind_it_is_no_number() {
        parsed("create --preserve-fds 1x c1").unwrap_err();
        parsed("exec -g 1x c1 true").unwrap_err();
        parsed("exec -g -1 c1 true").unwrap_err();
    }
}
