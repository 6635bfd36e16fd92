//! A CRI runtime in memory: sandboxes and containers that do what they are told, failures by script, every call noted.

use crate::clock::Clock;
use crate::pod::PodUid;
use crate::runtime::{
    Changed, Container, ContainerState, Exit, ObservedPod, Result, Runtime, RuntimeError, RuntimeInfo, RuntimePod,
    RuntimeStatus, Sandbox, keys,
};
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt as _, StreamExt as _};
use jiff::Timestamp;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;

/// The runtime. Cheap to clone; all clones are one.
#[derive(Clone)]
pub(crate) struct FakeRuntime {
    state: Arc<Mutex<State>>,
    events: broadcast::Sender<Changed>,
    clock: Clock,
}

/// What it has and does.
#[derive(Default)]
pub(crate) struct State {
    next: u64,
    sandboxes: Vec<(PodUid, Sandbox)>,
    containers: Vec<(PodUid, Container)>,
    names: BTreeMap<PodUid, (String, String)>,
    /// Every verb that changes something, with what it was about: `start web`, `stop web 30`.
    pub(crate) calls: Vec<String>,
    failures: BTreeMap<&'static str, VecDeque<String>>,
    /// Whether nobody answers.
    pub(crate) down: bool,
    /// Whether it has no events.
    pub(crate) silent: bool,
    /// Whether it never answers who asks for them, as a server in Go that has none to tell.
    pub(crate) speechless: bool,
    /// Whether StopContainer and StopPodSandbox do nothing, and say that they did.
    pub(crate) deaf: bool,
    /// What StatusResponse says of the network.
    pub(crate) without_network: bool,
    /// How long a container takes to end when it is asked to; by default it ends at once.
    pub(crate) stop_takes: Duration,
    /// How long RunPodSandbox takes.
    pub(crate) sandbox_takes: Duration,
    /// What UpdateRuntimeConfig was told of pod CIDRs, in order.
    pub(crate) pod_cidrs: Vec<String>,
    /// What ExecSync of a command's first word comes to: the exit code, and what it prints; by default 0 and nothing.
    pub(crate) execs: BTreeMap<String, (i32, String)>,
    /// Usage of containers.
    pub(crate) container_stats: Vec<proto::ContainerStats>,
    /// Usage of sandboxes.
    pub(crate) sandbox_stats: Vec<proto::PodSandboxStats>,
    /// Where images are.
    pub(crate) image_fs: proto::ImageFsInfoResponse,
    /// How often usage was asked for.
    pub(crate) stats_asked: usize,
    /// Whether usage never comes.
    pub(crate) stats_hang: bool,
}

impl FakeRuntime {
    pub(crate) fn new(clock: Clock) -> FakeRuntime {
        FakeRuntime { state: Arc::default(), events: broadcast::Sender::new(1024), clock }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next call of this verb fails with this text.
    pub(crate) fn fail(&self, call: &'static str, message: &str) {
        self.state().failures.entry(call).or_default().push_back(message.to_owned());
    }

    /// What was called, and forgets it.
    pub(crate) fn take_calls(&self) -> Vec<String> {
        std::mem::take(&mut self.state().calls)
    }

    /// The running container of this name ends by itself.
    pub(crate) fn exit(&self, name: &str, code: i32) {
        let now = self.clock.now().wall;
        let mut state = self.state();
        let (uid, container) = state
            .containers
            .iter_mut()
            .find(|(_, it)| it.name == name && matches!(it.state, ContainerState::Running { .. }))
            .unwrap_or_else(|| panic!("{name} does not run"));
        end(container, code, now);
        let (uid, id) = (uid.clone(), container.id.clone());
        drop(state);
        self.tell(uid, id);
    }

    /// The sandboxes of a pod die, and nobody is told.
    pub(crate) fn kill_sandboxes(&self) {
        self.state().sandboxes.iter_mut().for_each(|(_, sandbox)| sandbox.ready = false);
    }

    /// The names of the containers that run.
    pub(crate) fn running(&self) -> Vec<String> {
        let runs = |it: &Container| matches!(it.state, ContainerState::Running { .. });
        self.state().containers.iter().filter(|(_, it)| runs(it)).map(|(_, it)| it.name.clone()).collect()
    }

    /// How many sandboxes are ready.
    pub(crate) fn ready_sandboxes(&self) -> usize {
        self.state().sandboxes.iter().filter(|(_, sandbox)| sandbox.ready).count()
    }

    /// A pod that runs since before anybody asked.
    pub(crate) fn put(&self, uid: &PodUid, name: &str, sandbox: Sandbox, containers: Vec<Container>) {
        let mut state = self.state();
        // New ids are others than those that are put in.
        state.next = state.next.max(100);
        state.names.insert(uid.clone(), ("default".to_owned(), name.to_owned()));
        state.sandboxes.push((uid.clone(), sandbox));
        state.containers.extend(containers.into_iter().map(|container| (uid.clone(), container)));
    }

    fn tell(&self, uid: PodUid, id: String) {
        if !self.state().silent && !self.state().speechless {
            let kind = proto::ContainerEventType::ContainerStoppedEvent;
            // Nobody may listen.
            let _ = self.events.send(Changed { uid, id, kind });
        }
    }

    fn make_sandbox(&self, config: proto::PodSandboxConfig) -> Result<String> {
        let metadata = config.metadata.unwrap_or_default();
        let mut state = self.call("RunPodSandbox", Some(format!("sandbox {}", metadata.attempt)))?;
        let uid = PodUid::parse(&metadata.uid).expect("the kubelet's uids are good");
        let id = state.id("sandbox");
        state.names.insert(uid.clone(), (metadata.namespace, metadata.name));
        let made = Sandbox {
            attempt: metadata.attempt,
            created_at: self.clock.now().wall,
            ips: vec!["10.0.0.2".parse().expect("an address")],
            host_network: config.hostname == super::host::HOST,
            ..sandbox(&id)
        };
        state.sandboxes.push((uid.clone(), made));
        drop(state);
        self.tell(uid, id.clone());
        Ok(id)
    }

    /// Notes a call; its failure, if one was scripted.
    fn call(&self, call: &'static str, note: Option<String>) -> Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        let failed = |code: tonic::Code, text: &str| RuntimeError {
            call,
            code,
            message: format!("rpc error: code = {code:?} desc = {text}"),
        };
        if state.down {
            return Err(failed(tonic::Code::Unavailable, "connection refused"));
        }
        state.calls.extend(note);
        if let Some(message) = state.failures.get_mut(call).and_then(VecDeque::pop_front) {
            return Err(failed(tonic::Code::Unknown, &message));
        }
        Ok(state)
    }
}

impl State {
    fn id(&mut self, of: &str) -> String {
        self.next += 1;
        format!("{of}-{}", self.next)
    }

    fn observed(&self, uid: &PodUid) -> ObservedPod {
        let mut sandboxes: Vec<Sandbox> =
            self.sandboxes.iter().filter(|(of, _)| of == uid).map(|(_, it)| it.clone()).collect();
        let mut containers: Vec<Container> =
            self.containers.iter().filter(|(of, _)| of == uid).map(|(_, it)| it.clone()).collect();
        sandboxes.reverse();
        containers.reverse();
        ObservedPod { sandboxes, containers }
    }

    fn container(&mut self, id: &str) -> Option<&mut (PodUid, Container)> {
        self.containers.iter_mut().find(|(_, it)| it.id == id)
    }
}

fn end(container: &mut Container, code: i32, now: Timestamp) {
    let started_at = match container.state {
        ContainerState::Running { started_at } => Some(started_at),
        _ => None,
    };
    let reason = if code == 0 { "Completed" } else { "Error" }.to_owned();
    container.state =
        ContainerState::Exited(Exit { started_at, finished_at: now, code, reason, message: String::new() });
}

/// A container that was created and nothing else.
pub(crate) fn container(id: &str, name: &str) -> Container {
    Container {
        id: id.to_owned(),
        sandbox_id: String::new(),
        name: name.to_owned(),
        restart_count: 0,
        hash: String::new(),
        image: String::new(),
        image_ref: String::new(),
        image_id: String::new(),
        created_at: Timestamp::UNIX_EPOCH,
        state: ContainerState::Created,
        log_path: String::new(),
        termination_message: None,
        user: None,
        resources: None,
        mounts: Vec::new(),
        grace_period: None,
    }
}

/// A ready sandbox without an address.
pub(crate) fn sandbox(id: &str) -> Sandbox {
    Sandbox {
        id: id.to_owned(),
        attempt: 0,
        created_at: Timestamp::UNIX_EPOCH,
        ready: true,
        ips: Vec::new(),
        host_network: false,
    }
}

impl Runtime for FakeRuntime {
    fn version(&self) -> BoxFuture<'_, Result<RuntimeInfo>> {
        let answer = self.call("Version", None).map(|_| RuntimeInfo { name: "fake".into(), version: "1".into() });
        async { answer }.boxed()
    }

    fn status(&self) -> BoxFuture<'_, Result<RuntimeStatus>> {
        let answer = self.call("Status", None).map(|state| {
            let condition = |kind: &str, status| proto::RuntimeCondition {
                r#type: kind.to_owned(),
                status,
                ..proto::RuntimeCondition::default()
            };
            let network = condition("NetworkReady", !state.without_network);
            RuntimeStatus { conditions: vec![condition("RuntimeReady", true), network], ..RuntimeStatus::default() }
        });
        async { answer }.boxed()
    }

    fn cgroup_driver(&self) -> BoxFuture<'_, Result<Option<proto::CgroupDriver>>> {
        async { Ok(None) }.boxed()
    }

    fn set_pod_cidr<'a>(&'a self, cidr: &'a str) -> BoxFuture<'a, Result<()>> {
        self.state().pod_cidrs.push(cidr.to_owned());
        async { Ok(()) }.boxed()
    }

    fn list_pods(&self) -> BoxFuture<'_, Result<Vec<RuntimePod>>> {
        let answer = self.call("ListPodSandbox", None).map(|state| {
            let whole = |(uid, (namespace, name)): (&PodUid, &(String, String))| RuntimePod {
                uid: uid.clone(),
                name: name.clone(),
                namespace: namespace.clone(),
                observed: state.observed(uid),
            };
            state.names.iter().map(whole).collect()
        });
        async { answer }.boxed()
    }

    fn observe<'a>(&'a self, uid: &'a PodUid) -> BoxFuture<'a, Result<ObservedPod>> {
        let answer = self.call("ListContainers", None).map(|state| state.observed(uid));
        async { answer }.boxed()
    }

    fn events(&self) -> BoxFuture<'_, Result<BoxStream<'static, Result<Changed>>>> {
        let answer = self.call("GetContainerEvents", None).map(drop);
        async move {
            answer?;
            if self.state().silent {
                let message = "rpc error: code = Unimplemented desc = no events".to_owned();
                return Err(RuntimeError { call: "GetContainerEvents", code: tonic::Code::Unimplemented, message });
            }
            if self.state().speechless {
                std::future::pending::<()>().await;
            }
            let events = BroadcastStream::new(self.events.subscribe());
            Ok(events.filter_map(|event| async { event.ok().map(Ok) }).boxed())
        }
        .boxed()
    }

    fn run_sandbox<'a>(&'a self, config: &'a proto::PodSandboxConfig, _: &'a str) -> BoxFuture<'a, Result<String>> {
        // As our CRI's, no client's patience ends a creation.
        let (runtime, config) = (self.clone(), config.clone());
        let creation = tokio::spawn(async move {
            let takes = runtime.state().sandbox_takes;
            tokio::time::sleep_until(tokio::time::Instant::now() + takes).await;
            runtime.make_sandbox(config)
        });
        async move { creation.await.expect("creations don't panic") }.boxed()
    }

    fn stop_sandbox<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        let answer = self.call("StopPodSandbox", Some("stop sandbox".to_owned())).map(|mut state| {
            let now = self.clock.now().wall;
            if state.deaf {
                return;
            }
            state.sandboxes.iter_mut().filter(|(_, it)| it.id == id).for_each(|(_, it)| it.ready = false);
            let left = state.containers.iter_mut().filter(|(_, it)| it.sandbox_id == id);
            left.filter(|(_, it)| matches!(it.state, ContainerState::Running { .. }))
                .for_each(|(_, it)| end(it, 137, now));
        });
        async { answer }.boxed()
    }

    fn remove_sandbox<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        let answer = self.call("RemovePodSandbox", Some("remove sandbox".to_owned())).map(|mut state| {
            state.sandboxes.retain(|(_, it)| it.id != id);
        });
        async { answer }.boxed()
    }

    fn create_container<'a>(
        &'a self,
        sandbox: &'a str,
        config: &'a proto::ContainerConfig,
        sandbox_config: &'a proto::PodSandboxConfig,
    ) -> BoxFuture<'a, Result<String>> {
        let name = config.metadata.as_ref().map(|it| it.name.clone()).unwrap_or_default();
        let answer = self.call("CreateContainer", None).map(|mut state| {
            let uid = &sandbox_config.metadata.as_ref().expect("metadata").uid;
            let uid = PodUid::parse(uid).expect("the kubelet's uids are good");
            let id = state.id(&name);
            let annotation = |key: &str| config.annotations.get(key).cloned().unwrap_or_default();
            let made = Container {
                sandbox_id: sandbox.to_owned(),
                restart_count: annotation(keys::RESTART_COUNT).parse().unwrap_or(0),
                hash: annotation(keys::CONTAINER_HASH),
                image: config.image.as_ref().map(|it| it.image.clone()).unwrap_or_default(),
                created_at: self.clock.now().wall,
                ..container(&id, &name)
            };
            state.containers.push((uid, made));
            id
        });
        async { answer }.boxed()
    }

    fn start_container<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        let name = id.rsplit_once('-').map_or(id, |(name, _)| name).to_owned();
        let answer = self.call("StartContainer", Some(format!("start {name}"))).map(|mut state| {
            let started_at = self.clock.now().wall;
            if let Some((_, it)) = state.container(id) {
                it.state = ContainerState::Running { started_at };
            }
        });
        async { answer }.boxed()
    }

    fn stop_container<'a>(&'a self, id: &'a str, grace: Duration) -> BoxFuture<'a, Result<()>> {
        async move {
            let (name, takes) = {
                let mut state = self.call("StopContainer", None)?;
                let name = state.container(id).map(|(_, it)| it.name.clone()).unwrap_or_default();
                state.calls.push(format!("stop {name} {}", grace.as_secs()));
                (name, state.stop_takes)
            };
            tokio::time::sleep_until(tokio::time::Instant::now() + takes.min(grace)).await;
            let now = self.clock.now().wall;
            let mut state = self.state();
            if state.deaf {
                return Ok(());
            }
            state.calls.push(format!("ended {name}"));
            let Some((uid, it)) = state.container(id) else { return Ok(()) };
            end(it, if takes > grace { 137 } else { 143 }, now);
            let uid = uid.clone();
            drop(state);
            self.tell(uid, id.to_owned());
            Ok(())
        }
        .boxed()
    }

    fn remove_container<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        let answer = self.call("RemoveContainer", Some(format!("remove {id}"))).map(|mut state| {
            state.containers.retain(|(_, it)| it.id != id);
        });
        async { answer }.boxed()
    }

    fn reopen_log<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        let answer = self.call("ReopenContainerLog", Some(format!("reopen {id}"))).map(drop);
        async { answer }.boxed()
    }

    fn exec_sync<'a>(
        &'a self,
        id: &'a str,
        command: &'a [String],
        _: Duration,
    ) -> BoxFuture<'a, Result<proto::ExecSyncResponse>> {
        let note = format!("exec {id} {}", command.join(" "));
        let answer = self.call("ExecSync", Some(note)).map(|state| {
            let (exit_code, printed) =
                command.first().and_then(|word| state.execs.get(word)).cloned().unwrap_or_default();
            proto::ExecSyncResponse { stdout: printed.into_bytes(), exit_code, ..Default::default() }
        });
        async { answer }.boxed()
    }

    fn image<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Option<proto::Image>>> {
        let answer = self.call("ImageStatus", None).map(|_| None);
        async { answer }.boxed()
    }

    fn pull_image<'a>(
        &'a self,
        reference: &'a str,
        _: Option<&'a proto::AuthConfig>,
        _: &'a proto::PodSandboxConfig,
    ) -> BoxFuture<'a, Result<String>> {
        let answer = self.call("PullImage", Some(format!("pull {reference}"))).map(|_| reference.to_owned());
        async { answer }.boxed()
    }

    fn list_images(&self) -> BoxFuture<'_, Result<Vec<proto::Image>>> {
        async { Ok(Vec::new()) }.boxed()
    }

    fn image_fs(&self) -> BoxFuture<'_, Result<proto::ImageFsInfoResponse>> {
        let state = self.state();
        if state.stats_hang {
            return std::future::pending().boxed();
        }
        let info = state.image_fs.clone();
        async { Ok(info) }.boxed()
    }

    fn container_stats(&self) -> BoxFuture<'_, Result<Vec<proto::ContainerStats>>> {
        let mut state = self.state();
        state.stats_asked += 1;
        if state.stats_hang {
            return std::future::pending().boxed();
        }
        let stats = state.container_stats.clone();
        async { Ok(stats) }.boxed()
    }

    fn sandbox_stats(&self) -> BoxFuture<'_, Result<Vec<proto::PodSandboxStats>>> {
        let stats = self.state().sandbox_stats.clone();
        async { Ok(stats) }.boxed()
    }
}
