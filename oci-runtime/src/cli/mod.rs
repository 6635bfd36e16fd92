//! The verbs of the command line, one file each, and what they share.
//!
//! | file | holds |
//! |---|---|
//! | `args.rs` | the flags before the verb, and how those of a verb are read, which stand beside it |
//! | `verb.rs`, `help.rs` | the verbs and their texts |
//! | `log.rs` | where an error is told: stderr and the `--log` file |
//! | `store.rs` | container ids and the state directory |
//! | `making.rs` | what a creator leaves word of, and what is left of one that was killed |
//! | `bundle.rs` | config.json |
//! | `streams.rs` | what a new process inherits, and whom its terminal is handed to |
//! | `hooks.rs` | what runs when a container has started, and when it is gone |
//! | `criu.rs` | the conversation with CRIU, for checkpoint and restore |
//! | `foreground.rs` | standing in for a process that was not detached |
//! | `time.rs` | moments as Go prints them |
//!
//! Errors are told once, here. Their wording is runc's wherever a client matches it.

mod args;
mod bundle;
mod checkpoint;
mod create;
mod criu;
mod delete;
mod events;
mod exec;
mod features;
mod foreground;
mod help;
mod hooks;
mod kill;
mod list;
mod log;
mod making;
mod notify;
mod pause;
mod ps;
mod restore;
mod run;
mod spec;
mod start;
mod state;
mod store;
mod streams;
mod time;
mod update;
mod verb;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use args::{Command, Global, Misuse};
use log::Log;
pub(crate) use oci_runtime::SPEC_VERSION;
use store::Store;
use verb::Verb;

/// What a verb fails with; printed as a chain, "a: b: c".
pub(crate) type Error = Box<dyn std::error::Error>;

/// The exit code for a failure of our own; exec has another, so that it cannot be taken for the program's.
const FAILED: u8 = 1;
const EXEC_FAILED: u8 = 255;

/// Parses and runs one command.
pub(crate) fn main(arguments: Vec<OsString>) -> ExitCode {
    let mut log = Log::stderr();
    let command = match args::parse(arguments) {
        Ok(command) => command,
        Err(misuse) => return refuse(&misuse),
    };
    let Command { global, verb } = match command {
        args::Parsed::Command(command) => command,
        args::Parsed::Print(text) => return print(&text),
    };
    let failure = if matches!(verb, Verb::Exec(_)) { EXEC_FAILED } else { FAILED };
    let prepared = protect(&verb).and_then(|()| streams::claim_inherited(verb.preserve_fds(), verb.takes_sockets()));
    // Opened behind them, so that it can't stand in for a missing fd, and before their errors are told.
    match Log::open(&global.log) {
        Ok(opened) => log = opened,
        Err(error) => return fail(&mut log, error.as_ref(), failure),
    }
    let inherited = match prepared {
        Ok(inherited) => inherited,
        Err(error) => return fail(&mut log, error.as_ref(), failure),
    };
    match dispatch(&global, verb, inherited, &mut log) {
        Ok(code) => ExitCode::from(code),
        Err(error) => fail(&mut log, error.as_ref(), failure),
    }
}

fn dispatch(global: &Global, verb: Verb, inherited: streams::Inherited, log: &mut Log) -> Result<u8, Error> {
    let store = Store::new(&global.root);
    match verb {
        Verb::Checkpoint(flags) => checkpoint::checkpoint(&store, &flags, log).map(|()| 0),
        Verb::Create(flags) => create::create(&store, &flags, inherited, log).map_err(|e| failed("create", e)),
        Verb::Run(flags) => run::run(&store, &flags, inherited, log).map_err(|e| failed("run", e)),
        Verb::Exec(flags) => exec::exec(&store, &flags, inherited, log).map_err(|e| failed("exec", e)),
        Verb::Start { id } => start::start(&store, &id).map(|()| 0),
        Verb::State { id } => state::state(&store, &id).map(|()| 0),
        Verb::Kill(flags) => kill::kill(&store, &flags).map(|()| 0),
        Verb::Delete(flags) => delete::delete(&store, &flags, log).map(|()| 0),
        Verb::List(flags) => list::list(&store, &flags, log).map(|()| 0),
        Verb::Events(flags) => events::events(&store, &flags, log).map(|()| 0),
        Verb::Features => features::features().map(|()| 0),
        Verb::Pause { id } => pause::pause(&store, &id).map(|()| 0),
        Verb::Ps(flags) => ps::ps(&store, &flags).map(|()| 0),
        Verb::Restore(flags) => restore::restore(&store, &flags, log).map_err(|e| failed("restore", e)),
        Verb::Resume { id } => pause::resume(&store, &id).map(|()| 0),
        Verb::Spec(flags) => spec::spec(&flags).map(|()| 0),
        Verb::Update(flags) => update::update(&store, &flags, log).map(|()| 0),
    }
}

/// A process that enters a container must not run a file that the container could write (CVE-2019-5736).
fn protect(verb: &Verb) -> Result<(), Error> {
    match verb {
        Verb::Create(_) | Verb::Run(_) | Verb::Exec(_) => {
            sys::kernel::require_minimum()?;
            Ok(oci_runtime::protect_own_image()?)
        }
        _ => Ok(()),
    }
}

/// Names the verb before an error: some clients show nothing but the message.
fn failed(verb: &'static str, source: Error) -> Error {
    #[derive(Debug, thiserror::Error)]
    #[error("orlop-runtime {verb} failed")]
    struct Failed {
        verb: &'static str,
        #[source]
        source: Error,
    }
    Failed { verb, source }.into()
}

/// The text of the verb goes to stdout, as Go's command line library has it.
fn refuse(misuse: &Misuse) -> ExitCode {
    // A log that can't be opened is not what the caller has to hear of first.
    let mut log = Log::open(&misuse.log).unwrap_or_else(|_| Log::stderr());
    if let Some(help) = &misuse.help {
        print(&format!("Incorrect Usage.\n\n{help}\n"));
    }
    fail(&mut log, misuse, misuse.exit_code)
}

fn fail(log: &mut Log, error: &(dyn std::error::Error + 'static), code: u8) -> ExitCode {
    log.error(&chain(error));
    ExitCode::from(code)
}

/// An error and its causes, "a: b: c".
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// To stdout; a reader that is gone wants no more.
fn print(text: &str) -> ExitCode {
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}
