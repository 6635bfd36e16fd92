//! What the volumes of pods hold. Counting walks their trees, which a pod may have made large and which may lie on a file
//! system that hangs: it is done in a task of its own, at most every [`PAUSE`] and never for more than a tenth of the
//! time, and whoever asks gets what was counted last.

use super::build;
use crate::pod::PodUid;
use crate::volumes::{PodUsage, Volumes};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// The shortest time between the end of a walk and the next.
const PAUSE: Duration = Duration::from_secs(10);
/// How long somebody who asks waits for a walk to end.
const PATIENCE: Duration = Duration::from_millis(500);

/// The volumes of all pods, counted.
pub(super) struct Disks {
    volumes: Volumes,
    counted: Arc<Mutex<BTreeMap<PodUid, Arc<PodUsage>>>>,
    state: watch::Sender<Walk>,
}

/// What the walker does.
#[derive(Debug, Clone, Copy)]
enum Walk {
    Under,
    /// It may begin again from then on; `None` at once.
    Idle(Option<Instant>),
}

impl Disks {
    pub(super) fn new(volumes: Volumes) -> Disks {
        Disks { volumes, counted: Arc::default(), state: watch::Sender::new(Walk::Idle(None)) }
    }

    /// What was counted of these pods; starts counting anew if that was a while ago.
    pub(super) async fn of(&self, pods: Vec<PodUid>) -> build::Disks {
        self.begin(pods);
        let mut state = self.state.subscribe();
        let idle = state.wait_for(|state| matches!(state, Walk::Idle(_)));
        let _ = tokio::time::timeout(PATIENCE, idle).await;
        self.counted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn begin(&self, pods: Vec<PodUid>) {
        let begun = self.state.send_if_modified(|state| match *state {
            Walk::Idle(not_before) if not_before.is_none_or(|then| Instant::now() >= then) => {
                *state = Walk::Under;
                true
            }
            _ => false,
        });
        if begun {
            let (volumes, counted, state) = (self.volumes.clone(), Arc::clone(&self.counted), self.state.clone());
            tokio::spawn(async move {
                let began = Instant::now();
                walk(&volumes, &pods, &counted).await;
                let pause = PAUSE.max(began.elapsed() * 10);
                state.send_replace(Walk::Idle(Some(Instant::now() + pause)));
            });
        }
    }
}

async fn walk(volumes: &Volumes, pods: &[PodUid], counted: &Mutex<BTreeMap<PodUid, Arc<PodUsage>>>) {
    counted.lock().unwrap_or_else(PoisonError::into_inner).retain(|uid, _| pods.contains(uid));
    for uid in pods {
        match volumes.usage(uid).await {
            Ok(usage) => {
                counted.lock().unwrap_or_else(PoisonError::into_inner).insert(uid.clone(), Arc::new(usage));
            }
            // The pod may just be going; what was counted before stays until it has.
            Err(error) => tracing::debug!(pod = %uid, error = &error as &dyn std::error::Error, "volumes not counted"),
        }
    }
}
