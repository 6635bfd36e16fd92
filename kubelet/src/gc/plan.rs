//! What goes: of each container name all dead ones but the newest, of each pod all dead sandboxes but the newest, and of a
//! pod that nobody knows everything that is dead.

use crate::pod::PodUid;
use crate::runtime::{ContainerState, RuntimePod};
use std::collections::BTreeSet;

/// Ids of what goes, in this order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Garbage {
    /// Dead containers.
    pub(super) containers: Vec<String>,
    /// Dead sandboxes without containers that stay.
    pub(super) sandboxes: Vec<String>,
}

/// What goes of these pods; `known` says whether there is such a pod on this node.
pub(super) fn garbage(pods: &[RuntimePod], known: impl Fn(&PodUid) -> bool) -> Garbage {
    let mut garbage = Garbage::default();
    for pod in pods {
        let keeps = known(&pod.uid);
        let (mut seen, mut ended) = (BTreeSet::new(), BTreeSet::new());
        let mut kept_sandboxes = BTreeSet::new();
        // Newest first.
        for container in &pod.observed.containers {
            let newest = seen.insert(&container.name);
            let goes = match container.state {
                ContainerState::Running { .. } => false,
                // One that was never started tells nothing once another one took its place.
                ContainerState::Created => !keeps || !newest,
                // The last that ended tells exit code and log, also beside one that runs.
                ContainerState::Exited(_) | ContainerState::Unknown => !ended.insert(&container.name) || !keeps,
            };
            if goes {
                garbage.containers.push(container.id.clone());
            } else {
                kept_sandboxes.insert(&container.sandbox_id);
            }
        }
        for (age, sandbox) in pod.observed.sandboxes.iter().enumerate() {
            let needed = sandbox.ready || kept_sandboxes.contains(&sandbox.id) || (keeps && age == 0);
            if !needed {
                garbage.sandboxes.push(sandbox.id.clone());
            }
        }
    }
    garbage
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::runtime as fake;
    use crate::runtime::{Container, Exit, ObservedPod, Sandbox};
    use jiff::Timestamp;

    fn container(id: &str, name: &str, sandbox: &str, state: ContainerState) -> Container {
        Container { sandbox_id: sandbox.into(), state, ..fake::container(id, name) }
    }

    fn dead() -> ContainerState {
        ContainerState::Exited(Exit {
            started_at: None,
            finished_at: Timestamp::UNIX_EPOCH,
            code: 0,
            reason: String::new(),
            message: String::new(),
        })
    }

    fn running() -> ContainerState {
        ContainerState::Running { started_at: Timestamp::UNIX_EPOCH }
    }

    #[track_caller]
    fn check(known: bool, sandboxes: &[(&str, bool)], containers: Vec<Container>, expected: (&[&str], &[&str])) {
        let sandboxes = sandboxes.iter().map(|(id, ready)| Sandbox { ready: *ready, ..fake::sandbox(id) }).collect();
        let pod = RuntimePod {
            uid: PodUid::parse("u").unwrap(),
            name: "p".into(),
            namespace: "n".into(),
            observed: ObservedPod { sandboxes, containers },
        };
        let garbage = garbage(&[pod], |_| known);
        let ids = |ids: &[&str]| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!((garbage.containers, garbage.sandboxes), (ids(expected.0), ids(expected.1)));
    }

    #[test]
    fn the_newest_dead_container_of_a_name_stays() {
        let containers = vec![
            container("web2", "web", "s", dead()),
            container("db1", "db", "s", dead()),
            container("web1", "web", "s", dead()),
            container("web0", "web", "s", dead()),
        ];
        check(true, &[("s", true)], containers, (&["web1", "web0"], &[]));
    }

    #[test]
    fn the_last_dead_container_stays_beside_one_that_runs() {
        let containers = vec![
            container("web2", "web", "s", running()),
            container("web1", "web", "s", dead()),
            container("web0", "web", "s", dead()),
        ];
        check(true, &[("s", true)], containers, (&["web0"], &[]));
    }

    #[test]
    fn nothing_that_is_dead_stays_of_a_pod_that_nobody_knows() {
        let containers = vec![container("web", "web", "s", dead()), container("db", "db", "t", running())];
        check(false, &[("s", false), ("t", true)], containers, (&["web"], &["s"]));
    }

    #[test]
    fn a_container_that_was_not_started_goes_when_another_one_took_its_place() {
        let containers =
            vec![container("web1", "web", "s", running()), container("web0", "web", "s", ContainerState::Created)];
        check(true, &[("s", true)], containers, (&["web0"], &[]));
        let alone = vec![container("web0", "web", "s", ContainerState::Created)];
        check(true, &[("s", true)], alone, (&[], &[]));
    }

    #[test]
    fn a_sandbox_stays_as_long_as_a_container_in_it() {
        let containers = vec![container("web", "web", "old", dead())];
        check(true, &[("new", true), ("old", false), ("older", false)], containers, (&[], &["older"]));
    }

    #[test]
    fn the_newest_sandbox_of_a_known_pod_stays_though_it_is_dead() {
        check(true, &[("new", false), ("old", false)], Vec::new(), (&[], &["old"]));
        check(false, &[("new", false), ("old", false)], Vec::new(), (&[], &["new", "old"]));
    }
}
