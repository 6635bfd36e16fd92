//! RunPodSandbox: a shim, its namespaces, its network. Ready when it returns; rolled back entirely if it fails.
//!
//! ```text
//! check ─▶ record ─▶ shim (files are written while it starts) ─▶ namespaces ─▶ pin ─▶ CNI ADD ─▶ record ─▶ id
//! ```

use crate::creations::Begin;
use crate::failure::{Failure, Result, chain};
use crate::host;
use crate::index::new_id;
use crate::network;
use crate::pod_files::{self, Contents};
use crate::pods::{Pods, blocking};
use crate::sandbox::{Network, Phase, Sandbox, SandboxRecord};
use crate::shim::{CallError, Shim, dir_of, spawn};
use crate::spec::{namespaces, security, sysctls};
use crate::stages::Stages;
use crate::supervise::{cgroup_of, follow};
use crate::teardown;
use proto::{ContainerEventType, NamespaceMode, PodSandboxConfig, RunPodSandboxRequest, RunPodSandboxResponse};
use shim_protocol::{Answer, Hello, Reaper, SandboxProcess, VERSION, Verb};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long a shim may take to make its namespaces.
const START: Duration = Duration::from_secs(60);

/// The size of a pod's `/dev/shm`, as everywhere.
const SHM_BYTES: u64 = 64 * 1024 * 1024;

/// The oom_score_adj of a reaper: it is ours, and tiny.
const REAPER_OOM_SCORE: i32 = -998;

pub(crate) async fn run_pod_sandbox(
    pods: &Arc<Pods>,
    request: RunPodSandboxRequest,
    patience: Option<Duration>,
) -> Result<RunPodSandboxResponse> {
    let request = Arc::new(request);
    let (planner, asked) = (Arc::clone(pods), Arc::clone(&request));
    let plan = blocking("plan a sandbox", move || plan(&asked, &planner)).await?;
    let key = key(&plan.record);
    let what = format!("sandbox {key}");
    let begin = |stages: Stages| match existing(pods, &key, &request)? {
        Some(id) => Ok(Begin::Done(id)),
        None => Ok(Begin::Run(create(Arc::clone(pods), plan, stages))),
    };
    let id = pods.sandbox_creations.join_or_begin(&what, key.clone(), Arc::clone(&request), patience, begin).await?;
    Ok(RunPodSandboxResponse { pod_sandbox_id: id })
}

/// All that a sandbox is made from, checked.
struct Plan {
    record: SandboxRecord,
    contents: Contents,
    sandbox: shim_protocol::Sandbox,
}

/// `name_namespace_uid_attempt`: what makes a sandbox unique.
fn key(record: &SandboxRecord) -> String {
    let metadata = record.metadata();
    format!("{}_{}_{}_{}", metadata.name, metadata.namespace, metadata.uid, metadata.attempt)
}

/// The sandbox that an identical request made before, still as it was then.
fn existing(pods: &Pods, key: &str, request: &RunPodSandboxRequest) -> Result<Option<String>> {
    let namesake = pods.sandboxes.all().into_iter().find(|sandbox| self::key(&sandbox.record()) == key);
    let Some(sandbox) = namesake else { return Ok(None) };
    let record = sandbox.record();
    let same = request.config.as_ref() == Some(&record.config) && request.runtime_handler == record.runtime_handler;
    match (record.phase, same) {
        (Phase::Ready, true) => Ok(Some(sandbox.id.clone())),
        (Phase::Ready, false) => Err(Failure::exists(format!(
            "sandbox name {key} is in use by {}, which has another configuration",
            sandbox.id
        ))),
        _ => Err(Failure::exists(format!(
            "sandbox name {key} is in use by {}, which has ended: remove it or count the attempt up",
            sandbox.id
        ))),
    }
}

fn plan(request: &RunPodSandboxRequest, pods: &Pods) -> Result<Plan> {
    let config = request.config.clone().ok_or_else(|| Failure::invalid("config is missing"))?;
    check(&config)?;
    let handler = &request.runtime_handler;
    if !handler.is_empty() && !pods.config.handlers.contains(handler) {
        let known = pods.config.handlers.join(", ");
        return Err(Failure::invalid(format!("runtime_handler {handler:?} is not configured (known: {known})")));
    }
    let id = new_id();
    let options = namespaces::options(&config);
    let host_network = options.network() == NamespaceMode::Node;
    let hostname = hostname(&config, host_network)?;
    let cgroup_parent = cgroup_parent(&config, &pods.config.cgroup_parent)?;
    let sandbox = shim_protocol::Sandbox {
        id: id.clone(),
        network: !host_network,
        ipc: options.ipc() != NamespaceMode::Node,
        hostname: hostname.clone(),
        sysctls: sysctls::build(&config)?,
        shm_bytes: (options.ipc() != NamespaceMode::Node).then_some(SHM_BYTES),
        reaper: (options.pid() == NamespaceMode::Pod)
            .then(|| Reaper { cgroup: cgroup_of(&cgroup_parent, &id), oom_score_adj: Some(REAPER_OOM_SCORE) }),
    };
    let contents = contents(&config, hostname.as_deref(), &pods.config.host_files)?;
    let netns = (!host_network).then(|| teardown::netns_path(&pods.config.netns_dir, &id));
    let record = SandboxRecord {
        id,
        config,
        runtime_handler: handler.clone(),
        created_at: host::now(),
        hostname,
        cgroup_parent,
        netns,
        network: None,
        processes: None,
        phase: Phase::Creating,
    };
    Ok(Plan { record, contents, sandbox })
}

fn check(config: &PodSandboxConfig) -> Result<()> {
    let metadata = config.metadata.as_ref().ok_or_else(|| Failure::invalid("config.metadata is missing"))?;
    for (field, value) in [("name", &metadata.name), ("namespace", &metadata.namespace), ("uid", &metadata.uid)] {
        if value.contains(|letter: char| letter.is_control() || letter == '/') {
            return Err(Failure::invalid(format!("config.metadata.{field}: {value:?}")));
        }
    }
    if metadata.name.is_empty() {
        return Err(Failure::invalid("config.metadata.name is empty"));
    }
    let options = namespaces::options(config);
    for (field, mode) in [("network", options.network()), ("ipc", options.ipc())] {
        if !matches!(mode, NamespaceMode::Pod | NamespaceMode::Node) {
            return Err(Failure::invalid(format!("namespace_options.{field}: {}", mode.as_str_name())));
        }
    }
    if options.pid() == NamespaceMode::Target {
        return Err(Failure::invalid("namespace_options.pid: TARGET is for containers"));
    }
    security::check_sandbox(config)?;
    network::check(config)
}

/// A pod on the host's network has the host's name; another without one takes it too, as with containerd.
fn hostname(config: &PodSandboxConfig, host_network: bool) -> Result<Option<String>> {
    if host_network {
        return Ok(None);
    }
    let name = if config.hostname.is_empty() { host::hostname() } else { config.hostname.clone() };
    pod_files::check_hostname(&name)?;
    Ok(Some(name))
}

fn cgroup_parent(config: &PodSandboxConfig, default: &str) -> Result<String> {
    let asked = config.linux.as_ref().map_or("", |linux| linux.cgroup_parent.as_str());
    let parent = if asked.is_empty() { default } else { asked };
    if parent.contains(['\0', '\n', ':']) || parent.split('/').any(|part| part == "..") {
        return Err(Failure::invalid(format!("cgroup_parent {parent:?} is not a cgroupfs path")));
    }
    Ok(format!("/{}", parent.trim_matches('/')))
}

fn contents(config: &PodSandboxConfig, hostname: Option<&str>, host: &crate::config::HostFiles) -> Result<Contents> {
    let read = |path: &Path| match std::fs::read(path) {
        // A host without one is rare, and no reason to run no pods.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other.map_err(|error| Failure::internal(format!("read {}", path.display()), &error)),
    };
    let name = hostname.map_or_else(host::hostname, str::to_owned);
    Ok(Contents {
        resolv_conf: pod_files::resolv_conf(config.dns_config.as_ref(), || read(&host.resolv_conf))?,
        hosts: read(&host.hosts)?,
        hostname: format!("{name}\n").into_bytes(),
    })
}

async fn create(pods: Arc<Pods>, plan: Plan, stages: Stages) -> Result<String> {
    let Plan { record, contents, sandbox: request } = plan;
    let id = record.id.clone();
    let sandbox = Arc::new(Sandbox::new(record, None));
    match build(&pods, &sandbox, contents, request, &stages).await {
        Ok(()) => Ok(id),
        Err(failure) => {
            stages.enter("roll back");
            roll_back(&pods, &sandbox).await;
            Err(failure)
        }
    }
}

async fn build(
    pods: &Arc<Pods>,
    sandbox: &Arc<Sandbox>,
    contents: Contents,
    request: shim_protocol::Sandbox,
    stages: &Stages,
) -> Result<()> {
    stages.enter("start the shim");
    let shim = start_shim(pods, sandbox, contents).await?;
    stages.enter("make the pod's namespaces");
    let (processes, namespace) = start_sandbox(&shim, request).await?;
    sandbox.change(|record| record.processes = Some(processes));
    let network = match (sandbox.record().netns.clone(), namespace) {
        (Some(_), Some(namespace)) => Some(attach(pods, sandbox, namespace, stages).await?),
        (Some(_), None) => return Err(Failure::new(tonic::Code::Internal, "the shim sent no network namespace")),
        (None, _) => None,
    };
    stages.enter("record");
    sandbox.change(|record| {
        record.network = network;
        record.phase = Phase::Ready;
    });
    pods.keep_sandbox(sandbox).await?;
    pods.sandboxes.insert(sandbox.id.clone(), Arc::clone(sandbox));
    pods.tell(&sandbox.id, &sandbox.id, ContainerEventType::ContainerCreatedEvent);
    pods.tell(&sandbox.id, &sandbox.id, ContainerEventType::ContainerStartedEvent);
    Ok(())
}

async fn start_shim(pods: &Arc<Pods>, sandbox: &Arc<Sandbox>, contents: Contents) -> Result<Arc<Shim>> {
    let (starter, record) = (Arc::clone(pods), sandbox.record());
    let dir = dir_of(&pods.config.state, &sandbox.id);
    let started = blocking("start a shim", move || {
        let id = &record.id;
        let internal = |error: &dyn std::error::Error| Failure::internal(format!("start sandbox {id}"), error);
        // The record comes first: from here on a crash leaves something that is found.
        starter.sandbox_records.put(id, &record).map_err(|error| internal(&error))?;
        let dir = dir_of(&starter.config.state, id);
        spawn(&starter.shim, &dir).map_err(|error| internal(&error))?;
        let files = starter.sandbox_records.dir_of(id);
        crate::records::make_private_dir(&files).map_err(|error| internal(&error))?;
        pod_files::write(&pod_files::paths(&files), &contents).map_err(|error| internal(&error))
    });
    started.await?;
    let shim = Shim::connect(&dir).map_err(|error| Failure::internal("connect to the shim", &error))?;
    let shim = Arc::new(shim);
    sandbox.set_shim(Arc::clone(&shim));
    follow(Arc::clone(pods), Arc::clone(sandbox), Arc::clone(&shim), Vec::new());
    Ok(shim)
}

async fn start_sandbox(shim: &Shim, request: shim_protocol::Sandbox) -> Result<(SandboxProcess, Option<OwnedFd>)> {
    let hello = shim.call(Verb::Hello(Hello { version: VERSION, subscribe: true }), Vec::new(), START);
    let start = shim.call(Verb::StartSandbox(request), Vec::new(), START);
    let ((_state, _), (answer, fds)) = tokio::try_join!(hello, start).map_err(|error| call("start sandbox", error))?;
    match answer {
        Answer::Sandbox(processes) => Ok((processes, fds.into_iter().next())),
        other => Err(unexpected("StartSandbox", &other)),
    }
}

/// A shim's failure as ours.
pub(crate) fn call(what: &str, error: CallError) -> Failure {
    match error {
        CallError::Failed(failure) => Failure::from_shim(what, &failure),
        CallError::Silent(_) => Failure::new(tonic::Code::DeadlineExceeded, format!("{what}: {error}")),
        other => Failure::internal(what, &other),
    }
}

/// An answer of the wrong kind.
pub(crate) fn unexpected(verb: &str, answer: &Answer) -> Failure {
    Failure::new(tonic::Code::Internal, format!("the shim answered {verb} with {answer:?}"))
}

/// Pins the namespace and lets CNI fill it.
async fn attach(pods: &Arc<Pods>, sandbox: &Arc<Sandbox>, namespace: OwnedFd, stages: &Stages) -> Result<Network> {
    let (adder, record, stages) = (Arc::clone(pods), sandbox.record(), stages.clone());
    let abandoned = Arc::new(AtomicBool::new(false));
    let given_up = Arc::clone(&abandoned);
    let work = blocking("attach a pod to its network", move || {
        let netns = record.netns.as_deref().unwrap_or(Path::new(""));
        stages.enter("pin the network namespace");
        pin(&namespace, netns)?;
        let attachment = network::attachment(&record.id, netns, &record.config)?;
        stages.enter("cni add");
        let added = adder.networks.add(&attachment);
        if given_up.load(Ordering::Acquire) {
            // Nobody waits any more, and the rollback may have been faster than the plugin.
            let _ = adder.networks.del(&attachment, cni::client::Namespace::Ends);
        }
        added.map_err(|error| cni_failure(&record.id, &error))
    });
    let timeout = pods.config.cni.timeout;
    let result = match tokio::time::timeout(timeout, work).await {
        Ok(result) => result?,
        Err(_elapsed) => {
            abandoned.store(true, Ordering::Release);
            let text = format!("cni add for sandbox {}: no answer within {} s", sandbox.id, timeout.as_secs());
            return Err(Failure::new(tonic::Code::DeadlineExceeded, text));
        }
    };
    let ips: Vec<String> = result.pod_addresses(network::INTERFACE).iter().map(ToString::to_string).collect();
    if ips.is_empty() {
        return Err(Failure::new(tonic::Code::Internal, format!("cni add for sandbox {}: no address", sandbox.id)));
    }
    let result = serde_json::to_value(&result).unwrap_or_default();
    Ok(Network { ips, result })
}

fn cni_failure(id: &str, error: &cni::client::Error) -> Failure {
    let code = match error {
        cni::client::Error::NotReady(_) => tonic::Code::Unavailable,
        _ => tonic::Code::Internal,
    };
    Failure::new(code, format!("set up the network of sandbox {id}: {}", chain(error)))
}

fn pin(namespace: &OwnedFd, netns: &Path) -> Result<()> {
    let shown = netns.display();
    let failure = |error: &dyn std::error::Error| Failure::internal(format!("pin network namespace {shown}"), error);
    if let Some(dir) = netns.parent() {
        std::fs::create_dir_all(dir).map_err(|error| failure(&error))?;
    }
    std::fs::File::create(netns).map_err(|error| failure(&error))?;
    sys::namespace::pin(namespace, netns).map_err(|error| failure(&error))
}

async fn roll_back(pods: &Arc<Pods>, sandbox: &Arc<Sandbox>) {
    // The end of its shim is no news.
    sandbox.change(|record| record.phase = Phase::Stopped);
    let result = match teardown::sandbox(pods, sandbox).await {
        Ok(()) => teardown::forget(pods, &sandbox.id).await,
        Err(failure) => Err(failure),
    };
    if let Err(failure) = result {
        // Its record stays, and the next start of the daemon tries again.
        tracing::error!(sandbox = sandbox.id, error = chain(&failure), "roll back a sandbox");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_parent_is_an_absolute_cgroupfs_path() {
        let with = |parent: &str| PodSandboxConfig {
            linux: Some(proto::LinuxPodSandboxConfig { cgroup_parent: parent.into(), ..Default::default() }),
            ..PodSandboxConfig::default()
        };
        for (parent, want) in [
            ("", Some("/orlop")),
            ("/kubepods/burstable/pod1", Some("/kubepods/burstable/pod1")),
            ("kubepods/", Some("/kubepods")),
            ("/a/../b", None),
            ("system.slice:cri:x", None),
        ] {
            assert_eq!(cgroup_parent(&with(parent), "/orlop").ok().as_deref(), want, "{parent}");
        }
    }
}
