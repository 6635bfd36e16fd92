//! What was learnt of containers and sandboxes and holds until their state changes, so that a list of fifty pods in which
//! nothing happened costs two calls.

use crate::runtime::{Container, Sandbox};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Statuses by id, each with the state in which it was told.
#[derive(Debug, Default)]
pub(super) struct Known {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    containers: BTreeMap<String, (i32, Container)>,
    sandboxes: BTreeMap<String, (i32, Sandbox)>,
}

impl Known {
    /// A container, if it is still in the state in which it was told.
    pub(super) fn container(&self, id: &str, state: i32) -> Option<Container> {
        let known = self.lock();
        known.containers.get(id).filter(|(told, _)| *told == state).map(|(_, container)| container.clone())
    }

    /// A container as it was told in this state. One in an unknown state is asked for again.
    pub(super) fn learn_container(&self, state: i32, container: &Container) {
        if state != proto::ContainerState::ContainerUnknown as i32 {
            self.lock().containers.insert(container.id.clone(), (state, container.clone()));
        }
    }

    /// A sandbox, likewise.
    pub(super) fn sandbox(&self, id: &str, state: i32) -> Option<Sandbox> {
        let known = self.lock();
        known.sandboxes.get(id).filter(|(told, _)| *told == state).map(|(_, sandbox)| sandbox.clone())
    }

    /// A sandbox as it was told in this state. A ready one that has no address yet is asked for again.
    pub(super) fn learn_sandbox(&self, state: i32, sandbox: &Sandbox) {
        if !sandbox.ready || sandbox.host_network || !sandbox.ips.is_empty() {
            self.lock().sandboxes.insert(sandbox.id.clone(), (state, sandbox.clone()));
        }
    }

    /// Forgets what a complete list does not have.
    pub(super) fn keep(&self, sandboxes: &BTreeSet<&str>, containers: &BTreeSet<&str>) {
        let mut known = self.lock();
        known.sandboxes.retain(|id, _| sandboxes.contains(id.as_str()));
        known.containers.retain(|id, _| containers.contains(id.as_str()));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
