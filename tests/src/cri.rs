//! A CRI client for tests: synchronous, one method per RPC that suites use, errors as the server's own `Status`.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proto as cri;
use proto::image_service_client::ImageServiceClient;
use proto::runtime_service_client::RuntimeServiceClient;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Response, Status};

/// No RPC of a suite takes longer; one that does fails instead of hanging the run.
const RPC_DEADLINE: Duration = Duration::from_secs(120);
/// What a kubelet accepts, and more than a list of ten thousand containers takes.
const MESSAGE_LIMIT: usize = 16 << 20;

/// A connection to a CRI socket. Its thread is started by the caller's and so is in the same World.
pub struct Cri {
    runtime: tokio::runtime::Runtime,
    channel: Channel,
}

impl Cri {
    /// A client of the server at `socket`. Nothing is sent yet; a broken connection is made anew by the next call.
    ///
    /// # Panics
    /// If the thread can't have an event loop.
    pub fn at(socket: &Path) -> Cri {
        // A thread of its own lets the connection notice between calls that the server went away.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("an event loop");
        let socket: PathBuf = socket.to_owned();
        let connector = tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move { tokio::net::UnixStream::connect(socket).await.map(hyper_util::rt::TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://localhost").timeout(RPC_DEADLINE * crate::slow());
        let channel = {
            let _inside = runtime.enter();
            endpoint.connect_with_connector_lazy(connector)
        };
        Cri { runtime, channel }
    }

    /// Any RPC of the runtime service: `cri.runtime(async |mut client| client.version(request).await)`.
    ///
    /// # Errors
    /// The server's status.
    pub fn runtime<T, F>(&self, call: impl FnOnce(RuntimeServiceClient<Channel>) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let client = RuntimeServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_LIMIT);
        self.runtime.block_on(call(client)).map(Response::into_inner)
    }

    /// Any RPC of the image service.
    ///
    /// # Errors
    /// The server's status.
    pub fn images<T, F>(&self, call: impl FnOnce(ImageServiceClient<Channel>) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let client = ImageServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_LIMIT);
        self.runtime.block_on(call(client)).map(Response::into_inner)
    }

    /// RunPodSandbox with the default handler; the sandbox's id.
    ///
    /// # Errors
    /// The server's status, as for every method here.
    pub fn run_pod(&self, config: &cri::PodSandboxConfig) -> Result<String, Status> {
        let request = cri::RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: String::new() };
        self.runtime(async |mut client| client.run_pod_sandbox(request).await).map(|answer| answer.pod_sandbox_id)
    }

    /// StopPodSandbox.
    ///
    /// # Errors
    /// The server's status.
    pub fn stop_pod(&self, pod: &str) -> Result<(), Status> {
        let request = cri::StopPodSandboxRequest { pod_sandbox_id: pod.to_owned() };
        self.runtime(async |mut client| client.stop_pod_sandbox(request).await).map(|_| ())
    }

    /// RemovePodSandbox.
    ///
    /// # Errors
    /// The server's status.
    pub fn remove_pod(&self, pod: &str) -> Result<(), Status> {
        let request = cri::RemovePodSandboxRequest { pod_sandbox_id: pod.to_owned() };
        self.runtime(async |mut client| client.remove_pod_sandbox(request).await).map(|_| ())
    }

    /// PodSandboxStatus, not verbose.
    ///
    /// # Errors
    /// The server's status.
    pub fn pod_status(&self, pod: &str) -> Result<cri::PodSandboxStatus, Status> {
        let request = cri::PodSandboxStatusRequest { pod_sandbox_id: pod.to_owned(), verbose: false };
        let answer = self.runtime(async |mut client| client.pod_sandbox_status(request).await)?;
        answer.status.ok_or_else(|| Status::internal("an answer without a status"))
    }

    /// ListPodSandbox without a filter.
    ///
    /// # Errors
    /// The server's status.
    pub fn list_pods(&self) -> Result<Vec<cri::PodSandbox>, Status> {
        let request = cri::ListPodSandboxRequest { filter: None };
        self.runtime(async |mut client| client.list_pod_sandbox(request).await).map(|answer| answer.items)
    }

    /// Stops and removes every pod.
    ///
    /// # Panics
    /// If the server refuses.
    pub fn remove_all_pods(&self) {
        for pod in self.list_pods().expect("list pods") {
            self.stop_pod(&pod.id).expect("stop a pod");
            self.remove_pod(&pod.id).expect("remove a pod");
        }
    }

    /// CreateContainer; the container's id.
    ///
    /// # Errors
    /// The server's status.
    pub fn create(
        &self,
        pod: &str,
        pod_config: &cri::PodSandboxConfig,
        config: &cri::ContainerConfig,
    ) -> Result<String, Status> {
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: pod.to_owned(),
            config: Some(config.clone()),
            sandbox_config: Some(pod_config.clone()),
        };
        self.runtime(async |mut client| client.create_container(request).await).map(|answer| answer.container_id)
    }

    /// StartContainer.
    ///
    /// # Errors
    /// The server's status.
    pub fn start(&self, container: &str) -> Result<(), Status> {
        let request = cri::StartContainerRequest { container_id: container.to_owned() };
        self.runtime(async |mut client| client.start_container(request).await).map(|_| ())
    }

    /// StopContainer; `grace` is the time between the stop signal and the kill, whole seconds.
    ///
    /// # Errors
    /// The server's status.
    pub fn stop(&self, container: &str, grace: Duration) -> Result<(), Status> {
        let timeout = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
        let request = cri::StopContainerRequest { container_id: container.to_owned(), timeout };
        self.runtime(async |mut client| client.stop_container(request).await).map(|_| ())
    }

    /// RemoveContainer.
    ///
    /// # Errors
    /// The server's status.
    pub fn remove(&self, container: &str) -> Result<(), Status> {
        let request = cri::RemoveContainerRequest { container_id: container.to_owned() };
        self.runtime(async |mut client| client.remove_container(request).await).map(|_| ())
    }

    /// ContainerStatus, not verbose.
    ///
    /// # Errors
    /// The server's status.
    pub fn status(&self, container: &str) -> Result<cri::ContainerStatus, Status> {
        let request = cri::ContainerStatusRequest { container_id: container.to_owned(), verbose: false };
        let answer = self.runtime(async |mut client| client.container_status(request).await)?;
        answer.status.ok_or_else(|| Status::internal("an answer without a status"))
    }

    /// The `info` of a verbose ContainerStatus, parsed: `pid`, `runtimeSpec`, ….
    ///
    /// # Errors
    /// The server's status.
    pub fn info(&self, container: &str) -> Result<serde_json::Value, Status> {
        let request = cri::ContainerStatusRequest { container_id: container.to_owned(), verbose: true };
        let answer = self.runtime(async |mut client| client.container_status(request).await)?;
        let info = answer.info.get("info").map_or("null", String::as_str);
        serde_json::from_str(info).map_err(|error| Status::internal(format!("info is not JSON: {error}")))
    }

    /// ExecSync.
    ///
    /// # Errors
    /// The server's status.
    pub fn exec(&self, container: &str, command: &[&str], timeout: Duration) -> Result<cri::ExecSyncResponse, Status> {
        let request = cri::ExecSyncRequest {
            container_id: container.to_owned(),
            cmd: command.iter().map(|word| (*word).to_owned()).collect(),
            timeout: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        };
        self.runtime(async |mut client| client.exec_sync(request).await)
    }

    /// PullImage without credentials; the image's id.
    ///
    /// # Errors
    /// The server's status.
    pub fn pull(&self, image: &str) -> Result<String, Status> {
        let request = cri::PullImageRequest { image: Some(image_spec(image)), ..Default::default() };
        self.images(async |mut client| client.pull_image(request).await).map(|answer| answer.image_ref)
    }

    /// ListImages without a filter.
    ///
    /// # Errors
    /// The server's status.
    pub fn list_images(&self) -> Result<Vec<cri::Image>, Status> {
        let request = cri::ListImagesRequest { filter: None };
        self.images(async |mut client| client.list_images(request).await).map(|answer| answer.images)
    }

    /// RemoveImage.
    ///
    /// # Errors
    /// The server's status.
    pub fn remove_image(&self, image: &str) -> Result<(), Status> {
        let request = cri::RemoveImageRequest { image: Some(image_spec(image)) };
        self.images(async |mut client| client.remove_image(request).await).map(|_| ())
    }
}

/// How a request names an image.
pub fn image_spec(image: &str) -> cri::ImageSpec {
    cri::ImageSpec { image: image.to_owned(), ..Default::default() }
}
