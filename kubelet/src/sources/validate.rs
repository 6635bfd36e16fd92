//! What the API server would refuse of a pod: a static pod meets none on its way.
//!
//! The first mistake is named by its field. What the runtime or the kernel would refuse later anyway, with words of its
//! own, is not repeated here.

mod amounts;
mod container;
mod names;
mod volume;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use std::collections::BTreeSet;

/// A mistake and its field, below the object: `spec.containers[0].image`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) field: String,
    pub(super) message: String,
}

type Checked = Result<(), Problem>;

fn problem(field: impl Into<String>, message: impl Into<String>) -> Checked {
    Err(Problem { field: field.into(), message: message.into() })
}

/// `condition`, or else a mistake.
fn require(condition: bool, field: impl Into<String>, message: impl Into<String>) -> Checked {
    if condition { Ok(()) } else { problem(field, message) }
}

/// A field that has one of a few values, or none.
fn one_of(value: Option<&str>, allowed: &[&str], field: impl Into<String>) -> Checked {
    match value {
        Some(value) if !allowed.contains(&value) => {
            problem(field, format!("is {value:?}; it is one of {}", allowed.join(", ")))
        }
        _ => Ok(()),
    }
}

/// Checks a pod that has its defaults.
pub(super) fn check(pod: &Pod) -> Checked {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    require(!name.is_empty(), "metadata.name", "is missing")?;
    require(names::is_subdomain(name), "metadata.name", format!("{name:?} is not a lower-case DNS subdomain"))?;
    if let Some(namespace) = pod.metadata.namespace.as_deref().filter(|namespace| !namespace.is_empty()) {
        require(names::is_label(namespace), "metadata.namespace", format!("{namespace:?} is not a DNS label"))?;
    }
    for key in pod.metadata.labels.iter().flatten().map(|(key, _)| key) {
        require(names::is_qualified(key), "metadata.labels", format!("{key:?} is not a label's name"))?;
    }
    for key in pod.metadata.annotations.iter().flatten().map(|(key, _)| key) {
        require(names::is_qualified(&key.to_lowercase()), "metadata.annotations", format!("{key:?} is not a name"))?;
    }
    let Some(spec) = &pod.spec else { return problem("spec", "is missing") };
    of_spec(spec)?;
    references(spec)
}

fn of_spec(spec: &PodSpec) -> Checked {
    one_of(spec.restart_policy.as_deref(), &["Always", "OnFailure", "Never"], "spec.restartPolicy")?;
    let policies = ["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];
    one_of(spec.dns_policy.as_deref(), &policies, "spec.dnsPolicy")?;
    let servers = spec.dns_config.as_ref().and_then(|dns| dns.nameservers.as_ref()).map_or(0, Vec::len);
    let none = spec.dns_policy.as_deref() == Some("None");
    require(!none || servers > 0, "spec.dnsConfig.nameservers", "at least one is needed where dnsPolicy is None")?;
    require(servers <= 3, "spec.dnsConfig.nameservers", "three at most")?;
    require(
        spec.active_deadline_seconds.is_none_or(|limit| limit > 0),
        "spec.activeDeadlineSeconds",
        "is not above 0",
    )?;
    let grace = spec.termination_grace_period_seconds;
    require(grace.is_none_or(|grace| grace >= 0), "spec.terminationGracePeriodSeconds", "is below 0")?;
    let hostname = spec.hostname.as_deref().filter(|hostname| !hostname.is_empty());
    require(hostname.is_none_or(names::is_label), "spec.hostname", "is not a DNS label")?;
    let subdomain = spec.subdomain.as_deref().filter(|subdomain| !subdomain.is_empty());
    require(subdomain.is_none_or(names::is_label), "spec.subdomain", "is not a DNS label")?;
    for (index, alias) in spec.host_aliases.iter().flatten().enumerate() {
        let field = format!("spec.hostAliases[{index}].ip");
        require(alias.ip.parse::<std::net::IpAddr>().is_ok(), field, format!("{:?} is not an address", alias.ip))?;
    }
    require(
        spec.ephemeral_containers.as_ref().is_none_or(Vec::is_empty),
        "spec.ephemeralContainers",
        "a new pod has none",
    )?;
    if let Some(resources) = &spec.resources {
        amounts::resources(resources, "spec.resources")?;
    }
    amounts::list(spec.overhead.as_ref(), "spec.overhead")?;
    ids(spec)?;
    volume::check_all(spec)?;
    containers(spec)
}

/// Users and groups of the pod as a whole.
fn ids(spec: &PodSpec) -> Checked {
    let Some(context) = &spec.security_context else { return Ok(()) };
    id(context.run_as_user, "spec.securityContext.runAsUser")?;
    id(context.run_as_group, "spec.securityContext.runAsGroup")?;
    id(context.fs_group, "spec.securityContext.fsGroup")?;
    let groups = context.supplemental_groups.iter().flatten().enumerate();
    groups
        .into_iter()
        .try_for_each(|(index, group)| id(Some(*group), format!("spec.securityContext.supplementalGroups[{index}]")))
}

/// A number of a user or group: the kernel's are larger, but its largest means none.
fn id(number: Option<i64>, field: impl Into<String>) -> Checked {
    let valid = number.is_none_or(|number| (0..=i64::from(i32::MAX)).contains(&number));
    require(valid, field, format!("is not from 0 to {}", i32::MAX))
}

fn containers(spec: &PodSpec) -> Checked {
    require(!spec.containers.is_empty(), "spec.containers", "at least one is needed")?;
    let mut names = BTreeSet::new();
    let mut ports = BTreeSet::new();
    for (list, all) in [("initContainers", spec.init_containers.as_deref()), ("containers", Some(&spec.containers))] {
        for (index, one) in all.unwrap_or_default().iter().enumerate() {
            let field = format!("spec.{list}[{index}]");
            require(
                names.insert(one.name.as_str()),
                format!("{field}.name"),
                format!("{:?} is there twice", one.name),
            )?;
            container::check(one, &field, spec)?;
            host_ports(one, &field, &mut ports)?;
        }
    }
    Ok(())
}

/// Two containers of a pod can't have the same port of the host.
fn host_ports<'a>(
    one: &'a Container,
    field: &str,
    taken: &mut BTreeSet<(i32, Option<&'a str>, Option<&'a str>)>,
) -> Checked {
    for (index, port) in one.ports.iter().flatten().enumerate() {
        let Some(host_port) = port.host_port.filter(|port| *port > 0) else { continue };
        let free = taken.insert((host_port, port.protocol.as_deref(), port.host_ip.as_deref()));
        require(free, format!("{field}.ports[{index}].hostPort"), format!("{host_port} is there twice"))?;
    }
    Ok(())
}

/// A static pod runs without an API server, so it can't refer to anything there; nothing checks who may, either.
fn references(spec: &PodSpec) -> Checked {
    let refused = |what: &str, field: String| problem(field, format!("static pods may not reference {what}"));
    for (account, field) in
        [(&spec.service_account_name, "spec.serviceAccountName"), (&spec.service_account, "spec.serviceAccount")]
    {
        if account.as_deref().is_some_and(|account| !account.is_empty()) {
            return refused("serviceaccounts", field.to_owned());
        }
    }
    if spec.image_pull_secrets.as_ref().is_some_and(|secrets| !secrets.is_empty()) {
        return refused("secrets", "spec.imagePullSecrets".to_owned());
    }
    if spec.resource_claims.as_ref().is_some_and(|claims| !claims.is_empty()) {
        return refused("resourceclaims", "spec.resourceClaims".to_owned());
    }
    let init = spec.init_containers.iter().flatten().enumerate().map(|(index, one)| ("initContainers", index, one));
    let regular = spec.containers.iter().enumerate().map(|(index, one)| ("containers", index, one));
    for (list, index, one) in init.chain(regular) {
        if let Some((what, field)) = container::reference(one) {
            return refused(what, format!("spec.{list}[{index}].{field}"));
        }
    }
    for (index, volume) in spec.volumes.iter().flatten().enumerate() {
        if let Some((what, field)) = volume::reference(volume) {
            return refused(what, format!("spec.volumes[{index}].{field}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
