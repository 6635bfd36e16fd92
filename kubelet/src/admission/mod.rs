//! May a pod run on this node?

use crate::pod::Pod;

/// Why a pod may not run here: the reason of its failed status and event, and the message after `Pod was rejected: `.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// `OutOfcpu`, `NodeAffinity`, `PodFeatureUnsupported`, ….
    pub reason: String,
    /// What is wrong, in upstream's words where it has some.
    pub message: String,
}

/// The first field of `pod` that asks for something that is not built: it is never run without it.
pub fn unsupported(pod: &Pod) -> Option<Rejection> {
    let _ = pod;
    todo!()
}
