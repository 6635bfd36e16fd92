//! projected: secrets, ConfigMaps, fields and tokens in one folder.

use super::content::Inputs;
use super::error::SetUpError;
use super::payload::{File, Keys, Payload, mode};
use super::{config_map, downward_api, secret};
use crate::pod::Pod;
use k8s_openapi::api::core::v1::{ProjectedVolumeSource, ServiceAccountTokenProjection, VolumeProjection};

/// What a volume of this source holds: a later source wins a path. All sources that fail are named.
pub(super) async fn payload(source: &ProjectedVolumeSource, inputs: &Inputs<'_>) -> Result<Payload, SetUpError> {
    let mut payload = Payload::default();
    let mut errors = Vec::new();
    for projection in source.sources.iter().flatten() {
        match one(projection, source.default_mode, inputs).await {
            Ok(files) => payload.extend(files)?,
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(payload) } else { Err(SetUpError::of(errors)) }
}

async fn one(
    projection: &VolumeProjection,
    default_mode: Option<i32>,
    inputs: &Inputs<'_>,
) -> Result<Payload, SetUpError> {
    if let Some(source) = &projection.secret {
        let optional = source.optional.unwrap_or(false);
        let keys = Keys { items: source.items.as_deref(), default_mode, optional };
        return secret::of(&source.name, &keys, inputs).await;
    }
    if let Some(source) = &projection.config_map {
        let optional = source.optional.unwrap_or(false);
        let keys = Keys { items: source.items.as_deref(), default_mode, optional };
        return config_map::of(&source.name, &keys, inputs).await;
    }
    if let Some(source) = &projection.downward_api {
        return downward_api::payload(source.items.as_deref().unwrap_or_default(), default_mode, inputs);
    }
    match &projection.service_account_token {
        Some(source) => token(source, default_mode, inputs).await,
        None => Ok(Payload::default()), // the others were refused with the pod
    }
}

async fn token(
    source: &ServiceAccountTokenProjection,
    default_mode: Option<i32>,
    inputs: &Inputs<'_>,
) -> Result<Payload, SetUpError> {
    let token = inputs.tokens.get(inputs.api, inputs.pod, source).await?;
    let mut payload = Payload::default();
    let (mode, owner) = access(inputs.pod, default_mode);
    payload.insert(&source.path, File { data: token.into_bytes(), mode, owner })?;
    Ok(payload)
}

/// Permissions and owner of a token: readable by the pod's one user alone where there is one, by its group where that
/// is given (the volume's ownership adds the group's bit), else as the volume says.
fn access(pod: &Pod, default_mode: Option<i32>) -> (u32, Option<u32>) {
    let owner = only_user(pod);
    let group = pod.spec().security_context.as_ref().and_then(|context| context.fs_group);
    let mode = if owner.is_some() || group.is_some() { 0o600 } else { mode(None, default_mode) };
    (mode, owner)
}

/// The user that all containers run as, if every one says so and they agree.
fn only_user(pod: &Pod) -> Option<u32> {
    let pods = pod.spec().security_context.as_ref().and_then(|context| context.run_as_user);
    let mut users = pod
        .containers()
        .map(|(_, container)| container.security_context.as_ref().and_then(|context| context.run_as_user).or(pods));
    let first = users.next()??;
    users.all(|user| user == Some(first)).then_some(first).and_then(|user| u32::try_from(user).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::tests::pod_of;
    use serde_json::{Value, json};

    fn check(spec: Value, expected: (u32, Option<u32>)) {
        assert_eq!(access(&pod_of(spec.clone()), Some(0o644)), expected, "{spec}");
    }

    #[test]
    fn a_token_is_readable_by_as_few_as_the_pod_allows() {
        let user = |user: i64| json!({ "name": "c", "securityContext": { "runAsUser": user } });
        let any = json!({ "name": "d" });
        check(json!({ "containers": [any] }), (0o644, None));
        check(json!({ "containers": [user(7)] }), (0o600, Some(7)));
        check(json!({ "containers": [user(7), any] }), (0o644, None));
        check(json!({ "containers": [user(7), user(8)] }), (0o644, None));
        check(json!({ "containers": [user(7)], "initContainers": [user(8)] }), (0o644, None));
        check(json!({ "containers": [any], "securityContext": { "runAsUser": 9 } }), (0o600, Some(9)));
        check(json!({ "containers": [user(7), any], "securityContext": { "runAsUser": 7 } }), (0o600, Some(7)));
        check(json!({ "containers": [any], "securityContext": { "fsGroup": 5 } }), (0o600, None));
    }
}
