//! The list as a table for a person and as JSON for a program.

use super::rows::Pod;
use indicatif::HumanBytes;

/// A line per pod, and below it one per container.
pub(super) fn table(pods: &[Pod]) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["POD", "READY", "STATE", "RESTARTS", "CPU", "MEMORY", "AGE", "IP"]);
    for pod in pods {
        table.add_row([
            format!("{}/{}", pod.namespace, pod.name),
            ready(pod.ready).to_owned(),
            pod.state.clone(),
            pod.restarts.to_string(),
            cpu(pod.cpu_millis),
            memory(pod.memory_bytes),
            age(pod.age),
            pod.ip.clone().unwrap_or_else(|| "-".to_owned()),
        ]);
        for container in &pod.containers {
            table.add_row([
                format!("  {}", container.name),
                ready(container.ready).to_owned(),
                container.state.clone(),
                container.restarts.to_string(),
                cpu(container.cpu_millis),
                memory(container.memory_bytes),
                age(container.age),
                String::new(),
            ]);
        }
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// One object, so that a field beside the list has a place.
pub(super) fn json(pods: &[Pod]) -> serde_json::Result<String> {
    serde_json::to_string_pretty(&serde_json::json!({ "pods": pods }))
}

fn ready(ready: Option<bool>) -> &'static str {
    match ready {
        Some(true) => "yes",
        Some(false) => "no",
        None => "?",
    }
}

fn cpu(millis: Option<u64>) -> String {
    millis.map_or_else(|| "-".to_owned(), |millis| format!("{millis}m"))
}

fn memory(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "-".to_owned(), |bytes| HumanBytes(bytes).to_string())
}

/// As kubectl shows it: two units at most.
fn age(seconds: Option<u64>) -> String {
    let Some(seconds) = seconds else { return "-".to_owned() };
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match () {
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => format!("{minutes}m{}s", seconds % 60),
        () if hours < 3 => format!("{minutes}m"),
        () if days < 2 => format!("{hours}h{}m", minutes % 60),
        () => format!("{days}d{}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::ps::rows::Container;

    #[test]
    fn a_pod_stands_above_its_containers() {
        let container = Container {
            name: "server".into(),
            id: None,
            state: "Running".into(),
            ready: Some(true),
            restarts: 1,
            cpu_millis: Some(12),
            memory_bytes: Some(3 << 20),
            age: Some(700),
        };
        let pod = Pod {
            namespace: "default".into(),
            name: "web".into(),
            uid: "u".into(),
            state: "Running".into(),
            ready: None,
            restarts: 1,
            cpu_millis: Some(12),
            memory_bytes: Some(3 << 20),
            age: Some(90_000),
            ip: Some("10.0.0.2".into()),
            containers: vec![container],
        };
        let text = table(&[pod]);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["default/web", "?", "Running", "1", "12m", "3.00", "MiB", "25h0m", "10.0.0.2"]);
        assert_eq!(lines[2], ["server", "yes", "Running", "1", "12m", "3.00", "MiB", "11m"]);
        let indents: Vec<_> = text.lines().map(|line| line.len() - line.trim_start().len()).collect();
        assert_eq!(indents, [0, 0, 2]);
    }
}
