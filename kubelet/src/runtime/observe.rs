//! From what the CRI lists and tells to what the kubelet observes. Pure.

use super::{Container, ContainerState, Exit, ObservedPod, RuntimePod, Sandbox, TerminationMessage, keys};
use crate::pod::PodUid;
use jiff::Timestamp;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// The status reason of a container that could not be started: it can't have said anything.
const CANNOT_RUN: &str = "ContainerCannotRun";

/// A sandbox: the list's entry, and what `PodSandboxStatus` adds.
pub(super) fn sandbox(listed: &proto::PodSandbox, status: Option<&proto::PodSandboxStatus>) -> Sandbox {
    let network = status.and_then(|status| status.network.as_ref());
    let addresses = network.into_iter().flat_map(|network| {
        let more = network.additional_ips.iter().map(|ip| &ip.ip);
        std::iter::once(&network.ip).chain(more)
    });
    let options = status.and_then(|status| status.linux.as_ref()?.namespaces.as_ref()?.options.as_ref());
    Sandbox {
        id: listed.id.clone(),
        attempt: listed.metadata.as_ref().map_or(0, |metadata| metadata.attempt),
        created_at: moment(listed.created_at).unwrap_or(Timestamp::UNIX_EPOCH),
        ready: listed.state() == proto::PodSandboxState::SandboxReady,
        ips: addresses.filter_map(|ip| ip.parse().ok()).collect(),
        host_network: options.is_some_and(|options| options.network() == proto::NamespaceMode::Node),
    }
}

/// A container: the list's entry, and what `ContainerStatus` adds.
pub(super) fn container(listed: &proto::Container, status: &proto::ContainerStatus) -> Container {
    let annotation = |key: &str| status.annotations.get(key).map(String::as_str);
    Container {
        id: status.id.clone(),
        sandbox_id: listed.pod_sandbox_id.clone(),
        name: name(status),
        restart_count: annotation(keys::RESTART_COUNT).and_then(|count| count.parse().ok()).unwrap_or(0),
        hash: annotation(keys::CONTAINER_HASH).unwrap_or_default().to_owned(),
        image: status.image.as_ref().map(|image| image.image.clone()).unwrap_or_default(),
        image_ref: status.image_ref.clone(),
        // Older runtimes tell the reference alone.
        image_id: if status.image_id.is_empty() { status.image_ref.clone() } else { status.image_id.clone() },
        created_at: moment(status.created_at).unwrap_or(Timestamp::UNIX_EPOCH),
        state: state(status),
        log_path: status.log_path.clone(),
        termination_message: termination_message(status),
        user: status.user.clone(),
        resources: status.resources.as_ref().and_then(|resources| resources.linux.clone()),
        mounts: status.mounts.clone(),
        grace_period: annotation(keys::GRACE_PERIOD).and_then(|seconds| seconds.parse().ok()),
    }
}

/// The name in the label: the one in the metadata is the runtime's business.
fn name(status: &proto::ContainerStatus) -> String {
    let metadata = || status.metadata.as_ref().map(|metadata| metadata.name.clone());
    status.labels.get(keys::CONTAINER_NAME).cloned().or_else(metadata).unwrap_or_default()
}

fn state(status: &proto::ContainerStatus) -> ContainerState {
    match status.state() {
        proto::ContainerState::ContainerCreated => ContainerState::Created,
        proto::ContainerState::ContainerRunning => ContainerState::Running {
            started_at: moment(status.started_at)
                .or_else(|| moment(status.created_at))
                .unwrap_or(Timestamp::UNIX_EPOCH),
        },
        proto::ContainerState::ContainerExited => ContainerState::Exited(Exit {
            started_at: moment(status.started_at),
            finished_at: moment(status.finished_at).unwrap_or(Timestamp::UNIX_EPOCH),
            code: status.exit_code,
            reason: status.reason.clone(),
            message: status.message.clone(),
        }),
        proto::ContainerState::ContainerUnknown => ContainerState::Unknown,
    }
}

/// Where the last words are: the file mounted at the annotated path.
fn termination_message(status: &proto::ContainerStatus) -> Option<TerminationMessage> {
    let path = status.annotations.get(keys::TERMINATION_MESSAGE_PATH).filter(|path| !path.is_empty());
    let file = path.and_then(|path| status.mounts.iter().find(|mount| mount.container_path == *path));
    let policy = status.annotations.get(keys::TERMINATION_MESSAGE_POLICY).map(String::as_str);
    let fallback_to_logs =
        policy == Some("FallbackToLogsOnError") && status.exit_code != 0 && status.reason != CANNOT_RUN;
    if file.is_none() && !fallback_to_logs {
        return None;
    }
    Some(TerminationMessage {
        host_path: file.map(|mount| mount.host_path.clone()).unwrap_or_default(),
        fallback_to_logs,
    })
}

/// Nanoseconds since 1970; 0 is the CRI's way to say that it did not happen.
fn moment(nanoseconds: i64) -> Option<Timestamp> {
    (nanoseconds != 0).then(|| Timestamp::from_nanosecond(nanoseconds.into()).ok()).flatten()
}

/// Newest first, as [`ObservedPod`] promises. Containers of one moment are ordered by their restart count.
pub(super) fn pod(mut sandboxes: Vec<Sandbox>, mut containers: Vec<Container>) -> ObservedPod {
    sandboxes.sort_by_key(|sandbox| Reverse((sandbox.created_at, sandbox.attempt)));
    containers.sort_by_key(|container| Reverse((container.created_at, container.restart_count)));
    ObservedPod { sandboxes, containers }
}

/// Whose something is, by its labels; `None` for what no kubelet has made.
pub(super) fn owner(labels: &BTreeMap<String, String>) -> Option<PodUid> {
    PodUid::parse(labels.get(keys::POD_UID)?).ok()
}

/// Puts together what belongs to one pod.
pub(super) fn group(
    sandboxes: Vec<(BTreeMap<String, String>, Sandbox)>,
    containers: Vec<(BTreeMap<String, String>, Container)>,
) -> Vec<RuntimePod> {
    #[derive(Default)]
    struct Parts {
        name: String,
        namespace: String,
        sandboxes: Vec<Sandbox>,
        containers: Vec<Container>,
    }
    let mut pods: BTreeMap<PodUid, Parts> = BTreeMap::new();
    let mut parts_of = |labels: &BTreeMap<String, String>, add: &mut dyn FnMut(&mut Parts)| {
        let Some(uid) = owner(labels) else { return };
        let parts = pods.entry(uid).or_default();
        let label = |key| labels.get(key).cloned().unwrap_or_default();
        parts.name = label(keys::POD_NAME);
        parts.namespace = label(keys::POD_NAMESPACE);
        add(parts);
    };
    for (labels, sandbox) in sandboxes {
        parts_of(&labels, &mut |parts| parts.sandboxes.push(sandbox.clone()));
    }
    for (labels, container) in containers {
        parts_of(&labels, &mut |parts| parts.containers.push(container.clone()));
    }
    let whole = |(uid, parts): (PodUid, Parts)| RuntimePod {
        uid,
        name: parts.name,
        namespace: parts.namespace,
        observed: pod(parts.sandboxes, parts.containers),
    };
    pods.into_iter().map(whole).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(state: proto::ContainerState) -> (proto::Container, proto::ContainerStatus) {
        let labels: BTreeMap<_, _> = [(keys::CONTAINER_NAME, "web"), (keys::POD_UID, "u-1")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        let listed = proto::Container {
            id: "c1".into(),
            pod_sandbox_id: "s1".into(),
            state: state.into(),
            created_at: 5,
            labels: labels.clone(),
            ..Default::default()
        };
        let status = proto::ContainerStatus {
            id: "c1".into(),
            state: state.into(),
            created_at: 5,
            labels,
            annotations: [(keys::RESTART_COUNT, "3"), (keys::CONTAINER_HASH, "ab"), (keys::GRACE_PERIOD, "7")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            image_ref: "sha256:1".into(),
            ..Default::default()
        };
        (listed, status)
    }

    fn at(nanoseconds: i128) -> Timestamp {
        Timestamp::from_nanosecond(nanoseconds).unwrap()
    }

    #[test]
    fn a_containers_identity_comes_from_labels_and_annotations() {
        let (list, status) = listed(proto::ContainerState::ContainerCreated);
        let container = container(&list, &status);
        assert_eq!((container.name.as_str(), container.sandbox_id.as_str()), ("web", "s1"));
        assert_eq!((container.restart_count, container.hash.as_str(), container.grace_period), (3, "ab", Some(7)));
        assert_eq!(container.image_id, "sha256:1", "an older runtime tells the reference alone");
        assert_eq!(container.state, ContainerState::Created);
    }

    #[test]
    fn a_container_that_never_started_has_no_start() {
        let (list, mut status) = listed(proto::ContainerState::ContainerExited);
        status.finished_at = 9;
        status.exit_code = 128;
        status.reason = "StartError".into();
        let ContainerState::Exited(exit) = container(&list, &status).state else { panic!("not exited") };
        assert_eq!((exit.started_at, exit.finished_at, exit.code), (None, at(9), 128));
    }

    #[test]
    fn last_words_are_in_the_file_mounted_at_the_annotated_path() {
        let (list, mut status) = listed(proto::ContainerState::ContainerExited);
        status.annotations.insert(keys::TERMINATION_MESSAGE_PATH.into(), "/dev/termination-log".into());
        status.mounts = vec![proto::Mount {
            container_path: "/dev/termination-log".into(),
            host_path: "/root/f".into(),
            ..Default::default()
        }];
        let message = container(&list, &status).termination_message.unwrap();
        assert_eq!(message, TerminationMessage { host_path: "/root/f".into(), fallback_to_logs: false });
    }

    #[test]
    fn logs_stand_in_for_last_words_only_after_a_failure_that_could_have_spoken() {
        for (code, reason, expected) in [(1, "Error", true), (0, "Completed", false), (128, CANNOT_RUN, false)] {
            let (list, mut status) = listed(proto::ContainerState::ContainerExited);
            status.annotations.insert(keys::TERMINATION_MESSAGE_POLICY.into(), "FallbackToLogsOnError".into());
            status.exit_code = code;
            status.reason = reason.into();
            let message = container(&list, &status).termination_message;
            assert_eq!(message.is_some_and(|message| message.fallback_to_logs), expected, "{reason}");
        }
    }

    #[test]
    fn a_sandbox_has_all_its_addresses_and_knows_the_hosts_network() {
        let listed = proto::PodSandbox {
            id: "s1".into(),
            metadata: Some(proto::PodSandboxMetadata { attempt: 2, ..Default::default() }),
            ..Default::default()
        };
        let status = proto::PodSandboxStatus {
            network: Some(proto::PodSandboxNetworkStatus {
                ip: "10.0.0.2".into(),
                additional_ips: vec![proto::PodIp { ip: "fd00::2".into() }],
            }),
            linux: Some(proto::LinuxPodSandboxStatus {
                namespaces: Some(proto::Namespace {
                    options: Some(proto::NamespaceOption {
                        network: proto::NamespaceMode::Node.into(),
                        ..Default::default()
                    }),
                }),
            }),
            ..Default::default()
        };
        let sandbox = sandbox(&listed, Some(&status));
        assert_eq!(sandbox.ips.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.2", "fd00::2"]);
        assert!(sandbox.host_network && sandbox.ready && sandbox.attempt == 2);
    }

    #[test]
    fn what_no_kubelet_made_belongs_to_no_pod() {
        let (list, status) = listed(proto::ContainerState::ContainerRunning);
        let ours = container(&list, &status);
        let pods = group(Vec::new(), vec![(BTreeMap::new(), ours.clone()), (list.labels, ours)]);
        assert_eq!(pods.len(), 1);
        assert_eq!((pods[0].uid.as_str(), pods[0].observed.containers.len()), ("u-1", 1));
    }

    #[test]
    fn the_newest_comes_first() {
        let (list, status) = listed(proto::ContainerState::ContainerExited);
        let old = container(&list, &status);
        let new = Container { created_at: at(9), id: "c2".into(), ..old.clone() };
        let same_moment = Container { restart_count: 4, id: "c3".into(), ..old.clone() };
        let observed = pod(Vec::new(), vec![old, new, same_moment]);
        assert_eq!(observed.containers.iter().map(|c| c.id.as_str()).collect::<Vec<_>>(), ["c2", "c3", "c1"]);
    }
}
