//! All verbs, each with what parses and what describes it.

use super::args::Stop;
use super::help::Help;
use super::{
    checkpoint, create, delete, events, exec, features, kill, list, pause, ps, restore, run, spec, start, state, update,
};

/// What to do.
#[derive(Debug)]
pub(crate) enum Verb {
    Checkpoint(Box<checkpoint::Flags>),
    Create(create::Flags),
    Delete(delete::Flags),
    Events(events::Flags),
    Exec(Box<exec::Flags>),
    Features,
    Kill(kill::Flags),
    List(list::Flags),
    Pause { id: String },
    Ps(ps::Flags),
    Restore(Box<restore::Flags>),
    Resume { id: String },
    Run(run::Flags),
    Spec(spec::Flags),
    Start { id: String },
    State { id: String },
    Update(Box<update::Flags>),
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

/// A verb by its name.
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    pub(crate) help: Help,
    pub(crate) parse: fn(&mut lexopt::Parser) -> Result<Verb, Stop>,
}

/// As help lists them.
pub(crate) static VERBS: [Entry; 17] = [
    Entry {
        name: "checkpoint",
        help: checkpoint::HELP,
        parse: |parser| Ok(Verb::Checkpoint(Box::new(checkpoint::parse(parser)?))),
    },
    Entry { name: "create", help: create::HELP, parse: |parser| create::parse(parser).map(Verb::Create) },
    Entry { name: "delete", help: delete::HELP, parse: |parser| delete::parse(parser).map(Verb::Delete) },
    Entry { name: "events", help: events::HELP, parse: |parser| events::parse(parser).map(Verb::Events) },
    Entry { name: "exec", help: exec::HELP, parse: |parser| Ok(Verb::Exec(Box::new(exec::parse(parser)?))) },
    Entry { name: "features", help: features::HELP, parse: |parser| features::parse(parser).map(|()| Verb::Features) },
    Entry { name: "kill", help: kill::HELP, parse: |parser| kill::parse(parser).map(Verb::Kill) },
    Entry { name: "list", help: list::HELP, parse: |parser| list::parse(parser).map(Verb::List) },
    Entry { name: "pause", help: pause::PAUSE, parse: |parser| Ok(Verb::Pause { id: pause::parse(parser, "pause")? }) },
    Entry { name: "ps", help: ps::HELP, parse: |parser| ps::parse(parser).map(Verb::Ps) },
    Entry {
        name: "restore",
        help: restore::HELP,
        parse: |parser| Ok(Verb::Restore(Box::new(restore::parse(parser)?))),
    },
    Entry {
        name: "resume",
        help: pause::RESUME,
        parse: |parser| Ok(Verb::Resume { id: pause::parse(parser, "resume")? }),
    },
    Entry { name: "run", help: run::HELP, parse: |parser| run::parse(parser).map(Verb::Run) },
    Entry { name: "spec", help: spec::HELP, parse: |parser| spec::parse(parser).map(Verb::Spec) },
    Entry { name: "start", help: start::HELP, parse: |parser| Ok(Verb::Start { id: start::parse(parser)? }) },
    Entry { name: "state", help: state::HELP, parse: |parser| Ok(Verb::State { id: state::parse(parser)? }) },
    Entry { name: "update", help: update::HELP, parse: |parser| Ok(Verb::Update(Box::new(update::parse(parser)?))) },
];

/// The verb of that name.
pub(crate) fn find(name: &str) -> Option<&'static Entry> {
    VERBS.iter().find(|entry| entry.name == name)
}
