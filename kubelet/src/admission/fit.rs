//! Resources: what is requested by all pods here must not exceed what the node has for pods.

use super::{Place, Rejection};
use crate::pod::Pod;
use crate::spec::resources::{Amounts, pod_requests};

/// How amounts of a resource are compared and shown.
fn amount(list: &Amounts, name: &str) -> i64 {
    let rounded = if name == "cpu" { list.milli(name) } else { list.units(name) };
    rounded.unwrap_or(0)
}

/// Refuses a pod that does not fit. An extended resource that this node has never heard of is not its to count.
pub(super) fn check(pod: &Pod, place: &Place) -> Result<(), Rejection> {
    let others = || place.others.iter().filter(|entry| entry.active && entry.pod.uid() != pod.uid());
    let capacity = capacity(place);
    let allowed = amount(&capacity, "pods");
    let here = i64::try_from(others().count()).unwrap_or(i64::MAX);
    if here >= allowed {
        return Err(insufficient("pods", 1, here, allowed));
    }
    let wanted = pod_requests(pod);
    let requests: Vec<Amounts> = others().map(|entry| pod_requests(&entry.pod)).collect();
    let mut names: Vec<&str> = wanted.iter().map(|(name, _)| name).collect();
    // The order in which upstream looks.
    names
        .sort_by_key(|name| ["cpu", "memory", "ephemeral-storage"].iter().position(|first| first == name).unwrap_or(3));
    for name in names {
        let unknown = capacity.units(name).is_none();
        let requested = amount(&wanted, name);
        if requested <= 0 || (unknown && name.contains('/')) {
            continue;
        }
        // What is requested is anybody's word, and has no end.
        let used = requests.iter().map(|request| amount(request, name)).fold(0, i64::saturating_add);
        let total = amount(&capacity, name);
        if requested > total.saturating_sub(used) {
            return Err(insufficient(name, requested, used, total));
        }
    }
    Ok(())
}

/// What the machine has, and what others have added to the Node object.
fn capacity(place: &Place) -> Amounts {
    let shown = place.node.status.as_ref().and_then(|status| status.allocatable.clone());
    let mut all = shown.unwrap_or_default();
    all.extend(place.facts.allocatable.iter().map(|(name, amount)| (name.clone(), amount.clone())));
    Amounts::of(Some(&all))
}

fn insufficient(name: &str, requested: i64, used: i64, capacity: i64) -> Rejection {
    Rejection::new(
        format!("OutOf{name}"),
        format!("Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}"),
    )
}
