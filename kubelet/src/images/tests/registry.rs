//! A runtime that only has images: what is there, what a pull brings, whose passwords it knows.

use crate::pod::PodUid;
use crate::runtime::*;
use futures_util::future::{BoxFuture, ready};
use futures_util::stream::BoxStream;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// What it holds.
#[derive(Default)]
pub(super) struct Shelf {
    /// Images that are there, by what they are asked for.
    pub(super) there: BTreeMap<String, proto::Image>,
    /// Pulls as they came: reference and user.
    pub(super) pulls: Vec<String>,
    /// How pulls go: an error each; none left is success.
    pub(super) failures: VecDeque<(tonic::Code, &'static str)>,
    /// The password that every pull needs; empty for none.
    pub(super) password: &'static str,
    /// How long a pull takes.
    pub(super) takes: Duration,
    /// How many pulls run now, and the most there were at a time.
    pub(super) running: (usize, usize),
    /// What looking for an image fails with.
    pub(super) blind: Option<&'static str>,
    /// The same, from the end of the next pull on.
    pub(super) blind_after_pull: Option<&'static str>,
}

/// The runtime.
#[derive(Default)]
pub(super) struct Registry(Mutex<Shelf>);

pub(super) fn image(size: u64) -> proto::Image {
    proto::Image { id: format!("sha256:{size}"), size, ..proto::Image::default() }
}

impl Registry {
    pub(super) fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finish(&self, reference: &str, auth: Option<&proto::AuthConfig>) -> Result<String> {
        let mut shelf = self.shelf();
        shelf.running.0 -= 1;
        let password = auth.map(|auth| auth.password.as_str()).unwrap_or_default();
        if password != shelf.password {
            return Err(error(tonic::Code::Unknown, "pull access denied"));
        }
        if let Some((code, text)) = shelf.failures.pop_front() {
            return Err(error(code, text));
        }
        let found = image(7);
        shelf.there.insert(reference.to_owned(), found.clone());
        shelf.there.insert(found.id.clone(), found.clone());
        shelf.blind = shelf.blind_after_pull.take().or(shelf.blind);
        Ok(found.id)
    }
}

fn error(code: tonic::Code, text: &str) -> RuntimeError {
    RuntimeError { call: "PullImage", code, message: format!("rpc error: code = {code:?} desc = {text}") }
}

type Answer<'a, T> = BoxFuture<'a, Result<T>>;

impl Runtime for Registry {
    fn image<'a>(&'a self, reference: &'a str) -> Answer<'a, Option<proto::Image>> {
        let shelf = self.shelf();
        let answer = match shelf.blind {
            Some(text) => Err(error(tonic::Code::Unavailable, text)),
            None => Ok(shelf.there.get(reference).cloned()),
        };
        Box::pin(ready(answer))
    }

    fn pull_image<'a>(
        &'a self,
        reference: &'a str,
        auth: Option<&'a proto::AuthConfig>,
        _: &'a proto::PodSandboxConfig,
    ) -> Answer<'a, String> {
        Box::pin(async move {
            let takes = {
                let mut shelf = self.shelf();
                let user = auth.map(|auth| auth.username.as_str()).unwrap_or_default();
                shelf.pulls.push(format!("{reference} {user}").trim_end().to_owned());
                shelf.running.0 += 1;
                shelf.running.1 = shelf.running.1.max(shelf.running.0);
                shelf.takes
            };
            tokio::time::sleep_until(Instant::now() + takes).await;
            self.finish(reference, auth)
        })
    }

    fn version(&self) -> Answer<'_, RuntimeInfo> {
        unreachable!("no image is involved")
    }
    fn status(&self) -> Answer<'_, RuntimeStatus> {
        unreachable!("no image is involved")
    }
    fn cgroup_driver(&self) -> Answer<'_, Option<proto::CgroupDriver>> {
        unreachable!("no image is involved")
    }
    fn set_pod_cidr<'a>(&'a self, _: &'a str) -> Answer<'a, ()> {
        unreachable!("no image is involved")
    }
    fn list_pods(&self) -> Answer<'_, Vec<RuntimePod>> {
        unreachable!("no image is involved")
    }
    fn observe<'a>(&'a self, _: &'a PodUid) -> Answer<'a, ObservedPod> {
        unreachable!("no image is involved")
    }
    fn events(&self) -> Answer<'_, BoxStream<'static, Result<Changed>>> {
        unreachable!("no image is involved")
    }
    fn run_sandbox<'a>(&'a self, _: &'a proto::PodSandboxConfig, _: &'a str) -> Answer<'a, String> {
        unreachable!("no image is involved")
    }
    fn stop_sandbox<'a>(&'a self, _: &'a str) -> Answer<'a, ()> {
        unreachable!("no image is involved")
    }
    fn remove_sandbox<'a>(&'a self, _: &'a str) -> Answer<'a, ()> {
        unreachable!("no image is involved")
    }
    fn create_container<'a>(
        &'a self,
        _: &'a str,
        _: &'a proto::ContainerConfig,
        _: &'a proto::PodSandboxConfig,
    ) -> Answer<'a, String> {
        unreachable!("no image is involved")
    }
    fn start_container<'a>(&'a self, _: &'a str) -> Answer<'a, ()> {
        unreachable!("no image is involved")
    }
    fn stop_container<'a>(&'a self, _: &'a str, _: Duration) -> Answer<'a, ()> {
        unreachable!("no image is involved")
    }
    fn remove_container<'a>(&'a self, _: &'a str) -> Answer<'a, ()> {
        unreachable!("no image is involved")
    }
    fn reopen_log<'a>(&'a self, _: &'a str) -> Answer<'a, ()> {
        unreachable!("no image is involved")
    }
    fn exec_sync<'a>(&'a self, _: &'a str, _: &'a [String], _: Duration) -> Answer<'a, proto::ExecSyncResponse> {
        unreachable!("no image is involved")
    }
    fn list_images(&self) -> Answer<'_, Vec<proto::Image>> {
        unreachable!("no list is asked for")
    }
    fn image_fs(&self) -> Answer<'_, proto::ImageFsInfoResponse> {
        unreachable!("no image is involved")
    }
    fn container_stats(&self) -> Answer<'_, Vec<proto::ContainerStats>> {
        unreachable!("no image is involved")
    }
    fn sandbox_stats(&self) -> Answer<'_, Vec<proto::PodSandboxStats>> {
        unreachable!("no image is involved")
    }
}
