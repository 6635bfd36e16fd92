//! `Start`: opens a created container's gate and waits for its program to be executed.

use super::{Begun, Request};
use crate::container::Life;
use crate::failure::{failure, internal};
use crate::hooks;
use crate::progress::{Ended, Order, Result};
use crate::reap;
use crate::report::Outcome;
use crate::stages::Stages;
use crate::supervisor::Shim;
use crate::task::{Job, Step};
use shim_protocol::{Answer, ErrorKind, Failure};
use std::fs::File;
use std::io::Write;
use std::time::Instant;

pub(super) fn begin(shim: &mut Shim, request: Request, id: &str) -> Begun {
    let container = shim.container(id)?;
    let key = container.key;
    match std::mem::replace(&mut container.life, Life::Creating) {
        Life::Created { first, gate, status } => {
            let opened = File::from(gate).write_all(&[1]);
            // A first process that has died meanwhile is about to be reaped, which answers.
            container.life = Life::Starting { first, status };
            if let Err(error) = opened
                && error.kind() != std::io::ErrorKind::BrokenPipe
            {
                return Err(internal(format_args!("open the gate of container {id}"), &error));
            }
        }
        life => {
            let refused = refusal(id, &life);
            container.life = life;
            return Err(refused);
        }
    }
    let now = Instant::now();
    let stages = Stages::begin("execute the program", now);
    shim.begin(Some(request.call), now + request.deadline, stages, Step::Starting(key));
    Ok(None)
}

fn refusal(id: &str, life: &Life) -> Failure {
    match life {
        Life::Creating => failure(ErrorKind::NotRunning, format_args!("container {id} is still being created")),
        Life::Ending(_) | Life::Exited(_) => failure(ErrorKind::NotRunning, format_args!("container {id} has ended")),
        _ => failure(ErrorKind::Running, format_args!("container {id} was started before")),
    }
}

/// The program does not run in time: it is killed, and the container counts as one that could not be started.
pub(crate) fn give_up(shim: &mut Shim, key: u64, ended: Ended, deadline: Failure) {
    shim.kill_first(key);
    if let Some(container) = shim.container_of(key) {
        container.life = match std::mem::replace(&mut container.life, Life::Creating) {
            Life::Starting { first, .. } => Life::Refused { first, failure: deadline.clone() },
            life => life,
        };
    }
    shim.answer(ended, Err(deadline));
}

impl Shim {
    /// Reads whether a started container's program runs. If it does not, the answer comes with the container's end.
    pub(crate) fn hear_status(&mut self, key: u64) {
        let Some(container) = self.containers.iter_mut().find(|container| container.key == key) else { return };
        let Life::Starting { status, .. } = &mut container.life else { return };
        let Some(result) = crate::status::read(status, &mut self.buffer) else { return };
        let runs = result.is_ok();
        container.life = match (std::mem::replace(&mut container.life, Life::Creating), result) {
            (Life::Starting { first, .. }, Ok(())) => Life::Running { first, started_at: reap::now() },
            (Life::Starting { first, .. }, Err(failure)) => {
                // Whatever failed: from here on it is a container that could not be started.
                Life::Refused { first, failure: Failure { kind: ErrorKind::Start, ..failure } }
            }
            (life, _) => life,
        };
        let is_it = |step: &Step| matches!(step, Step::Starting(container) if *container == key);
        if runs && let Some(ended) = self.take_task(is_it) {
            self.run_hooks(key, ended);
        }
    }

    /// Runs what is to follow the start of a program, if anything is, and answers.
    fn run_hooks(&mut self, key: u64, ended: Ended) {
        let container = self.containers.iter().find(|container| container.key == key);
        let running = container.and_then(|container| {
            Some((container.id.clone(), container.place.as_ref()?.bundle.clone()?, container.first()?.process.pid))
        });
        let Some((id, bundle, pid)) = running else { return self.answer(ended, Ok(Answer::Done)) };
        let Ended { call, deadline, stages, .. } = ended;
        let order = Order { call, deadline, stages, job: Job::Poststart(key) };
        let begun = self.begin_stage(order, Vec::new(), move |_, reporter| {
            reporter.stage("run poststart hooks");
            hooks::poststart(&id, &bundle, pid).map(|()| (Outcome::Done, Vec::new()))
        });
        if let Err(failure) = begun {
            self.kill_first(key);
            if let Some(call) = call {
                self.reply(call, Err(failure), Vec::new());
            }
        }
    }
}

/// One that failed ends the container (runtime.md, "Lifecycle").
pub(super) fn hooks_ended(shim: &mut Shim, key: u64, ended: Ended, result: Result) {
    if result.is_err() {
        shim.kill_first(key);
    }
    shim.answer(ended, result.map(|_| Answer::Done));
}
