//! `StopSandbox`: the end of all containers, of the reaper, and of the shim.

use super::{Begun, Request};
use crate::progress::{Ended, Order, Result};
use crate::report::{Outcome, Place};
use crate::sandbox::Lifecycle;
use crate::stages::Stages;
use crate::supervisor::Shim;
use crate::task::{Job, Step};
use shim_protocol::Answer;
use std::time::Instant;
use sys::signal::Signal;

pub(super) fn begin(shim: &mut Shim, request: Request) -> Begun {
    if matches!(shim.lifecycle, Lifecycle::Starting(_)) {
        // Whoever asked for it may be gone, and the next daemon wants nothing of it.
        super::start_sandbox::give_up(shim);
    }
    match &mut shim.lifecycle {
        Lifecycle::Running(sandbox) => {
            sandbox.stopping = true;
            if let Some(reaper) = &sandbox.reaper {
                let _ = reaper.pidfd.send_signal(Signal::SIGKILL);
            }
        }
        // What a start has left is being removed.
        Lifecycle::Over if !shim.tasks.is_empty() => {}
        Lifecycle::Fresh | Lifecycle::Over => {
            shim.lifecycle = Lifecycle::Over;
            return Ok(Some(Answer::Done));
        }
        Lifecycle::Starting(_) => return Err(super::unexpected()),
    }
    let keys: Vec<u64> = shim.containers.iter().map(|container| container.key).collect();
    keys.into_iter().for_each(|key| shim.end(key));
    let now = Instant::now();
    let stages = Stages::begin("wait for the containers to end", now);
    shim.begin(Some(request.call), now + request.deadline, stages, Step::Stopping);
    Ok(None)
}

/// All have ended: removes what the kernel keeps of them. Their exit records stay, for the daemon.
pub(crate) fn remove(shim: &mut Shim, ended: Ended) {
    let mut cgroups: Vec<String> =
        shim.containers.iter().filter_map(|container| container.cgroup().map(str::to_owned)).collect();
    let places: Vec<(String, Place)> =
        shim.containers.iter().filter_map(|container| Some((container.id.clone(), container.place.clone()?))).collect();
    if let Lifecycle::Running(sandbox) = &shim.lifecycle {
        cgroups.extend(sandbox.config.reaper.as_ref().map(|reaper| reaper.cgroup.clone()));
    }
    let Ended { call, deadline, stages, .. } = ended;
    let order = Order { call, deadline, stages, job: Job::StopSandbox };
    let begun = shim.begin_stage(order, Vec::new(), move |_, reporter| {
        reporter.stage("remove the cgroups");
        // Each is tried; the first failure is told.
        let removed: Vec<_> = cgroups.iter().map(|cgroup| reporter.cgroups.delete(cgroup)).collect();
        removed.into_iter().collect::<std::result::Result<(), _>>()?;
        // Nobody can delete them any more when the shim is gone.
        places.iter().try_for_each(|(id, place)| place.leave(id, reporter))?;
        Ok((Outcome::Done, Vec::new()))
    });
    if let (Some(call), Err(failure)) = (call, begun) {
        shim.reply(call, Err(failure), Vec::new());
    }
}

/// Nothing is left, or a cgroup could not be removed: then the sandbox stays, to be stopped again.
pub(super) fn finish(shim: &mut Shim, ended: Ended, result: Result) {
    let result = result.and_then(|_| {
        if let Lifecycle::Running(sandbox) = &shim.lifecycle
            && let Some(shared_memory) = &sandbox.shared_memory
        {
            let removed = shared_memory.remove(&shim.dir);
            removed.map_err(|error| crate::failure::internal("unmount the pod's /dev/shm", &error))?;
        }
        shim.lifecycle = Lifecycle::Over;
        Ok(Answer::Done)
    });
    shim.answer(ended, result);
}
