//! The end of a container, from its first process's death to the moment when everyone is told.
//!
//! The order is the promise: all that shares its cgroup is dead, all output is in the log, the exit record is on disk,
//! then the daemon is told.

use crate::container::{Container, Ending, Life, Missing};
use crate::failure::{chain, failure, note};
use crate::log::Change;
use crate::progress::Order;
use crate::reap;
use crate::report::Outcome;
use crate::supervisor::Shim;
use crate::task::{Job, Step};
use shim_protocol::{ErrorKind, Event, Exit, Failure};
use std::time::{Duration, Instant};

/// How long others in an ended container's cgroup may take to die of SIGKILL: one that hangs in the kernel must not
/// keep the container from being told.
pub(crate) const SWEEP: Duration = Duration::from_secs(10);

/// How long a terminal's driver may take to pass on its last output.
const TERMINAL_PATIENCE: Duration = Duration::from_secs(1);

/// The exit code of a container whose program could not be run; kubelets show it as `StartError`.
const START_ERROR: i32 = 128;

impl Shim {
    /// A container's first process was reaped.
    pub(crate) fn first_process_ended(&mut self, key: u64, ended: reap::Ended) {
        // Whether its program ran is known before its end is told.
        self.hear_status(key);
        let Some(container) = self.containers.iter_mut().find(|container| container.key == key) else { return };
        let Some(process) = container.first().map(|first| first.process) else { return };
        let life = std::mem::replace(&mut container.life, Life::Creating);
        let (exit, failure) = match life {
            Life::Running { started_at, .. } => (ended.exit(process, started_at), None),
            Life::Refused { failure, .. } => {
                (Exit { code: START_ERROR, signal: None, ..ended.exit(process, 0) }, Some(failure))
            }
            _ => (ended.exit(process, 0), None),
        };
        let sweep = container.place.as_ref().filter(|place| !place.own_pid_namespace);
        let sweep = sweep.and_then(|place| place.cgroup.clone());
        container.life = Life::Ending(Ending { exit, failure, missing: Missing::Deaths });
        match sweep {
            // The kernel has killed all others in the PID namespace before its first process could be reaped.
            None => self.drain(key),
            Some(cgroup) => self.sweep(key, cgroup),
        }
    }

    /// Kills all that shares the cgroup of an ended container.
    fn sweep(&mut self, key: u64, cgroup: String) {
        let order = Order::own(SWEEP + Duration::from_secs(1), Job::Sweep(key));
        let begun = self.begin_stage(order, Vec::new(), move |_, stage| {
            stage.cgroups.kill_all(&cgroup, SWEEP).map(|()| (Outcome::Done, Vec::new()))
        });
        if let Err(failure) = begun {
            note(format_args!("kill what is left of a container: {failure}"));
            self.drain(key);
        }
    }

    /// All that shared the cgroup is dead, or won't die.
    pub(crate) fn swept(&mut self, key: u64, result: Result<(), Failure>) {
        if let Err(failure) = result {
            note(format_args!("{failure}"));
        }
        self.drain(key);
    }

    /// Copies the output that is left.
    fn drain(&mut self, key: u64) {
        let Some(container) = self.containers.iter_mut().find(|container| container.key == key) else { return };
        let (more_may_come, changes) = container.stdio.drain(&mut self.buffer);
        changes.iter().for_each(|change| note_log(container, change));
        if let Life::Ending(ending) = &mut container.life
            && more_may_come
        {
            ending.missing = Missing::Output { until: Instant::now() + TERMINAL_PATIENCE };
            return;
        }
        self.conclude(key);
    }

    /// Ends the wait for terminals that have said all, or that we waited for long enough.
    pub(crate) fn end_patience(&mut self, now: Instant) {
        let is_due = |container: &Container| match &container.life {
            Life::Ending(Ending { missing: Missing::Output { until }, .. }) => {
                container.stdio.outputs.is_empty() || *until <= now
            }
            _ => false,
        };
        while let Some(key) = self.containers.iter().find(|container| is_due(container)).map(|container| container.key)
        {
            self.conclude(key);
        }
    }

    /// Writes the exit record, then tells everyone.
    fn conclude(&mut self, key: u64) {
        self.hear_last_oom(key);
        let Some(container) = self.containers.iter_mut().find(|container| container.key == key) else { return };
        let Life::Ending(ending) = std::mem::replace(&mut container.life, Life::Creating) else { return };
        let changes = container.stdio.close();
        changes.iter().for_each(|change| note_log(container, change));
        let oom_killed = container.oom.take().is_some_and(|oom| kills(&oom) > 0);
        let exit = Exit { oom_killed, ..ending.exit };
        container.life = Life::Exited(exit.clone());
        let id = container.id.clone();
        if let Err(error) = self.dir.write_exit(&id, &exit) {
            note(format_args!("container {id}: write its exit record: {}", chain(&error)));
        }
        self.tell(&Event::Exited { container: id, exit });
        self.answer_start(key, ending.failure);
    }

    /// Answers a start that the container's end has overtaken.
    fn answer_start(&mut self, key: u64, refused: Option<Failure>) {
        let is_it = |step: &Step| matches!(step, Step::Starting(container) if *container == key);
        let Some(ended) = self.take_task(is_it) else { return };
        let unheard = || failure(ErrorKind::Start, "its first process ended before the program ran");
        self.answer(ended, Err(refused.unwrap_or_else(unheard)));
    }

    /// A container may have run out of memory, and ended of it, since the last look at its watch.
    fn hear_last_oom(&mut self, key: u64) {
        let container = self.containers.iter().find(|container| container.key == key);
        let watch = container.and_then(|container| container.oom.as_ref());
        if watch.is_some_and(|watch| sys::poll::is_readable(watch).unwrap_or(false)) {
            self.hear_oom(key);
        }
    }

    /// The OOM killer may have been at work in a container's cgroup.
    pub(crate) fn hear_oom(&mut self, key: u64) {
        let Some(container) = self.containers.iter_mut().find(|container| container.key == key) else { return };
        let Some(oom) = &container.oom else { return };
        if !oom.acknowledge().unwrap_or(false) {
            // The cgroup is gone; the event would come for ever.
            container.oom = None;
            return;
        }
        // The kernel raises the event right before it kills, so the count may not say it yet.
        let container = container.id.clone();
        self.tell(&Event::Oom { container });
    }
}

/// How many processes the OOM killer has killed in the watched cgroup.
fn kills(oom: &oci_runtime::cgroup::OomWatch) -> u64 {
    oom.kills().ok().flatten().unwrap_or(0)
}

/// Notes a change of a log's health.
pub(crate) fn note_log(container: &Container, change: &Change) {
    let id = &container.id;
    let path = container.log_path.as_deref().unwrap_or_else(|| std::path::Path::new("(none)")).display();
    match change {
        Change::Failed(error) => {
            note(format_args!("container {id}: write log {path}: {error}; its output is lost until this works again"));
        }
        Change::Recovered { lost } => {
            note(format_args!("container {id}: log {path} works again; {lost} lines are lost"));
        }
    }
}
