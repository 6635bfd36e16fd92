//! Mistakes in a container.

use super::{Checked, amounts, id, names, one_of, require};
use k8s_openapi::api::core::v1::{Container, ContainerPort, EnvVar, PodSpec, Probe};
use std::collections::BTreeSet;

/// Checks one of the pod's containers.
pub(super) fn check(one: &Container, field: &str, spec: &PodSpec) -> Checked {
    require(names::is_label(&one.name), format!("{field}.name"), format!("{:?} is not a DNS label", one.name))?;
    let image = one.image.as_deref().unwrap_or_default();
    require(!image.is_empty(), format!("{field}.image"), "is missing")?;
    require(image.trim() == image, format!("{field}.image"), "begins or ends with a space")?;
    let policies = ["Always", "IfNotPresent", "Never"];
    one_of(one.image_pull_policy.as_deref(), &policies, format!("{field}.imagePullPolicy"))?;
    let policies = ["File", "FallbackToLogsOnError"];
    one_of(one.termination_message_policy.as_deref(), &policies, format!("{field}.terminationMessagePolicy"))?;
    ports(one.ports.as_deref().unwrap_or_default(), field, spec.host_network.unwrap_or(false))?;
    for (index, env) in one.env.iter().flatten().enumerate() {
        environment(env, &format!("{field}.env[{index}]"))?;
    }
    if let Some(all) = &one.resources {
        amounts::resources(all, &format!("{field}.resources"))?;
    }
    if let Some(context) = &one.security_context {
        let field = format!("{field}.securityContext");
        id(context.run_as_user, format!("{field}.runAsUser"))?;
        id(context.run_as_group, format!("{field}.runAsGroup"))?;
    }
    mounts(one, field, spec)?;
    let probes = [
        ("livenessProbe", &one.liveness_probe, true),
        ("readinessProbe", &one.readiness_probe, false),
        ("startupProbe", &one.startup_probe, true),
    ];
    probes.into_iter().try_for_each(|(name, given, once)| match given {
        Some(given) => probe(given, &format!("{field}.{name}"), once),
        None => Ok(()),
    })
}

fn ports(ports: &[ContainerPort], field: &str, host_network: bool) -> Checked {
    let mut known = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let field = format!("{field}.ports[{index}]");
        let valid = |number: i32| (1..=65535).contains(&number);
        require(valid(port.container_port), format!("{field}.containerPort"), "is not from 1 to 65535")?;
        let host = port.host_port.unwrap_or(0);
        require(host == 0 || valid(host), format!("{field}.hostPort"), "is not from 1 to 65535")?;
        let equal = !host_network || host == port.container_port;
        require(equal, format!("{field}.hostPort"), "is not containerPort, although hostNetwork is true")?;
        one_of(port.protocol.as_deref(), &["TCP", "UDP", "SCTP"], format!("{field}.protocol"))?;
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            require(names::is_port_name(name), format!("{field}.name"), format!("{name:?} is not a port's name"))?;
            require(known.insert(name), format!("{field}.name"), format!("{name:?} is there twice"))?;
        }
    }
    Ok(())
}

fn environment(env: &EnvVar, field: &str) -> Checked {
    let message = format!("{:?} is not a variable's name", env.name);
    require(names::is_env(&env.name), format!("{field}.name"), message)?;
    let Some(from) = &env.value_from else { return Ok(()) };
    let both = env.value.as_deref().is_some_and(|value| !value.is_empty());
    require(!both, format!("{field}.valueFrom"), "stands beside value")?;
    let sources = [
        from.field_ref.is_some(),
        from.resource_field_ref.is_some(),
        from.config_map_key_ref.is_some(),
        from.secret_key_ref.is_some(),
        from.file_key_ref.is_some(),
    ];
    let count = sources.iter().filter(|given| **given).count();
    require(count == 1, format!("{field}.valueFrom"), format!("has {count} sources; it needs one"))?;
    match &from.resource_field_ref {
        Some(selector) => amounts::divisor(selector, &format!("{field}.valueFrom.resourceFieldRef")),
        None => Ok(()),
    }
}

fn mounts(one: &Container, field: &str, spec: &PodSpec) -> Checked {
    let mut paths = BTreeSet::new();
    for (index, mount) in one.volume_mounts.iter().flatten().enumerate() {
        let field = format!("{field}.volumeMounts[{index}]");
        let known = spec.volumes.iter().flatten().any(|volume| volume.name == mount.name);
        require(known, format!("{field}.name"), format!("there is no volume {:?}", mount.name))?;
        require(!mount.mount_path.is_empty(), format!("{field}.mountPath"), "is missing")?;
        let fresh = paths.insert(mount.mount_path.as_str());
        require(fresh, format!("{field}.mountPath"), format!("{:?} is there twice", mount.mount_path))?;
        for (name, path) in [("subPath", &mount.sub_path), ("subPathExpr", &mount.sub_path_expr)] {
            let path = path.as_deref().unwrap_or_default();
            let inside = !path.starts_with('/') && !path.split('/').any(|part| part == "..");
            require(inside, format!("{field}.{name}"), "leaves the volume")?;
        }
    }
    Ok(())
}

fn probe(probe: &Probe, field: &str, once: bool) -> Checked {
    let handlers = [probe.exec.is_some(), probe.http_get.is_some(), probe.tcp_socket.is_some(), probe.grpc.is_some()];
    let count = handlers.iter().filter(|given| **given).count();
    require(count == 1, field, format!("has {count} handlers; it needs one"))?;
    let numbers = [
        ("initialDelaySeconds", probe.initial_delay_seconds, 0),
        ("timeoutSeconds", probe.timeout_seconds, 1),
        ("periodSeconds", probe.period_seconds, 1),
        ("successThreshold", probe.success_threshold, 1),
        ("failureThreshold", probe.failure_threshold, 1),
    ];
    for (name, number, least) in numbers {
        let enough = number.is_none_or(|number| number >= least);
        require(enough, format!("{field}.{name}"), format!("is below {least}"))?;
    }
    let threshold = probe.success_threshold.unwrap_or(1);
    require(!once || threshold == 1, format!("{field}.successThreshold"), "must be 1")
}

/// The first thing at the API server that a container refers to, and the field.
pub(super) fn reference(one: &Container) -> Option<(&'static str, String)> {
    for (index, from) in one.env_from.iter().flatten().enumerate() {
        if from.secret_ref.is_some() {
            return Some(("secrets", format!("envFrom[{index}].secretRef")));
        }
        if from.config_map_ref.is_some() {
            return Some(("configmaps", format!("envFrom[{index}].configMapRef")));
        }
    }
    let env = one.env.iter().flatten().enumerate();
    env.filter_map(|(index, env)| Some((index, env.value_from.as_ref()?))).find_map(|(index, from)| {
        let secret = from.secret_key_ref.as_ref().map(|_| ("secrets", "secretKeyRef"));
        let found = secret.or(from.config_map_key_ref.as_ref().map(|_| ("configmaps", "configMapKeyRef")));
        found.map(|(what, field)| (what, format!("env[{index}].valueFrom.{field}")))
    })
}
