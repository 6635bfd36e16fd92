//! The kinds whose files the kubelet writes: which objects they need, and which medium their folder lies on.

use super::atomic_writer::{self, Written};
use super::empty_dir::{self, Medium};
use super::error::SetUpError;
use super::payload::Payload;
use super::source::Source;
use super::token::Tokens;
use super::{config_map, downward_api, nested, ownership, projected, secret};
use crate::api::{Api, ApiError};
use crate::pod::Pod;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use sys::rootfd::RootFd;

/// What a volume's content is made of.
pub(super) struct Inputs<'a> {
    pub(super) pod: &'a Pod,
    pub(super) api: &'a dyn Api,
    pub(super) tokens: &'a Tokens,
    /// The node's, for limits that a container leaves open.
    pub(super) allocatable: &'a BTreeMap<String, Quantity>,
}

/// What the volume shall hold now; `None` for one whose content is not ours.
pub(super) async fn payload(source: Source<'_>, inputs: &Inputs<'_>) -> Result<Option<Payload>, SetUpError> {
    let payload = match source {
        Source::EmptyDir(_) | Source::HostPath(_) => return Ok(None),
        Source::ConfigMap(source) => config_map::payload(source, inputs).await,
        Source::Secret(source) => secret::payload(source, inputs).await,
        Source::DownwardApi(source) => {
            downward_api::payload(source.items.as_deref().unwrap_or_default(), source.default_mode, inputs)
        }
        Source::Projected(source) => projected::payload(source, inputs).await,
    };
    payload.map(Some)
}

/// Where the files lie: in memory, but for ConfigMaps, which hold no secrets and can be large.
pub(super) fn medium(source: Source<'_>, inputs: &Inputs<'_>) -> Medium {
    match source {
        Source::ConfigMap(_) => Medium::Disk,
        _ => Medium::Memory { size: empty_dir::memory_size(inputs.pod, inputs.allocatable, None) },
    }
}

/// An object that the API server has, or `None` for one that may be missing and is.
pub(super) fn optional<T>(
    found: Result<T, ApiError>,
    kind: &'static str,
    name: &str,
    optional: bool,
) -> Result<Option<T>, SetUpError> {
    match found {
        Ok(object) => Ok(Some(object)),
        Err(ApiError::NotFound(_)) if optional => Ok(None),
        Err(ApiError::NotFound(_)) => Err(SetUpError::NotFound { kind, name: name.to_owned() }),
        Err(error) => Err(error.into()),
    }
}

/// The content of one volume, on its way to the disk.
pub(super) struct Content {
    pub(super) path: PathBuf,
    pub(super) medium: Medium,
    /// Where containers mount something else in it.
    pub(super) mount_points: BTreeSet<PathBuf>,
    pub(super) payload: Payload,
    pub(super) group: Option<u32>,
    pub(super) now: Timestamp,
}

impl Content {
    /// Makes the volume show this content. Blocking.
    pub(super) fn write(&self) -> Result<Written, SetUpError> {
        let volume = empty_dir::make(&self.path, self.medium)?;
        nested::make(&volume, &self.mount_points)?;
        let own = |volume: &RootFd| self.group.map_or(Ok(()), |group| ownership::apply(volume, group, true));
        Ok(atomic_writer::write(&volume, &self.payload, self.now, own)?)
    }
}
