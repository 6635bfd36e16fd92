//! Node selectors and required node affinity.

use super::Rejection;
use crate::pod::Pod;
use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm};
use std::collections::BTreeMap;

/// Refuses a pod that does not want this node.
pub(super) fn check(pod: &Pod, node: &Node) -> Result<(), Rejection> {
    let none = BTreeMap::new();
    let labels = node.metadata.labels.as_ref().unwrap_or(&none);
    let selected = pod.spec().node_selector.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    if selected && affine(pod, node, labels) {
        return Ok(());
    }
    Err(Rejection::predicate("NodeAffinity", "node(s) didn't match Pod's node affinity/selector"))
}

fn affine(pod: &Pod, node: &Node, labels: &BTreeMap<String, String>) -> bool {
    let affinity = pod.spec().affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    required.is_none_or(|selector| selector.node_selector_terms.iter().any(|term| matches(term, node, labels)))
}

/// A term without any requirement matches nothing.
fn matches(term: &NodeSelectorTerm, node: &Node, labels: &BTreeMap<String, String>) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let field = |requirement: &NodeSelectorRequirement| {
        requirement.key == "metadata.name" && holds(requirement, node.metadata.name.as_deref())
    };
    (!expressions.is_empty() || !fields.is_empty())
        && expressions.iter().all(|expression| holds(expression, labels.get(&expression.key).map(String::as_str)))
        && fields.iter().all(field)
}

fn holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let among = |value: &str| values.iter().any(|one| one == value);
    let number = |text: &str| text.parse::<i64>().ok();
    let bound = || values.first().and_then(|bound| number(bound));
    match requirement.operator.as_str() {
        "In" => value.is_some_and(among),
        "NotIn" => !value.is_some_and(among),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => matches!((value.and_then(number), bound()), (Some(value), Some(bound)) if value > bound),
        "Lt" => matches!((value.and_then(number), bound()), (Some(value), Some(bound)) if value < bound),
        _ => false,
    }
}
