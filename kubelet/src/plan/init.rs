//! Init containers and sidecars: which is next, which has to be started again.

use super::containers::Wanted;
use super::{Failed, Pass, restarts_on_failure};
use crate::pod::Role;
use crate::runtime::{Container, ContainerState};

/// How far a pod's initialization is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// An init container still has to run.
    Underway,
    /// All have run; sidecars are started.
    Done,
    /// One failed, and nothing is started again.
    Failed,
}

/// What one init container means for the others.
struct Step {
    /// It has been started once: those before it are done.
    seen: bool,
    /// It is done, or a sidecar that is started: the next one may start.
    passed: bool,
}

impl Pass<'_> {
    /// Looks at the init containers from the last to the first: finished ones may have been removed meanwhile, so that
    /// the last one with a trace says how far the pod is.
    pub(super) fn init<'a>(&'a self, wanted: &mut Wanted<'a>) -> Progress {
        let all: Vec<(Role, &str)> = self
            .desired
            .pod
            .containers()
            .filter(|(role, _)| *role != Role::Regular)
            .map(|(role, container)| (role, container.name.as_str()))
            .collect();
        let mut done = all.is_empty() || self.regular_was_made();
        let mut later_seen = done;
        let mut start = Vec::new();
        for (index, (role, name)) in all.iter().enumerate().rev() {
            let newest = self.newest(name);
            let sidecar = *role == Role::Sidecar;
            let Some(container) = newest else {
                // A sidecar that was started once and has no trace any more is missing.
                if later_seen && sidecar {
                    start.push(index);
                }
                continue;
            };
            if later_seen && !sidecar {
                continue;
            }
            let Some(step) = self.init_container(container, sidecar, index, wanted, &mut start) else {
                return Progress::Failed;
            };
            if step.passed && index + 1 == all.len() {
                done = true;
            } else if step.passed && !later_seen {
                start.push(index + 1);
            }
            later_seen |= step.seen;
        }
        if !later_seen {
            start.push(0);
        }
        start.sort_unstable();
        start.dedup();
        wanted.start.extend(start.into_iter().map(|index| all[index]));
        if done { Progress::Done } else { Progress::Underway }
    }

    /// One container with a trace; `None` if the pod failed with it.
    fn init_container<'a>(
        &'a self,
        container: &Container,
        sidecar: bool,
        index: usize,
        wanted: &mut Wanted<'a>,
        start: &mut Vec<usize>,
    ) -> Option<Step> {
        let name = &container.name;
        let mut restart = |kill: Option<super::Kill>| {
            wanted.kill.extend(kill);
            start.push(index);
        };
        let mut passed = false;
        match &container.state {
            // It was made and not started: making it again is all that helps.
            ContainerState::Created => restart(None),
            ContainerState::Running { .. } if !sidecar => {}
            ContainerState::Running { .. } => {
                let verdict = (self.desired.verdict)(&container.id);
                match verdict.failed {
                    Some((Failed::Startup, grace)) => {
                        restart(Some(self.kill(
                            container,
                            format!("Init container {name} failed startup probe"),
                            grace,
                        )));
                    }
                    _ if !verdict.started => {}
                    _ if self.changed(container) => {
                        passed = true;
                        restart(Some(self.kill(container, format!("Init container {name} definition changed"), None)));
                    }
                    Some((Failed::Liveness, grace)) => {
                        passed = true;
                        restart(Some(self.kill(
                            container,
                            format!("Init container {name} failed liveness probe"),
                            grace,
                        )));
                    }
                    None => passed = true,
                }
            }
            ContainerState::Exited(_) if sidecar => restart(None),
            ContainerState::Exited(exit) if exit.code == 0 => passed = true,
            ContainerState::Exited(_) | ContainerState::Unknown
                if !sidecar && !restarts_on_failure(self.desired.pod) =>
            {
                return None;
            }
            ContainerState::Exited(_) => restart(None),
            ContainerState::Unknown => {
                let message = "Init container is in \"unknown\" state, try killing it before restart".to_owned();
                restart(Some(self.kill(container, message, None)));
            }
        }
        Some(Step { seen: true, passed })
    }

    /// Whether a regular container was made in the present sandbox: initialization is behind the pod, whatever is left
    /// of the init containers. Those of an earlier sandbox say nothing, whatever their state.
    fn regular_was_made(&self) -> bool {
        let regular = |name: &str| self.desired.pod.spec().containers.iter().any(|container| container.name == name);
        let mut here = self.observed.containers.iter().filter(|container| container.sandbox_id == self.sandbox);
        here.any(|container| regular(&container.name))
    }
}
