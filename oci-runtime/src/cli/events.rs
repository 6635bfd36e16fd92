//! events: what a container uses, and when it runs out of memory, as lines of JSON.

use std::io::Write;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use oci_runtime::cgroup::{Cgroup, OomWatch};
use serde::Serialize;
use sys::poll::Interest;

use super::Error;
use super::args::{self, Stop};
use super::help::Help;
use super::log::Log;
use super::store::{Status, Store};

mod interval;
mod usage;

use usage::Usage;

/// events
#[derive(Debug)]
pub(crate) struct Flags {
    pub(crate) id: String,
    pub(crate) interval: Duration,
    /// Once, and that is all.
    pub(crate) stats: bool,
}

pub(crate) const HELP: Help = Help {
    about: "prints what a container uses, and when it runs out of memory",
    usage: "[--interval TIME | --stats] ID",
    details: "One JSON object a line, until the container ends.",
    flags: &[&[
        ("--interval TIME", "how often, for example 500ms or 1m; 5s without it"),
        ("--stats", "print what it uses now, and end"),
    ]],
};

pub(crate) fn parse(parser: &mut lexopt::Parser) -> Result<Flags, Stop> {
    let (mut interval, mut stats) = (Duration::from_secs(5), false);
    let id = args::only_id(parser, "events", |name, parser| {
        match name {
            "--stats" => stats = args::switch(parser, name)?,
            "--interval" => {
                let text = args::text(parser)?;
                let wrong = || format!("invalid value {text:?} for flag -interval: not a time such as 5s or 1m30s");
                interval = interval::parse(&text).ok_or_else(wrong)?;
            }
            name => return Err(args::unknown(name)),
        }
        Ok(())
    })?;
    Ok(Flags { id, interval, stats })
}

/// A line.
#[derive(Debug, Serialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Usage>,
}

/// Prints until the container ends, or once.
pub(crate) fn events(store: &Store<'_>, flags: &Flags, log: &mut Log) -> Result<(), Error> {
    if flags.interval.is_zero() {
        return Err("duration interval must be greater than 0".into());
    }
    let container = store.load(&flags.id)?;
    if container.status()? == Status::Stopped {
        return Err(format!("container with id {} is not running", flags.id).into());
    }
    let cgroup = container.cgroup()?;
    let stats = |cgroup: &Cgroup| Ok::<_, Error>(Usage::from(cgroup.details()?));
    if flags.stats {
        return print(&Event { kind: "stats", id: &flags.id, data: Some(stats(&cgroup)?) });
    }
    let process = container.process().open()?;
    let mut memory = cgroup.oom_watch()?.map(Shortage::new).transpose()?;
    let mut next = sys::poll::deadline(Some(flags.interval));
    loop {
        let mut files = vec![(process.as_fd(), Interest::READ)];
        files.extend(memory.as_ref().map(|shortage| (shortage.watch.as_fd(), Interest::READ)));
        let looks_again = memory.as_ref().and_then(|shortage| shortage.look_at);
        let wake = looks_again.into_iter().chain(next).min();
        let ready = sys::poll::poll(&files, wake.map(|wake| wake.saturating_duration_since(Instant::now())))?;
        if let Some(shortage) = &mut memory {
            let told = ready.get(1).is_some_and(|ready| !ready.is_empty());
            for _ in 0..shortage.new_kills(told)? {
                print(&Event { kind: "oom", id: &flags.id, data: None })?;
            }
        }
        if memory.as_ref().is_some_and(|shortage| shortage.is_over) {
            memory = None;
        }
        if !ready[0].is_empty() {
            return Ok(());
        }
        if let Some(due) = next.filter(|next| Instant::now() >= *next) {
            next = due.checked_add(flags.interval);
            match stats(&cgroup) {
                Ok(data) => print(&Event { kind: "stats", id: &flags.id, data: Some(data) })?,
                Err(error) => log.warn(&error.to_string()),
            }
        }
    }
}

/// How soon the counter of kills is read again after the kernel has said that memory is short: it says so before it kills.
const SOON: Duration = Duration::from_millis(20);

/// The end of a container's memory, as it is watched.
struct Shortage {
    watch: OomWatch,
    kills: u64,
    /// When to read the counter again, unless something happens before.
    look_at: Option<Instant>,
    /// The cgroup is gone.
    is_over: bool,
}

impl Shortage {
    fn new(watch: OomWatch) -> Result<Shortage, Error> {
        let kills = watch.kills()?.unwrap_or(0);
        Ok(Shortage { watch, kills, look_at: None, is_over: false })
    }

    /// How many processes were killed since it was asked last. `told`: the watch is readable.
    fn new_kills(&mut self, told: bool) -> Result<u64, Error> {
        if told {
            self.is_over = !self.watch.acknowledge()?;
            self.look_at = Some(Instant::now() + SOON);
        }
        let kills = self.watch.kills()?.unwrap_or(self.kills);
        let new = kills.saturating_sub(self.kills);
        self.kills = kills;
        if new > 0 {
            self.look_at = None;
        } else if self.look_at.is_some_and(|look| look <= Instant::now()) {
            self.look_at = Some(Instant::now() + SOON);
        }
        Ok(new)
    }
}

fn print(event: &Event<'_>) -> Result<(), Error> {
    let line = serde_json::to_string(event).map_err(|error| format!("encode the event: {error}"))? + "\n";
    std::io::stdout().write_all(line.as_bytes()).map_err(|error| format!("write to stdout: {error}").into())
}
