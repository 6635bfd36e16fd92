//! A container's state as the runtime-spec has it (runtime.md, "State"): what hooks and seccomp agents are told.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// The version of the runtime-spec whose state this is.
pub const SPEC_VERSION: &str = "1.3.0";

/// What the caller knows of a container and its process does not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// Its id.
    pub id: String,
    /// The directory of its config; absolute.
    pub bundle: PathBuf,
    /// As in the config.
    pub annotations: BTreeMap<String, String>,
}

/// Where a container stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the words of the runtime-spec")]
pub enum Status {
    Creating,
    Created,
    Running,
    Stopped,
}

/// A state, to be serialized.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct State<'a> {
    oci_version: &'static str,
    id: &'a str,
    status: Status,
    /// In the caller's PID namespace; 0, which is not told, if there is none any more.
    #[serde(skip_serializing_if = "is_zero")]
    pid: i32,
    bundle: &'a Path,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

fn is_zero(pid: &i32) -> bool {
    *pid == 0
}

impl State<'_> {
    /// The directory of the container's config.
    pub(crate) fn bundle(&self) -> &Path {
        self.bundle
    }
}

impl Identity {
    /// The state of the container when it stands at `status`, with the first process `pid`.
    pub fn state(&self, status: Status, pid: i32) -> State<'_> {
        let Identity { id, bundle, annotations } = self;
        State { oci_version: SPEC_VERSION, id, status, pid, bundle, annotations }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_has_the_keys_of_the_runtime_spec() {
        let identity = Identity {
            id: "box".to_owned(),
            bundle: "/b".into(),
            annotations: BTreeMap::from([("k".to_owned(), "v".to_owned())]),
        };
        let json = serde_json::to_value(identity.state(Status::Creating, 7)).unwrap();
        let expected = serde_json::json!({"ociVersion": SPEC_VERSION, "id": "box", "status": "creating", "pid": 7,
            "bundle": "/b", "annotations": {"k": "v"}});
        assert_eq!(json, expected);
        let bare = serde_json::to_value(Identity::default().state(Status::Stopped, 0)).unwrap();
        assert!(bare.get("annotations").is_none() && bare.get("pid").is_none());
    }
}
