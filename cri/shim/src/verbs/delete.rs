//! `Delete`: forgets an ended container.

use super::{Begun, Request};
use crate::container::Life;
use crate::ending::SWEEP;
use crate::failure::failure;
use crate::progress::{Ended, Order, Result};
use crate::report::Outcome;
use crate::stages::Stages;
use crate::supervisor::Shim;
use crate::task::{Job, Step};
use shim_protocol::{Answer, Delete, ErrorKind};
use std::time::Instant;

pub(super) fn begin(shim: &mut Shim, request: Request, delete: &Delete) -> Begun {
    let id = &delete.container;
    let container = shim.container(id)?;
    let key = container.key;
    let lives =
        container.first().is_some() || matches!(container.life, Life::Creating | Life::Abandoned { given_up: false });
    if lives && !delete.force {
        return Err(failure(ErrorKind::Running, format_args!("container {id} has not ended")));
    }
    shim.end(key);
    let now = Instant::now();
    let stages = Stages::begin("wait for the container to end", now);
    shim.begin(Some(request.call), now + request.deadline, stages, Step::Deleting(key));
    Ok(None)
}

/// The container has ended: removes its cgroup.
pub(crate) fn remove(shim: &mut Shim, key: u64, ended: Ended) {
    let Some(container) = shim.container_of(key) else {
        // Its creation failed, or another delete was faster.
        return shim.answer(ended, Ok(Answer::Done));
    };
    let (id, place) = (container.id.clone(), container.place.clone());
    let is_left_over = matches!(container.life, Life::Abandoned { .. }) && container.has_cgroup;
    let Ended { call, deadline, stages, .. } = ended;
    let order = Order { call, deadline, stages, job: Job::Delete(key) };
    let begun = shim.begin_stage(order, Vec::new(), move |_, reporter| {
        let Some(place) = place else { return Ok((Outcome::Done, Vec::new())) };
        reporter.stage("remove the cgroup");
        if let Some(cgroup) = &place.cgroup {
            if is_left_over {
                reporter.cgroups.kill_all(cgroup, SWEEP)?;
            }
            reporter.cgroups.delete(cgroup)?;
        }
        place.leave(&id, reporter)?;
        Ok((Outcome::Done, Vec::new()))
    });
    if let (Some(call), Err(failure)) = (call, begun) {
        shim.reply(call, Err(failure), Vec::new());
    }
}

/// The cgroup is gone, or could not be removed: then the container stays, to be deleted again.
pub(super) fn finish(shim: &mut Shim, key: u64, ended: Ended, result: Result) {
    if result.is_ok()
        && let Some(index) = shim.containers.iter().position(|container| container.key == key)
    {
        let container = shim.containers.swap_remove(index);
        shim.dir.remove_exit(&container.id);
    }
    shim.answer(ended, result.map(|_| Answer::Done));
}

impl Shim {
    /// Kills a container in whatever state it is; its end is told as any other.
    pub(super) fn end(&mut self, key: u64) {
        self.kill_first(key);
        let is_it = |step: &Step| matches!(step, Step::Stage(_, Job::Create(container)) if *container == key);
        if let Some(task) = self.tasks.iter().find(|task| is_it(&task.step)).map(|task| task.key) {
            let deleted = failure(ErrorKind::NotRunning, "the container was deleted while it was being created");
            self.give_up(task, deleted);
            // It may have been finished at the last moment.
            self.kill_first(key);
        }
    }
}
