//! What the list shows, from what the CRI and the kubelet say.

use super::Sample;
use crate::local;
use cri::client::{ListedContainer, ListedPod};
use serde::Serialize;
use std::collections::HashMap;

/// A pod.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Pod {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    /// The kubelet's phase or reason; the sandbox's state where no kubelet answers.
    pub(super) state: String,
    /// `None` where no kubelet answers.
    pub(super) ready: Option<bool>,
    pub(super) restarts: u32,
    /// Thousandths of a core.
    pub(super) cpu_millis: Option<u64>,
    pub(super) memory_bytes: Option<u64>,
    /// Seconds; `None` where there is no sandbox.
    pub(super) age: Option<u64>,
    pub(super) ip: Option<String>,
    pub(super) containers: Vec<Container>,
}

/// A container: its latest instance.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Container {
    pub(super) name: String,
    pub(super) id: Option<String>,
    pub(super) state: String,
    pub(super) ready: Option<bool>,
    pub(super) restarts: u32,
    pub(super) cpu_millis: Option<u64>,
    pub(super) memory_bytes: Option<u64>,
    pub(super) age: Option<u64>,
}

/// The pods, by namespace and name. `known` is what the kubelet says, if one answers; `now` is in nanoseconds.
pub(super) fn pods(running: &[ListedPod], known: Option<&[local::Pod]>, before: &Sample, now: i64) -> Vec<Pod> {
    let mut latest: HashMap<&str, &ListedPod> = HashMap::new();
    for pod in running {
        let newest = latest.entry(&pod.uid).or_insert(pod);
        if (pod.attempt, pod.created_at) > (newest.attempt, newest.created_at) {
            *newest = pod;
        }
    }
    let now = Moment { before, now };
    let told = known.unwrap_or_default();
    let mut pods: Vec<Pod> =
        told.iter().map(|pod| told_pod(pod, latest.remove(pod.metadata.uid.as_str()), &now)).collect();
    pods.extend(latest.into_values().map(|sandbox| bare_pod(sandbox, &now)));
    pods.sort_by(|a, b| (&a.namespace, &a.name, &a.uid).cmp(&(&b.namespace, &b.name, &b.uid)));
    pods
}

struct Moment<'a> {
    before: &'a Sample,
    now: i64,
}

impl Moment<'_> {
    fn age(&self, created_at: i64) -> Option<u64> {
        u64::try_from(self.now.saturating_sub(created_at) / 1_000_000_000).ok()
    }

    fn cpu_millis(&self, container: &ListedContainer) -> Option<u64> {
        let usage = container.usage?;
        let (at, cpu_ns) = self.before.get(&container.id)?;
        let elapsed = u64::try_from(usage.at - at).ok().filter(|elapsed| *elapsed > 0)?;
        Some(usage.cpu_ns.saturating_sub(*cpu_ns).saturating_mul(1000) / elapsed)
    }
}

fn told_pod(pod: &local::Pod, sandbox: Option<&ListedPod>, now: &Moment<'_>) -> Pod {
    let statuses = pod.status.init_container_statuses.iter().chain(&pod.status.container_statuses);
    let statuses: HashMap<&str, &local::ContainerStatus> =
        statuses.map(|status| (status.name.as_str(), status)).collect();
    let names = pod.spec.init_containers.iter().chain(&pod.spec.containers).map(|container| container.name.as_str());
    let containers: Vec<Container> =
        names.map(|name| container(name, statuses.get(name).copied(), instance(sandbox, name), now)).collect();
    let state = match (&pod.metadata.deletion_timestamp, &pod.status.reason) {
        (Some(_), _) => "Terminating".to_owned(),
        (None, Some(reason)) => reason.clone(),
        (None, None) => pod.status.phase.clone(),
    };
    Pod {
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        state,
        ready: Some(pod.is_ready()),
        age: sandbox.and_then(|sandbox| now.age(sandbox.created_at)),
        ip: pod.status.pod_ip.clone(),
        ..sums(containers)
    }
}

fn bare_pod(sandbox: &ListedPod, now: &Moment<'_>) -> Pod {
    let mut names: Vec<&str> = Vec::new();
    for container in &sandbox.containers {
        if !names.contains(&container.name.as_str()) {
            names.push(&container.name);
        }
    }
    let containers = names.into_iter().map(|name| container(name, None, instance(Some(sandbox), name), now)).collect();
    Pod {
        namespace: sandbox.namespace.clone(),
        name: sandbox.name.clone(),
        uid: sandbox.uid.clone(),
        state: if sandbox.alive { "Up" } else { "Stopped" }.to_owned(),
        ready: None,
        age: now.age(sandbox.created_at),
        ip: None,
        ..sums(containers)
    }
}

/// A pod's totals; its own words come from the caller.
fn sums(containers: Vec<Container>) -> Pod {
    let sum = |of: fn(&Container) -> Option<u64>| {
        containers.iter().filter_map(of).reduce(|total, part| total.saturating_add(part))
    };
    Pod {
        namespace: String::new(),
        name: String::new(),
        uid: String::new(),
        state: String::new(),
        ready: None,
        restarts: containers.iter().map(|container| container.restarts).sum(),
        cpu_millis: sum(|container| container.cpu_millis),
        memory_bytes: sum(|container| container.memory_bytes),
        age: None,
        ip: None,
        containers,
    }
}

/// The last instance of a container.
fn instance<'a>(sandbox: Option<&'a ListedPod>, name: &str) -> Option<&'a ListedContainer> {
    let instances = sandbox?.containers.iter().filter(|container| container.name == name);
    instances.max_by_key(|container| (container.attempt, container.created_at))
}

fn container(
    name: &str,
    status: Option<&local::ContainerStatus>,
    instance: Option<&ListedContainer>,
    now: &Moment<'_>,
) -> Container {
    let stopped = status.and_then(|status| status.state.waiting.as_ref().or(status.state.terminated.as_ref()));
    let state = match (stopped.and_then(|stopped| stopped.reason.clone()), instance) {
        (Some(reason), _) => reason,
        (None, Some(instance)) => word(instance.state).to_owned(),
        (None, None) => "Waiting".to_owned(),
    };
    Container {
        name: name.to_owned(),
        id: instance.map(|instance| instance.id.clone()),
        state,
        ready: status.map(|status| status.ready),
        restarts: status.map_or_else(|| instance.map_or(0, |instance| instance.attempt), |status| status.restart_count),
        cpu_millis: instance.and_then(|instance| now.cpu_millis(instance)),
        memory_bytes: instance.and_then(|instance| instance.usage).map(|usage| usage.memory),
        age: instance.and_then(|instance| now.age(instance.created_at)),
    }
}

fn word(state: cri::client::ContainerState) -> &'static str {
    use cri::client::ContainerState;
    match state {
        ContainerState::ContainerCreated => "Created",
        ContainerState::ContainerRunning => "Running",
        ContainerState::ContainerExited => "Exited",
        ContainerState::ContainerUnknown => "Unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cri::client::{ContainerState, Usage};

    const SECOND: i64 = 1_000_000_000;

    fn instance(name: &str, attempt: u32, state: ContainerState, usage: Option<Usage>) -> ListedContainer {
        let id = format!("{name}-{attempt}");
        ListedContainer { id, name: name.into(), attempt, state, created_at: i64::from(attempt) * SECOND, usage }
    }

    fn sandbox(uid: &str, attempt: u32, containers: Vec<ListedContainer>) -> ListedPod {
        ListedPod {
            id: format!("{uid}-{attempt}"),
            name: "web".into(),
            namespace: "default".into(),
            uid: uid.into(),
            attempt,
            alive: true,
            created_at: 10 * SECOND,
            containers,
        }
    }

    fn told(json: serde_json::Value) -> local::Pod {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn without_a_kubelet_the_list_is_the_runtimes_and_readiness_is_unknown() {
        let usage = Usage { at: 12 * SECOND, cpu_ns: 700_000_000, memory: 5 };
        let running = [sandbox(
            "u",
            0,
            vec![
                instance("a", 0, ContainerState::ContainerExited, None),
                instance("a", 1, ContainerState::ContainerRunning, Some(usage)),
            ],
        )];
        let before = Sample::from([("a-1".to_owned(), (11 * SECOND, 200_000_000))]);
        let pods = pods(&running, None, &before, 15 * SECOND);
        let [pod] = &pods[..] else { panic!("{pods:?}") };
        assert_eq!((pod.state.as_str(), pod.ready, pod.restarts, pod.age), ("Up", None, 1, Some(5)));
        assert_eq!((pod.cpu_millis, pod.memory_bytes), (Some(500), Some(5)));
        assert_eq!(pod.containers.len(), 1);
        assert_eq!(pod.containers[0].state, "Running");
    }

    #[test]
    fn the_kubelet_says_what_is_ready_and_what_waits() {
        let pod = told(serde_json::json!({
            "metadata": {"name": "web", "namespace": "default", "uid": "u"},
            "spec": {"containers": [{"name": "a"}, {"name": "b"}]},
            "status": {
                "phase": "Pending", "podIP": "10.0.0.2",
                "conditions": [{"type": "Ready", "status": "False"}],
                "containerStatuses": [
                    {"name": "a", "ready": true, "restartCount": 3, "state": {"running": {}}},
                    {"name": "b", "state": {"waiting": {"reason": "ImagePullBackOff"}}},
                ],
            },
        }));
        let running = [sandbox("u", 0, vec![instance("a", 3, ContainerState::ContainerRunning, None)])];
        let pods = pods(&running, Some(&[pod]), &Sample::new(), 15 * SECOND);
        let [pod] = &pods[..] else { panic!("{pods:?}") };
        assert_eq!((pod.state.as_str(), pod.ready, pod.restarts), ("Pending", Some(false), 3));
        let states: Vec<_> =
            pod.containers.iter().map(|container| (container.state.as_str(), container.ready)).collect();
        assert_eq!(states, [("Running", Some(true)), ("ImagePullBackOff", Some(false))]);
    }

    #[test]
    fn an_old_sandbox_of_a_pod_is_not_a_pod_of_its_own() {
        let running = [sandbox("u", 0, Vec::new()), sandbox("u", 1, Vec::new()), sandbox("v", 0, Vec::new())];
        assert_eq!(pods(&running, None, &Sample::new(), 15 * SECOND).len(), 2);
    }
}
