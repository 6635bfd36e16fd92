//! A container: what is recorded of it, and what is known of it now.

use proto::{ContainerConfig, ContainerMetadata, LinuxContainerUser};
use serde::{Deserialize, Serialize};
use shim_protocol::{Exit, Process};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use tokio::time::Instant;

/// Where a container is in its life.
///
/// ```text
/// Created ──StartContainer──▶ Running ──▶ Exited
///    └─────start failed, shim died──────────▲
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Life {
    /// Everything but its program is there.
    Created(Process),
    /// Its program runs.
    Running(Process),
    /// It ended.
    Exited(Ended),
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    /// `Completed`, `Error`, `OOMKilled`, `StartError` or `Unknown`.
    pub(crate) reason: String,
    pub(crate) message: String,
    /// Nanoseconds since 1970; 0 if its program never ran.
    pub(crate) started_at: i64,
    /// Nanoseconds since 1970.
    pub(crate) finished_at: i64,
}

/// The exit code of a container whose program could not be run, as every runtime reports it.
pub(crate) const START_ERROR: i32 = 128;

/// The exit code of a container that was killed because its supervisor died.
pub(crate) const KILLED: i32 = 137;

impl Ended {
    /// From a shim's exit record.
    pub(crate) fn from_exit(exit: &Exit) -> Ended {
        let reason = match exit.code {
            _ if exit.oom_killed => "OOMKilled",
            // Its program never ran, and nobody killed it.
            START_ERROR if exit.started_at == 0 => "StartError",
            0 => "Completed",
            _ => "Error",
        };
        Ended {
            code: exit.code,
            reason: reason.into(),
            message: String::new(),
            started_at: exit.started_at,
            finished_at: exit.finished_at,
        }
    }

    /// The program could not be run.
    pub(crate) fn start_error(message: String, now: i64) -> Ended {
        Ended { code: START_ERROR, reason: "StartError".into(), message, started_at: 0, finished_at: now }
    }

    /// Nobody saw how it ended.
    pub(crate) fn unknown(message: &str, started_at: i64, now: i64) -> Ended {
        Ended { code: KILLED, reason: "Unknown".into(), message: message.into(), started_at, finished_at: now }
    }
}

/// What survives the daemon.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ContainerRecord {
    pub(crate) id: String,
    pub(crate) sandbox: String,
    /// As it was asked for, with the resources that are in force.
    pub(crate) config: ContainerConfig,
    /// The image's id, exactly as the image list has it.
    pub(crate) image_id: String,
    /// A digest reference of the image, or its id.
    pub(crate) image_ref: String,
    /// Nanoseconds since 1970.
    pub(crate) created_at: i64,
    /// Nanoseconds since 1970; 0 until it is started.
    pub(crate) started_at: i64,
    /// Absolute; `None` throws output away.
    pub(crate) log_path: Option<PathBuf>,
    pub(crate) user: LinuxContainerUser,
    /// Linux number of the signal that asks it to end.
    pub(crate) stop_signal: i32,
    /// Its cgroup, absolute.
    pub(crate) cgroup: String,
    pub(crate) ended: Option<Ended>,
}

impl ContainerRecord {
    /// The metadata; validated to be there before a record is made.
    pub(crate) fn metadata(&self) -> ContainerMetadata {
        self.config.metadata.clone().unwrap_or_default()
    }
}

/// A container in memory.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) sandbox: String,
    record: Mutex<Arc<ContainerRecord>>,
    /// Held by whoever writes the record, and the record is read below it: what is on disk never goes back in time.
    pub(crate) writing: Mutex<()>,
    life: watch::Sender<Life>,
    /// Held by whoever makes its life go on and tells so: its start is told before its end.
    pub(crate) telling: Mutex<()>,
    /// When the stop signal was sent and when its grace ends: a repeated stop neither sends it again nor waits anew.
    stopping: Mutex<Option<Instant>>,
    /// Held by the verb that changes the container: start, remove, update.
    pub(crate) gate: tokio::sync::Mutex<()>,
}

impl Container {
    pub(crate) fn new(record: ContainerRecord, life: Life) -> Container {
        Container {
            id: record.id.clone(),
            sandbox: record.sandbox.clone(),
            record: Mutex::new(Arc::new(record)),
            writing: Mutex::default(),
            life: watch::Sender::new(life),
            telling: Mutex::default(),
            stopping: Mutex::default(),
            gate: tokio::sync::Mutex::default(),
        }
    }

    /// The facts as of now.
    pub(crate) fn record(&self) -> Arc<ContainerRecord> {
        Arc::clone(&self.lock_record())
    }

    /// Changes the facts in memory and returns them, to be written.
    pub(crate) fn change(&self, change: impl FnOnce(&mut ContainerRecord)) -> Arc<ContainerRecord> {
        let mut record = self.lock_record();
        let mut changed = ContainerRecord::clone(&record);
        change(&mut changed);
        *record = Arc::new(changed);
        Arc::clone(&record)
    }

    /// Where it is in its life.
    pub(crate) fn life(&self) -> Life {
        self.life.borrow().clone()
    }

    /// Its life goes on; what has ended stays ended. False if it had.
    pub(crate) fn live(&self, life: Life) -> bool {
        self.life.send_if_modified(|now| {
            let goes_on = !matches!(now, Life::Exited(_));
            if goes_on {
                *now = life;
            }
            goes_on
        })
    }

    /// Adds the reason to an end that was told without one.
    pub(crate) fn explain(&self, message: &str) {
        self.life.send_if_modified(|life| {
            if let Life::Exited(ended) = life
                && ended.message.is_empty()
            {
                message.clone_into(&mut ended.message);
            }
            false
        });
        let Life::Exited(ended) = self.life() else { return };
        self.change(|record| record.ended = Some(ended));
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(&self) -> Ended {
        let mut life = self.life.subscribe();
        let ended = life.wait_for(|life| matches!(life, Life::Exited(_))).await.expect("the sender is in self").clone();
        match ended {
            Life::Exited(ended) => ended,
            Life::Created(_) | Life::Running(_) => unreachable!("waited for"),
        }
    }

    /// Its first process, if it has one.
    pub(crate) fn process(&self) -> Option<Process> {
        match *self.life.borrow() {
            Life::Created(process) | Life::Running(process) => Some(process),
            Life::Exited(_) => None,
        }
    }

    /// Begins its grace period or shortens the one that runs: when it ends, and whether the stop signal is still to
    /// be sent.
    pub(crate) fn begin_grace(&self, ends: Instant) -> (Instant, bool) {
        let mut stopping = self.stopping.lock().unwrap_or_else(PoisonError::into_inner);
        let first = stopping.is_none();
        let ends = stopping.map_or(ends, |before| before.min(ends));
        *stopping = Some(ends);
        (ends, first)
    }

    /// The stop signal could not be sent: the next call begins anew.
    pub(crate) fn forget_grace(&self) {
        *self.stopping.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn lock_record(&self) -> MutexGuard<'_, Arc<ContainerRecord>> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::time::Duration;

    pub(crate) fn record(id: &str) -> ContainerRecord {
        ContainerRecord {
            id: id.into(),
            sandbox: "pod".into(),
            config: ContainerConfig {
                metadata: Some(ContainerMetadata { name: "web".into(), attempt: 2 }),
                ..ContainerConfig::default()
            },
            image_id: "sha256:1".into(),
            image_ref: "busybox@sha256:2".into(),
            created_at: 1,
            started_at: 0,
            log_path: None,
            user: LinuxContainerUser::default(),
            stop_signal: 15,
            cgroup: "/pods/c".into(),
            ended: None,
        }
    }

    const PROCESS: Process = Process { pid: 7, start_time: 1 };

    fn exit(code: i32, oom_killed: bool) -> Exit {
        Exit { process: PROCESS, code, signal: None, oom_killed, started_at: 5, finished_at: 9 }
    }

    #[test]
    fn the_reason_follows_from_the_exit() {
        for (exit, reason) in [
            (exit(0, false), "Completed"),
            (exit(1, false), "Error"),
            (exit(137, false), "Error"),
            (exit(137, true), "OOMKilled"),
            (exit(0, true), "OOMKilled"),
        ] {
            assert_eq!(Ended::from_exit(&exit).reason, reason, "{exit:?}");
        }
    }

    #[test]
    fn what_has_ended_stays_ended() {
        let container = Container::new(record("c"), Life::Created(PROCESS));
        assert!(container.live(Life::Running(PROCESS)));
        let ended = Ended::from_exit(&exit(3, false));
        assert!(container.live(Life::Exited(ended.clone())));
        assert!(!container.live(Life::Running(PROCESS)));
        assert_eq!(container.life(), Life::Exited(ended));
        assert_eq!(container.process(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_repeated_stop_neither_sends_the_signal_again_nor_restarts_the_clock() {
        let container = Container::new(record("c"), Life::Running(PROCESS));
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(container.begin_grace(at(30)), (at(30), true));
        assert_eq!(container.begin_grace(at(40)), (at(30), false));
        assert_eq!(container.begin_grace(at(2)), (at(2), false));
        container.forget_grace();
        assert_eq!(container.begin_grace(at(50)), (at(50), true), "the signal was not sent");
    }
}
