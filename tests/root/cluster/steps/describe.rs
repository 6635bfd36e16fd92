//! The Node and some pods with their events, field by field, beside what the upstream kubelet writes for the same things.
//!
//! `tests/expected/kubelet-upstream.txt` is what upstream wrote, as `object: path = value`, with everything that no two
//! runs share (times, ids, addresses) replaced by its kind. `--peers` proves that it still does; `UPDATE_EXPECT=1` with it
//! writes the file anew. Where ours differs, `tests/expected/kubelet-differences.txt` says why: `line<TAB>reason`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use tests::cluster::Implementation;
use tests::{eventually, images, write};

use crate::cluster::stage::{POD_DEADLINE, Stage, runs, script};

const RECORDED: &str = include_str!("../../../expected/kubelet-upstream.txt");
const DIFFERENCES: &str = include_str!("../../../expected/kubelet-differences.txt");

pub(super) fn objects_and_events_read_like_upstreams(stage: &Stage<'_, '_>) {
    if stage.settings.runtime != Implementation::Orlop {
        // The record is of one runtime: each has its own words in a pod's status.
        return;
    }
    create(stage);
    // Events come when the kubelet has time for them, so that two looks that are the same may not be the last word.
    eventually("all reads as it should", Duration::from_secs(90), || {
        let first = look(stage)?;
        let second = look(stage)?;
        if first != second || !settled(&first) {
            return Err("it still changes".to_owned());
        }
        if stage.is_upstream() { upstream(&second) } else { ours(&second) }
    });
}

/// A pod of most kinds of fields, one that failed, one that was refused.
fn create(stage: &Stage<'_, '_>) {
    stage.ok("create configmap settings --from-literal=key=value");
    let mut main = script("sleep 100000");
    main["volumeMounts"] =
        json!([{ "name": "settings", "mountPath": "/settings" }, { "name": "data", "mountPath": "/data" }]);
    main["resources"] =
        json!({ "limits": { "cpu": "500m", "memory": "64Mi" }, "requests": { "cpu": "10m", "memory": "16Mi" } });
    // Patient: a probe that a busy machine makes late would be one event more.
    main["readinessProbe"] = json!({ "exec": { "command": ["true"] }, "periodSeconds": 1, "timeoutSeconds": 60 });
    main["securityContext"] = json!({ "runAsUser": 1000, "runAsGroup": 2000 });
    let mut first = script("true");
    first["name"] = json!("first");
    let mut sidecar = script("sleep 100000");
    sidecar["name"] = json!("sidecar");
    sidecar["restartPolicy"] = json!("Always");
    stage.create(
        "whole",
        &json!({
            "initContainers": [first, sidecar],
            "containers": [main],
            "securityContext": { "fsGroup": 3000 },
            "volumes": [{ "name": "settings", "configMap": { "name": "settings" } }, { "name": "data", "emptyDir": {} }],
        }),
    );
    stage.create("failed", &runs("echo why > /dev/termination-log; exit 3"));
    let mut refused = runs("true");
    refused["nodeName"] = json!(stage.node.name());
    refused["nodeSelector"] = json!({ "kubernetes.io/hostname": "elsewhere" });
    stage.create("refused", &refused);
    let mut no_image = script("true");
    no_image["image"] = json!(images::AGNHOST);
    no_image["command"] = json!(["/no/such/program"]);
    stage.create("no-program", &json!({ "containers": [no_image] }));
    stage.wait_until_ready("whole");
    for pod in ["failed", "refused", "no-program"] {
        stage.wait_for(pod, "Failed", POD_DEADLINE, |pod| pod["status"]["phase"] == "Failed");
    }
}

/// Whether the events of what is already visible have arrived.
fn settled(lines: &BTreeSet<String>) -> bool {
    [
        "whole: event: Normal Started",
        "failed: event: Normal Started",
        "refused: event: Warning",
        "no-program: event: Warning",
    ]
    .iter()
    .all(|wanted| lines.iter().any(|line| line.starts_with(wanted)))
}

/// Everything, as lines.
fn look(stage: &Stage<'_, '_>) -> Result<BTreeSet<String>, String> {
    let mut lines = BTreeSet::new();
    let mut objects = vec![("node", stage.node.object(stage.cluster)?)];
    for name in ["whole", "failed", "refused", "no-program"] {
        objects.push((name, stage.pod(name)?));
    }
    for (name, object) in &objects {
        // A pod's spec is not the kubelet's work.
        for part in if *name == "node" { &["metadata", "spec", "status"][..] } else { &["metadata", "status"] } {
            flatten(part, &object[*part], &mut |path, value| {
                if !is_beside_the_point(path) {
                    lines.insert(format!("{name}: {} = {}", without_suffix(path), kind_of(path, value)));
                }
            });
        }
    }
    for (name, namespace) in [("node", "default")]
        .into_iter()
        .chain(objects.iter().skip(1).map(|(name, _)| (*name, stage.namespace.as_str())))
    {
        let object = if name == "node" { stage.node.name() } else { name };
        let path = format!("/api/v1/namespaces/{namespace}/events?fieldSelector=involvedObject.name%3D{object}");
        for event in stage.api().get(&path)?["items"].as_array().into_iter().flatten() {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let message = plain_words(&text(&event["message"]));
            // Others speak about pods and nodes, too; whether an image was there depends on the other steps, and what the
            // kubelet says of cgroup v1 on the machine.
            if event["source"]["component"] == "kubelet"
                && !["Pulling", "Pulled", "CgroupV1"].iter().any(|reason| event["reason"] == *reason)
                && !is_of_a_server_behind(&message)
            {
                let place = text(&event["involvedObject"]["fieldPath"]);
                lines.insert(format!(
                    "{name}: event: {} {} [{place}] {message}",
                    text(&event["type"]),
                    text(&event["reason"])
                ));
            }
        }
    }
    Ok(lines)
}

/// Whether a kubelet was refused what its pod may have, because the API server's own caches did not know yet where the pod
/// runs: ours tries for two seconds before it says so, upstream's says so at once. What stays forbidden leaves a pod waiting.
fn is_of_a_server_behind(message: &str) -> bool {
    [
        "node requested token bound to a pod scheduled on a different node",
        "no relationship found between node",
        "failed to fetch token: pods ",
    ]
    .iter()
    .any(|words| message.contains(words))
}

/// Calls `leaf` with the path and value of each scalar. Elements of lists are called by their name or type, where they have one.
fn flatten(path: &str, value: &Value, leaf: &mut dyn FnMut(&str, &Value)) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let name =
                    if name.contains('.') || name.contains('/') { format!("[{name}]") } else { format!(".{name}") };
                flatten(&format!("{path}{name}"), field, leaf);
            }
        }
        Value::Array(elements) => {
            for (index, element) in elements.iter().enumerate() {
                let key = ["name", "type", "mountPath", "key"].iter().find_map(|key| element[*key].as_str());
                let key = key.map_or_else(|| index.to_string(), str::to_owned);
                flatten(&format!("{path}[{key}]"), element, leaf);
            }
        }
        Value::Null => {}
        scalar => leaf(path, scalar),
    }
}

/// What other writers decide, what depends on which other steps run, and a pod's own resources, which upstream reads from
/// a cgroup that it may not have written yet.
fn is_beside_the_point(path: &str) -> bool {
    [
        "metadata.managedFields",
        "metadata.resourceVersion",
        "status.images",
        "spec.taints",
        "status.volumesInUse",
        "status.resources.",
    ]
    .iter()
    .any(|prefix| path.starts_with(prefix))
}

/// Admission gives the token's volume a random name.
fn without_suffix(path: &str) -> String {
    match path.find("kube-api-access-") {
        Some(start) => {
            let (before, rest) = path.split_at(start + "kube-api-access-".len());
            format!("{before}…{}", &rest[5.min(rest.len())..])
        }
        None => path.to_owned(),
    }
}

/// A value, or what kind of value it is where runs differ.
fn kind_of(path: &str, value: &Value) -> String {
    let measured = ["status.capacity", "status.allocatable"].iter().any(|prefix| path.starts_with(prefix))
        && !path.ends_with(".pods");
    let of_machine = ["bootID", "machineID", "systemUUID", "kernelVersion", "osImage", "containerRuntimeVersion"];
    if measured {
        return "<quantity>".to_owned();
    }
    if of_machine.iter().any(|field| path.ends_with(field)) {
        return "<text>".to_owned();
    }
    if path.ends_with(".Port") {
        return "<port>".to_owned();
    }
    match value {
        Value::String(text) => plain_words(text),
        other => other.to_string(),
    }
}

/// Text without what no two runs share.
fn plain_words(text: &str) -> String {
    let words = text.split(' ').map(|word| {
        let bare = word.trim_matches(|letter: char| "\"'(),;".contains(letter));
        let kind = kind_of_word(bare);
        if kind == bare { word.to_owned() } else { word.replace(bare, &kind) }
    });
    words.collect::<Vec<_>>().join(" ").replace('\n', "\\n")
}

fn kind_of_word(word: &str) -> String {
    let hex = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_uid = word.len() == 36 && word.split('-').count() == 5 && word.split('-').all(hex);
    let is_time = word.len() >= 20 && word.as_bytes()[10] == b'T' && word.ends_with('Z') && word.starts_with("20");
    let is_duration = word.ends_with('s')
        && word.len() > 1
        && word[..word.len() - 1].trim_end_matches(['m', 'µ']).parse::<f64>().is_ok();
    match word {
        _ if is_uid => "<uid>".to_owned(),
        _ if is_time => "<time>".to_owned(),
        _ if is_duration => "<duration>".to_owned(),
        _ if word.parse::<std::net::IpAddr>().is_ok() => "<address>".to_owned(),
        _ if word.split_once("://").is_some_and(|(_, id)| id.len() == 64 && hex(id)) => "<runtime>://<id>".to_owned(),
        _ if word.contains("@sha256:") => format!("{}@<digest>", word.split('@').next().unwrap_or_default()),
        _ if word.starts_with("kube-api-access-") => "kube-api-access-…".to_owned(),
        _ => word.to_owned(),
    }
}

fn upstream(lines: &BTreeSet<String>) -> Result<(), String> {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        write(&expected("kubelet-upstream.txt"), text);
        return Ok(());
    }
    let recorded: BTreeSet<String> = RECORDED.lines().map(str::to_owned).collect();
    let surprises = differences(&recorded, lines);
    if surprises.is_empty() {
        Ok(())
    } else {
        Err(format!("upstream does not write what was recorded: {surprises:#?}"))
    }
}

fn ours(lines: &BTreeSet<String>) -> Result<(), String> {
    let recorded: BTreeSet<String> = RECORDED.lines().map(str::to_owned).collect();
    let listed: BTreeMap<&str, &str> = DIFFERENCES
        .lines()
        .filter(|row| !row.is_empty() && !row.starts_with('#'))
        .map(|row| row.split_once('\t').unwrap_or_else(|| panic!("no tab in {row:?}")))
        .collect();
    let found = differences(&recorded, lines);
    let unlisted: Vec<&String> = found.iter().filter(|line| !listed.contains_key(line.as_str())).collect();
    let stale: Vec<&&str> = listed.keys().filter(|line| !found.iter().any(|found| found == *line)).collect();
    if unlisted.is_empty() && stale.is_empty() {
        Ok(())
    } else {
        Err(format!("not as the list says:\nnew: {unlisted:#?}\nlisted, but no longer so: {stale:#?}"))
    }
}

/// `- line` for what only upstream has, `+ line` for what only the other has.
fn differences(recorded: &BTreeSet<String>, lines: &BTreeSet<String>) -> Vec<String> {
    let missing = recorded.difference(lines).map(|line| format!("- {line}"));
    let extra = lines.difference(recorded).map(|line| format!("+ {line}"));
    missing.chain(extra).collect()
}

fn expected(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("expected").join(file)
}
