//! Regular containers: which are kept, killed, started.

use super::{Failed, Kill, Pass, restarts_on_failure};
use crate::pod::Role;
use crate::runtime::{Container, ContainerState, Exit};

/// What a pass over the containers found.
#[derive(Debug, Default)]
pub(super) struct Wanted<'a> {
    /// To stop, at the same time.
    pub(super) kill: Vec<Kill>,
    /// To start, in this order.
    pub(super) start: Vec<(Role, &'a str)>,
}

impl Pass<'_> {
    /// Whether every regular container ran and none is started again.
    pub(super) fn all_ended(&self) -> bool {
        self.desired.pod.spec().containers.iter().all(|container| {
            let newest = self.newest(&container.name).map(|newest| &newest.state);
            matches!(newest, Some(ContainerState::Exited(exit)) if !self.restarts_after(exit))
        })
    }

    /// What the restart policy says of an end.
    fn restarts_after(&self, exit: &Exit) -> bool {
        match self.desired.pod.spec().restart_policy.as_deref() {
            Some("Never") => false,
            Some("OnFailure") => exit.code != 0,
            _ => true,
        }
    }

    /// Looks at the regular containers.
    pub(super) fn regular<'a>(&'a self, wanted: &mut Wanted<'a>) {
        for container in &self.desired.pod.spec().containers {
            self.regular_container(&container.name, wanted);
        }
    }

    fn regular_container<'a>(&'a self, name: &'a str, wanted: &mut Wanted<'a>) {
        let newest = self.newest(name);
        let start = match newest.map(|newest| (newest, &newest.state)) {
            None | Some((_, ContainerState::Created)) => true,
            Some((running, ContainerState::Running { .. })) => self.running_container(running, name, wanted),
            Some((_, ContainerState::Exited(exit))) => self.restarts_after(exit),
            Some((unknown, ContainerState::Unknown)) => {
                let message = "Container is in \"unknown\" state, try killing it before restart".to_owned();
                wanted.kill.push(self.kill(unknown, message, None));
                true
            }
        };
        if start {
            wanted.start.push((Role::Regular, name));
        }
    }

    /// Kills a running container that is not to be kept; whether another one is started in its place.
    fn running_container(&self, running: &Container, name: &str, wanted: &mut Wanted<'_>) -> bool {
        let restarts = restarts_on_failure(self.desired.pod);
        let (why, grace, restart) = if self.changed(running) {
            // Another container is wanted, whatever the policy says of this one's end.
            ("definition changed", None, true)
        } else {
            match (self.desired.verdict)(&running.id).failed {
                None => return false,
                Some((Failed::Liveness, grace)) => ("failed liveness probe", grace, restarts),
                Some((Failed::Startup, grace)) => ("failed startup probe", grace, restarts),
            }
        };
        let promise = if restart { ", will be restarted" } else { "" };
        wanted.kill.push(self.kill(running, format!("Container {name} {why}{promise}"), grace));
        restart
    }
}
