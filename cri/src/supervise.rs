//! Following a pod's shim: what it tells, and its end.

use crate::container::{Ended, Life};
use crate::failure::chain;
use crate::host::now;
use crate::pods::Pods;
use crate::sandbox::{Phase, Sandbox};
use crate::shim::{Shim, dir_of};
use crate::spec::namespaces;
use nix::sys::signal::Signal;
use proto::{ContainerEventType, NamespaceMode};
use shim_protocol::{Event, Exit, Process};
use std::path::Path;
use std::sync::Arc;
use sys::process::Pid;

/// Follows a shim until it is gone, beginning with what it told already.
pub(crate) fn follow(pods: Arc<Pods>, sandbox: Arc<Sandbox>, shim: Arc<Shim>, told: Vec<Event>) {
    tokio::spawn(async move {
        for event in told {
            handle(&pods, &sandbox, event).await;
        }
        while let Some(event) = shim.next_event().await {
            handle(&pods, &sandbox, event).await;
        }
        lost(&pods, &sandbox).await;
    });
}

async fn handle(pods: &Arc<Pods>, sandbox: &Arc<Sandbox>, event: Event) {
    match event {
        Event::Exited { container, exit } => pods.container_exited(&container, exit).await,
        Event::Oom { container } => tracing::info!(sandbox = sandbox.id, container, "out of memory"),
        Event::ReaperDied => become_dead(pods, sandbox, "its first process died").await,
        // Goes to whoever runs the exec.
        Event::ExecExited { .. } => {}
    }
}

/// The connection ended. Unless the sandbox was being stopped, its shim has died: nobody supervises the pod's processes any
/// more, so they are killed.
async fn lost(pods: &Arc<Pods>, sandbox: &Arc<Sandbox>) {
    let _gate = sandbox.gate.lock().await;
    sandbox.drop_shim();
    if matches!(sandbox.record().phase, Phase::Ready | Phase::Dead) {
        become_dead(pods, sandbox, "its shim died").await;
        kill_orphans(pods, sandbox).await;
        settle(pods, sandbox).await;
    }
}

async fn become_dead(pods: &Arc<Pods>, sandbox: &Arc<Sandbox>, why: &str) {
    let mut was_ready = false;
    sandbox.change(|record| {
        was_ready = record.phase == Phase::Ready;
        if was_ready {
            record.phase = Phase::Dead;
        }
    });
    if !was_ready {
        return;
    }
    tracing::warn!(sandbox = sandbox.id, "sandbox is not ready any more: {why}");
    if let Err(failure) = pods.keep_sandbox(sandbox).await {
        tracing::error!(sandbox = sandbox.id, error = chain(&failure), "a sandbox's end is not recorded");
    }
    pods.tell(&sandbox.id, &sandbox.id, ContainerEventType::ContainerStoppedEvent);
}

/// Kills what is left of a pod whose shim is gone or taken for gone: the shim, so that it lets go of the namespaces, and
/// through the cgroups whatever it ran.
pub(crate) async fn kill_orphans(pods: &Arc<Pods>, sandbox: &Arc<Sandbox>) {
    let record = sandbox.record();
    let containers = pods.containers_of(&sandbox.id);
    let mut cgroups: Vec<String> = containers.iter().map(|container| container.record().cgroup.clone()).collect();
    // By what was asked for: a half-made sandbox has no record of its processes.
    if namespaces::options(&record.config).pid() == NamespaceMode::Pod {
        cgroups.push(cgroup_of(&record.cgroup_parent, &sandbox.id));
    }
    let killer = Arc::clone(pods);
    let killed = tokio::task::spawn_blocking(move || {
        if let Some(processes) = &record.processes {
            kill_process(processes.shim);
        }
        for cgroup in cgroups {
            kill_cgroup(&killer.layout, &cgroup);
        }
    });
    if let Err(error) = killed.await {
        tracing::error!(sandbox = sandbox.id, error = chain(&error), "kill a pod without a shim");
    }
}

/// SIGKILL to this very process, if it is there.
fn kill_process(process: Process) {
    let process = sys::process::Process { pid: Pid::from_raw(process.pid), start_time: process.start_time };
    match process.open().and_then(|pidfd| pidfd.send_signal(Signal::SIGKILL)) {
        Ok(()) => tracing::warn!(pid = process.pid.as_raw(), "killed a shim that did not answer"),
        Err(error) if error.is(sys::Errno::ESRCH) => {}
        Err(error) => tracing::warn!(pid = process.pid.as_raw(), error = chain(&error), "kill a shim"),
    }
}

/// Says how each container of a sandbox ended that nobody has told of: as its exit record has it, or `Unknown`.
pub(crate) async fn settle(pods: &Arc<Pods>, sandbox: &Arc<Sandbox>) {
    let exits = dir_of(&pods.config.state, &sandbox.id).join("exits");
    for container in pods.containers_of(&sandbox.id) {
        if matches!(container.life(), Life::Exited(_)) {
            continue;
        }
        let ended = match read_exit(&exits, &container.id) {
            Some(exit) => Ended::from_exit(&exit),
            None => Ended::unknown("the pod's shim died", container.record().started_at, now()),
        };
        pods.end_container(&container, ended).await;
    }
}

/// The exit record that a shim left.
pub(crate) fn read_exit(dir: &Path, container: &str) -> Option<Exit> {
    let bytes = std::fs::read(dir.join(format!("{container}.json"))).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// A container's cgroup, or a reaper's: the last component is the id, because monitoring agents read it from there.
pub(crate) fn cgroup_of(parent: &str, id: &str) -> String {
    format!("{}/{id}", parent.trim_end_matches('/'))
}

/// Kills all in a cgroup and removes it. Blocks; what can't be done is logged, because there is nobody to tell.
pub(crate) fn kill_cgroup(layout: &cgroup::Layout, path: &str) {
    let result = cgroup::Cgroup::open(layout, path).and_then(|cgroup| {
        cgroup.kill(std::time::Duration::from_secs(10))?;
        cgroup.delete()
    });
    if let Err(error) = result {
        tracing::warn!(cgroup = path, error = chain(&error), "kill what is left in a cgroup");
    }
}
