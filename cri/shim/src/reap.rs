//! The ends of our children: stage children, containers' first processes, exec'd processes, the reaper, and orphans
//! of containers without a PID namespace of their own, whose subreaper we are.

use crate::exec_process::ExecLife;
use crate::failure::{chain, note};
use crate::sandbox::Lifecycle;
use crate::supervisor::Shim;
use crate::task::{Job, Step};
use shim_protocol::{Event, Exit, Process};
use std::collections::VecDeque;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use sys::Errno;
use sys::process::{Exit as Status, Pid};

/// So many children are remembered that nobody has claimed; one that will be was reaped moments ago.
const UNCLAIMED_LIMIT: usize = 1024;

/// A child that was reaped.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    /// Its number, which may be taken again by now.
    pub(crate) pid: i32,
    /// How it ended.
    pub(crate) status: Status,
    /// When it was reaped, nanoseconds since 1970.
    pub(crate) at: i64,
}

impl Ended {
    /// The record of a process that was started at `started_at`.
    pub(crate) fn exit(&self, process: Process, started_at: i64) -> Exit {
        let (code, signal) = match self.status {
            Status::Code(code) => (code, None),
            Status::Signal { signal, .. } => (128 + signal, Some(signal)),
        };
        // One that ended at once may be reaped before we look at whether its program runs.
        let finished_at = self.at.max(started_at);
        Exit { process, code, signal, oom_killed: false, started_at, finished_at }
    }
}

/// Nanoseconds since 1970.
pub(crate) fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_nanos()).unwrap_or(i64::MAX)
}

impl Shim {
    /// Takes in all children that have ended.
    pub(crate) fn reap(&mut self) {
        loop {
            match sys::process::wait_any(true) {
                Ok(Some((pid, status))) => self.child_ended(Ended { pid: pid.as_raw(), status, at: now() }),
                Ok(None) => return,
                Err(error) => return note(format_args!("reap: {}", chain(&error))),
            }
        }
    }

    fn child_ended(&mut self, ended: Ended) {
        if let Some(task) = self.task_of_stage(ended.pid) {
            return self.stage_child_ended(task, &told(ended.status));
        }
        // A process that ends within a millisecond is reaped before its stage child's report is read.
        self.hear_all();
        if !self.known_child_ended(ended) && self.tasks.iter().any(makes_processes) {
            if self.unclaimed.len() == UNCLAIMED_LIMIT {
                self.unclaimed.pop_front();
            }
            self.unclaimed.push_back((Instant::now(), ended));
        }
    }

    /// A child that a stage child has just told of may have ended already. Its number alone says nothing: an orphan that
    /// had it before may have ended too.
    pub(crate) fn claim(&mut self, process: Process) {
        if !self.is_reaped(process) {
            return;
        }
        // Of several that had the number it is the last: it can't have been given away since.
        if let Some(index) = self.unclaimed.iter().rposition(|(_, ended)| ended.pid == process.pid)
            && let Some((_, ended)) = self.unclaimed.remove(index)
        {
            self.known_child_ended(ended);
        }
    }

    /// Whether a child of ours has ended and was reaped: until then nobody else has its number, and its start time tells it
    /// from whoever has it afterwards.
    fn is_reaped(&self, process: Process) -> bool {
        let child = sys::process::Process { pid: Pid::from_raw(process.pid), start_time: process.start_time };
        child.open().is_err_and(|error| error.is(Errno::ESRCH))
    }

    /// Children that no stage child can claim any more are orphans: nobody wants to know.
    pub(crate) fn forget_unclaimed(&mut self) {
        let stages = self.tasks.iter().filter(|task| makes_processes(task));
        let oldest = stages.filter_map(|task| match &task.step {
            Step::Stage(child, _) => Some(child.begun()),
            _ => None,
        });
        match oldest.min() {
            Some(oldest) => self.unclaimed.retain(|(at, _)| *at >= oldest),
            None => self.unclaimed = VecDeque::new(),
        }
    }

    fn known_child_ended(&mut self, ended: Ended) -> bool {
        let is_first = |first: &crate::container::FirstProcess| first.process.pid == ended.pid;
        let container = self.containers.iter().find(|container| container.first().is_some_and(is_first));
        if let Some(key) = container.map(|container| container.key) {
            self.first_process_ended(key, ended);
            return true;
        }
        let is_process = |process: Process| process.pid == ended.pid;
        let exec = self.execs.iter().find(|exec| exec.process().is_some_and(is_process));
        if let Some(key) = exec.map(|exec| exec.key) {
            self.exec_ended(key, ended);
            return true;
        }
        if let Lifecycle::Running(sandbox) = &mut self.lifecycle
            && sandbox.reaper.as_ref().is_some_and(|reaper| reaper.process.pid == ended.pid)
        {
            sandbox.reaper = None;
            if !sandbox.stopping {
                self.tell(&Event::ReaperDied);
            }
            return true;
        }
        false
    }

    fn exec_ended(&mut self, key: u64, ended: Ended) {
        // Whether its program ran is known before its end is told.
        self.hear_exec_status(key);
        let Some(index) = self.execs.iter().position(|exec| exec.key == key) else { return };
        let exec = self.execs.swap_remove(index);
        if let ExecLife::Running { process, started_at, .. } = exec.life {
            let exit = ended.exit(process, started_at);
            self.tell(&Event::ExecExited { exec: exec.id, exit });
        }
    }

    fn hear_all(&mut self) {
        let stages: Vec<u64> = self.tasks.iter().filter(|task| makes_processes(task)).map(|task| task.key).collect();
        stages.into_iter().for_each(|task| self.hear(task));
    }

    fn task_of_stage(&self, pid: i32) -> Option<u64> {
        let is_it = |step: &Step| matches!(step, Step::Stage(child, _) if child.pid == pid);
        self.tasks.iter().find(|task| is_it(&task.step)).map(|task| task.key)
    }
}

/// Whether the stage child of a task makes children of ours.
fn makes_processes(task: &crate::task::Task) -> bool {
    matches!(task.step, Step::Stage(_, Job::StartSandbox | Job::Create(_) | Job::Exec(_)))
}

fn told(status: Status) -> String {
    match status {
        Status::Code(code) => format!("ended with code {code} and without a word"),
        Status::Signal { signal, .. } => format!("was killed by signal {signal}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_process_has_finished_before_it_was_started() {
        let ended = Ended { pid: 7, status: Status::Code(0), at: 1000 };
        let finished_at = |started_at| ended.exit(Process { pid: 7, start_time: 1 }, started_at).finished_at;
        assert_eq!([0, 999, 1001].map(finished_at), [1000, 1000, 1001]);
    }
}
