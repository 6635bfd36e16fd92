//! The variables that name services: `<NAME>_SERVICE_HOST` and the links of old Docker.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use std::collections::BTreeMap;

/// Variables of the services that a pod in `namespace` sees: those of its namespace if it wants links, and
/// `default/kubernetes` always, because clients inside a cluster find the API server by it.
pub fn variables(services: &[Service], namespace: &str, links: bool) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for (name, spec) in visible(services, namespace, links) {
        describe(&variable_name(name), spec, &mut variables);
    }
    variables
}

/// One service for each name. The pod's own namespace goes before `default` where both have a `kubernetes`.
fn visible<'a>(services: &'a [Service], namespace: &str, links: bool) -> BTreeMap<&'a str, &'a ServiceSpec> {
    let mut visible = BTreeMap::new();
    for service in services {
        let (Some(name), Some(spec)) = (service.metadata.name.as_deref(), service.spec.as_ref()) else { continue };
        let home = service.metadata.namespace.as_deref().unwrap_or_default();
        if matches!(spec.cluster_ip.as_deref(), None | Some("" | "None")) {
            continue;
        }
        if home == namespace && links {
            visible.insert(name, spec);
        } else if home == "default" && name == "kubernetes" {
            visible.entry(name).or_insert(spec);
        }
    }
    visible
}

fn describe(name: &str, spec: &ServiceSpec, variables: &mut BTreeMap<String, String>) {
    let host = spec.cluster_ip.as_deref().unwrap_or_default();
    let ports = spec.ports.as_deref().unwrap_or_default();
    variables.insert(format!("{name}_SERVICE_HOST"), host.to_owned());
    if let Some(first) = ports.first() {
        variables.insert(format!("{name}_SERVICE_PORT"), first.port.to_string());
        variables.insert(format!("{name}_PORT"), url(first, host));
    }
    for port in ports {
        if let Some(port_name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            let port_name = variable_name(port_name);
            variables.insert(format!("{name}_SERVICE_PORT_{port_name}"), port.port.to_string());
        }
        link(&format!("{name}_PORT_{}_{}", port.port, protocol(port).to_uppercase()), port, host, variables);
    }
}

fn link(prefix: &str, port: &ServicePort, host: &str, variables: &mut BTreeMap<String, String>) {
    variables.insert(prefix.to_owned(), url(port, host));
    variables.insert(format!("{prefix}_PROTO"), protocol(port).to_lowercase());
    variables.insert(format!("{prefix}_PORT"), port.port.to_string());
    variables.insert(format!("{prefix}_ADDR"), host.to_owned());
}

fn url(port: &ServicePort, host: &str) -> String {
    let scheme = protocol(port).to_lowercase();
    match host.contains(':') {
        true => format!("{scheme}://[{host}]:{}", port.port),
        false => format!("{scheme}://{host}:{}", port.port),
    }
}

fn protocol(port: &ServicePort) -> &str {
    port.protocol.as_deref().filter(|protocol| !protocol.is_empty()).unwrap_or("TCP")
}

fn variable_name(name: &str) -> String {
    name.replace('-', "_").to_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn service(namespace: &str, name: &str, ip: &str, ports: &Value) -> Service {
        serde_json::from_value(json!({
            "metadata": { "namespace": namespace, "name": name },
            "spec": { "clusterIP": ip, "ports": ports },
        }))
        .expect("a service")
    }

    #[track_caller]
    fn check(services: &[Service], namespace: &str, links: bool, expected: &[(&str, &str)]) {
        let variables = variables(services, namespace, links);
        let got: Vec<_> = variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn a_service_is_named_by_host_port_and_links() {
        let ports = json!([
            { "name": "u-d-p", "port": 8083, "protocol": "UDP" },
            { "name": "t-c-p", "port": 8084, "protocol": "TCP" },
        ]);
        check(
            &[service("n", "super-duper", "9.8.7.6", &ports)],
            "n",
            true,
            &[
                ("SUPER_DUPER_PORT", "udp://9.8.7.6:8083"),
                ("SUPER_DUPER_PORT_8083_UDP", "udp://9.8.7.6:8083"),
                ("SUPER_DUPER_PORT_8083_UDP_ADDR", "9.8.7.6"),
                ("SUPER_DUPER_PORT_8083_UDP_PORT", "8083"),
                ("SUPER_DUPER_PORT_8083_UDP_PROTO", "udp"),
                ("SUPER_DUPER_PORT_8084_TCP", "tcp://9.8.7.6:8084"),
                ("SUPER_DUPER_PORT_8084_TCP_ADDR", "9.8.7.6"),
                ("SUPER_DUPER_PORT_8084_TCP_PORT", "8084"),
                ("SUPER_DUPER_PORT_8084_TCP_PROTO", "tcp"),
                ("SUPER_DUPER_SERVICE_HOST", "9.8.7.6"),
                ("SUPER_DUPER_SERVICE_PORT", "8083"),
                ("SUPER_DUPER_SERVICE_PORT_T_C_P", "8084"),
                ("SUPER_DUPER_SERVICE_PORT_U_D_P", "8083"),
            ],
        );
    }

    #[test]
    fn an_ipv6_address_stands_in_brackets() {
        let services = [service("n", "q", "2500::1", &json!([{ "port": 80 }]))];
        assert_eq!(variables(&services, "n", true)["Q_PORT"], "tcp://[2500::1]:80");
    }

    #[test]
    fn without_links_only_the_api_server_is_named() {
        let port = json!([{ "port": 443 }]);
        let services = [
            service("default", "kubernetes", "10.0.0.1", &port),
            service("n", "own", "10.0.0.2", &port),
            service("other", "stranger", "10.0.0.3", &port),
            service("n", "headless", "None", &port),
            service("n", "external", "", &port),
        ];
        let hosts = |links| -> Vec<String> {
            variables(&services, "n", links).into_keys().filter(|name| name.ends_with("_SERVICE_HOST")).collect()
        };
        assert_eq!(hosts(false), ["KUBERNETES_SERVICE_HOST"]);
        assert_eq!(hosts(true), ["KUBERNETES_SERVICE_HOST", "OWN_SERVICE_HOST"]);
    }
}
