//! What a configuration may ask for here: a valid one can ask for anything that root may do, also on this machine.
//!
//! Mutations that name something of the host outside of the World are left out. The fuzzer looks for what happens
//! without being asked for.

use std::path::Path;

use serde_json::Value;

/// Whether all that this document could make a runtime open, join, run or write lies in the World.
pub(super) fn is_safe(config: &Value, world: &Path, bundle: &Path, cgroups: &str) -> bool {
    let inside = |path: &str| match bundle.join(path).canonicalize() {
        Ok(path) => path.starts_with(world) && path != world,
        // Nothing there to be changed. What can't be a path at all is refused.
        Err(_) => true,
    };
    let text = |value: &Value, key: &str| value[key].as_str().map(str::to_owned);
    let list = |pointer: &str| match config.pointer(pointer) {
        Some(Value::Array(list)) => list.clone(),
        Some(other) => vec![other.clone()],
        None => Vec::new(),
    };
    let root = text(&config["root"], "path").is_none_or(|path| inside(&path));
    let sources = list("/mounts").iter().all(|mount| text(mount, "source").is_none_or(|source| inside(&source)));
    let namespaces = list("/linux/namespaces").iter().all(|namespace| match text(namespace, "path").as_deref() {
        None | Some("" | "/proc/self/ns/net") => namespace["type"] != "mount" || text(namespace, "path").is_none(),
        Some(path) => !Path::new(path).exists(),
    });
    let cgroup = match &config["linux"]["cgroupsPath"] {
        Value::String(path) => path.is_empty() || path.strip_prefix(cgroups).is_some_and(one_below),
        _ => true,
    };
    let listener = text(&config["linux"]["seccomp"], "listenerPath").is_none_or(|path| inside(&path));
    root && sources && namespaces && cgroup && listener && hooks(&config["hooks"], &inside) && is_quick(config)
}

/// Cgroups above the container's own are made and stay, as with every runtime.
fn one_below(path: &str) -> bool {
    path.split('/').filter(|name| !name.is_empty()).count() <= 1 && !path.contains("..")
}

/// A hook runs on the host.
fn hooks(value: &Value, inside: &dyn Fn(&str) -> bool) -> bool {
    match value {
        Value::Array(list) => list.iter().all(|value| hooks(value, inside)),
        Value::Object(fields) => fields.iter().all(|(key, value)| match (key.as_str(), value) {
            ("path", Value::String(path)) => path == "/bin/true" || inside(path),
            (_, value) => hooks(value, inside),
        }),
        _ => true,
    }
}

/// A container that gets next to no time of a CPU does not hang, but nobody can tell.
fn is_quick(config: &Value) -> bool {
    let cpu = &config["linux"]["resources"]["cpu"];
    let quota = cpu["quota"].as_i64().unwrap_or(-1);
    let period = cpu["period"].as_i64().unwrap_or(100_000);
    (quota <= 0 || quota >= period / 10) && ends(&config["process"])
}

/// A shell that reads its script from a terminal waits for somebody to type it.
pub(super) fn ends(process: &Value) -> bool {
    !process["args"].to_string().contains("/dev/ptmx")
}
