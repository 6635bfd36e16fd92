//! Which Secrets and ConfigMaps a pod refers to.

use super::{Reference, ReferenceKind};
use crate::pod::Pod;
use k8s_openapi::api::core::v1::{Container, Volume};
use std::collections::BTreeSet;

/// All of them: volumes, environments and image pull secrets. Optional ones too: they may come to be.
pub(crate) fn of(pod: &Pod) -> BTreeSet<Reference> {
    let mut found = Found { namespace: pod.namespace(), all: BTreeSet::new() };
    for secret in pod.spec().image_pull_secrets.iter().flatten() {
        found.secret(Some(&secret.name));
    }
    for volume in pod.spec().volumes.iter().flatten() {
        found.volume(volume);
    }
    for (_, container) in pod.containers() {
        found.container(container);
    }
    found.all
}

struct Found<'a> {
    namespace: &'a str,
    all: BTreeSet<Reference>,
}

impl Found<'_> {
    fn secret(&mut self, name: Option<&str>) {
        self.add(ReferenceKind::Secret, name);
    }

    fn config_map(&mut self, name: Option<&str>) {
        self.add(ReferenceKind::ConfigMap, name);
    }

    fn add(&mut self, kind: ReferenceKind, name: Option<&str>) {
        if let Some(name) = name.filter(|name| !name.is_empty()) {
            self.all.insert(Reference { kind, namespace: self.namespace.to_owned(), name: name.to_owned() });
        }
    }

    fn volume(&mut self, volume: &Volume) {
        self.secret(volume.secret.as_ref().and_then(|secret| secret.secret_name.as_deref()));
        self.config_map(volume.config_map.as_ref().map(|config_map| config_map.name.as_str()));
        for source in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
            self.secret(source.secret.as_ref().map(|secret| secret.name.as_str()));
            self.config_map(source.config_map.as_ref().map(|config_map| config_map.name.as_str()));
        }
    }

    fn container(&mut self, container: &Container) {
        for from in container.env_from.iter().flatten() {
            self.secret(from.secret_ref.as_ref().map(|secret| secret.name.as_str()));
            self.config_map(from.config_map_ref.as_ref().map(|config_map| config_map.name.as_str()));
        }
        for from in container.env.iter().flatten().filter_map(|env| env.value_from.as_ref()) {
            self.secret(from.secret_key_ref.as_ref().map(|secret| secret.name.as_str()));
            self.config_map(from.config_map_key_ref.as_ref().map(|config_map| config_map.name.as_str()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::Source;
    use serde_json::json;
    use std::sync::Arc;

    #[test]
    fn every_place_that_can_refer_is_looked_at() {
        let object = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
            "spec": {
                "imagePullSecrets": [{"name": "s-pull"}],
                "volumes": [
                    {"name": "a", "secret": {"secretName": "s-volume"}},
                    {"name": "b", "configMap": {"name": "c-volume"}},
                    {"name": "c", "projected": {"sources": [
                        {"secret": {"name": "s-projected"}}, {"configMap": {"name": "c-projected"}}]}},
                ],
                "initContainers": [{"name": "i", "envFrom": [
                    {"secretRef": {"name": "s-from"}}, {"configMapRef": {"name": "c-from"}}]}],
                "containers": [{"name": "x", "env": [
                    {"name": "A", "valueFrom": {"secretKeyRef": {"name": "s-key", "key": "k"}}},
                    {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "c-key", "key": "k", "optional": true}}}]}],
            },
        }))
        .unwrap();
        let pod = Pod::new(Arc::new(object), Source::Api).unwrap();
        let names: Vec<_> = of(&pod).into_iter().map(|reference| (reference.kind, reference.name)).collect();
        let secrets = ["s-from", "s-key", "s-projected", "s-pull", "s-volume"];
        let maps = ["c-from", "c-key", "c-projected", "c-volume"];
        let expected: Vec<_> = secrets
            .map(|name| (ReferenceKind::Secret, name.to_owned()))
            .into_iter()
            .chain(maps.map(|name| (ReferenceKind::ConfigMap, name.to_owned())))
            .collect();
        assert_eq!(names, expected);
    }
}
