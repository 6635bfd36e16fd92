//! The two gRPC services: each RPC to its file, each failure logged once, each unbuilt one refused by its name.

use crate::failure::{Failure, Result};
use crate::pods::Pods;
use crate::rpc;
use crate::stages;
use futures_util::stream::BoxStream;
use proto::image_service_server::ImageService;
use proto::runtime_service_server::RuntimeService;
use proto::*;
use std::sync::Arc;
use std::time::Duration;
use tonic::{Code, Request, Response, Status};
use tracing::Instrument as _;

/// Answers both services from the same state.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub(crate) pods: Arc<Pods>,
}

type Answer<T> = std::result::Result<Response<T>, Status>;

/// Waits for an answer; a failure stops travelling here, and is logged.
async fn answer<T>(rpc: &'static str, subject: &str, work: impl Future<Output = Result<T>>) -> Answer<T> {
    let span = tracing::info_span!("rpc", rpc, subject);
    let result = work.instrument(span.clone()).await;
    result.map(Response::new).map_err(|failure| {
        let _entered = span.enter();
        match failure.code {
            // A client's race or curiosity, not our trouble.
            Code::NotFound | Code::Unimplemented => tracing::debug!(code = ?failure.code, "{failure}"),
            _ => tracing::warn!(code = ?failure.code, "{failure}"),
        }
        failure.into()
    })
}

/// As [`answer`], for work that may take longer than its client waits.
async fn answer_within<T>(
    rpc: &'static str,
    subject: &str,
    patience: Option<Duration>,
    work: impl Future<Output = Result<T>>,
) -> Answer<T> {
    let what = format!("{rpc} {subject}");
    answer(rpc, subject, stages::within(&what, patience, work)).await
}

/// An answer that is there at once.
fn ready<T>(result: Result<T>) -> std::future::Ready<Result<T>> {
    std::future::ready(result)
}

fn unbuilt<T>(rpc: &str) -> Answer<T> {
    Err(Failure::unbuilt(rpc).into())
}

/// How long the client will wait, a little less: our own words about a deadline are to reach it before its own do.
fn patience<T>(request: &Request<T>) -> Option<Duration> {
    let header = request.metadata().get("grpc-timeout")?.to_str().ok()?;
    let timeout = parse_timeout(header)?;
    Some(timeout - (timeout / 10).min(Duration::from_secs(1)))
}

/// `<up to 8 digits><H|M|S|m|u|n>`, as the gRPC protocol over HTTP/2 has it.
fn parse_timeout(header: &str) -> Option<Duration> {
    let unit = header.chars().last()?;
    // More digits could not be multiplied.
    let number: u64 = header.strip_suffix(unit).filter(|digits| digits.len() <= 8)?.parse().ok()?;
    match unit {
        'H' => Some(Duration::from_secs(number * 3600)),
        'M' => Some(Duration::from_secs(number * 60)),
        'S' => Some(Duration::from_secs(number)),
        'm' => Some(Duration::from_millis(number)),
        'u' => Some(Duration::from_micros(number)),
        'n' => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

fn subject_of(config: Option<&PodSandboxConfig>) -> String {
    let metadata = config.and_then(|config| config.metadata.as_ref());
    metadata.map_or_else(String::new, |metadata| format!("{}/{}", metadata.namespace, metadata.name))
}

#[tonic::async_trait]
impl RuntimeService for Service {
    async fn version(&self, _: Request<VersionRequest>) -> Answer<VersionResponse> {
        Ok(Response::new(rpc::version::version()))
    }

    async fn status(&self, request: Request<StatusRequest>) -> Answer<StatusResponse> {
        answer("Status", "", rpc::status::status(&self.pods, request.into_inner().verbose)).await
    }

    async fn runtime_config(&self, _: Request<RuntimeConfigRequest>) -> Answer<RuntimeConfigResponse> {
        Ok(Response::new(rpc::runtime_config::runtime_config()))
    }

    async fn update_runtime_config(
        &self,
        request: Request<UpdateRuntimeConfigRequest>,
    ) -> Answer<UpdateRuntimeConfigResponse> {
        rpc::update_runtime_config::update_runtime_config(request.get_ref());
        Ok(Response::new(UpdateRuntimeConfigResponse {}))
    }

    async fn run_pod_sandbox(&self, request: Request<RunPodSandboxRequest>) -> Answer<RunPodSandboxResponse> {
        let patience = patience(&request);
        let request = request.into_inner();
        let subject = subject_of(request.config.as_ref());
        answer("RunPodSandbox", &subject, rpc::run_pod_sandbox::run_pod_sandbox(&self.pods, request, patience)).await
    }

    async fn stop_pod_sandbox(&self, request: Request<StopPodSandboxRequest>) -> Answer<StopPodSandboxResponse> {
        let patience = patience(&request);
        let id = request.into_inner().pod_sandbox_id;
        let work = rpc::stop_pod_sandbox::stop_pod_sandbox(&self.pods, &id);
        answer_within("StopPodSandbox", &id, patience, async { work.await.map(|()| StopPodSandboxResponse {}) }).await
    }

    async fn remove_pod_sandbox(&self, request: Request<RemovePodSandboxRequest>) -> Answer<RemovePodSandboxResponse> {
        let patience = patience(&request);
        let id = request.into_inner().pod_sandbox_id;
        let work = rpc::remove_pod_sandbox::remove_pod_sandbox(&self.pods, &id);
        answer_within("RemovePodSandbox", &id, patience, async { work.await.map(|()| RemovePodSandboxResponse {}) })
            .await
    }

    async fn pod_sandbox_status(&self, request: Request<PodSandboxStatusRequest>) -> Answer<PodSandboxStatusResponse> {
        let PodSandboxStatusRequest { pod_sandbox_id: id, verbose } = request.into_inner();
        let status = rpc::pod_sandbox_status::pod_sandbox_status(&self.pods, &id, verbose);
        answer("PodSandboxStatus", &id, ready(status)).await
    }

    async fn list_pod_sandbox(&self, request: Request<ListPodSandboxRequest>) -> Answer<ListPodSandboxResponse> {
        let filter = request.into_inner().filter;
        Ok(Response::new(rpc::list_pod_sandbox::list_pod_sandbox(&self.pods, filter.as_ref())))
    }

    async fn create_container(&self, request: Request<CreateContainerRequest>) -> Answer<CreateContainerResponse> {
        let patience = patience(&request);
        let request = request.into_inner();
        let subject = request.pod_sandbox_id.clone();
        let work = rpc::create_container::create_container(&self.pods, request, patience);
        answer("CreateContainer", &subject, work).await
    }

    async fn start_container(&self, request: Request<StartContainerRequest>) -> Answer<StartContainerResponse> {
        let patience = patience(&request);
        let id = request.into_inner().container_id;
        let work = rpc::start_container::start_container(&self.pods, &id);
        answer_within("StartContainer", &id, patience, async { work.await.map(|()| StartContainerResponse {}) }).await
    }

    async fn stop_container(&self, request: Request<StopContainerRequest>) -> Answer<StopContainerResponse> {
        let patience = patience(&request);
        let StopContainerRequest { container_id: id, timeout } = request.into_inner();
        let work = rpc::stop_container::stop_container(&self.pods, &id, timeout);
        answer_within("StopContainer", &id, patience, async { work.await.map(|()| StopContainerResponse {}) }).await
    }

    async fn remove_container(&self, request: Request<RemoveContainerRequest>) -> Answer<RemoveContainerResponse> {
        let patience = patience(&request);
        let id = request.into_inner().container_id;
        let work = rpc::remove_container::remove_container(&self.pods, &id);
        answer_within("RemoveContainer", &id, patience, async { work.await.map(|()| RemoveContainerResponse {}) }).await
    }

    async fn list_containers(&self, request: Request<ListContainersRequest>) -> Answer<ListContainersResponse> {
        let filter = request.into_inner().filter;
        Ok(Response::new(rpc::list_containers::list_containers(&self.pods, filter.as_ref())))
    }

    async fn container_status(&self, request: Request<ContainerStatusRequest>) -> Answer<ContainerStatusResponse> {
        let ContainerStatusRequest { container_id: id, verbose } = request.into_inner();
        let work = rpc::container_status::container_status(&self.pods, &id, verbose);
        answer("ContainerStatus", &id, work).await
    }

    async fn update_container_resources(
        &self,
        request: Request<UpdateContainerResourcesRequest>,
    ) -> Answer<UpdateContainerResourcesResponse> {
        let patience = patience(&request);
        let request = request.into_inner();
        let id = request.container_id.clone();
        let work = rpc::update_container_resources::update_container_resources(&self.pods, request);
        answer_within("UpdateContainerResources", &id, patience, async {
            work.await.map(|()| UpdateContainerResourcesResponse {})
        })
        .await
    }

    async fn reopen_container_log(
        &self,
        request: Request<ReopenContainerLogRequest>,
    ) -> Answer<ReopenContainerLogResponse> {
        let patience = patience(&request);
        let id = request.into_inner().container_id;
        let work = rpc::reopen_container_log::reopen_container_log(&self.pods, &id);
        answer_within("ReopenContainerLog", &id, patience, async { work.await.map(|()| ReopenContainerLogResponse {}) })
            .await
    }

    async fn exec_sync(&self, request: Request<ExecSyncRequest>) -> Answer<ExecSyncResponse> {
        let patience = patience(&request);
        let request = request.into_inner();
        let id = request.container_id.clone();
        answer_within("ExecSync", &id, patience, rpc::exec_sync::exec_sync(&self.pods, request)).await
    }

    async fn exec(&self, _: Request<ExecRequest>) -> Answer<ExecResponse> {
        unbuilt("Exec")
    }

    async fn attach(&self, _: Request<AttachRequest>) -> Answer<AttachResponse> {
        unbuilt("Attach")
    }

    async fn port_forward(&self, _: Request<PortForwardRequest>) -> Answer<PortForwardResponse> {
        unbuilt("PortForward")
    }

    async fn container_stats(&self, request: Request<ContainerStatsRequest>) -> Answer<ContainerStatsResponse> {
        let id = request.into_inner().container_id;
        answer("ContainerStats", &id, rpc::container_stats::container_stats(&self.pods, &id)).await
    }

    async fn list_container_stats(
        &self,
        request: Request<ListContainerStatsRequest>,
    ) -> Answer<ListContainerStatsResponse> {
        let filter = request.into_inner().filter;
        answer("ListContainerStats", "", rpc::list_container_stats::list_container_stats(&self.pods, filter)).await
    }

    async fn pod_sandbox_stats(&self, request: Request<PodSandboxStatsRequest>) -> Answer<PodSandboxStatsResponse> {
        let id = request.into_inner().pod_sandbox_id;
        answer("PodSandboxStats", &id, rpc::pod_sandbox_stats::pod_sandbox_stats(&self.pods, &id)).await
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: Request<ListPodSandboxStatsRequest>,
    ) -> Answer<ListPodSandboxStatsResponse> {
        let filter = request.into_inner().filter;
        answer("ListPodSandboxStats", "", rpc::list_pod_sandbox_stats::list_pod_sandbox_stats(&self.pods, filter)).await
    }

    type GetContainerEventsStream = BoxStream<'static, rpc::get_container_events::Event>;

    async fn get_container_events(&self, _: Request<GetEventsRequest>) -> Answer<Self::GetContainerEventsStream> {
        Ok(Response::new(Box::pin(rpc::get_container_events::get_container_events(&self.pods))))
    }

    async fn checkpoint_container(
        &self,
        _: Request<CheckpointContainerRequest>,
    ) -> Answer<CheckpointContainerResponse> {
        unbuilt("CheckpointContainer")
    }

    async fn list_metric_descriptors(
        &self,
        _: Request<ListMetricDescriptorsRequest>,
    ) -> Answer<ListMetricDescriptorsResponse> {
        unbuilt("ListMetricDescriptors")
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _: Request<ListPodSandboxMetricsRequest>,
    ) -> Answer<ListPodSandboxMetricsResponse> {
        unbuilt("ListPodSandboxMetrics")
    }

    async fn update_pod_sandbox_resources(
        &self,
        _: Request<UpdatePodSandboxResourcesRequest>,
    ) -> Answer<UpdatePodSandboxResourcesResponse> {
        unbuilt("UpdatePodSandboxResources")
    }

    type StreamPodSandboxesStream = BoxStream<'static, std::result::Result<StreamPodSandboxesResponse, Status>>;

    async fn stream_pod_sandboxes(
        &self,
        _: Request<StreamPodSandboxesRequest>,
    ) -> Answer<Self::StreamPodSandboxesStream> {
        unbuilt("StreamPodSandboxes")
    }

    type StreamContainersStream = BoxStream<'static, std::result::Result<StreamContainersResponse, Status>>;

    async fn stream_containers(&self, _: Request<StreamContainersRequest>) -> Answer<Self::StreamContainersStream> {
        unbuilt("StreamContainers")
    }

    type StreamContainerStatsStream = BoxStream<'static, std::result::Result<StreamContainerStatsResponse, Status>>;

    async fn stream_container_stats(
        &self,
        _: Request<StreamContainerStatsRequest>,
    ) -> Answer<Self::StreamContainerStatsStream> {
        unbuilt("StreamContainerStats")
    }

    type StreamPodSandboxStatsStream = BoxStream<'static, std::result::Result<StreamPodSandboxStatsResponse, Status>>;

    async fn stream_pod_sandbox_stats(
        &self,
        _: Request<StreamPodSandboxStatsRequest>,
    ) -> Answer<Self::StreamPodSandboxStatsStream> {
        unbuilt("StreamPodSandboxStats")
    }

    type StreamPodSandboxMetricsStream =
        BoxStream<'static, std::result::Result<StreamPodSandboxMetricsResponse, Status>>;

    async fn stream_pod_sandbox_metrics(
        &self,
        _: Request<StreamPodSandboxMetricsRequest>,
    ) -> Answer<Self::StreamPodSandboxMetricsStream> {
        unbuilt("StreamPodSandboxMetrics")
    }
}

#[tonic::async_trait]
impl ImageService for Service {
    async fn list_images(&self, request: Request<ListImagesRequest>) -> Answer<ListImagesResponse> {
        let filter = request.into_inner().filter;
        Ok(Response::new(rpc::list_images::list_images(&self.pods, filter.as_ref())))
    }

    type StreamImagesStream = BoxStream<'static, std::result::Result<StreamImagesResponse, Status>>;

    async fn stream_images(&self, _: Request<StreamImagesRequest>) -> Answer<Self::StreamImagesStream> {
        unbuilt("StreamImages")
    }

    async fn image_status(&self, request: Request<ImageStatusRequest>) -> Answer<ImageStatusResponse> {
        let ImageStatusRequest { image, verbose } = request.into_inner();
        let status = rpc::image_status::image_status(&self.pods, image.as_ref(), verbose);
        answer("ImageStatus", "", ready(status)).await
    }

    async fn pull_image(&self, request: Request<PullImageRequest>) -> Answer<PullImageResponse> {
        let patience = patience(&request);
        let request = request.into_inner();
        let subject = request.image.as_ref().map_or_else(String::new, |image| image.image.clone());
        answer("PullImage", &subject, rpc::pull_image::pull_image(&self.pods, request, patience)).await
    }

    async fn remove_image(&self, request: Request<RemoveImageRequest>) -> Answer<RemoveImageResponse> {
        let image = request.into_inner().image;
        let subject = image.as_ref().map_or_else(String::new, |image| image.image.clone());
        let work = rpc::remove_image::remove_image(&self.pods, image.as_ref());
        answer("RemoveImage", &subject, async { work.await.map(|()| RemoveImageResponse {}) }).await
    }

    async fn image_fs_info(&self, _: Request<ImageFsInfoRequest>) -> Answer<ImageFsInfoResponse> {
        Ok(Response::new(rpc::image_fs_info::image_fs_info(&self.pods)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_s_timeout_is_read_and_shortened_so_that_our_answer_is_first() {
        let with = |header: &str| {
            let mut request = Request::new(());
            request.metadata_mut().insert("grpc-timeout", header.parse().unwrap());
            patience(&request)
        };
        for (header, want) in [
            ("1M", Some(Duration::from_secs(59))),
            ("2S", Some(Duration::from_millis(1800))),
            ("1000u", Some(Duration::from_micros(900))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600 - 1))),
            ("9999999999999999999H", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(with(header), want, "{header}");
        }
        assert_eq!(patience(&Request::new(())), None);
    }
}
