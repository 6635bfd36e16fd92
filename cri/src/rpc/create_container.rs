//! CreateContainer: everything but the program. Checked before anything is made; rolled back entirely if it fails.
//!
//! ```text
//! check ─▶ lease, directories, root file system ─▶ user, volumes, devices ─▶ spec ─▶ record ─▶ shim ─▶ id
//! ```

use super::run_pod_sandbox::{call, unexpected};
use crate::container::{Container, ContainerRecord, Life};
use crate::creations::Begin;
use crate::failure::{Failure, Result, chain};
use crate::host;
use crate::index::new_id;
use crate::pod_files;
use crate::pods::{Pods, blocking};
use crate::records::make_private_dir;
use crate::sandbox::{Phase, Sandbox, SandboxRecord};
use crate::seccomp_cache::Program;
use crate::shim::CallError;
use crate::spec::capabilities::CapabilitySets;
use crate::spec::namespaces::PidNamespace;
use crate::spec::user::{Accounts, MAX_FILE, ResolvedUser};
use crate::spec::{self, devices, log_path, mounts, namespace_of, resources, security, signal, user};
use crate::stages::Stages;
use crate::supervise::{cgroup_of, kill_cgroup};
use crate::volumes;
use image::{Image, MountOptions};
use oci_spec::runtime::{LinuxNamespaceType, Spec};
use proto::{ContainerConfig, ContainerEventType, CreateContainerRequest, CreateContainerResponse, NamespaceMode};
use shim_protocol::{Answer, Create, Delete, ErrorKind, Process, Source, Verb};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use sys::Errno;
use sys::fs::Durability;
use sys::process::Pid;
use sys::rootfd::RootFd;

/// How long a container may take to be made, its volumes opened.
const CREATE: Duration = Duration::from_secs(110);

/// The name of the spec in a container's directory.
const SPEC: &str = "config.json";

pub(crate) async fn create_container(
    pods: &Arc<Pods>,
    request: CreateContainerRequest,
    patience: Option<Duration>,
) -> Result<CreateContainerResponse> {
    let sandbox = pods.sandboxes.get(&request.pod_sandbox_id)?;
    if sandbox.record().phase != Phase::Ready {
        return Err(Failure::state(format!("sandbox {} is not ready", sandbox.id)));
    }
    let request = Arc::new(request);
    let (planner, place, asked) = (Arc::clone(pods), Arc::clone(&sandbox), Arc::clone(&request));
    let plan = blocking("plan a container", move || plan(&planner, &place, &asked)).await?;
    let key = key(&plan.record);
    let what = format!("container {key}");
    let config = plan.record.config.clone();
    let begin = |stages: Stages| match existing(pods, &key, &config)? {
        Some(id) => Ok(Begin::Done(id)),
        None => Ok(Begin::Run(create(Arc::clone(pods), sandbox, plan, stages))),
    };
    let id = pods.container_creations.join_or_begin(&what, key.clone(), request, patience, begin).await?;
    Ok(CreateContainerResponse { container_id: id })
}

/// `name_attempt_sandbox`: what makes a container unique.
fn key(record: &ContainerRecord) -> String {
    let metadata = record.metadata();
    format!("{}_{}_{}", metadata.name, metadata.attempt, record.sandbox)
}

/// The container that an identical request made before, if it was not started yet.
fn existing(pods: &Pods, key: &str, config: &ContainerConfig) -> Result<Option<String>> {
    let namesake = pods.containers.all().into_iter().find(|container| self::key(&container.record()) == key);
    let Some(container) = namesake else { return Ok(None) };
    match container.life() {
        Life::Created(_) if container.record().config == *config => Ok(Some(container.id.clone())),
        Life::Created(_) => Err(Failure::exists(format!(
            "container name {key} is in use by {}, which has another configuration",
            container.id
        ))),
        Life::Running(_) | Life::Exited(_) => Err(Failure::exists(format!(
            "container name {key} is in use by {}, which was started: remove it or count the attempt up",
            container.id
        ))),
    }
}

/// What a container is made from, checked as far as it can be without its root file system.
struct Plan {
    record: ContainerRecord,
    image: Arc<Image>,
    image_name: String,
    pid: PidNamespace,
    sources: Vec<Source>,
}

fn plan(pods: &Pods, sandbox: &Sandbox, request: &CreateContainerRequest) -> Result<Plan> {
    let config = request.config.clone().ok_or_else(|| Failure::invalid("config is missing"))?;
    let metadata = config.metadata.as_ref().ok_or_else(|| Failure::invalid("config.metadata is missing"))?;
    if metadata.name.is_empty() {
        return Err(Failure::invalid("config.metadata.name is empty"));
    }
    if !config.cdi_devices.is_empty() {
        return Err(Failure::unbuilt(format!("CDI device {}", config.cdi_devices[0].name)));
    }
    let asked = config.image.clone().unwrap_or_default();
    let image = pods
        .images
        .find(&asked.image)
        .ok_or_else(|| Failure::not_found(format!("image {:?} is not here: pull it first", asked.image)))?;
    let user_specified = !asked.user_specified_image.is_empty();
    let image_name = if user_specified { asked.user_specified_image } else { asked.image };
    let id = new_id();
    let sandbox_record = sandbox.record();
    // The request's own copy of the sandbox's configuration may be older than what the sandbox was made from.
    let log_path = log_path::resolve(&sandbox_record.config.log_directory, &config.log_path)?;
    let pid = pid_namespace(pods, &sandbox_record, &config)?;
    let plan = Plan {
        record: ContainerRecord {
            cgroup: cgroup_of(&sandbox_record.cgroup_parent, &id),
            id,
            sandbox: sandbox.id.clone(),
            image_id: image.id.to_string(),
            image_ref: image.repo_digests.first().cloned().unwrap_or_else(|| image.id.to_string()),
            created_at: host::now(),
            started_at: 0,
            log_path,
            user: proto::LinuxContainerUser::default(),
            stop_signal: signal::stop_signal(config.stop_signal(), &image.config.stop_signal)?,
            ended: None,
            config,
        },
        image,
        image_name,
        pid,
        sources: Vec::new(),
    };
    check(pods, &sandbox_record, plan)
}

/// Builds the spec once for a user that is not known yet: whatever is wrong with the request is told before anything is
/// made.
fn check(pods: &Pods, sandbox: &SandboxRecord, mut plan: Plan) -> Result<Plan> {
    let config = &plan.record.config;
    let nobody = ResolvedUser { uid: 0, gid: 0, groups: Vec::new() };
    let context = spec::security_context(config);
    security::seccomp(&context)?;
    if context.run_as_group.is_some() && context.run_as_user.is_none() && context.run_as_username.is_empty() {
        return Err(Failure::invalid("run_as_group without run_as_user or run_as_username"));
    }
    spec_of(pods, sandbox, &plan, &nobody, &[])?;
    plan.sources = mounts::sources(&plan.record.config)?;
    Ok(plan)
}

fn pid_namespace(pods: &Pods, sandbox: &SandboxRecord, config: &ContainerConfig) -> Result<PidNamespace> {
    let options = spec::security_context(config).namespace_options.unwrap_or_default();
    // Whoever has the number now must be whom we mean; the runtime opens the path a moment later, and what dies meanwhile
    // takes its namespace with it.
    let of = |process: Process| match sys::process::start_time(Pid::from_raw(process.pid)) {
        Ok(start_time) if start_time == process.start_time => {
            Ok(PidNamespace::Of(namespace_of(process.pid, LinuxNamespaceType::Pid)))
        }
        _ => Err(Failure::state(format!("namespace_options.pid: process {} is gone", process.pid))),
    };
    match options.pid() {
        NamespaceMode::Container => Ok(PidNamespace::New),
        NamespaceMode::Node => Ok(PidNamespace::Host),
        NamespaceMode::Pod => match sandbox.processes.as_ref().and_then(|processes| processes.reaper) {
            Some(reaper) => of(reaper),
            None => Err(Failure::invalid("namespace_options.pid: POD in a sandbox that shares no PID namespace")),
        },
        NamespaceMode::Target => {
            let target = pods.containers.get(&options.target_id)?;
            if target.sandbox != sandbox.id {
                return Err(Failure::invalid(format!(
                    "namespace_options.target_id: {} is in another sandbox",
                    target.id
                )));
            }
            match target.life() {
                Life::Running(process) => of(process),
                Life::Created(_) | Life::Exited(_) => {
                    Err(Failure::state(format!("namespace_options.target_id: {} is not running", target.id)))
                }
            }
        }
    }
}

fn spec_of(
    pods: &Pods,
    sandbox: &SandboxRecord,
    plan: &Plan,
    user: &ResolvedUser,
    volumes: &[mounts::Volume],
) -> Result<Spec> {
    let config = &plan.record.config;
    let privileged = spec::security_context(config).privileged;
    let mut devices = devices::find(&config.devices)?;
    if privileged {
        let listed = std::mem::take(&mut devices);
        devices = devices::all_of_host()?;
        devices.retain(|device| !listed.iter().any(|other| other.path == device.path));
        devices.extend(listed);
    }
    spec::build(&spec::Inputs {
        sandbox,
        config,
        image: &plan.image.config,
        image_name: &plan.image_name,
        user,
        pid: &plan.pid,
        files: &pod_files::paths(&pods.sandbox_records.dir_of(&sandbox.id)),
        volumes,
        devices: &devices,
        host: &pods.host,
        cgroup: &plan.record.cgroup,
    })
}

async fn create(pods: Arc<Pods>, sandbox: Arc<Sandbox>, plan: Plan, stages: Stages) -> Result<String> {
    let id = plan.record.id.clone();
    match build(&pods, &sandbox, plan, &stages).await {
        Ok(()) => Ok(id),
        Err(failure) => {
            stages.enter("roll back");
            roll_back(&pods, &sandbox, &id).await;
            Err(failure)
        }
    }
}

async fn build(pods: &Arc<Pods>, sandbox: &Arc<Sandbox>, plan: Plan, stages: &Stages) -> Result<()> {
    let (preparer, sandbox_record, told) = (Arc::clone(pods), sandbox.record(), stages.clone());
    let prepared = blocking("prepare a container", move || prepare(&preparer, &sandbox_record, plan, &told)).await?;
    stages.enter("create in the shim");
    let shim = sandbox.shim().ok_or_else(|| Failure::state(format!("sandbox {} is not ready", sandbox.id)))?;
    let what = format!("create container {}", prepared.record.metadata().name);
    let answer = shim.call(Verb::Create(Box::new(prepared.create)), prepared.fds, CREATE).await;
    let process = match answer.map_err(|error| refused(&what, error))? {
        (Answer::Process(process), _) => process,
        (other, _) => return Err(unexpected("Create", &other)),
    };
    insert(pods, sandbox, prepared.record, process).await
}

/// Whoever reads a mount's error looks for this word.
fn refused(what: &str, error: CallError) -> Failure {
    match error {
        CallError::Failed(failure) if failure.kind == ErrorKind::Unsupported && failure.message.contains("rro") => {
            Failure::from_shim(what, &failure).within("RROUnsupported")
        }
        error => call(what, error),
    }
}

async fn insert(pods: &Arc<Pods>, sandbox: &Arc<Sandbox>, record: ContainerRecord, process: Process) -> Result<()> {
    let container = Arc::new(Container::new(record, Life::Created(process)));
    pods.containers.insert(container.id.clone(), Arc::clone(&container));
    // In this order: either we see that the sandbox was stopped, or who removes it sees the container.
    if sandbox.record().phase != Phase::Ready {
        return Err(Failure::state(format!("sandbox {} was stopped meanwhile", sandbox.id)));
    }
    pods.apply_early_exit(&container).await;
    pods.tell(&container.id, &sandbox.id, ContainerEventType::ContainerCreatedEvent);
    Ok(())
}

/// What the shim gets.
struct Prepared {
    record: ContainerRecord,
    create: Create,
    fds: Vec<OwnedFd>,
}

/// Everything that blocks: mounts, the image's files, directories, the record.
fn prepare(pods: &Pods, sandbox: &SandboxRecord, mut plan: Plan, stages: &Stages) -> Result<Prepared> {
    stages.enter("mount the root file system");
    let id = plan.record.id.clone();
    let internal =
        |step: &str, error: &dyn std::error::Error| Failure::internal(format!("container {id}: {step}"), error);
    let dir = pods.container_records.dir_of(&id);
    make_private_dir(&dir).map_err(|error| internal("make its directory", &error))?;
    pods.images.lease(&id, &plan.image.id).map_err(|error| internal("hold its image", &error))?;
    // A writable layer is made for one container and mounted once: what a power cut takes of it nobody will read, and
    // without `volatile` each unmount would sync the whole disk that it lies on.
    let options = MountOptions { volatile: true, ..MountOptions::default() };
    let mount = pods.images.mount_rootfs(&plan.image.id, &dir, options);
    let rootfs = mount.map_err(|error| internal("mount its root file system", &error))?;
    let copy = sys::fd::duplicate(&rootfs).map_err(|error| internal("hold its root file system", &error))?;
    let inside = RootFd::from_fd(copy);
    stages.enter("look up the user");
    let context = spec::security_context(&plan.record.config);
    let user = user::resolve(&context, &plan.image.config.user, &accounts(&inside)?)?;
    stages.enter("fill volumes");
    let volumes = mounts::volumes(&plan.record.config, &plan.image.config, &dir.join("volumes"));
    volumes::fill(&volumes, &inside)?;
    stages.enter("write the spec");
    let spec = spec_of(pods, sandbox, &plan, &user, &volumes)?;
    let granted = CapabilitySets::build(&context, pods.host.capabilities)?.names();
    let seccomp = pods.programs.get(&security::seccomp(&context)?, &granted)?;
    let json = serde_json::to_vec(&spec).map_err(|error| internal("encode its spec", &error))?;
    let memfd = sys::fd::sealed_memfd(c"spec", &json, false).map_err(|error| internal("send its spec", &error))?;
    sys::fs::atomic_write(dir.join(SPEC), &json, Durability::Rename, 0o600)
        .map_err(|error| internal("keep its spec", &error))?;
    plan.record.user = user.to_cri();
    // From here on a crash leaves something that is found.
    pods.container_records.put(&id, &plan.record).map_err(|error| internal("keep its record", &error))?;
    let shares_ipc = crate::spec::namespaces::options(&sandbox.config).ipc() == NamespaceMode::Node;
    let shm = !shares_ipc && mounts::wants_pod_shm(&plan.record.config);
    let create = Create {
        container: id,
        log_path: plan.record.log_path.clone(),
        stdin: plan.record.config.stdin,
        stdin_once: plan.record.config.stdin_once,
        seccomp: seccomp.is_some(),
        filter: Program::filter_of(seccomp.as_ref()),
        shm: shm.then(|| PathBuf::from("/dev/shm")),
        sources: plan.sources,
        best_effort_oom_score: true,
        best_effort_rlimits: false,
    };
    let fds = [memfd, rootfs].into_iter().chain(seccomp.map(|program| program.memfd)).collect();
    Ok(Prepared { record: plan.record, create, fds })
}

/// The image's account files, read inside its root; what is absent is empty, what is no plain file or too long is refused.
fn accounts(root: &RootFd) -> Result<Accounts> {
    let read = |path: &str| match root.read_bounded(Path::new(path), MAX_FILE) {
        Err(error) if error.is(Errno::ENOENT) || error.is(Errno::ENOTDIR) => Ok(Vec::new()),
        other => other.map_err(|error| Failure::invalid(format!("read the image's {path}: {error}"))),
    };
    Ok(Accounts { passwd: read("/etc/passwd")?, group: read("/etc/group")? })
}

async fn roll_back(pods: &Arc<Pods>, sandbox: &Arc<Sandbox>, id: &str) {
    let mut shim_died = false;
    if let Some(shim) = sandbox.shim() {
        let delete = Verb::Delete(Delete { container: id.to_owned(), force: true });
        match shim.call(delete, Vec::new(), CREATE).await {
            Ok(_) => {}
            Err(CallError::Gone) => shim_died = true,
            Err(CallError::Failed(failure)) if failure.kind == ErrorKind::NotFound => {}
            Err(error) => {
                // It may live: its files and its record stay, and the next start of the daemon tries again.
                tracing::error!(container = id, error = chain(&error), "roll back a container");
                pods.containers.remove(id);
                return;
            }
        }
    }
    pods.forget_early_exit(id);
    pods.containers.remove(id);
    let cgroup = cgroup_of(&sandbox.record().cgroup_parent, id);
    let (remover, id) = (Arc::clone(pods), id.to_owned());
    let removed = blocking("roll back a container", move || {
        if shim_died {
            kill_cgroup(&remover.layout, &cgroup);
        }
        remover.images.release(&id);
        remover.container_records.remove(&id).map_err(|error| Failure::internal("remove its files", &error))
    });
    if let Err(failure) = removed.await {
        tracing::error!(error = chain(&failure), "roll back a container");
    }
}

/// The spec that a container was made from. Blocks.
pub(crate) fn read_spec(pods: &Pods, id: &str) -> Result<Spec> {
    let path = pods.container_records.dir_of(id).join(SPEC);
    let bytes = std::fs::read(&path).map_err(|error| Failure::internal(format!("read {}", path.display()), &error))?;
    serde_json::from_slice(&bytes).map_err(|error| Failure::internal(format!("read {}", path.display()), &error))
}

/// The resources of a request in the runtime's terms, as a sealed file.
pub(crate) fn resources_memfd(resources: &proto::LinuxContainerResources) -> Result<OwnedFd> {
    let oci = resources::to_oci(resources)?;
    let json = serde_json::to_vec(&oci).map_err(|error| Failure::internal("encode resources", &error))?;
    sys::fd::sealed_memfd(c"resources", &json, false).map_err(|error| Failure::internal("send resources", &error))
}
