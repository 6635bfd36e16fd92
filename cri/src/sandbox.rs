//! A pod's sandbox: what is recorded of it, and what is known of it now.

use crate::shim::Shim;
use proto::{PodSandboxConfig, PodSandboxMetadata};
use serde::{Deserialize, Serialize};
use shim_protocol::SandboxProcess;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Where a sandbox is in its life.
///
/// ```text
/// Creating ──▶ Ready ──the shim or the reaper dies──▶ Dead
///    │           └──────StopPodSandbox──▶ Stopped ◀────┘
///    └─failure, restart: rolled back, forgotten
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    /// Not yet acknowledged; nobody but its creator knows of it.
    Creating,
    /// Containers can be made in it.
    Ready,
    /// Its processes are gone, its network is still held: the kubelet calls StopPodSandbox to release it.
    Dead,
    /// Nothing of it is left but its record and those of its containers.
    Stopped,
}

/// What survives the daemon.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SandboxRecord {
    pub(crate) id: String,
    pub(crate) config: PodSandboxConfig,
    /// As it was asked for: empty for the default.
    pub(crate) runtime_handler: String,
    /// Nanoseconds since 1970.
    pub(crate) created_at: i64,
    /// The host name inside; `None` for a pod on the host's network.
    pub(crate) hostname: Option<String>,
    /// Its containers' cgroups are made below; always absolute.
    pub(crate) cgroup_parent: String,
    /// Where its network namespace is pinned; `None` on the host's network.
    pub(crate) netns: Option<PathBuf>,
    /// What CNI gave it.
    pub(crate) network: Option<Network>,
    /// The shim and the reaper.
    pub(crate) processes: Option<SandboxProcess>,
    pub(crate) phase: Phase,
}

/// What CNI gave a sandbox.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Network {
    /// Addresses without prefix length, the primary one first.
    pub(crate) ips: Vec<String>,
    /// The whole result, for verbose status.
    pub(crate) result: serde_json::Value,
}

impl SandboxRecord {
    /// The metadata; validated to be there before a record is made.
    pub(crate) fn metadata(&self) -> PodSandboxMetadata {
        self.config.metadata.clone().unwrap_or_default()
    }
}

/// A sandbox in memory.
#[derive(Debug)]
pub(crate) struct Sandbox {
    pub(crate) id: String,
    record: Mutex<Arc<SandboxRecord>>,
    /// Held by whoever writes the record, and the record is read below it: what is on disk never goes back in time.
    pub(crate) writing: Mutex<()>,
    shim: Mutex<Option<Arc<Shim>>>,
    /// Held by the verb that changes the sandbox: stop, remove, the loss of its shim.
    pub(crate) gate: tokio::sync::Mutex<()>,
}

impl Sandbox {
    pub(crate) fn new(record: SandboxRecord, shim: Option<Arc<Shim>>) -> Sandbox {
        Sandbox {
            id: record.id.clone(),
            record: Mutex::new(Arc::new(record)),
            writing: Mutex::default(),
            shim: Mutex::new(shim),
            gate: tokio::sync::Mutex::default(),
        }
    }

    /// The facts as of now.
    pub(crate) fn record(&self) -> Arc<SandboxRecord> {
        Arc::clone(&self.lock_record())
    }

    /// Changes the facts in memory and returns them, to be written.
    pub(crate) fn change(&self, change: impl FnOnce(&mut SandboxRecord)) -> Arc<SandboxRecord> {
        let mut record = self.lock_record();
        let mut changed = SandboxRecord::clone(&record);
        change(&mut changed);
        *record = Arc::new(changed);
        Arc::clone(&record)
    }

    /// The connection to its shim, as long as there is one.
    pub(crate) fn shim(&self) -> Option<Arc<Shim>> {
        self.shim.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// It has a shim now.
    pub(crate) fn set_shim(&self, shim: Arc<Shim>) {
        *self.shim.lock().unwrap_or_else(PoisonError::into_inner) = Some(shim);
    }

    /// The shim is gone.
    pub(crate) fn drop_shim(&self) {
        self.shim.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn lock_record(&self) -> MutexGuard<'_, Arc<SandboxRecord>> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
