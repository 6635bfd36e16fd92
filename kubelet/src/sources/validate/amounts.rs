//! Mistakes in amounts of resources.

use super::{Checked, problem, require};
use crate::spec::quantity;
use k8s_openapi::api::core::v1::{ResourceFieldSelector, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;

/// Checks requests and limits, of a container or of a pod.
pub(super) fn resources(all: &ResourceRequirements, field: &str) -> Checked {
    list(all.limits.as_ref(), &format!("{field}.limits"))?;
    list(all.requests.as_ref(), &format!("{field}.requests"))?;
    for (name, request) in all.requests.iter().flatten() {
        let Some(limit) = all.limits.as_ref().and_then(|limits| limits.get(name)) else { continue };
        let fits = quantity::nano(request).ok() <= quantity::nano(limit).ok();
        require(fits, format!("{field}.requests.{name}"), format!("is above the limit of {}", limit.0))?;
    }
    Ok(())
}

/// Checks a list of amounts by name.
pub(super) fn list(amounts: Option<&BTreeMap<String, Quantity>>, field: &str) -> Checked {
    amounts.into_iter().flatten().try_for_each(|(name, amount)| one(amount, format!("{field}.{name}")))
}

/// Checks one amount.
pub(super) fn one(amount: &Quantity, field: String) -> Checked {
    match quantity::nano(amount) {
        Err(error) => problem(field, error.to_string()),
        Ok(nanos) => require(nanos >= 0, field, "is below 0"),
    }
}

/// Checks what a resource is divided by: a power of ten or two of its unit, or thousandths of a CPU.
pub(super) fn divisor(selector: &ResourceFieldSelector, field: &str) -> Checked {
    const UNIT: i128 = 1_000_000_000;
    let Some(divisor) = &selector.divisor else { return Ok(()) };
    let field = format!("{field}.divisor");
    let nanos = match quantity::nano(divisor) {
        Err(error) => return problem(field, error.to_string()),
        Ok(nanos) => nanos,
    };
    if selector.resource.ends_with(".cpu") {
        return require([0, UNIT / 1000, UNIT].contains(&nanos), field, "is neither 1m nor 1");
    }
    let power = |base: i128| (0..=6).any(|exponent| nanos == UNIT * base.pow(exponent));
    require(nanos == 0 || power(1000) || power(1024), field, "is not 1, 1k, 1M, … 1E or 1Ki, 1Mi, … 1Ei")
}
