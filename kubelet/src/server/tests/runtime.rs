//! A runtime that only answers what the server asks: lists and usage.

use crate::pod::PodUid;
use crate::runtime::*;
use futures_util::future::{BoxFuture, ready};
use futures_util::stream::BoxStream;
use std::sync::Mutex;
use std::time::Duration;

/// What it answers.
#[derive(Default)]
pub(crate) struct Quiet {
    pub(crate) pods: Mutex<Vec<RuntimePod>>,
    pub(crate) containers: Mutex<Vec<proto::ContainerStats>>,
    pub(crate) sandboxes: Mutex<Vec<proto::PodSandboxStats>>,
    /// Whether it hangs instead.
    pub(crate) hangs: std::sync::atomic::AtomicBool,
    /// How often usage was asked for.
    pub(crate) asked: std::sync::atomic::AtomicUsize,
}

type Answer<'a, T> = BoxFuture<'a, Result<T>>;

fn refused<'a, T: Send + 'a>(call: &'static str) -> Answer<'a, T> {
    let message = format!("rpc error: code = Unimplemented desc = the server does not ask for {call}");
    Box::pin(ready(Err(RuntimeError { call, code: tonic::Code::Unimplemented, message })))
}

impl Runtime for Quiet {
    fn version(&self) -> Answer<'_, RuntimeInfo> {
        refused("Version")
    }
    fn status(&self) -> Answer<'_, RuntimeStatus> {
        refused("Status")
    }
    fn cgroup_driver(&self) -> Answer<'_, Option<proto::CgroupDriver>> {
        refused("RuntimeConfig")
    }
    fn set_pod_cidr<'a>(&'a self, _: &'a str) -> Answer<'a, ()> {
        refused("UpdateRuntimeConfig")
    }
    fn list_pods(&self) -> Answer<'_, Vec<RuntimePod>> {
        Box::pin(ready(Ok(self.pods.lock().unwrap().clone())))
    }
    fn observe<'a>(&'a self, _: &'a PodUid) -> Answer<'a, ObservedPod> {
        refused("ListContainers")
    }
    fn events(&self) -> Answer<'_, BoxStream<'static, Result<Changed>>> {
        refused("GetContainerEvents")
    }
    fn run_sandbox<'a>(&'a self, _: &'a proto::PodSandboxConfig, _: &'a str) -> Answer<'a, String> {
        refused("RunPodSandbox")
    }
    fn stop_sandbox<'a>(&'a self, _: &'a str) -> Answer<'a, ()> {
        refused("StopPodSandbox")
    }
    fn remove_sandbox<'a>(&'a self, _: &'a str) -> Answer<'a, ()> {
        refused("RemovePodSandbox")
    }
    fn create_container<'a>(
        &'a self,
        _: &'a str,
        _: &'a proto::ContainerConfig,
        _: &'a proto::PodSandboxConfig,
    ) -> Answer<'a, String> {
        refused("CreateContainer")
    }
    fn start_container<'a>(&'a self, _: &'a str) -> Answer<'a, ()> {
        refused("StartContainer")
    }
    fn stop_container<'a>(&'a self, _: &'a str, _: Duration) -> Answer<'a, ()> {
        refused("StopContainer")
    }
    fn remove_container<'a>(&'a self, _: &'a str) -> Answer<'a, ()> {
        refused("RemoveContainer")
    }
    fn reopen_log<'a>(&'a self, _: &'a str) -> Answer<'a, ()> {
        refused("ReopenContainerLog")
    }
    fn exec_sync<'a>(&'a self, _: &'a str, _: &'a [String], _: Duration) -> Answer<'a, proto::ExecSyncResponse> {
        refused("ExecSync")
    }
    fn image<'a>(&'a self, _: &'a str) -> Answer<'a, Option<proto::Image>> {
        refused("ImageStatus")
    }
    fn pull_image<'a>(
        &'a self,
        _: &'a str,
        _: Option<&'a proto::AuthConfig>,
        _: &'a proto::PodSandboxConfig,
    ) -> Answer<'a, String> {
        refused("PullImage")
    }
    fn list_images(&self) -> Answer<'_, Vec<proto::Image>> {
        refused("ListImages")
    }
    fn image_fs(&self) -> Answer<'_, proto::ImageFsInfoResponse> {
        refused("ImageFsInfo")
    }
    fn container_stats(&self) -> Answer<'_, Vec<proto::ContainerStats>> {
        self.asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        if self.hangs.load(std::sync::atomic::Ordering::SeqCst) {
            return Box::pin(std::future::pending());
        }
        Box::pin(ready(Ok(self.containers.lock().unwrap().clone())))
    }
    fn sandbox_stats(&self) -> Answer<'_, Vec<proto::PodSandboxStats>> {
        Box::pin(ready(Ok(self.sandboxes.lock().unwrap().clone())))
    }
}
