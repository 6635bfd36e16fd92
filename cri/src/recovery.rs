//! Starting: the records, what the shims say, and what is to be done about the difference.
//!
//! There is no other way to start, so that every start exercises it. A sandbox that was ready and whose shim answers goes
//! on as if nothing had happened; one whose shim is gone is killed and told as dead; what was half made when the last
//! daemon ended is rolled back; what no record knows is taken apart by its id.

use crate::container::{Container, ContainerRecord, Ended, Life};
use crate::failure::{Failure, chain};
use crate::host::now;
use crate::pods::{Pods, blocking};
use crate::sandbox::{Phase, Sandbox, SandboxRecord};
use crate::shim::{CallError, Shim, dir_of};
use crate::supervise::{follow, kill_cgroup, kill_orphans, read_exit, settle};
use crate::teardown;
use futures_util::future::join_all;
use shim_protocol::{Answer, ContainerState, Delete, ErrorKind, Event, Hello, State, VERSION, Verb};
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

/// How long a shim may take to say what it knows. It only has to answer; one that does not is as good as dead.
const HELLO: Duration = Duration::from_secs(10);

/// How long a shim may take to kill and forget a container.
const DELETE: Duration = Duration::from_secs(60);

/// Brings the state in memory and makes it agree with what runs.
pub(crate) async fn recover(pods: &Arc<Pods>) -> Result<(), Failure> {
    let reader = Arc::clone(pods);
    let (sandboxes, containers) = blocking("read the records", move || {
        let load = |error: &dyn std::error::Error| Failure::internal("read the records", error);
        let sandboxes = reader.sandbox_records.load().map_err(|error| load(&error))?;
        Ok((sandboxes, reader.container_records.load().map_err(|error| load(&error))?))
    })
    .await?;
    for (kind, unreadable) in [("sandbox", &sandboxes.unreadable), ("container", &containers.unreadable)] {
        for (id, reason) in unreadable {
            tracing::error!(kind, id, reason, "a record can't be read; it is set aside and its thing cleaned up");
        }
    }
    let mut of_sandbox: BTreeMap<String, Vec<ContainerRecord>> = BTreeMap::new();
    for record in containers.records {
        of_sandbox.entry(record.sandbox.clone()).or_default().push(record);
    }
    let (half_made, known): (Vec<_>, Vec<_>) =
        sandboxes.records.into_iter().partition(|record| record.phase == Phase::Creating);
    join_all(known.into_iter().map(|record| {
        let containers = of_sandbox.remove(&record.id).unwrap_or_default();
        sandbox(pods, record, containers)
    }))
    .await;
    for record in half_made {
        roll_back(pods, record).await;
    }
    for (id, _) in &sandboxes.unreadable {
        teardown::by_id(pods, id).await;
    }
    for id in unknown_shims(pods) {
        tracing::warn!(sandbox = id, "no record knows this shim; it is taken apart");
        teardown::by_id(pods, &id).await;
    }
    for record in of_sandbox.into_values().flatten() {
        orphan(pods, record).await;
    }
    for (id, _) in &containers.unreadable {
        remove_files(pods, id.clone()).await;
    }
    lease(pods).await
}

/// A sandbox that was acknowledged.
async fn sandbox(pods: &Arc<Pods>, record: SandboxRecord, containers: Vec<ContainerRecord>) {
    let dir = dir_of(&pods.config.state, &record.id);
    let found = match record.phase {
        Phase::Ready | Phase::Dead => ask(&dir).await,
        Phase::Creating | Phase::Stopped => None,
    };
    let (shim, state, told) = match found {
        Some((shim, state, told)) => (Some(shim), Some(state), told),
        None => (None, None, Vec::new()),
    };
    let sandbox = Arc::new(Sandbox::new(record, shim.clone()));
    pods.sandboxes.insert(sandbox.id.clone(), Arc::clone(&sandbox));
    let mut given_up = Vec::new();
    for record in containers {
        given_up.extend(container(pods, record, state.as_ref()).await);
    }
    match (shim, state) {
        (Some(shim), Some(state)) => {
            if !state.ready {
                sandbox.change(|record| record.phase = Phase::Dead);
            }
            follow(Arc::clone(pods), Arc::clone(&sandbox), Arc::clone(&shim), told);
            given_up.extend(state.containers.into_keys().filter(|id| !matches!(pods.containers.find(id), Ok(Some(_)))));
            for id in given_up {
                give_up(pods, &shim, id).await;
            }
        }
        _ if sandbox.record().phase != Phase::Stopped => {
            tracing::warn!(sandbox = sandbox.id, "its shim is gone: what it ran is killed");
            sandbox.change(|record| record.phase = Phase::Dead);
            kill_orphans(pods, &sandbox).await;
            settle(pods, &sandbox).await;
        }
        _ => settle(pods, &sandbox).await,
    }
    if let Err(failure) = pods.keep_sandbox(&sandbox).await {
        tracing::error!(sandbox = sandbox.id, error = chain(&failure), "a sandbox is not recorded");
    }
}

/// What a shim knows, and what it told in between.
async fn ask(dir: &std::path::Path) -> Option<(Arc<Shim>, State, Vec<Event>)> {
    let shim = Arc::new(Shim::connect(dir).ok()?);
    let (answer, told) = say_hello(&shim).await;
    match answer {
        Ok(Answer::Hello(state)) if state.sandbox.is_some() => Some((shim, *state, told)),
        Ok(answer) => {
            tracing::warn!(dir = %dir.display(), ?answer, "a shim without a sandbox");
            None
        }
        Err(error) => {
            tracing::warn!(dir = %dir.display(), error = chain(&error), "ask a shim for its state");
            None
        }
    }
}

/// The answer, and what the shim told before it.
async fn say_hello(shim: &Shim) -> (Result<Answer, CallError>, Vec<Event>) {
    let mut told = Vec::new();
    let hello = Verb::Hello(Hello { version: VERSION, subscribe: true });
    let mut answer = pin!(shim.call(hello, Vec::new(), HELLO));
    let answer = loop {
        tokio::select! {
            answer = &mut answer => break answer,
            event = shim.next_event() => match event {
                Some(event) => told.push(event),
                // The answer may have been its last word.
                None => break answer.await,
            },
        }
    };
    (answer.map(|(answer, _fds)| answer), told)
}

/// A container that the shim has or is still making, and that nobody may come to know: its creation was never answered, its
/// removal was begun, or its record can't be read. Its files go last, and only if nothing can still use them.
async fn give_up(pods: &Arc<Pods>, shim: &Shim, id: String) {
    tracing::info!(container = id, "half made, half removed or without a record; it is removed");
    let delete = Verb::Delete(Delete { container: id.clone(), force: true });
    match shim.call(delete, Vec::new(), DELETE).await {
        Ok(_) => {}
        Err(CallError::Failed(failure)) if failure.kind == ErrorKind::NotFound => {}
        Err(error) => {
            tracing::error!(container = id, error = chain(&error), "remove it from its shim");
            return;
        }
    }
    pods.forget_early_exit(&id);
    remove_files(pods, id).await;
}

/// A container of a sandbox that is known; the id of one that is not to be. Without a shim it is settled later, with the others of its sandbox.
async fn container(pods: &Arc<Pods>, record: ContainerRecord, state: Option<&State>) -> Option<String> {
    let id = record.id.clone();
    let exit_dir = dir_of(&pods.config.state, &record.sandbox).join("exits");
    let life = match (&record.ended, state) {
        (Some(ended), _) => Some(Life::Exited(ended.clone())),
        (None, Some(state)) => state.containers.get(&id).map(life_of),
        // Whoever runs without a shim is killed and told as unknown; until then it is what it was last.
        (None, None) => Some(match read_exit(&exit_dir, &id) {
            Some(exit) => Life::Exited(Ended::from_exit(&exit)),
            None => Life::Running(shim_protocol::Process { pid: 0, start_time: 0 }),
        }),
    };
    let Some(life) = life else {
        // The shim never heard of it, or forgot it when it was removed: nobody was told that it exists, or somebody that
        // it is gone.
        return Some(id);
    };
    let is_news = matches!(life, Life::Exited(_)) && record.ended.is_none();
    let container = Arc::new(Container::new(record, life.clone()));
    pods.containers.insert(id, Arc::clone(&container));
    // Started by a daemon that ended before it wrote so: a time that is a bit late is better than 1970, from which a kubelet
    // would count delays of probes.
    let starts = matches!(life, Life::Running(process) if process.pid != 0) && container.record().started_at == 0;
    if is_news || starts {
        container.change(|record| match life {
            Life::Exited(ended) => record.ended = Some(ended),
            _ => record.started_at = now(),
        });
        if let Err(failure) = pods.keep_container(&container).await {
            tracing::error!(container = container.id, error = chain(&failure), "what was missed is not recorded");
        }
    }
    None
}

fn life_of(state: &ContainerState) -> Life {
    match state {
        ContainerState::Created(process) => Life::Created(*process),
        ContainerState::Running(process) => Life::Running(*process),
        ContainerState::Exited(exit) => Life::Exited(Ended::from_exit(exit)),
    }
}

/// A sandbox that nobody was told of.
async fn roll_back(pods: &Arc<Pods>, record: SandboxRecord) {
    let id = record.id.clone();
    tracing::info!(sandbox = id, "half made; it is rolled back");
    let shim = Shim::connect(&dir_of(&pods.config.state, &id)).ok().map(Arc::new);
    let sandbox = Arc::new(Sandbox::new(SandboxRecord { phase: Phase::Stopped, ..record }, shim.clone()));
    if let Some(shim) = shim {
        follow(Arc::clone(pods), Arc::clone(&sandbox), shim, Vec::new());
    }
    let result = match teardown::sandbox(pods, &sandbox).await {
        Ok(()) => teardown::forget(pods, &id).await,
        Err(failure) => Err(failure),
    };
    if let Err(failure) = result {
        tracing::error!(sandbox = id, error = chain(&failure), "roll back a half-made sandbox");
    }
}

/// Shims in the state directory whose sandbox no record knows.
fn unknown_shims(pods: &Pods) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(pods.config.state.join("shim")) else { return Vec::new() };
    let mut unknown: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    unknown.retain(|id| matches!(pods.sandboxes.get(id), Err(failure) if failure.code == tonic::Code::NotFound));
    unknown
}

/// A container whose sandbox no record knows.
async fn orphan(pods: &Arc<Pods>, record: ContainerRecord) {
    tracing::warn!(container = record.id, sandbox = record.sandbox, "no record of its sandbox; it is removed");
    let (killer, cgroup) = (Arc::clone(pods), record.cgroup.clone());
    let killed = blocking("kill an orphan", move || {
        kill_cgroup(&killer.layout, &cgroup);
        Ok(())
    });
    if let Err(failure) = killed.await {
        tracing::error!(container = record.id, error = chain(&failure), "kill an orphan");
    }
    remove_files(pods, record.id).await;
}

async fn remove_files(pods: &Arc<Pods>, id: String) {
    let remover = Arc::clone(pods);
    let removed = blocking("remove a container's files", move || {
        remover.container_records.remove(&id).map_err(|error| Failure::internal("remove a container's files", &error))
    });
    if let Err(failure) = removed.await {
        tracing::error!(error = chain(&failure), "clean up");
    }
}

/// Holds the images of all containers again, and only then lets unused ones be collected.
async fn lease(pods: &Arc<Pods>) -> Result<(), Failure> {
    let holder = Arc::clone(pods);
    blocking("hold images", move || {
        for container in holder.containers.all() {
            let record = container.record();
            let Ok(id) = record.image_id.parse() else { continue };
            if let Err(error) = holder.images.lease(&record.id, &image::ImageId(id)) {
                tracing::warn!(container = record.id, error = chain(&error), "hold the image of a container");
            }
        }
        holder.images.start_gc();
        Ok(())
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_answer_of_a_shim_that_ends_right_after_it_counts() {
        // Whether the end is seen before the answer is by chance (select!): each round has one half of it.
        for _ in 0..32 {
            let (answer, _) = say_hello(&crate::shim::tests::leaving()).await;
            assert!(matches!(answer, Ok(Answer::Done)), "{answer:?}");
        }
    }
}
