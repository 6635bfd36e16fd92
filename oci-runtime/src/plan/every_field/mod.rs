//! No field is ignored: for every field of the runtime-spec, a value that is not the default changes the [`Plan`] or is
//! refused by the field's name, or it stands in [`WITHOUT_EFFECT`] with the reason.
//!
//! `spec.json` has all fields of version 1.3 for Linux. What the types know is asked from them, so that a field which a
//! newer `oci-spec` brings, or one that it lacks or spells in its own way, shows here.

mod types;

use std::collections::BTreeSet;

use oci_spec::runtime::Spec;
use serde_json::{Map, Value, json};

use super::Plan;

/// Fields that change nothing about the container, and why that is right.
const WITHOUT_EFFECT: [(&str, &str); 5] = [
    ("/annotations", "not for the runtime; `state` and `list` show them"),
    ("/process/commandLine", "config.md: for Windows only"),
    ("/process/user/username", "config.md: for Windows only"),
    ("/linux/resources/memory/kernel", "the kernel has dropped the limit; runc ignores it too"),
    ("/linux/resources/memory/useHierarchy", "always on: the kernel has no other way any more"),
];

/// What the types have beyond the specification, or for other platforms.
const FOREIGN: [&str; 8] = [
    "/solaris",
    "/windows",
    "/vm",
    "/zos",
    "/uidMappings",
    "/gidMappings",
    "/linux/intelRdt/enableCmt",
    "/linux/intelRdt/enableMbm",
];

/// Objects whose keys are names.
const MAPS: [&str; 6] = [
    "/annotations",
    "/linux/netDevices",
    "/linux/sysctl",
    "/linux/timeOffsets",
    "/linux/resources/rdma",
    "/linux/resources/unified",
];

fn spec() -> Value {
    serde_json::from_str(include_str!("spec.json")).unwrap()
}

/// Pointers to the fields of a document, as [`types::leaves`] gives them, each with the pointer into the document itself.
fn leaves(value: &Value, name: &str, pointer: &str, into: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) if MAPS.contains(&name) => {
            let (key, value) = fields.iter().next().unwrap();
            match value.is_object() {
                true => leaves(value, &format!("{name}/*"), &format!("{pointer}/{key}"), into),
                false => into.push((name.to_owned(), pointer.to_owned())),
            }
        }
        Value::Object(fields) => {
            fields.iter().for_each(|(key, value)| {
                leaves(value, &format!("{name}/{key}"), &format!("{pointer}/{key}"), into);
            });
        }
        Value::Array(list) if list[0].is_object() => {
            leaves(&list[0], &format!("{name}/0"), &format!("{pointer}/0"), into)
        }
        _ => into.push((name.to_owned(), pointer.to_owned())),
    }
}

fn spec_leaves() -> Vec<(String, String)> {
    let mut all = Vec::new();
    leaves(&spec(), "", "", &mut all);
    all
}

#[test]
fn the_types_have_every_field_of_the_specification_and_no_other() {
    let foreign = |name: &String| FOREIGN.iter().any(|prefix| name.starts_with(prefix));
    let types: BTreeSet<String> = types::leaves::<Spec>().unwrap().into_iter().filter(|name| !foreign(name)).collect();
    let specification: BTreeSet<String> = spec_leaves().into_iter().map(|(name, _)| name).collect();
    let unknown: Vec<_> = specification.difference(&types).collect();
    assert!(unknown.is_empty(), "the types would ignore {unknown:?}");
    let new: Vec<_> = types.difference(&specification).collect();
    assert!(new.is_empty(), "not in spec.json: {new:?}");
}

/// The values of fields that take one of a list.
const VALUES: [(&str, &str); 12] = [
    ("/linux/namespaces/0/type", "pid network mount ipc uts user cgroup time"),
    ("/linux/devices/0/type", "c b u p"),
    ("/linux/resources/devices/0/type", "a c b"),
    (
        "/linux/seccomp/defaultAction",
        "SCMP_ACT_KILL SCMP_ACT_KILL_PROCESS SCMP_ACT_KILL_THREAD SCMP_ACT_TRAP SCMP_ACT_ERRNO SCMP_ACT_TRACE \
         SCMP_ACT_ALLOW SCMP_ACT_LOG SCMP_ACT_NOTIFY",
    ),
    (
        "/linux/seccomp/architectures",
        "SCMP_ARCH_X86 SCMP_ARCH_X86_64 SCMP_ARCH_X32 SCMP_ARCH_ARM SCMP_ARCH_AARCH64 SCMP_ARCH_MIPS SCMP_ARCH_MIPS64 \
         SCMP_ARCH_MIPS64N32 SCMP_ARCH_MIPSEL SCMP_ARCH_MIPSEL64 SCMP_ARCH_MIPSEL64N32 SCMP_ARCH_PPC SCMP_ARCH_PPC64 \
         SCMP_ARCH_PPC64LE SCMP_ARCH_S390 SCMP_ARCH_S390X SCMP_ARCH_PARISC SCMP_ARCH_PARISC64 SCMP_ARCH_RISCV64 \
         SCMP_ARCH_LOONGARCH64 SCMP_ARCH_M68K SCMP_ARCH_SH SCMP_ARCH_SHEB",
    ),
    (
        "/linux/seccomp/flags",
        "SECCOMP_FILTER_FLAG_TSYNC SECCOMP_FILTER_FLAG_LOG SECCOMP_FILTER_FLAG_SPEC_ALLOW \
         SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
    ),
    (
        "/linux/seccomp/syscalls/0/args/0/op",
        "SCMP_CMP_NE SCMP_CMP_LT SCMP_CMP_LE SCMP_CMP_EQ SCMP_CMP_GE SCMP_CMP_GT SCMP_CMP_MASKED_EQ",
    ),
    (
        "/process/rlimits/0/type",
        "RLIMIT_AS RLIMIT_CORE RLIMIT_CPU RLIMIT_DATA RLIMIT_FSIZE RLIMIT_LOCKS RLIMIT_MEMLOCK RLIMIT_MSGQUEUE \
         RLIMIT_NICE RLIMIT_NOFILE RLIMIT_NPROC RLIMIT_RSS RLIMIT_RTPRIO RLIMIT_RTTIME RLIMIT_SIGPENDING RLIMIT_STACK",
    ),
    ("/process/scheduler/policy", "SCHED_OTHER SCHED_FIFO SCHED_RR SCHED_BATCH SCHED_ISO SCHED_IDLE SCHED_DEADLINE"),
    (
        "/process/scheduler/flags",
        "SCHED_FLAG_RESET_ON_FORK SCHED_FLAG_RECLAIM SCHED_FLAG_DL_OVERRUN SCHED_FLAG_KEEP_POLICY \
         SCHED_FLAG_KEEP_PARAMS SCHED_FLAG_UTIL_CLAMP_MIN SCHED_FLAG_UTIL_CLAMP_MAX",
    ),
    (
        "/linux/memoryPolicy/mode",
        "MPOL_DEFAULT MPOL_BIND MPOL_INTERLEAVE MPOL_WEIGHTED_INTERLEAVE MPOL_PREFERRED MPOL_PREFERRED_MANY MPOL_LOCAL",
    ),
    ("/linux/memoryPolicy/flags", "MPOL_F_NUMA_BALANCING MPOL_F_RELATIVE_NODES MPOL_F_STATIC_NODES"),
];

#[test]
fn every_value_of_the_specification_is_understood() {
    let mut wrong = Vec::new();
    for (pointer, values) in VALUES {
        for value in values.split(' ') {
            let mut config = with(pointer);
            let place = place(&config, pointer);
            let field = config.pointer_mut(&place).unwrap();
            *field = if field.is_array() { json!([value]) } else { json!(value) };
            if let Err(error) = crate::config::parse(config.to_string().as_bytes()) {
                wrong.push(format!("{pointer}: {value}: {:?}", std::error::Error::source(&error).unwrap().to_string()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What every field is added to.
fn base() -> Value {
    let namespaces = ["mount", "pid", "uts", "ipc", "network"].map(|kind| json!({"type": kind}));
    json!({
        "ociVersion": "1.2.0",
        "root": {"path": "rootfs"},
        "process": {"args": ["sh"], "cwd": "/", "user": {"uid": 0, "gid": 0}},
        "mounts": [],
        "linux": {"cgroupsPath": "/box", "namespaces": namespaces},
    })
}

/// Fields that mean nothing without others: the namespace that they belong to, and what has to stand beside them.
const COMPANIONS: [(&str, &str, &str); 5] = [
    ("/linux/uidMappings", "user", "/linux/gidMappings"),
    ("/linux/gidMappings", "user", "/linux/uidMappings"),
    ("/linux/timeOffsets", "time", ""),
    ("/mounts/0/uidMappings", "", "/mounts/0/gidMappings"),
    ("/mounts/0/gidMappings", "", "/mounts/0/uidMappings"),
];

fn base_of(pointer: &str) -> Value {
    let mut base = base();
    for (_, namespace, beside) in COMPANIONS.iter().filter(|(prefix, ..)| pointer.starts_with(prefix)) {
        if !namespace.is_empty() {
            base["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": namespace}));
        }
        if !beside.is_empty() {
            graft(&mut base, beside);
        }
    }
    base
}

/// The base with the field of the specification at `pointer`, and whatever else the types want around it.
fn with(pointer: &str) -> Value {
    let mut wanted = vec![pointer.to_owned()];
    loop {
        let mut config = base_of(pointer);
        wanted.iter().for_each(|pointer| graft(&mut config, pointer));
        let Err(error) = crate::config::parse(config.to_string().as_bytes()) else { return config };
        let text = std::error::Error::source(&error).unwrap().to_string();
        let name = text.split('`').nth(1).unwrap_or_else(|| panic!("{pointer}: {text}"));
        let missing = pointer.rmatch_indices('/').find_map(|(at, _)| {
            let sibling = format!("{}/{name}", &pointer[..at]);
            (spec().pointer(&sibling).is_some() && !wanted.contains(&sibling)).then_some(sibling)
        });
        wanted.push(missing.unwrap_or_else(|| panic!("{pointer}: {text}: {config}")));
    }
}

/// Puts the field of the specification at `pointer` into `config`; a new element of a list goes to its end.
fn graft(config: &mut Value, pointer: &str) {
    let model = spec();
    let (mut here, mut path) = (config, String::new());
    for step in pointer[1..].split('/') {
        path = format!("{path}/{step}");
        let found = model.pointer(&path).unwrap();
        let empty = match found {
            _ if path == pointer => found.clone(),
            Value::Object(_) => Value::Object(Map::new()),
            Value::Array(_) => json!([]),
            other => other.clone(),
        };
        here = match here {
            Value::Array(list) => {
                // The one that was begun for another field of the same, if it is ours.
                if list.last().is_none_or(|last| last.get("begun").is_none()) {
                    list.push(json!({"begun": true}));
                }
                list.last_mut().unwrap()
            }
            Value::Object(fields) => {
                if path == pointer {
                    fields.insert(step.to_owned(), empty.clone());
                }
                fields.entry(step).or_insert(empty)
            }
            _ => unreachable!("{path} is neither"),
        };
    }
}

/// Another value of the same type, for a field that has to be there.
fn other(value: &Value) -> Value {
    match value {
        Value::Bool(value) => json!(!value),
        Value::Number(number) => json!(number.as_i64().unwrap() + 1),
        Value::String(text) => json!(match text.as_str() {
            "cgroup" => "user",
            "c" => "b",
            "RLIMIT_NOFILE" => "RLIMIT_CORE",
            "SCMP_ACT_ERRNO" => "SCMP_ACT_KILL",
            "SCMP_CMP_MASKED_EQ" => "SCMP_CMP_EQ",
            "SCHED_DEADLINE" => "SCHED_BATCH",
            "IOPRIO_CLASS_RT" => "IOPRIO_CLASS_IDLE",
            "MPOL_BIND" => "MPOL_INTERLEAVE",
            "LINUX32" => "LINUX",
            "2MB" => "1GB",
            text => return json!(format!("{text}2")),
        }),
        Value::Array(list) => json!([list.clone(), list.iter().map(other).collect()].concat()),
        value => panic!("no other value of {value}"),
    }
}

fn plan(config: &Value) -> Result<Plan, String> {
    let (spec, _) =
        crate::config::parse(config.to_string().as_bytes()).map_err(|error| format!("not parsed: {error}"))?;
    Plan::from_spec(&spec, Some("/bundle".as_ref())).map_err(|error| error.to_string())
}

/// The pointer into a config that was made [`with`] a field: elements that were added to a list of the base are its last.
fn place(config: &Value, pointer: &str) -> String {
    let (mut place, mut here) = (String::new(), config);
    for step in pointer[1..].split('/') {
        let last;
        (last, here) = match here {
            Value::Array(list) => ((list.len() - 1).to_string(), &list[list.len() - 1]),
            fields => (step.to_owned(), &fields[step]),
        };
        place = format!("{place}/{last}");
    }
    place
}

/// What a field is to us.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Used,
    Refused(String),
    Ignored,
}

fn fate(pointer: &str) -> Fate {
    let present = with(pointer);
    let place = place(&present, pointer);
    let (parent, key) = place.rsplit_once('/').unwrap();
    let mut absent = present.clone();
    absent.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(key);
    let mut changed = present.clone();
    if crate::config::parse(absent.to_string().as_bytes()).is_err() {
        let value = changed.pointer_mut(&place).unwrap();
        *value = other(value);
        absent = changed;
    }
    match (plan(&present), plan(&absent)) {
        (Ok(present), Ok(absent)) if present == absent => Fate::Ignored,
        (Err(one), Err(other)) if one == other => Fate::Refused(one),
        (Err(refused), _) => Fate::Refused(refused),
        (Ok(_), _) => Fate::Used,
    }
}

/// Whether an error speaks of the field, or of an object that it is in.
fn names(error: &str, field: &str) -> bool {
    let mut steps = field.split('/').filter(|step| !["", "0", "*", "linux", "process", "resources"].contains(step));
    steps.any(|step| error.contains(step))
}

#[test]
fn every_field_has_an_effect_or_is_refused_by_name_or_has_a_reason_for_neither() {
    let mut wrong = Vec::new();
    for (name, pointer) in spec_leaves() {
        let reason = WITHOUT_EFFECT.iter().find(|(field, _)| *field == name);
        match (fate(&pointer), reason) {
            (Fate::Ignored, None) => wrong.push(format!("{name} is ignored")),
            (Fate::Refused(error), None) if !names(&error, &name) => {
                wrong.push(format!("{name} is refused as: {error}"))
            }
            (Fate::Used | Fate::Refused(_), Some(_)) => wrong.push(format!("{name} has an effect after all")),
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
