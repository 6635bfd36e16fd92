//! What a pod can ask for and is not built yet: it is never run without it.
//!
//! Every struct is taken apart field by field, without `..`: a field that the API gains does not compile until somebody
//! has decided about it.

use super::Rejection;
use crate::pod::Pod;
use crate::volumes;
use k8s_openapi::api::core::v1::{
    Container, EnvVarSource, Lifecycle, PodSecurityContext, PodSpec, ResourceRequirements, SecurityContext,
};

/// The first field of `pod` that asks for something that is not built.
pub fn unsupported(pod: &Pod) -> Option<Rejection> {
    let field = of_pod(pod)?;
    Some(Rejection::new("PodFeatureUnsupported", format!("{field} is not supported by this kubelet")))
}

fn of_pod(pod: &Pod) -> Option<String> {
    let spec = pod.spec();
    of_spec(spec, ran(pod)).map(|field| format!("spec.{field}")).or_else(|| volumes::unsupported(spec))
}

/// Whether it runs, or ran: then it was admitted, and what was added to it since must not end it.
fn ran(pod: &Pod) -> bool {
    let status = pod.object().status.as_ref();
    status.is_some_and(|status| status.container_statuses.as_ref().is_some_and(|statuses| !statuses.is_empty()))
}

/// A field that must not be given.
fn given<T>(field: &Option<T>, name: &str) -> Option<String> {
    field.as_ref().map(|_| name.to_owned())
}

/// A list that must be empty.
fn filled<T>(list: &Option<Vec<T>>, name: &str) -> Option<String> {
    list.as_ref().filter(|list| !list.is_empty()).map(|_| name.to_owned())
}

fn of_spec(spec: &PodSpec, ran: bool) -> Option<String> {
    let PodSpec {
        // Built, here or in another part.
        active_deadline_seconds: _,
        containers,
        dns_config: _,
        dns_policy: _,
        enable_service_links: _,
        host_aliases: _,
        host_ipc: _,
        host_network: _,
        host_pid: _,
        hostname: _,
        hostname_override: _,
        image_pull_secrets: _,
        init_containers,
        node_selector: _,
        os: _,
        readiness_gates: _,
        resources,
        restart_policy: _,
        security_context,
        set_hostname_as_fqdn: _,
        share_process_namespace: _,
        subdomain: _,
        termination_grace_period_seconds: _,
        tolerations: _,
        volumes: _,
        // Node affinity is checked; the rest of it, and these, are the scheduler's or the API server's.
        affinity: _,
        automount_service_account_token: _,
        node_name: _,
        overhead: _,
        preemption_policy: _,
        priority: _,
        priority_class_name: _,
        scheduler_name: _,
        scheduling_gates: _,
        scheduling_group: _,
        service_account: _,
        service_account_name: _,
        topology_spread_constraints: _,
        // Not built.
        ephemeral_containers,
        host_users,
        resource_claims,
        runtime_class_name,
    } = spec;
    let init = init_containers.iter().flatten().enumerate();
    let init = init.map(|(index, container)| (format!("initContainers[{index}]"), true, container));
    let regular = containers.iter().enumerate();
    let regular = regular.map(|(index, container)| (format!("containers[{index}]"), false, container));
    // They are added to a pod that runs, never to a new one: such a pod goes on, and they wait for ever.
    (!ran)
        .then(|| filled(ephemeral_containers, "ephemeralContainers"))
        .flatten()
        .or_else(|| host_users.is_some_and(|users| !users).then(|| "hostUsers: false".to_owned()))
        .or_else(|| filled(resource_claims, "resourceClaims"))
        .or_else(|| runtime_class_name.as_ref().filter(|name| !name.is_empty()).map(|_| "runtimeClassName".to_owned()))
        .or_else(|| under("resources", resources.as_ref().and_then(of_resources)))
        .or_else(|| under("securityContext", security_context.as_ref().and_then(of_pod_security)))
        .or_else(|| init.chain(regular).find_map(|(path, init, one)| under(&path, of_container(one, init))))
}

fn under(path: &str, field: Option<String>) -> Option<String> {
    field.map(|field| format!("{path}.{field}"))
}

fn of_container(container: &Container, init: bool) -> Option<String> {
    let Container {
        // Built, here or in another part.
        args: _,
        command: _,
        env,
        env_from: _,
        image: _,
        image_pull_policy: _,
        liveness_probe: _,
        name: _,
        ports: _,
        readiness_probe: _,
        resources,
        security_context,
        startup_probe: _,
        stdin: _,
        stdin_once: _,
        termination_message_path: _,
        termination_message_policy: _,
        tty: _,
        volume_mounts: _,
        working_dir: _,
        // Says what a change of resources would do; none is done yet.
        resize_policy: _,
        // Not built.
        lifecycle,
        restart_policy,
        restart_policy_rules,
        volume_devices,
    } = container;
    let sidecar = init && restart_policy.as_deref() == Some("Always");
    lifecycle
        .as_ref()
        .and_then(|lifecycle| under("lifecycle", of_lifecycle(lifecycle)))
        .or_else(|| filled(restart_policy_rules, "restartPolicyRules"))
        .or_else(|| if sidecar { None } else { given(restart_policy, "restartPolicy") })
        .or_else(|| filled(volume_devices, "volumeDevices"))
        .or_else(|| under("resources", resources.as_ref().and_then(of_resources)))
        .or_else(|| under("securityContext", security_context.as_ref().and_then(of_security)))
        .or_else(|| {
            let env = env.iter().flatten().enumerate();
            let sources = env.filter_map(|(index, env)| Some((index, env.value_from.as_ref()?)));
            sources.into_iter().find_map(|(index, from)| under(&format!("env[{index}].valueFrom"), of_env(from)))
        })
}

fn of_lifecycle(lifecycle: &Lifecycle) -> Option<String> {
    let Lifecycle { post_start, pre_stop, stop_signal } = lifecycle;
    given(post_start, "postStart").or_else(|| given(pre_stop, "preStop")).or_else(|| given(stop_signal, "stopSignal"))
}

fn of_env(from: &EnvVarSource) -> Option<String> {
    let EnvVarSource { config_map_key_ref: _, field_ref: _, resource_field_ref: _, secret_key_ref: _, file_key_ref } =
        from;
    given(file_key_ref, "fileKeyRef")
}

fn of_resources(resources: &ResourceRequirements) -> Option<String> {
    let ResourceRequirements { limits: _, requests: _, claims } = resources;
    filled(claims, "claims")
}

fn of_pod_security(security: &PodSecurityContext) -> Option<String> {
    let PodSecurityContext {
        app_armor_profile: _,
        fs_group: _,
        run_as_group: _,
        run_as_non_root: _,
        run_as_user: _,
        // Only volumes that are not built have a choice.
        fs_group_change_policy: _,
        se_linux_change_policy: _,
        se_linux_options: _,
        seccomp_profile: _,
        supplemental_groups: _,
        supplemental_groups_policy: _,
        sysctls: _,
        // Ignored on Linux, as upstream does.
        windows_options: _,
    } = security;
    None
}

fn of_security(security: &SecurityContext) -> Option<String> {
    let SecurityContext {
        allow_privilege_escalation: _,
        app_armor_profile: _,
        capabilities: _,
        privileged: _,
        proc_mount,
        read_only_root_filesystem: _,
        run_as_group: _,
        run_as_non_root: _,
        run_as_user: _,
        se_linux_options: _,
        seccomp_profile: _,
        windows_options: _,
    } = security;
    let masked = proc_mount.as_deref().is_none_or(|mount| matches!(mount, "" | "Default"));
    (!masked).then(|| format!("procMount: {}", proc_mount.as_deref().unwrap_or_default()))
}
