//! Taints that end pods: NoExecute. The others are the scheduler's affair.

use super::Rejection;
use crate::pod::Pod;
use k8s_openapi::api::core::v1::{Node, Taint, Toleration};

/// Refuses a pod that would be evicted at once. Static pods are exempt: nobody would bring them back.
pub(super) fn check(pod: &Pod, node: &Node) -> Result<(), Rejection> {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let ending = taints.iter().filter(|taint| taint.effect == "NoExecute");
    if pod.is_static() || ending.into_iter().all(|taint| tolerates(pod, taint)) {
        return Ok(());
    }
    Err(Rejection::predicate("TaintToleration", "node(s) had taints that the pod didn't tolerate"))
}

/// Whether a pod tolerates a taint.
pub(super) fn tolerates(pod: &Pod, taint: &Taint) -> bool {
    pod.spec().tolerations.iter().flatten().any(|toleration| covers(toleration, taint))
}

fn covers(toleration: &Toleration, taint: &Taint) -> bool {
    let any_or = |own: &Option<String>, other: &str| own.as_deref().is_none_or(|own| own.is_empty() || own == other);
    if !any_or(&toleration.effect, &taint.effect) || !any_or(&toleration.key, &taint.key) {
        return false;
    }
    match toleration.operator.as_deref() {
        Some("Exists") => true,
        None | Some("" | "Equal") => {
            toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default()
        }
        Some(_) => false,
    }
}
