//! Variables of all kinds: `envFrom`, `env` with its sources, and the names of services.

use super::downward::{self, Addresses};
use super::expansion::{self, Room, TooLong};
use super::{SpecError, services};
use crate::api::{Api, ApiError};
use crate::pod::Pod;
use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvFromSource, EnvVarSource, Secret};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// What a container's environment is made of beside objects of the API server.
#[derive(Debug)]
pub struct EnvInputs<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// One of its containers.
    pub container: &'a Container,
    /// The pod's addresses, from its sandbox. Of a pod in the host's network the node's count instead.
    pub pod_ips: &'a [IpAddr],
    /// The node's addresses, the primary one first.
    pub host_ips: &'a [IpAddr],
    /// What a limit that is not set is said to be.
    pub allocatable: &'a BTreeMap<String, Quantity>,
}

impl<'a> EnvInputs<'a> {
    fn addresses(&self) -> Addresses<'a> {
        let pod = if self.pod.host_network() { self.host_ips } else { self.pod_ips };
        Addresses { pod, host: self.host_ips }
    }
}

/// The environment: `envFrom`, `env`, and the variables of services where neither says otherwise.
///
/// Made anew for every start: what changed in a ConfigMap since the last one is seen by the next.
///
/// # Errors
/// An object or key that is neither there nor optional, a field that does not exist: upstream's texts, which name the
/// object, and never a value.
pub async fn environment(api: &dyn Api, inputs: &EnvInputs<'_>) -> Result<BTreeMap<String, String>, SpecError> {
    let services = service_variables(api, inputs.pod).await?;
    let mut objects = Objects::new(api, inputs.pod.namespace());
    let mut variables = Variables { values: BTreeMap::new(), room: Room::empty() };
    for source in inputs.container.env_from.iter().flatten() {
        objects.all_of(source, &mut variables).await?;
    }
    for variable in inputs.container.env.iter().flatten() {
        let value = match (variable.value.as_deref(), &variable.value_from) {
            (None | Some(""), Some(source)) => match objects.one_of(&variable.name, source, inputs).await? {
                Some(value) => value,
                None => continue,
            },
            (text, _) => {
                let known = |name: &str| variables.values.get(name).or_else(|| services.get(name)).map(String::as_str);
                expansion::expand(text.unwrap_or_default(), known).map_err(|error| too_long(&variable.name, error))?
            }
        };
        variables.set(variable.name.clone(), value)?;
    }
    for (name, value) in services {
        if !variables.values.contains_key(&name) {
            variables.set(name, value)?;
        }
    }
    passable(&variables.values)?;
    Ok(variables.values)
}

/// The environment as it grows.
struct Variables {
    values: BTreeMap<String, String>,
    room: Room,
}

impl Variables {
    fn set(&mut self, name: String, value: String) -> Result<(), SpecError> {
        let length = name.len() + 1 + value.len();
        if let Some(before) = self.values.get(&name) {
            self.room.give_back(name.len() + 1 + before.len());
        }
        self.room.take(length).map_err(|error| too_long(&name, error))?;
        self.values.insert(name, value);
        Ok(())
    }
}

fn too_long(name: &str, error: TooLong) -> SpecError {
    let shown: String = name.chars().take(253).collect();
    SpecError::container(format!("environment variable {shown:?} can't be passed to a process: {error}"))
}

/// execve(2) knows no variable with a NUL, and none with `=` in its name.
fn passable(variables: &BTreeMap<String, String>) -> Result<(), SpecError> {
    let wrong =
        |(name, value): &(&String, &String)| name.is_empty() || name.contains(['=', '\0']) || value.contains('\0');
    match variables.iter().find(wrong) {
        None => Ok(()),
        Some((name, _)) => Err(SpecError::container(format!(
            "environment variable {name:?} can't be passed to a process: its name is empty or has a '=', or there is a NUL in it"
        ))),
    }
}

/// A static pod does not wait for the API server: it may be the API server.
async fn service_variables(api: &dyn Api, pod: &Pod) -> Result<BTreeMap<String, String>, SpecError> {
    let links = pod.spec().enable_service_links.unwrap_or(true);
    match api.services().await {
        Ok(list) => Ok(services::variables(&list, pod.namespace(), links)),
        Err(_) if pod.is_static() => Ok(BTreeMap::new()),
        Err(_) => Err(SpecError::container("services have not yet been read at least once, cannot construct envvars")),
    }
}

/// The ConfigMaps and Secrets of one environment: each is asked for once, so that all its keys are of one version.
struct Objects<'a> {
    api: &'a dyn Api,
    namespace: &'a str,
    config_maps: BTreeMap<String, Arc<ConfigMap>>,
    secrets: BTreeMap<String, Arc<Secret>>,
}

impl<'a> Objects<'a> {
    fn new(api: &'a dyn Api, namespace: &'a str) -> Objects<'a> {
        Objects { api, namespace, config_maps: BTreeMap::new(), secrets: BTreeMap::new() }
    }

    /// `None` is an optional one that is not there.
    async fn config_map(&mut self, name: &str, optional: bool) -> Result<Option<Arc<ConfigMap>>, SpecError> {
        if let Some(found) = self.config_maps.get(name) {
            return Ok(Some(found.clone()));
        }
        match self.api.config_map(self.namespace, name).await {
            Ok(found) => Ok(Some(self.config_maps.entry(name.to_owned()).or_insert(found).clone())),
            Err(error) => absent(&error, optional, ("configmap", "configMap"), self.namespace, name).map(|()| None),
        }
    }

    /// `None` is an optional one that is not there.
    async fn secret(&mut self, name: &str, optional: bool) -> Result<Option<Arc<Secret>>, SpecError> {
        if let Some(found) = self.secrets.get(name) {
            return Ok(Some(found.clone()));
        }
        match self.api.secret(self.namespace, name).await {
            Ok(found) => Ok(Some(self.secrets.entry(name.to_owned()).or_insert(found).clone())),
            Err(error) => absent(&error, optional, ("secret", "secret"), self.namespace, name).map(|()| None),
        }
    }

    /// Sets every key of an `envFrom` source, with its prefix.
    async fn all_of(&mut self, source: &EnvFromSource, variables: &mut Variables) -> Result<(), SpecError> {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &source.config_map_ref {
            let found = self.config_map(&reference.name, reference.optional.unwrap_or(false)).await?;
            for (key, value) in found.iter().flat_map(|object| object.data.iter().flatten()) {
                variables.set(format!("{prefix}{key}"), value.clone())?;
            }
        } else if let Some(reference) = &source.secret_ref {
            let found = self.secret(&reference.name, reference.optional.unwrap_or(false)).await?;
            for (key, value) in found.iter().flat_map(|object| object.data.iter().flatten()) {
                variables.set(format!("{prefix}{key}"), self.text(&value.0, key, &reference.name)?)?;
            }
        }
        Ok(())
    }

    /// The value of a variable's source; `None` is an optional one that is not there.
    async fn one_of(
        &mut self,
        variable: &str,
        source: &EnvVarSource,
        inputs: &EnvInputs<'_>,
    ) -> Result<Option<String>, SpecError> {
        if let Some(field) = &source.field_ref {
            let value = downward::field(inputs.pod, &field.field_path, inputs.addresses());
            return value.map(Some).map_err(SpecError::container);
        }
        if let Some(selector) = &source.resource_field_ref {
            let value = downward::resource(inputs.pod, inputs.container, selector, inputs.allocatable);
            return value.map(Some).map_err(SpecError::container);
        }
        if let Some(selector) = &source.config_map_key_ref {
            let optional = selector.optional.unwrap_or(false);
            let Some(object) = self.config_map(&selector.name, optional).await? else { return Ok(None) };
            let value = object.data.as_ref().and_then(|data| data.get(&selector.key)).cloned();
            return self.found(value, optional, &selector.key, "ConfigMap", &selector.name);
        }
        if let Some(selector) = &source.secret_key_ref {
            let optional = selector.optional.unwrap_or(false);
            let Some(object) = self.secret(&selector.name, optional).await? else { return Ok(None) };
            let value = object.data.as_ref().and_then(|data| data.get(&selector.key));
            let value = value.map(|value| self.text(&value.0, &selector.key, &selector.name)).transpose()?;
            return self.found(value, optional, &selector.key, "Secret", &selector.name);
        }
        let unbuilt = format!("env {variable:?}: valueFrom.fileKeyRef is not supported by this kubelet");
        if source.file_key_ref.is_some() { Err(SpecError::container(unbuilt)) } else { Ok(Some(String::new())) }
    }

    fn found(
        &self,
        value: Option<String>,
        optional: bool,
        key: &str,
        kind: &str,
        name: &str,
    ) -> Result<Option<String>, SpecError> {
        if value.is_none() && !optional {
            let message = format!("couldn't find key {key} in {kind} {}/{name}", self.namespace);
            return Err(SpecError::container(message));
        }
        Ok(value)
    }

    /// Environments are text here, as in the CRI's older clients; what is not would be changed on the way.
    fn text(&self, bytes: &[u8], key: &str, secret: &str) -> Result<String, SpecError> {
        let text = std::str::from_utf8(bytes).map(str::to_owned);
        text.map_err(|_| {
            SpecError::container(format!(
                "key {key} in Secret {}/{secret} is not UTF-8: it can be mounted, but not be a variable",
                self.namespace
            ))
        })
    }
}

/// Whether it is fine that an object is not there, and the error if it is not.
fn absent(
    error: &ApiError,
    optional: bool,
    (resource, kind): (&str, &str),
    namespace: &str,
    name: &str,
) -> Result<(), SpecError> {
    Err(SpecError::container(match error {
        ApiError::NotFound(_) if optional => return Ok(()),
        ApiError::NotFound(_) => format!("{resource} {name:?} not found"),
        ApiError::Standalone(_) => format!("couldn't get {kind} {namespace}/{name}, no kubeClient defined"),
        other => format!("couldn't get {kind} {namespace}/{name}: {other}"),
    }))
}

#[cfg(test)]
mod tests;
