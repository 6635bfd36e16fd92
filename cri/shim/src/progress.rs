//! How tasks go on: reports of stage children, deadlines, and waits for something to end.

use crate::failure::{failure, note};
use crate::report::{Note, Outcome, Report};
use crate::sandbox::Lifecycle;
use crate::stage::{Reporter, Work};
use crate::stages::Stages;
use crate::supervisor::Shim;
use crate::task::{Call, Job, Step, Task};
use crate::verbs;
use shim_protocol::{Answer, ErrorKind, Failure};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};
use sys::process::PidFd;
use sys::signal::Signal;

/// A task that is over: who is to be told, and what it went through.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Who gets the reply.
    pub(crate) call: Option<Call>,
    /// When it would have been given up.
    pub(crate) deadline: Instant,
    /// What it did.
    pub(crate) stages: Stages,
    /// Its stage child, if there was one, has failed and cleaned up. If it has made something that can't be taken over, or
    /// was ended, nobody has.
    pub(crate) is_clean: bool,
    /// Its stage child, if it had one: it may live on for a moment, though it has reported its end or is killed.
    pub(crate) child: Option<PidFd>,
    /// What its stage child has cloned.
    born: Option<PidFd>,
}

impl Ended {
    fn of(task: Task) -> (Self, Step) {
        let Task { call, deadline, stages, step, born, .. } = task;
        (Self { call, deadline, stages, is_clean: true, child: None, born }, step)
    }

    /// Kills what would be left of a stage child's work that can't be taken over.
    pub(crate) fn kill_born(&self) {
        let _ = self.born.as_ref().map(|born| born.send_signal(Signal::SIGKILL));
    }
}

/// What a stage child is started for.
#[derive(Debug)]
pub(crate) struct Order {
    /// Who gets the reply; `None` for the shim's own work.
    pub(crate) call: Option<Call>,
    /// When it is given up.
    pub(crate) deadline: Instant,
    /// What was done before.
    pub(crate) stages: Stages,
    /// What its outcome is for.
    pub(crate) job: Job,
}

impl Order {
    /// A verb's first stage.
    pub(crate) fn new(call: Call, deadline: Duration, job: Job) -> Self {
        let now = Instant::now();
        Self { call: Some(call), deadline: now + deadline, stages: Stages::begin("start", now), job }
    }

    /// The shim's own work.
    pub(crate) fn own(deadline: Duration, job: Job) -> Self {
        let now = Instant::now();
        Self { call: None, deadline: now + deadline, stages: Stages::begin("start", now), job }
    }
}

/// What a stage child's work gave.
pub(crate) type Result<T = (Outcome, Vec<OwnedFd>)> = std::result::Result<T, Failure>;

impl Shim {
    /// Runs `work` in a stage child, as a new task. It gets `fds`.
    pub(crate) fn begin_stage(
        &mut self,
        order: Order,
        fds: Vec<OwnedFd>,
        work: impl FnOnce(Vec<OwnedFd>, &Reporter) -> Work,
    ) -> std::result::Result<(), Failure> {
        let Order { call, deadline, stages, job } = order;
        let child = crate::stage::spawn(&self.inherited, &self.cgroups, fds, work)?;
        self.begin(call, deadline, stages, Step::Stage(child, job));
        Ok(())
    }

    /// A new task.
    pub(crate) fn begin(&mut self, call: Option<Call>, deadline: Instant, stages: Stages, step: Step) {
        let key = self.new_key();
        self.tasks.push(Task { key, call, deadline, stages, step, born: None });
    }

    /// Reads what a task's stage child reports.
    pub(crate) fn hear(&mut self, key: u64) {
        while let Some(index) = self.tasks.iter().position(|task| task.key == key) {
            let task = &mut self.tasks[index];
            let Step::Stage(child, _) = &mut task.step else { return };
            let result = match child.next_report(&mut self.buffer) {
                Ok(None) => return,
                Ok(Some((Report::Born, fds))) => {
                    task.born = fds.into_iter().next().map(PidFd::from_fd);
                    continue;
                }
                Ok(Some((Report::Done(outcome), fds))) => Ok((outcome, fds)),
                Ok(Some((Report::Failed(failure), _))) => return self.end_stage(index, true, Err(failure)),
                Err(failure) => {
                    child.kill();
                    Err(failure)
                }
            };
            return self.end_stage(index, false, result);
        }
    }

    /// A stage child has ended, after its last report or without one.
    pub(crate) fn stage_child_ended(&mut self, key: u64, how: &str) {
        self.hear(key);
        let Some(index) = self.tasks.iter().position(|task| task.key == key) else { return };
        self.read_notes(index);
        let stage = self.tasks[index].stages.current();
        let died = failure(ErrorKind::Internal, format_args!("{stage}: its process {how}"));
        self.end_stage(index, false, Err(died));
    }

    /// Takes in what a stage child has noted, because its stage has failed.
    fn read_notes(&mut self, index: usize) {
        let Task { step: Step::Stage(child, job), stages, .. } = &mut self.tasks[index] else { return };
        for (at, note) in child.notes() {
            match (note, *job) {
                (Note::Stage { name, .. }, _) => stages.next(&name, at),
                (Note::Place(place), Job::Create(container)) => {
                    let container = self.containers.iter_mut().find(|other| other.key == container);
                    container.into_iter().for_each(|container| container.place = Some(place.clone()));
                }
                (Note::Group(group), Job::Create(container)) => {
                    let container = self.containers.iter_mut().find(|other| other.key == container);
                    let place = container.and_then(|container| container.place.as_mut());
                    place.into_iter().for_each(|place| place.announced.made.insert(0, group.clone()));
                }
                (Note::CgroupMade, Job::Create(container)) => {
                    let container = self.containers.iter_mut().find(|other| other.key == container);
                    container.into_iter().for_each(|container| container.has_cgroup = true);
                }
                (Note::Place(_) | Note::Group(_) | Note::CgroupMade, _) => {}
            }
        }
    }

    fn end_stage(&mut self, index: usize, is_clean: bool, result: Result) {
        if result.is_err() {
            self.read_notes(index);
        }
        let (ended, step) = Ended::of(self.tasks.swap_remove(index));
        if result.is_err() && !is_clean {
            ended.kill_born();
        }
        if let Step::Stage(child, job) = step {
            verbs::finish(self, job, Ended { is_clean, child: child.into_pidfd(), ..ended }, result);
        }
        self.forget_unclaimed();
    }

    /// Gives up what is overdue.
    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some(key) = self.tasks.iter().find(|task| task.deadline <= now).map(|task| task.key) {
            // It may be done this very moment.
            self.hear(key);
            let Some(index) = self.tasks.iter().position(|task| task.key == key) else { continue };
            self.read_notes(index);
            let message = format!("the deadline passed in stage \"{}\"", self.tasks[index].stages.current());
            self.give_up(key, failure(ErrorKind::Deadline, message));
        }
    }

    /// Ends a task before it is done.
    pub(crate) fn give_up(&mut self, key: u64, why: Failure) {
        let is_it = |task: &Task| task.key == key;
        if let Some(Task { step: Step::Stage(child, _), .. }) = self.tasks.iter().find(|task| is_it(task)) {
            // What it has told of, up to its end, is to be ended with it; and it may have been faster.
            child.kill();
            self.hear(key);
        }
        let Some(index) = self.tasks.iter().position(is_it) else { return };
        self.read_notes(index);
        let (ended, step) = Ended::of(self.tasks.swap_remove(index));
        match step {
            Step::Stage(child, job) => {
                ended.kill_born();
                verbs::finish(self, job, Ended { is_clean: false, child: child.into_pidfd(), ..ended }, Err(why));
            }
            Step::Starting(container) => verbs::start::give_up(self, container, ended, why),
            Step::Executing(exec) => verbs::exec::give_up(self, exec, ended, why),
            Step::Deleting(_) | Step::Stopping => self.answer(ended, Err(why)),
        }
        self.forget_unclaimed();
    }

    /// Lets tasks go on that wait for something to have ended.
    pub(crate) fn advance(&mut self) {
        while let Some(index) = self.tasks.iter().position(|task| self.may_go_on(&task.step)) {
            let (ended, step) = Ended::of(self.tasks.swap_remove(index));
            match step {
                Step::Deleting(container) => verbs::delete::remove(self, container, ended),
                Step::Stopping => verbs::stop_sandbox::remove(self, ended),
                Step::Stage(..) | Step::Starting(_) | Step::Executing(_) => {}
            }
        }
    }

    fn may_go_on(&self, step: &Step) -> bool {
        match step {
            Step::Deleting(key) => {
                let container = self.containers.iter().find(|container| container.key == *key);
                container.is_none_or(|container| container.has_exited())
            }
            Step::Stopping => {
                let undoes = |task: &Task| matches!(task.step, Step::Stage(_, Job::Undo));
                self.has_nothing_alive() && !self.tasks.iter().any(undoes)
            }
            Step::Stage(..) | Step::Starting(_) | Step::Executing(_) => false,
        }
    }

    /// No container and no reaper lives.
    pub(crate) fn has_nothing_alive(&self) -> bool {
        let reaper = match &self.lifecycle {
            Lifecycle::Running(sandbox) => sandbox.reaper.is_some(),
            Lifecycle::Starting(_) => true,
            Lifecycle::Fresh | Lifecycle::Over => false,
        };
        !reaper && self.containers.iter().all(|container| container.has_exited())
    }

    /// The task, if there is one, that waits for a step; it is over now.
    pub(crate) fn take_task(&mut self, is_it: impl Fn(&Step) -> bool) -> Option<Ended> {
        let index = self.tasks.iter().position(|task| is_it(&task.step))?;
        Some(Ended::of(self.tasks.swap_remove(index)).0)
    }

    /// Answers a task's request, if somebody asked; a failure of the shim's own work is noted in its log.
    pub(crate) fn answer(&mut self, ended: Ended, result: Result<Answer>) {
        self.answer_with(ended, result, Vec::new());
    }

    /// As [`Self::answer`], with fds beside the reply.
    pub(crate) fn answer_with(&mut self, ended: Ended, result: Result<Answer>, fds: Vec<OwnedFd>) {
        let result = result.map_err(|mut failure| {
            failure.stages = ended.stages.told(Instant::now());
            failure
        });
        match (ended.call, result) {
            (Some(call), result) => self.reply(call, result, fds),
            (None, Err(failure)) => note(format_args!("{failure}")),
            (None, Ok(_)) => {}
        }
    }

    /// Kills a container's first process; its end is told as any other.
    pub(crate) fn kill_first(&self, container: u64) {
        let container = self.containers.iter().find(|other| other.key == container);
        if let Some(first) = container.and_then(|container| container.first()) {
            let _ = first.pidfd.send_signal(Signal::SIGKILL);
        }
    }
}
