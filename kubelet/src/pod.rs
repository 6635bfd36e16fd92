//! A pod as the kubelet works with it: the API object, where it came from, and what follows from it alone.

mod qos;

pub use qos::QosClass;

use k8s_openapi::api::core::v1 as api;
use std::fmt;
use std::sync::Arc;

/// A pod's UID, checked to be one path component and one cgroup name: it becomes both.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodUid(Arc<str>);

/// Why a pod can't be worked with at all.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PodError {
    /// A field that every pod has is missing.
    #[error("the pod has no {0}")]
    Missing(&'static str),
    /// A UID that is not one path component.
    #[error("the pod's uid {0:?} is not made of letters, digits, '-' and '.' alone")]
    Uid(String),
}

impl PodUid {
    /// Takes a UID of letters, digits, `-`, `_` and `.`, at most 128 bytes, not starting with a dot.
    pub fn parse(uid: &str) -> Result<PodUid, PodError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if uid.is_empty() || uid.len() > 128 || uid.starts_with('.') || !uid.bytes().all(plain) {
            return Err(PodError::Uid(uid.to_owned()));
        }
        Ok(PodUid(uid.into()))
    }

    /// The UID's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a pod is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// The API server.
    Api,
    /// A manifest in the folder of static pods.
    File,
}

/// What a container is to its pod; the order is that of starting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Runs to its end before the next one starts.
    Init,
    /// An init container with `restartPolicy: Always`: runs beside what follows, and ends last.
    Sidecar,
    /// One of `spec.containers`.
    Regular,
}

/// A pod: an API object with what identifies it, checked. Cheap to clone.
#[derive(Clone)]
pub struct Pod {
    object: Arc<api::Pod>,
    uid: PodUid,
    source: Source,
}

impl Pod {
    /// Takes an object that has a name, a namespace, a UID and a spec.
    pub fn new(object: Arc<api::Pod>, source: Source) -> Result<Pod, PodError> {
        let present = |value: &Option<String>, what| {
            value.as_deref().filter(|text| !text.is_empty()).ok_or(PodError::Missing(what)).map(str::len)
        };
        present(&object.metadata.name, "name")?;
        present(&object.metadata.namespace, "namespace")?;
        if object.spec.is_none() {
            return Err(PodError::Missing("spec"));
        }
        let uid = PodUid::parse(object.metadata.uid.as_deref().ok_or(PodError::Missing("uid"))?)?;
        Ok(Pod { object, uid, source })
    }

    /// The API object.
    pub fn object(&self) -> &api::Pod {
        &self.object
    }

    /// The same pod with another status.
    pub(crate) fn with_status(&self, status: api::PodStatus) -> Pod {
        let object = api::Pod { status: Some(status), ..self.object().clone() };
        Pod { object: Arc::new(object), ..self.clone() }
    }

    /// Its UID. A static pod's mirror has another.
    pub fn uid(&self) -> &PodUid {
        &self.uid
    }

    /// Where it is from.
    pub fn source(&self) -> Source {
        self.source
    }

    /// Whether it is a static pod: the API server knows it by its mirror only.
    pub fn is_static(&self) -> bool {
        self.source == Source::File
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        self.object.metadata.name.as_deref().unwrap_or_default()
    }

    /// `metadata.namespace`.
    pub fn namespace(&self) -> &str {
        self.object.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// `spec`.
    pub fn spec(&self) -> &api::PodSpec {
        self.object.spec.as_ref().expect("`new` refuses a pod without spec")
    }

    /// `metadata.annotations[key]`.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.object.metadata.annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// All containers that the kubelet starts, in the order of starting.
    pub fn containers(&self) -> impl Iterator<Item = (Role, &api::Container)> {
        let init = self.spec().init_containers.iter().flatten().map(|container| match &container.restart_policy {
            Some(policy) if policy == "Always" => (Role::Sidecar, container),
            _ => (Role::Init, container),
        });
        init.chain(self.spec().containers.iter().map(|container| (Role::Regular, container)))
    }

    /// The container of this name.
    pub fn container(&self, name: &str) -> Option<(Role, &api::Container)> {
        self.containers().find(|(_, container)| container.name == name)
    }

    /// Whether it shares the host's network.
    pub fn host_network(&self) -> bool {
        self.spec().host_network.unwrap_or(false)
    }

    /// Whether two versions of a pod want the same: all but status and bookkeeping is equal.
    pub fn wants_the_same(&self, other: &Pod) -> bool {
        let (a, b) = (&self.object.metadata, &other.object.metadata);
        self.uid == other.uid
            && self.object.spec == other.object.spec
            && a.labels == b.labels
            && a.annotations == b.annotations
            && a.deletion_timestamp == b.deletion_timestamp
            && a.deletion_grace_period_seconds == b.deletion_grace_period_seconds
    }

    /// Its quality of service.
    pub fn qos(&self) -> QosClass {
        QosClass::of(self.spec())
    }
}

impl fmt::Debug for Pod {
    /// `namespace/name(uid)`: specs may hold secrets, and are long.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Pod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}({})", self.namespace(), self.name(), self.uid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_that_is_not_one_path_component_is_refused() {
        for uid in ["", "..", ".x", "a/b", "a\0b", "a b", &"x".repeat(129)] {
            assert_eq!(PodUid::parse(uid), Err(PodError::Uid(uid.to_owned())), "{uid:?}");
        }
        assert_eq!(PodUid::parse("0a1b-22.c_d").unwrap().as_str(), "0a1b-22.c_d");
    }
}
