//! Phases, conditions and container statuses.

use super::*;
use crate::pod::Source;
use crate::probes::State;
use crate::runtime::{Container, Exit, Sandbox};
use serde_json::{Value, json};
use std::sync::Arc;

/// What a status is made of, in words.
///
/// A run is `name#restarts state`, newest first: `c running`, `c#1 exited 137 OOMKilled`, `c created`, `c unknown`.
#[derive(Clone, Default)]
struct Scene {
    spec: Value,
    meta: Value,
    source: Option<Source>,
    /// The status of the object.
    api: Value,
    /// The status that was generated before, if it is another.
    previous: Option<Value>,
    runs: &'static [&'static str],
    /// No sandbox at all, or one that is not ready.
    sandbox: Option<&'static str>,
    notes: &'static [(&'static str, &'static str)],
    /// Containers whose probes have not succeeded yet.
    unready: &'static [&'static str],
    unstarted: &'static [&'static str],
    termination: Option<Termination>,
    words: &'static [(&'static str, &'static str)],
}

fn time(second: i64) -> Timestamp {
    Timestamp::from_second(1_767_225_600 + second).unwrap()
}

fn run(index: usize, text: &str) -> Container {
    let mut words = text.split(' ');
    let name = words.next().unwrap();
    let (name, restarts) = name.split_once('#').unwrap_or((name, "0"));
    let state = match (words.next().unwrap(), words.next(), words.next()) {
        ("running", _, _) => ContainerState::Running { started_at: time(10) },
        ("created", _, _) => ContainerState::Created,
        ("unknown", _, _) => ContainerState::Unknown,
        ("exited", code, reason) => {
            let code: i32 = code.unwrap().parse().unwrap();
            let reason = reason.unwrap_or(if code == 0 { "Completed" } else { "Error" }).to_owned();
            let message = String::new();
            ContainerState::Exited(Exit { started_at: Some(time(10)), finished_at: time(20), code, reason, message })
        }
        other => panic!("{other:?}"),
    };
    Container {
        id: format!("{name}-{restarts}"),
        sandbox_id: "s".to_owned(),
        restart_count: restarts.parse().unwrap(),
        created_at: time(100 - i64::try_from(index).unwrap()),
        state,
        ..crate::fakes::runtime::container("x", name)
    }
}

impl Scene {
    fn generate(&self) -> PodStatus {
        let mut object = json!({
            "metadata": {"name": "p", "namespace": "default", "uid": "u", "generation": 3},
            "spec": {"containers": [{"name": "c", "image": "busybox"}], "restartPolicy": "Always"},
        });
        crate::fakes::api::strategic_merge(&mut object["metadata"], &or_empty(&self.meta));
        crate::fakes::api::strategic_merge(&mut object["spec"], &or_empty(&self.spec));
        object["status"] = or_empty(&self.api);
        let pod =
            Pod::new(Arc::new(serde_json::from_value(object).unwrap()), self.source.unwrap_or(Source::Api)).unwrap();
        let previous = self.previous.clone().unwrap_or_else(|| or_empty(&self.api));
        let sandbox = |ready| Sandbox {
            id: "s".to_owned(),
            attempt: 0,
            created_at: time(0),
            ready,
            ips: vec!["fd00::7".parse().unwrap(), "10.1.0.7".parse().unwrap()],
            host_network: pod.host_network(),
        };
        let sandboxes = match self.sandbox {
            Some("none") => vec![],
            Some(_) => vec![sandbox(false)],
            None => vec![sandbox(true)],
        };
        let containers = self.runs.iter().enumerate().map(|(index, text)| run(index, text)).collect();
        let notes = self
            .notes
            .iter()
            .map(|(name, reason)| ((*name).to_owned(), Waiting { reason, message: format!("{reason} of {name}") }));
        let probes = |id: &str| {
            let among = |names: &[&str]| names.iter().any(|name| id.starts_with(*name));
            State { started: !among(self.unstarted), ready: !among(self.unready), unhealthy: None }
        };
        let words = self.words.iter().map(|(id, words)| ((*id).to_owned(), (*words).to_owned())).collect();
        generate(&Inputs {
            pod: &pod,
            observed: &ObservedPod { sandboxes, containers },
            notes: &notes.collect(),
            probes: &probes,
            runtime_name: "orlop",
            facts: &Facts { host_ips: vec!["192.0.2.1".parse().unwrap()], ..Facts::default() },
            previous: &serde_json::from_value(previous).unwrap(),
            termination: self.termination.as_ref(),
            termination_messages: &words,
            now: time(1000),
        })
    }

    /// The phase, and each container in a line.
    #[track_caller]
    fn check(&self, phase: &str, containers: &[&str]) {
        let status = self.generate();
        let shown: Vec<_> = status
            .init_container_statuses
            .iter()
            .flatten()
            .chain(status.container_statuses.iter().flatten())
            .map(show)
            .collect();
        let reason = status.reason.map(|reason| format!(" {reason}")).unwrap_or_default();
        assert_eq!((format!("{}{reason}", status.phase.unwrap()), shown), (phase.to_owned(), owned(containers)));
    }

    /// One condition: `True`, `False Reason: message`.
    #[track_caller]
    fn check_condition(&self, kind: &str, expected: &str) {
        let status = self.generate();
        let found = status.conditions.unwrap().into_iter().find(|condition| condition.type_ == kind).unwrap();
        let reason = found.reason.map(|reason| format!(" {reason}")).unwrap_or_default();
        let message = found.message.map(|message| format!(": {message}")).unwrap_or_default();
        assert_eq!(format!("{}{reason}{message}", found.status), expected);
    }
}

fn or_empty(value: &Value) -> Value {
    if value.is_null() { json!({}) } else { value.clone() }
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn show(status: &k8s_openapi::api::core::v1::ContainerStatus) -> String {
    let state = |state: &Option<k8s_openapi::api::core::v1::ContainerState>| {
        let state = state.clone().unwrap_or_default();
        match (state.running, state.terminated, state.waiting) {
            (Some(_), None, None) => "running".to_owned(),
            (None, Some(end), None) => format!("exited {} {}", end.exit_code, end.reason.unwrap_or_default()),
            (None, None, Some(wait)) => format!("waiting {}", wait.reason.unwrap_or_default()),
            (None, None, None) => String::new(),
            _ => panic!("one state at a time"),
        }
    };
    let mut text = format!("{}#{} {}", status.name, status.restart_count, state(&status.state));
    let last = state(&status.last_state);
    if !last.is_empty() {
        text.push_str(&format!(" after {last}"));
    }
    for (flag, name) in [(status.started == Some(true), "started"), (status.ready, "ready")] {
        if flag {
            text.push_str(&format!(" {name}"));
        }
    }
    text.trim_end().to_owned()
}

fn scene() -> Scene {
    Scene::default()
}

fn policy(policy: &str) -> Scene {
    Scene { spec: json!({"restartPolicy": policy}), ..scene() }
}

fn with_init() -> Scene {
    Scene { spec: json!({"initContainers": [{"name": "i"}, {"name": "j"}]}), ..scene() }
}

fn with_sidecar() -> Scene {
    Scene { spec: json!({"initContainers": [{"name": "s", "restartPolicy": "Always"}]}), ..scene() }
}

fn running(name: &str) -> Value {
    json!({"name": name, "ready": true, "started": true, "restartCount": 0, "image": "", "imageID": "",
        "containerID": format!("orlop://{name}-0"), "state": {"running": {}}})
}

fn exited(name: &str, code: i32) -> Value {
    json!({"name": name, "ready": false, "restartCount": 0, "image": "", "imageID": "",
        "containerID": format!("orlop://{name}-0"), "state": {"terminated": {"exitCode": code, "reason": "Error"}}})
}

#[test]
fn a_pod_of_which_nothing_runs_yet_is_pending() {
    Scene { sandbox: Some("none"), ..scene() }.check("Pending", &["c#0 waiting ContainerCreating"]);
    Scene { runs: &["c created"], ..scene() }.check("Pending", &["c#0 waiting"]);
    Scene { runs: &["c unknown"], ..scene() }.check("Pending", &["c#0 waiting"]);
    Scene { notes: &[("c", "ErrImagePull")], ..scene() }.check("Pending", &["c#0 waiting ErrImagePull"]);
    with_init().check(
        "Pending",
        &["i#0 waiting PodInitializing", "j#0 waiting PodInitializing", "c#0 waiting PodInitializing"],
    );
}

#[test]
fn a_pod_runs_while_a_container_does_and_none_is_still_to_come() {
    Scene { runs: &["c running"], ..scene() }.check("Running", &["c#0 running started ready"]);
    let two = Scene { spec: json!({"containers": [{"name": "b"}, {"name": "a"}]}), ..scene() };
    Scene { runs: &["a running"], ..two.clone() }
        .check("Pending", &["a#0 running started ready", "b#0 waiting ContainerCreating"]);
    Scene { runs: &["a running", "b exited 1"], ..two }
        .check("Running", &["a#0 running started ready", "b#0 exited 1 Error"]);
}

#[test]
fn what_ended_is_judged_by_the_restart_policy() {
    Scene { runs: &["c exited 0"], ..policy("Always") }.check("Running", &["c#0 exited 0 Completed"]);
    Scene { runs: &["c exited 1"], ..policy("Always") }.check("Running", &["c#0 exited 1 Error"]);
    Scene { runs: &["c exited 0"], ..policy("OnFailure") }.check("Succeeded", &["c#0 exited 0 Completed"]);
    Scene { runs: &["c exited 1"], ..policy("OnFailure") }.check("Running", &["c#0 exited 1 Error"]);
    Scene { runs: &["c exited 0"], ..policy("Never") }.check("Succeeded", &["c#0 exited 0 Completed"]);
    Scene { runs: &["c exited 1"], ..policy("Never") }.check("Failed", &["c#0 exited 1 Error"]);
}

#[test]
fn a_crashing_container_waits_and_shows_its_last_end() {
    Scene { runs: &["c#3 exited 137 OOMKilled", "c#2 exited 1"], notes: &[("c", "CrashLoopBackOff")], ..scene() }
        .check("Running", &["c#3 waiting CrashLoopBackOff after exited 137 OOMKilled"]);
    Scene { runs: &["c#3 running", "c#2 exited 137 OOMKilled"], ..scene() }
        .check("Running", &["c#3 running after exited 137 OOMKilled started ready"]);
    Scene { runs: &["c#3 exited 1", "c#2 exited 2"], ..scene() }
        .check("Running", &["c#3 exited 1 Error after exited 2 Error"]);
    // It is not to be started again, whatever stood in its way once.
    Scene { runs: &["c exited 1"], notes: &[("c", "CrashLoopBackOff")], ..policy("Never") }
        .check("Failed", &["c#0 exited 1 Error"]);
    Scene { runs: &["c running"], notes: &[("c", "CrashLoopBackOff")], ..scene() }
        .check("Running", &["c#0 running started ready"]);
}

#[test]
fn init_containers_come_first() {
    Scene { runs: &["i running"], ..with_init() }
        .check("Pending", &["i#0 running started", "j#0 waiting PodInitializing", "c#0 waiting PodInitializing"]);
    Scene { runs: &["j running", "i exited 0"], ..with_init() }
        .check("Pending", &["i#0 exited 0 Completed ready", "j#0 running started", "c#0 waiting PodInitializing"]);
    Scene { runs: &["i exited 1"], notes: &[("i", "CrashLoopBackOff")], ..with_init() }.check(
        "Pending",
        &[
            "i#0 waiting CrashLoopBackOff after exited 1 Error",
            "j#0 waiting PodInitializing",
            "c#0 waiting PodInitializing",
        ],
    );
    let mut never = with_init();
    never.spec["restartPolicy"] = json!("Never");
    Scene { runs: &["i exited 1"], ..never }
        .check("Failed", &["i#0 exited 1 Error", "j#0 waiting PodInitializing", "c#0 waiting PodInitializing"]);
    Scene { runs: &["c running", "j exited 0", "i exited 0"], ..with_init() }.check(
        "Running",
        &["i#0 exited 0 Completed ready", "j#0 exited 0 Completed ready", "c#0 running started ready"],
    );
}

#[test]
fn an_init_container_that_was_removed_has_succeeded_if_the_pod_went_on() {
    Scene { runs: &["c running"], ..with_init() }.check(
        "Running",
        &["i#0 exited 0 Completed ready", "j#0 exited 0 Completed ready", "c#0 running started ready"],
    );
}

#[test]
fn a_sidecar_holds_up_the_start_and_never_the_end() {
    let sidecar = Scene {
        spec: json!({"restartPolicy": "Never", "initContainers": [
            {"name": "s", "restartPolicy": "Always", "startupProbe": {}}]}),
        ..scene()
    };
    Scene { runs: &["s running"], unstarted: &["s"], ..sidecar.clone() }
        .check("Pending", &["s#0 running", "c#0 waiting PodInitializing"]);
    Scene { runs: &["c running", "s running"], ..sidecar.clone() }
        .check("Running", &["s#0 running started ready", "c#0 running started ready"]);
    // Initialised once, a sidecar that starts again makes nothing pending.
    Scene { runs: &["s#1 running", "c running", "s exited 1"], unstarted: &["s"], ..sidecar.clone() }
        .check("Running", &["s#1 running after exited 1 Error", "c#0 running started ready"]);
    Scene { runs: &["c exited 0", "s running"], ..sidecar.clone() }
        .check("Running", &["s#0 running started ready", "c#0 exited 0 Completed"]);
    Scene { runs: &["c exited 0", "s exited 137"], ..sidecar.clone() }
        .check("Succeeded", &["s#0 exited 137 Error", "c#0 exited 0 Completed"]);
    Scene { runs: &["c exited 3", "s exited 0"], ..sidecar }
        .check("Failed", &["s#0 exited 0 Completed", "c#0 exited 3 Error"]);
}

#[test]
fn a_container_that_the_runtime_lost_has_failed() {
    let api = json!({"phase": "Running", "containerStatuses": [running("c")]});
    Scene { api: api.clone(), ..scene() }
        .check("Running", &["c#1 waiting ContainerCreating after exited 137 ContainerStatusUnknown"]);
    Scene { api: api.clone(), ..policy("Never") }
        .check("Failed", &["c#1 waiting ContainerCreating after exited 137 ContainerStatusUnknown"]);
    Scene { api, runs: &["c unknown"], ..scene() }.check("Running", &["c#1 exited 137 ContainerStatusUnknown"]);
    let api = json!({"phase": "Running", "containerStatuses": [exited("c", 7)]});
    Scene { api: api.clone(), ..policy("Never") }.check("Failed", &["c#0 exited 7 Error"]);
    Scene { api, runs: &["c#1 running"], ..scene() }
        .check("Running", &["c#1 running after exited 7 Error started ready"]);
}

#[test]
fn probes_say_started_and_ready() {
    let probed = Scene {
        spec: json!({"containers": [{"name": "c", "startupProbe": {}, "readinessProbe": {}}]}),
        runs: &["c running"],
        ..scene()
    };
    Scene { unstarted: &["c"], ..probed.clone() }.check("Running", &["c#0 running"]);
    Scene { unready: &["c"], ..probed.clone() }.check("Running", &["c#0 running started"]);
    probed.check("Running", &["c#0 running started ready"]);
    // Nobody is asked about a container without probes, or one that does not run.
    Scene { runs: &["c running"], unready: &["c"], ..scene() }.check("Running", &["c#0 running started ready"]);
    Scene { runs: &["c exited 1"], ..probed }.check("Running", &["c#0 exited 1 Error"]);
}

#[test]
fn a_deleted_pod_ends_when_its_containers_have() {
    let deleted = Scene {
        meta: json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}),
        termination: Some(Termination::Deleted),
        api: json!({"phase": "Running"}),
        ..scene()
    };
    Scene { runs: &["c running"], ..deleted.clone() }.check("Running", &["c#0 running started ready"]);
    Scene { runs: &["c exited 0"], ..deleted.clone() }.check("Succeeded", &["c#0 exited 0 Completed"]);
    Scene { runs: &["c exited 137"], ..deleted.clone() }.check("Failed", &["c#0 exited 137 Error"]);
    let api = json!({"phase": "Running", "containerStatuses": [running("c")]});
    Scene { api, ..deleted.clone() }
        .check("Failed", &["c#0 exited 137 ContainerStatusUnknown after exited 137 ContainerStatusUnknown"]);
    let never_ran = Scene { api: json!({"phase": "Pending"}), ..deleted };
    never_ran.check("Failed", &["c#0 exited 137 ContainerStatusUnknown"]);
    let early = Scene { spec: with_init().spec, ..never_ran };
    early.check(
        "Failed",
        &["i#0 exited 137 ContainerStatusUnknown", "j#0 waiting PodInitializing", "c#0 waiting PodInitializing"],
    );
}

#[test]
fn a_static_pod_has_the_phase_of_its_containers() {
    let ended = Scene { source: Some(Source::File), termination: Some(Termination::Deleted), ..scene() };
    Scene { runs: &["c exited 1"], ..ended }.check("Running", &["c#0 exited 1 Error"]);
}

#[test]
fn a_final_phase_is_said_when_nothing_runs_and_never_left() {
    let deadline =
        Scene { termination: Some(Termination::DeadlineExceeded), api: json!({"phase": "Running"}), ..scene() };
    Scene { runs: &["c running"], ..deadline.clone() }.check("Running", &["c#0 running started ready"]);
    Scene { runs: &["c exited 137"], ..deadline }.check("Failed DeadlineExceeded", &["c#0 exited 137 Error"]);
    let evicted = Termination::Evicted { message: "The node was low on resource: memory. ".to_owned() };
    let evicted = Scene { termination: Some(evicted), runs: &["c exited 137"], ..scene() };
    evicted.check("Failed Evicted", &["c#0 exited 137 Error"]);
    evicted.check_condition("DisruptionTarget", "True TerminationByKubelet: The node was low on resource: memory. ");
    let api = json!({"phase": "Failed", "reason": "Evicted"});
    Scene { api: api.clone(), runs: &["c running"], ..scene() }.check("Failed Evicted", &["c#0 running started ready"]);
    Scene { previous: Some(api), runs: &["c running"], ..scene() }
        .check("Failed Evicted", &["c#0 running started ready"]);
    Scene { api: json!({"phase": "Succeeded"}), runs: &["c exited 1"], ..policy("Never") }
        .check("Succeeded", &["c#0 exited 1 Error"]);
}

#[test]
fn reason_and_message_last_as_long_as_their_phase() {
    let api = json!({"phase": "Pending", "reason": "Why", "message": "so"});
    Scene { api: api.clone(), ..scene() }.check("Pending Why", &["c#0 waiting ContainerCreating"]);
    Scene { api, runs: &["c running"], ..scene() }.check("Running", &["c#0 running started ready"]);
}

#[test]
fn a_rejected_pod_says_why_and_nothing_else() {
    let rejection = Termination::Rejected { reason: "OutOfcpu".to_owned(), message: "too little".to_owned() };
    let gate = json!({"conditions": [{"type": "mine", "status": "True"}, {"type": "PodScheduled", "status": "True"}]});
    let status = Scene { termination: Some(rejection), api: gate, ..scene() }.generate();
    assert_eq!(status.phase.as_deref(), Some("Failed"));
    assert_eq!(status.reason.as_deref(), Some("OutOfcpu"));
    assert_eq!(status.message.as_deref(), Some("Pod was rejected: too little"));
    assert_eq!(status.container_statuses, None);
    assert_eq!(status.conditions.unwrap().len(), 1);
}

#[test]
fn conditions_say_what_is_missing() {
    let new = Scene { sandbox: Some("none"), ..scene() };
    new.check_condition("PodScheduled", "True");
    new.check_condition("PodReadyToStartContainers", "False");
    new.check_condition("Initialized", "True");
    new.check_condition("ContainersReady", "False ContainersNotReady: containers with unready status: [c]");
    new.check_condition("Ready", "False ContainersNotReady: containers with unready status: [c]");
    let init = Scene { runs: &["i exited 0"], ..with_init() };
    init.check_condition("PodReadyToStartContainers", "True");
    init.check_condition("Initialized", "False ContainersNotInitialized: containers with incomplete status: [j]");
    with_init()
        .check_condition("Initialized", "False ContainersNotInitialized: containers with incomplete status: [i j]");
    let sidecar = Scene { runs: &["s running"], ..with_sidecar() };
    sidecar.check_condition("Initialized", "True");
    sidecar.check_condition("Ready", "False ContainersNotReady: containers with unready status: [c]");
    Scene { sandbox: Some("not ready"), runs: &["c exited 1"], ..scene() }
        .check_condition("PodReadyToStartContainers", "False");
}

#[test]
fn conditions_of_a_pod_that_is_over_say_how_it_ended() {
    let over = Scene { runs: &["c exited 0"], ..policy("Never") };
    over.check_condition("Initialized", "True PodCompleted");
    over.check_condition("ContainersReady", "False PodCompleted");
    over.check_condition("Ready", "False PodCompleted");
    let failed = Scene { runs: &["c exited 1"], ..policy("Never") };
    failed.check_condition("Initialized", "True");
    failed.check_condition("Ready", "False PodFailed");
}

#[test]
fn readiness_gates_are_asked_last() {
    let gated = Scene {
        spec: json!({"readinessGates": [{"conditionType": "a"}, {"conditionType": "b"}]}),
        runs: &["c running"],
        ..scene()
    };
    let closed = "False ReadinessGatesNotReady: corresponding condition of pod readiness gate \"a\" does not exist., \
                  the status of pod readiness gate \"b\" is not \"True\", but False";
    Scene { api: json!({"conditions": [{"type": "b", "status": "False"}]}), ..gated.clone() }
        .check_condition("Ready", closed);
    let open = json!({"conditions": [{"type": "a", "status": "True"}, {"type": "b", "status": "True"}]});
    let open = Scene { api: open, ..gated };
    open.check_condition("Ready", "True");
    open.check_condition("ContainersReady", "True");
    let kinds: Vec<_> = open.generate().conditions.unwrap().into_iter().map(|condition| condition.type_).collect();
    let own = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];
    assert_eq!(kinds, ["a", "b"].into_iter().chain(own).collect::<Vec<_>>());
}

#[test]
fn a_condition_changes_its_time_with_its_status_only() {
    let old = json!({"conditions": [
        {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:01Z"},
        {"type": "Initialized", "status": "False", "lastTransitionTime": "2026-01-01T00:00:01Z"}]});
    let status = Scene { api: old, runs: &["c running"], ..scene() }.generate();
    let at = |kind: &str| {
        let found = status.conditions.iter().flatten().find(|condition| condition.type_ == kind).unwrap();
        found.last_transition_time.clone().unwrap().0
    };
    assert_eq!((at("Ready"), at("Initialized")), (time(1), time(1000)));
}

#[test]
fn identity_addresses_and_generation_are_told() {
    let status = Scene { runs: &["c running"], ..scene() }.generate();
    assert_eq!((status.host_ip.as_deref(), status.pod_ip.as_deref()), (Some("192.0.2.1"), Some("10.1.0.7")));
    let ips: Vec<_> = status.pod_ips.unwrap().into_iter().map(|ip| ip.ip).collect();
    assert_eq!(ips, ["10.1.0.7", "fd00::7"]);
    assert_eq!((status.qos_class.as_deref(), status.observed_generation), (Some("BestEffort"), Some(3)));
    assert_eq!(status.start_time.unwrap().0, time(1000));
    let container = &status.container_statuses.unwrap()[0];
    assert_eq!(container.container_id.as_deref(), Some("orlop://c-0"));
    let host = Scene { spec: json!({"hostNetwork": true}), runs: &["c running"], ..scene() }.generate();
    assert_eq!(host.pod_ip.as_deref(), Some("192.0.2.1"));
    let api = json!({"podIP": "10.1.0.9", "podIPs": [{"ip": "10.1.0.9"}], "startTime": "2026-01-01T00:00:05Z"});
    let gone = Scene { api, sandbox: Some("not ready"), ..scene() }.generate();
    assert_eq!((gone.pod_ip.as_deref(), gone.start_time.unwrap().0), (Some("10.1.0.9"), time(5)));
}

#[test]
fn last_words_are_told_within_their_share() {
    let status = Scene { runs: &["c exited 1"], words: &[("c-0", "no config")], ..scene() }.generate();
    let end = status.container_statuses.unwrap()[0].state.clone().unwrap().terminated.unwrap();
    assert_eq!((end.message.as_deref(), end.container_id.as_deref()), (Some("no config"), Some("orlop://c-0")));
    let long: &'static str = Box::leak("ö".repeat(20_000).into_boxed_str());
    let words: &'static [(&str, &str)] = Box::leak(Box::new([("c-0", long)]));
    let spec = json!({"containers": [{"name": "c"}, {"name": "d"}, {"name": "e"}, {"name": "f"}, {"name": "g"}]});
    let status = Scene { spec, runs: &["c exited 1"], words, ..scene() }.generate();
    let end = status.container_statuses.unwrap()[0].state.clone().unwrap().terminated.unwrap();
    assert_eq!(end.message.unwrap().len(), 12 * 1024 / 5 / 2 * 2);
}

#[test]
fn mounts_and_resources_are_told() {
    let spec = json!({"containers": [{"name": "c", "image": "i",
        "volumeMounts": [{"name": "v", "mountPath": "/v", "readOnly": true}, {"name": "w", "mountPath": "/w"}],
        "resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": "1", "memory": "64Mi"}}}]});
    let status = Scene { spec, runs: &["c running"], ..scene() }.generate();
    let container = serde_json::to_value(&status.container_statuses.unwrap()[0]).unwrap();
    assert_eq!(
        container["volumeMounts"],
        json!([
        {"name": "v", "mountPath": "/v", "readOnly": true, "recursiveReadOnly": "Disabled"},
        {"name": "w", "mountPath": "/w"}])
    );
    assert_eq!(container["allocatedResources"], json!({"cpu": "100m"}));
    assert_eq!(container["resources"]["limits"], json!({"cpu": "1", "memory": "64Mi"}));
    assert_eq!(status.allocated_resources.map(|list| list["cpu"].0.clone()).as_deref(), Some("100m"));
}

#[test]
fn a_debug_container_says_why_it_waits() {
    let spec = json!({"ephemeralContainers": [{"name": "debugger", "image": "busybox"}]});
    let status = Scene { spec, runs: &["c running"], ..scene() }.generate();
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert_eq!(show(&status.ephemeral_container_statuses.unwrap()[0]), "debugger#0 waiting PodFeatureUnsupported");
}

#[test]
fn generating_again_changes_nothing() {
    for runs in [&[][..], &["c running"], &["c exited 1"], &["c#1 running", "c exited 1"]] {
        let first = Scene { runs, ..scene() }.generate();
        let again = Scene { runs, previous: Some(serde_json::to_value(&first).unwrap()), ..scene() }.generate();
        assert_eq!(first, again, "{runs:?}");
    }
}
