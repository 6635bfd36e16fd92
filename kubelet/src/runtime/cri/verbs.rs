//! The verbs: one call each, but for the two that observe.

use super::super::observe;
use super::{Call, Cri, error};
use crate::pod::PodUid;
use crate::runtime::{
    Changed, Container, ObservedPod, Result, Runtime, RuntimeInfo, RuntimePod, RuntimeStatus, Sandbox, keys,
};
use futures_util::future::{BoxFuture, try_join, try_join_all};
use futures_util::stream::BoxStream;
use futures_util::{FutureExt as _, StreamExt as _};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tonic::Code;

/// The CRI version that we ask for. Runtimes ignore it; upstream sends this one.
const KUBE_API_VERSION: &str = "0.1.0";

/// What labels a thing has, and the thing.
type Labelled<T> = (BTreeMap<String, String>, T);

const fn call(rpc: &'static str, operation: &'static str) -> Call {
    Call { rpc, operation }
}

/// `namespace/name`, for the list of calls under way.
fn pod_name(config: &proto::PodSandboxConfig) -> String {
    config.metadata.as_ref().map(|pod| format!("{}/{}", pod.namespace, pod.name)).unwrap_or_default()
}

/// Whole seconds, and at least one: 0 would mean no limit at all.
fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs().max(1)).unwrap_or(i64::MAX)
}

impl Cri {
    async fn list_sandboxes(&self, filter: Option<proto::PodSandboxFilter>) -> Result<Vec<proto::PodSandbox>> {
        let mut client = self.runtime.clone();
        let answer = client.list_pod_sandbox(proto::ListPodSandboxRequest { filter });
        Ok(self.call(call("ListPodSandbox", "list_podsandbox"), "", Some(self.timeout), answer).await?.items)
    }

    async fn list_containers(&self, filter: Option<proto::ContainerFilter>) -> Result<Vec<proto::Container>> {
        let mut client = self.runtime.clone();
        let answer = client.list_containers(proto::ListContainersRequest { filter });
        Ok(self.call(call("ListContainers", "list_containers"), "", Some(self.timeout), answer).await?.containers)
    }

    /// What is known of a listed sandbox, or its status; `None` if it is gone meanwhile.
    async fn sandbox(&self, listed: proto::PodSandbox) -> Result<Option<Labelled<Sandbox>>> {
        if let Some(known) = self.known.sandbox(&listed.id, listed.state) {
            return Ok(Some((listed.labels, known)));
        }
        let mut client = self.runtime.clone();
        let request = proto::PodSandboxStatusRequest { pod_sandbox_id: listed.id.clone(), verbose: false };
        let answer = client.pod_sandbox_status(request);
        let verb = call("PodSandboxStatus", "podsandbox_status");
        let answer = match self.call(verb, &listed_pod(&listed.labels), Some(self.timeout), answer).await {
            Ok(answer) => answer,
            Err(error) if error.code == Code::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let sandbox = observe::sandbox(&listed, answer.status.as_ref());
        if answer.status.is_some_and(|status| status.state == listed.state) {
            self.known.learn_sandbox(listed.state, &sandbox);
        }
        Ok(Some((listed.labels, sandbox)))
    }

    /// What is known of a listed container, or its status; `None` if it is gone meanwhile.
    async fn container(&self, listed: proto::Container) -> Result<Option<Labelled<Container>>> {
        if let Some(known) = self.known.container(&listed.id, listed.state) {
            return Ok(Some((listed.labels, known)));
        }
        let mut client = self.runtime.clone();
        let request = proto::ContainerStatusRequest { container_id: listed.id.clone(), verbose: false };
        let answer = client.container_status(request);
        let verb = call("ContainerStatus", "container_status");
        let status = match self.call(verb, &listed_pod(&listed.labels), Some(self.timeout), answer).await {
            Ok(proto::ContainerStatusResponse { status: Some(status), .. }) => status,
            Ok(_) => return Ok(None),
            Err(error) if error.code == Code::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let container = observe::container(&listed, &status);
        self.known.learn_container(status.state, &container);
        Ok(Some((listed.labels, container)))
    }

    /// Completes two lists by what each entry's status adds.
    async fn complete(
        &self,
        sandboxes: Vec<proto::PodSandbox>,
        containers: Vec<proto::Container>,
    ) -> Result<(Vec<Labelled<Sandbox>>, Vec<Labelled<Container>>)> {
        let sandboxes = try_join_all(sandboxes.into_iter().map(|listed| self.sandbox(listed)));
        let containers = try_join_all(containers.into_iter().map(|listed| self.container(listed)));
        let (sandboxes, containers) = try_join(sandboxes, containers).await?;
        Ok((sandboxes.into_iter().flatten().collect(), containers.into_iter().flatten().collect()))
    }
}

fn listed_pod(labels: &BTreeMap<String, String>) -> String {
    let label = |key| labels.get(key).map(String::as_str).unwrap_or_default();
    format!("{}/{}", label(keys::POD_NAMESPACE), label(keys::POD_NAME))
}

/// Whose event it is; `None` for what no kubelet has made.
fn changed(event: proto::ContainerEventResponse) -> Option<Changed> {
    let kind = event.container_event_type();
    let sandbox = event.pod_sandbox_status.as_ref().map(|sandbox| &sandbox.labels);
    let containers = event.containers_statuses.iter().map(|container| &container.labels);
    let uid = sandbox.into_iter().chain(containers).find_map(observe::owner)?;
    Some(Changed { uid, id: event.container_id, kind })
}

impl Runtime for Cri {
    fn version(&self) -> BoxFuture<'_, Result<RuntimeInfo>> {
        async move {
            let mut client = self.runtime.clone();
            let answer = client.version(proto::VersionRequest { version: KUBE_API_VERSION.to_owned() });
            let version = self.call(call("Version", "version"), "", Some(self.timeout), answer).await?;
            Ok(RuntimeInfo { name: version.runtime_name, version: version.runtime_version })
        }
        .boxed()
    }

    fn status(&self) -> BoxFuture<'_, Result<RuntimeStatus>> {
        async move {
            let mut client = self.runtime.clone();
            let answer = client.status(proto::StatusRequest { verbose: false });
            let answer = self.call(call("Status", "status"), "", Some(self.timeout), answer).await?;
            Ok(RuntimeStatus {
                conditions: answer.status.map(|status| status.conditions).unwrap_or_default(),
                handlers: answer.runtime_handlers,
                supplemental_groups_policy: answer.features.is_some_and(|it| it.supplemental_groups_policy),
            })
        }
        .boxed()
    }

    fn cgroup_driver(&self) -> BoxFuture<'_, Result<Option<proto::CgroupDriver>>> {
        async move {
            let mut client = self.runtime.clone();
            let answer = client.runtime_config(proto::RuntimeConfigRequest {});
            match self.call(call("RuntimeConfig", "runtime_config"), "", Some(self.timeout), answer).await {
                Ok(answer) => Ok(answer.linux.map(|linux| linux.cgroup_driver())),
                Err(error) if error.code == Code::Unimplemented => Ok(None),
                Err(error) => Err(error),
            }
        }
        .boxed()
    }

    fn set_pod_cidr<'a>(&'a self, cidr: &'a str) -> BoxFuture<'a, Result<()>> {
        async move {
            let mut client = self.runtime.clone();
            let network_config = Some(proto::NetworkConfig { pod_cidr: cidr.to_owned() });
            let runtime_config = Some(proto::RuntimeConfig { network_config });
            let answer = client.update_runtime_config(proto::UpdateRuntimeConfigRequest { runtime_config });
            let verb = call("UpdateRuntimeConfig", "update_runtime_config");
            self.call(verb, "", Some(self.timeout), answer).await.map(drop)
        }
        .boxed()
    }

    fn list_pods(&self) -> BoxFuture<'_, Result<Vec<RuntimePod>>> {
        async move {
            // Sandboxes last: a container's sandbox is older than itself, so that none is seen without.
            let containers = self.list_containers(None).await?;
            let sandboxes = self.list_sandboxes(None).await?;
            let sandbox_ids: BTreeSet<&str> = sandboxes.iter().map(|listed| listed.id.as_str()).collect();
            let container_ids: BTreeSet<&str> = containers.iter().map(|listed| listed.id.as_str()).collect();
            self.known.keep(&sandbox_ids, &container_ids);
            let (sandboxes, containers) = self.complete(sandboxes, containers).await?;
            Ok(observe::group(sandboxes, containers))
        }
        .boxed()
    }

    fn observe<'a>(&'a self, uid: &'a PodUid) -> BoxFuture<'a, Result<ObservedPod>> {
        async move {
            let label_selector = BTreeMap::from([(keys::POD_UID.to_owned(), uid.to_string())]);
            let of_containers =
                proto::ContainerFilter { label_selector: label_selector.clone(), ..proto::ContainerFilter::default() };
            let of_sandboxes = proto::PodSandboxFilter { label_selector, ..proto::PodSandboxFilter::default() };
            let containers = self.list_containers(Some(of_containers)).await?;
            let sandboxes = self.list_sandboxes(Some(of_sandboxes)).await?;
            let (sandboxes, containers) = self.complete(sandboxes, containers).await?;
            let without_labels = |(_, thing)| thing;
            Ok(observe::pod(
                sandboxes.into_iter().map(|(_, sandbox)| sandbox).collect(),
                containers.into_iter().map(without_labels).collect(),
            ))
        }
        .boxed()
    }

    fn events(&self) -> BoxFuture<'_, Result<BoxStream<'static, Result<Changed>>>> {
        async move {
            let mut client = self.runtime.clone();
            // Neither a deadline nor a call that can hang: many servers answer with the first event.
            let answer = client.get_container_events(proto::GetEventsRequest {}).await;
            let stream = answer.map_err(|status| error("GetContainerEvents", &status))?.into_inner();
            let changes = stream.filter_map(|event| async move {
                match event {
                    Ok(event) => changed(event).map(Ok),
                    Err(status) => Some(Err(error("GetContainerEvents", &status))),
                }
            });
            Ok(changes.boxed())
        }
        .boxed()
    }

    fn run_sandbox<'a>(
        &'a self,
        config: &'a proto::PodSandboxConfig,
        handler: &'a str,
    ) -> BoxFuture<'a, Result<String>> {
        async move {
            let mut client = self.runtime.clone();
            let request =
                proto::RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: handler.to_owned() };
            let answer = client.run_pod_sandbox(request);
            // The network may take as long as everything else together.
            let limit = Some(self.timeout * 2);
            let verb = call("RunPodSandbox", "run_podsandbox");
            Ok(self.call(verb, &pod_name(config), limit, answer).await?.pod_sandbox_id)
        }
        .boxed()
    }

    fn stop_sandbox<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        async move {
            let mut client = self.runtime.clone();
            let answer = client.stop_pod_sandbox(proto::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() });
            let verb = call("StopPodSandbox", "stop_podsandbox");
            self.call(verb, "", Some(self.timeout), answer).await.map(drop)
        }
        .boxed()
    }

    fn remove_sandbox<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        async move {
            let mut client = self.runtime.clone();
            let answer = client.remove_pod_sandbox(proto::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() });
            let verb = call("RemovePodSandbox", "remove_podsandbox");
            self.call(verb, "", Some(self.timeout), answer).await.map(drop)
        }
        .boxed()
    }

    fn create_container<'a>(
        &'a self,
        sandbox: &'a str,
        config: &'a proto::ContainerConfig,
        sandbox_config: &'a proto::PodSandboxConfig,
    ) -> BoxFuture<'a, Result<String>> {
        async move {
            let mut client = self.runtime.clone();
            let answer = client.create_container(proto::CreateContainerRequest {
                pod_sandbox_id: sandbox.to_owned(),
                config: Some(config.clone()),
                sandbox_config: Some(sandbox_config.clone()),
            });
            let verb = call("CreateContainer", "create_container");
            Ok(self.call(verb, &pod_name(sandbox_config), Some(self.timeout), answer).await?.container_id)
        }
        .boxed()
    }

    fn start_container<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        async move {
            let mut client = self.runtime.clone();
            let answer = client.start_container(proto::StartContainerRequest { container_id: id.to_owned() });
            let verb = call("StartContainer", "start_container");
            self.call(verb, "", Some(self.timeout), answer).await.map(drop)
        }
        .boxed()
    }

    fn stop_container<'a>(&'a self, id: &'a str, grace: Duration) -> BoxFuture<'a, Result<()>> {
        async move {
            let mut client = self.runtime.clone();
            let timeout = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
            let answer = client.stop_container(proto::StopContainerRequest { container_id: id.to_owned(), timeout });
            let verb = call("StopContainer", "stop_container");
            self.call(verb, "", Some(self.timeout.saturating_add(grace)), answer).await.map(drop)
        }
        .boxed()
    }

    fn remove_container<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        async move {
            let mut client = self.runtime.clone();
            let answer = client.remove_container(proto::RemoveContainerRequest { container_id: id.to_owned() });
            let verb = call("RemoveContainer", "remove_container");
            self.call(verb, "", Some(self.timeout), answer).await.map(drop)
        }
        .boxed()
    }

    fn reopen_log<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        async move {
            let mut client = self.runtime.clone();
            let answer = client.reopen_container_log(proto::ReopenContainerLogRequest { container_id: id.to_owned() });
            let verb = call("ReopenContainerLog", "reopen_container_log");
            self.call(verb, "", Some(self.timeout), answer).await.map(drop)
        }
        .boxed()
    }

    fn exec_sync<'a>(
        &'a self,
        id: &'a str,
        command: &'a [String],
        timeout: Duration,
    ) -> BoxFuture<'a, Result<proto::ExecSyncResponse>> {
        async move {
            let mut client = self.runtime.clone();
            let answer = client.exec_sync(proto::ExecSyncRequest {
                container_id: id.to_owned(),
                cmd: command.to_owned(),
                timeout: seconds(timeout),
            });
            // The runtime ends the command in time; our own deadline is for a runtime that doesn't.
            let limit = Some(self.timeout.saturating_add(timeout));
            self.call(call("ExecSync", "exec_sync"), "", limit, answer).await
        }
        .boxed()
    }

    fn image<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<Option<proto::Image>>> {
        async move {
            let mut client = self.images.clone();
            let image = Some(proto::ImageSpec { image: reference.to_owned(), ..proto::ImageSpec::default() });
            let answer = client.image_status(proto::ImageStatusRequest { image, verbose: false });
            Ok(self.call(call("ImageStatus", "image_status"), "", Some(self.timeout), answer).await?.image)
        }
        .boxed()
    }

    fn pull_image<'a>(
        &'a self,
        reference: &'a str,
        auth: Option<&'a proto::AuthConfig>,
        sandbox_config: &'a proto::PodSandboxConfig,
    ) -> BoxFuture<'a, Result<String>> {
        async move {
            let mut client = self.images.clone();
            let answer = client.pull_image(proto::PullImageRequest {
                image: Some(proto::ImageSpec { image: reference.to_owned(), ..proto::ImageSpec::default() }),
                auth: auth.cloned(),
                sandbox_config: Some(sandbox_config.clone()),
            });
            // A large image over a thin line takes hours: the runtime gives up when nothing comes any more.
            let verb = call("PullImage", "pull_image");
            Ok(self.call(verb, &pod_name(sandbox_config), None, answer).await?.image_ref)
        }
        .boxed()
    }

    fn list_images(&self) -> BoxFuture<'_, Result<Vec<proto::Image>>> {
        async move {
            let mut client = self.images.clone();
            let answer = client.list_images(proto::ListImagesRequest { filter: None });
            Ok(self.call(call("ListImages", "list_images"), "", Some(self.timeout), answer).await?.images)
        }
        .boxed()
    }

    fn image_fs(&self) -> BoxFuture<'_, Result<proto::ImageFsInfoResponse>> {
        async move {
            let mut client = self.images.clone();
            let answer = client.image_fs_info(proto::ImageFsInfoRequest {});
            self.call(call("ImageFsInfo", "image_fs_info"), "", Some(self.timeout), answer).await
        }
        .boxed()
    }

    fn container_stats(&self) -> BoxFuture<'_, Result<Vec<proto::ContainerStats>>> {
        async move {
            let mut client = self.runtime.clone();
            let answer = client.list_container_stats(proto::ListContainerStatsRequest { filter: None });
            let verb = call("ListContainerStats", "list_container_stats");
            Ok(self.call(verb, "", Some(self.timeout), answer).await?.stats)
        }
        .boxed()
    }

    fn sandbox_stats(&self) -> BoxFuture<'_, Result<Vec<proto::PodSandboxStats>>> {
        async move {
            let mut client = self.runtime.clone();
            let answer = client.list_pod_sandbox_stats(proto::ListPodSandboxStatsRequest { filter: None });
            let verb = call("ListPodSandboxStats", "list_podsandbox_stats");
            Ok(self.call(verb, "", Some(self.timeout), answer).await?.stats)
        }
        .boxed()
    }
}
