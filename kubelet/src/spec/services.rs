//! The variables that name services.

use k8s_openapi::api::core::v1::Service;
use std::collections::BTreeMap;

/// Variables of the services that a pod in `namespace` sees.
pub fn variables(services: &[Service], namespace: &str, links: bool) -> BTreeMap<String, String> {
    let _ = (services, namespace, links);
    todo!()
}
