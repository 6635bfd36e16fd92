//! What a list's filter lets through: all its conditions, an id by a beginning of it.

use crate::container::{ContainerRecord, Life};
use crate::sandbox::SandboxRecord;
use crate::status;
use proto::{ContainerFilter, ContainerStatsFilter, PodSandboxFilter, PodSandboxState, PodSandboxStatsFilter};
use std::collections::BTreeMap;

type Labels = BTreeMap<String, String>;

fn id(wanted: &str, id: &str) -> bool {
    id.starts_with(wanted)
}

fn labels(wanted: &Labels, labels: &Labels) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

pub(crate) fn sandbox(filter: Option<&PodSandboxFilter>, record: &SandboxRecord, state: PodSandboxState) -> bool {
    let Some(filter) = filter else { return true };
    id(&filter.id, &record.id)
        && filter.state.is_none_or(|wanted| wanted.state() == state)
        && labels(&filter.label_selector, &record.config.labels)
}

pub(crate) fn sandbox_stats(filter: Option<&PodSandboxStatsFilter>, record: &SandboxRecord) -> bool {
    let Some(filter) = filter else { return true };
    id(&filter.id, &record.id) && labels(&filter.label_selector, &record.config.labels)
}

pub(crate) fn container(filter: Option<&ContainerFilter>, record: &ContainerRecord, life: &Life) -> bool {
    let Some(filter) = filter else { return true };
    id(&filter.id, &record.id)
        && id(&filter.pod_sandbox_id, &record.sandbox)
        && filter.state.is_none_or(|wanted| wanted.state() == status::container_state(life))
        && labels(&filter.label_selector, &record.config.labels)
}

pub(crate) fn container_stats(filter: Option<&ContainerStatsFilter>, record: &ContainerRecord) -> bool {
    let Some(filter) = filter else { return true };
    id(&filter.id, &record.id)
        && id(&filter.pod_sandbox_id, &record.sandbox)
        && labels(&filter.label_selector, &record.config.labels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::tests::record;
    use proto::{ContainerState, ContainerStateValue};
    use shim_protocol::Process;

    #[test]
    fn all_conditions_must_hold() {
        let mut web = record("abc");
        web.config.labels = [("app".to_owned(), "web".to_owned()), ("tier".to_owned(), "1".to_owned())].into();
        let life = Life::Running(Process { pid: 1, start_time: 1 });
        let filter =
            |id: &str, sandbox: &str, state: Option<ContainerState>, label: Option<(&str, &str)>| ContainerFilter {
                id: id.into(),
                pod_sandbox_id: sandbox.into(),
                state: state.map(|state| ContainerStateValue { state: state.into() }),
                label_selector: label.map(|(key, value)| (key.into(), value.into())).into_iter().collect(),
            };
        use ContainerState::{ContainerCreated, ContainerRunning};
        for (filter, want) in [
            (filter("", "", None, None), true),
            (filter("ab", "po", Some(ContainerRunning), Some(("app", "web"))), true),
            (filter("b", "", None, None), false),
            (filter("", "other", None, None), false),
            (filter("", "", Some(ContainerCreated), None), false),
            (filter("", "", None, Some(("app", "db"))), false),
            (filter("", "", None, Some(("none", ""))), false),
        ] {
            assert_eq!(container(Some(&filter), &web, &life), want, "{filter:?}");
        }
        assert!(container(None, &web, &life));
    }
}
