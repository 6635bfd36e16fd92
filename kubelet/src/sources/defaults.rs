//! What the API server writes into a pod that does not say it: a static pod meets none on its way.

use k8s_openapi::api::core::v1::{
    Container, DownwardAPIVolumeFile, EnvVar, ObjectFieldSelector, Pod, PodSecurityContext, PodSpec, Probe,
    ResourceFieldSelector, ResourceRequirements, Volume, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Applies all of them.
pub(super) fn apply(pod: &mut Pod) {
    let Some(spec) = &mut pod.spec else { return };
    text(&mut spec.restart_policy, "Always");
    text(&mut spec.dns_policy, "ClusterFirst");
    text(&mut spec.scheduler_name, "default-scheduler");
    spec.termination_grace_period_seconds.get_or_insert(30);
    spec.enable_service_links.get_or_insert(true);
    spec.security_context.get_or_insert_with(PodSecurityContext::default);
    spec.volumes.iter_mut().flatten().for_each(volume);
    let host_network = spec.host_network.unwrap_or(false);
    for container in containers(spec) {
        of_container(container, host_network);
    }
}

fn containers(spec: &mut PodSpec) -> impl Iterator<Item = &mut Container> {
    spec.init_containers.iter_mut().flatten().chain(&mut spec.containers)
}

fn text(field: &mut Option<String>, default: &str) {
    if field.as_deref().is_none_or(str::is_empty) {
        *field = Some(default.to_owned());
    }
}

fn of_container(container: &mut Container, host_network: bool) {
    let policy = if is_latest(container.image.as_deref().unwrap_or_default()) { "Always" } else { "IfNotPresent" };
    text(&mut container.image_pull_policy, policy);
    text(&mut container.termination_message_path, "/dev/termination-log");
    text(&mut container.termination_message_policy, "File");
    requests(container.resources.get_or_insert_with(ResourceRequirements::default));
    for port in container.ports.iter_mut().flatten() {
        text(&mut port.protocol, "TCP");
        if host_network && port.host_port.unwrap_or(0) == 0 {
            port.host_port = Some(port.container_port);
        }
    }
    let probes = [&mut container.liveness_probe, &mut container.readiness_probe, &mut container.startup_probe];
    probes.into_iter().flatten().for_each(probe);
    container.env.iter_mut().flatten().for_each(env);
}

/// Whether an image reference means `latest`, said or not.
fn is_latest(image: &str) -> bool {
    let tag = image.rsplit('/').next().unwrap_or_default().split_once(':');
    !image.contains('@') && tag.is_none_or(|(_, tag)| tag == "latest")
}

/// A limit without a request is a request.
fn requests(resources: &mut ResourceRequirements) {
    for (name, limit) in resources.limits.iter().flatten() {
        resources.requests.get_or_insert_default().entry(name.clone()).or_insert_with(|| limit.clone());
    }
}

fn probe(probe: &mut Probe) {
    let number = |field: &mut Option<i32>, default| {
        if field.unwrap_or(0) == 0 {
            *field = Some(default);
        }
    };
    number(&mut probe.timeout_seconds, 1);
    number(&mut probe.period_seconds, 10);
    number(&mut probe.success_threshold, 1);
    number(&mut probe.failure_threshold, 3);
    if let Some(get) = &mut probe.http_get {
        text(&mut get.path, "/");
        text(&mut get.scheme, "HTTP");
    }
    if let Some(grpc) = &mut probe.grpc {
        grpc.service.get_or_insert_default();
    }
}

fn env(env: &mut EnvVar) {
    let Some(from) = &mut env.value_from else { return };
    field_version(&mut from.field_ref);
    divisor(&mut from.resource_field_ref);
}

fn field_version(field: &mut Option<ObjectFieldSelector>) {
    if let Some(field) = field {
        text(&mut field.api_version, "v1");
    }
}

fn divisor(field: &mut Option<ResourceFieldSelector>) {
    if let Some(field) = field {
        field.divisor.get_or_insert_with(|| Quantity("0".to_owned()));
    }
}

fn volume(volume: &mut Volume) {
    const MODE: i32 = 0o644;
    if let Some(secret) = &mut volume.secret {
        secret.default_mode.get_or_insert(MODE);
    }
    if let Some(config_map) = &mut volume.config_map {
        config_map.default_mode.get_or_insert(MODE);
    }
    if let Some(host_path) = &mut volume.host_path {
        host_path.type_.get_or_insert_default();
    }
    if let Some(downward) = &mut volume.downward_api {
        downward.default_mode.get_or_insert(MODE);
        downward.items.iter_mut().flatten().for_each(downward_file);
    }
    if let Some(projected) = &mut volume.projected {
        projected.default_mode.get_or_insert(MODE);
        projected.sources.iter_mut().flatten().for_each(projection);
    }
    let named_only = Volume { name: volume.name.clone(), ..Volume::default() };
    if *volume == named_only {
        volume.empty_dir = Some(Default::default());
    }
}

fn projection(source: &mut VolumeProjection) {
    for file in source.downward_api.iter_mut().flat_map(|downward| downward.items.iter_mut().flatten()) {
        downward_file(file);
    }
}

fn downward_file(file: &mut DownwardAPIVolumeFile) {
    field_version(&mut file.field_ref);
    divisor(&mut file.resource_field_ref);
}
