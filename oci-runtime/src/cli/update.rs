//! update: other limits for a container.
//!
//! What is not named stays as it is: what is asked for is merged over the `linux.resources` that the container was made
//! with or updated to, which state.json keeps, and the whole is applied again. Device rules are never touched: they may have
//! been changed since by somebody else.

use std::io::Read;
use std::path::PathBuf;

use oci_runtime::cgroup::Resources;
use oci_runtime::{plan, resctrl};
use oci_spec::runtime::LinuxResources;
use serde_json::{Map, Value};

use super::Error;
use super::args::{self, Stop};
use super::help::Help;
use super::log::Log;
use super::store::{Status, Store, StoreError};

mod size;

/// update
#[derive(Debug, Default)]
pub(crate) struct Flags {
    pub(crate) id: String,
    /// A file with `linux.resources`, `-` for stdin; all other flags are ignored with it.
    pub(crate) file: Option<PathBuf>,
    /// What the other flags ask for, as `linux.resources`.
    pub(crate) resources: Map<String, Value>,
    /// A line of resctrl's `schemata`, for the L3 cache.
    pub(crate) cache: Option<String>,
    /// As that, for the memory bandwidth.
    pub(crate) bandwidth: Option<String>,
    /// A limit of the kernel's memory is asked for, which it has dropped.
    pub(crate) kernel_memory: bool,
}

pub(crate) const HELP: Help = Help {
    about: "changes the limits of a container",
    usage: "[flags] ID",
    details: "What is not given stays as it is. Sizes may end in k, m, g or t; -1 is no limit.\n\
              A FILE holds the object `resources` of the runtime-spec, of which all members can be left out.",
    flags: &[&[
        ("--resources FILE, -r FILE", "read the limits from there, - for stdin, and ignore the other flags"),
        ("--blkio-weight N", "share of block I/O, 10 to 1000"),
        ("--cpu-period N", "microseconds in which the quota holds"),
        ("--cpu-quota N", "microseconds of CPU time in a period; -1 for no limit"),
        ("--cpu-burst N", "microseconds of unused quota that may be saved up"),
        ("--cpu-share N", "share of CPU time, 2 to 262144"),
        ("--cpu-rt-period N", "microseconds in which the realtime runtime holds"),
        ("--cpu-rt-runtime N", "microseconds of realtime CPU time in a period"),
        ("--cpu-idle N", "1 for CPU time that nobody else wants, 0 else"),
        ("--cpuset-cpus LIST", "CPUs, for example 0-3,8"),
        ("--cpuset-mems LIST", "memory nodes"),
        ("--memory SIZE", "memory"),
        ("--memory-reservation SIZE", "memory that the container is left with when it is short"),
        ("--memory-swap SIZE", "memory and swap together"),
        ("--pids-limit N", "processes and threads; -1 for no limit"),
        ("--l3-cache-schema SCHEMA", "Intel RDT cache allocation, for all in the container's class"),
        ("--mem-bw-schema SCHEMA", "Intel RDT memory bandwidth allocation"),
    ]],
};

/// What the value of a flag is.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Unsigned,
    Signed,
    Size,
    Text,
}

/// Each flag, where its value goes in `linux.resources`, and what it is.
const LIMITS: [(&str, &str, &str, Kind); 14] = [
    ("--blkio-weight", "blockIO", "weight", Kind::Unsigned),
    ("--cpu-period", "cpu", "period", Kind::Unsigned),
    ("--cpu-quota", "cpu", "quota", Kind::Signed),
    ("--cpu-burst", "cpu", "burst", Kind::Unsigned),
    ("--cpu-share", "cpu", "shares", Kind::Unsigned),
    ("--cpu-rt-period", "cpu", "realtimePeriod", Kind::Unsigned),
    ("--cpu-rt-runtime", "cpu", "realtimeRuntime", Kind::Signed),
    ("--cpu-idle", "cpu", "idle", Kind::Signed),
    ("--cpuset-cpus", "cpu", "cpus", Kind::Text),
    ("--cpuset-mems", "cpu", "mems", Kind::Text),
    ("--memory", "memory", "limit", Kind::Size),
    ("--memory-reservation", "memory", "reservation", Kind::Size),
    ("--memory-swap", "memory", "swap", Kind::Size),
    ("--pids-limit", "pids", "limit", Kind::Signed),
];

pub(crate) fn parse(parser: &mut lexopt::Parser) -> Result<Flags, Stop> {
    let mut flags = Flags::default();
    flags.id = args::only_id(parser, "update", |name, parser| flags.read(name, parser))?;
    Ok(flags)
}

impl Flags {
    fn read(&mut self, name: &str, parser: &mut lexopt::Parser) -> Result<(), Stop> {
        match name {
            "-r" | "--resources" => {
                self.file = args::path(parser)?;
                return Ok(());
            }
            "--kernel-memory" | "--kernel-memory-tcp" => {
                self.kernel_memory |= !args::text(parser)?.is_empty();
                return Ok(());
            }
            "--l3-cache-schema" | "--mem-bw-schema" => {
                let line = Some(args::text(parser)?).filter(|line| !line.is_empty());
                *(if name == "--mem-bw-schema" { &mut self.bandwidth } else { &mut self.cache }) = line;
                return Ok(());
            }
            _ => {}
        }
        let Some((_, group, key, kind)) = LIMITS.iter().find(|(known, ..)| *known == name) else {
            return Err(args::unknown(name));
        };
        let text = args::text(parser)?;
        // An empty value is none, as for runc.
        if !text.is_empty() {
            let group = self.resources.entry(*group).or_insert_with(|| Value::Object(Map::new()));
            group[key] = kind.parse(name.trim_start_matches('-'), &text)?;
        }
        Ok(())
    }
}

impl Kind {
    fn parse(self, flag: &str, text: &str) -> Result<Value, Stop> {
        let value = match self {
            Kind::Unsigned => text.parse::<u64>().ok().map(Value::from),
            Kind::Signed => text.parse::<i64>().ok().map(Value::from),
            Kind::Size => match size::parse(text) {
                None => return Err(format!("invalid value for {flag}: invalid size: '{text}'").into()),
                size => size.map(Value::from),
            },
            Kind::Text => Some(text.into()),
        };
        value.ok_or_else(|| format!("invalid value for {flag}: {text:?} is not a number in its range").into())
    }
}

/// Applies the limits. After a failure those that the record has hold again; one that was not limited before keeps what it
/// was given until then.
pub(crate) fn update(store: &Store<'_>, flags: &Flags, log: &mut Log) -> Result<(), Error> {
    if flags.kernel_memory {
        // As runc.
        log.warn("Kernel memory settings are ignored and will be removed");
    }
    let (mut container, _lock) = store.load_locked(&flags.id)?;
    if container.status()? == Status::Stopped {
        return Err(StoreError::NotRunning.into());
    }
    let asked = match &flags.file {
        Some(path) => read(path)?,
        None => Value::Object(flags.resources.clone()),
    };
    let before = container.record.resources.clone();
    refuse_weight_of_idle(&before, &asked)?;
    let after = updated(&before, asked);
    let (new, old) = (limits(&after)?, limits(&before)?);
    let cgroup = container.cgroup()?;
    let updated = cgroup.update(&new).map_err(Error::from).and_then(|()| {
        Ok(resctrl::update(&container.record.resctrl, flags.cache.as_deref(), flags.bandwidth.as_deref())?)
    });
    if let Err(error) = updated {
        // The error that led here is the one to tell.
        let _ = cgroup.update(&old);
        return Err(error);
    }
    container.record.resources = after;
    container.save()
}

fn read(path: &std::path::Path) -> Result<Value, Error> {
    /// Longer than any real one.
    const MAX_RESOURCES: u64 = 4 << 20;
    let mut text = Vec::new();
    let named = |error: std::io::Error| format!("read {}: {error}", path.display());
    if path.as_os_str() == "-" {
        std::io::stdin().take(MAX_RESOURCES).read_to_end(&mut text).map_err(named)?;
    } else {
        std::fs::File::open(path).map_err(named)?.take(MAX_RESOURCES).read_to_end(&mut text).map_err(named)?;
    }
    match serde_json::from_slice(&text) {
        Ok(resources @ Value::Object(_)) => Ok(resources),
        Ok(other) => Err(format!("{}: {other} is not an object of limits", path.display()).into()),
        Err(error) => Err(format!("{} is not valid: {error}", path.display()).into()),
    }
}

/// The kernel refuses it too; with the old `idle` beside it, it would not be written at all.
fn refuse_weight_of_idle(before: &Value, asked: &Value) -> Result<(), Error> {
    let number = |resources: &Value, name: &str| resources["cpu"][name].as_i64();
    let is_idle = number(asked, "idle").is_none() && number(before, "idle").is_some_and(|idle| idle != 0);
    match is_idle && number(asked, "shares").is_some_and(|shares| shares != 0) {
        true => Err("cpu.shares: cpu.idle is 1 in this container, which then has no weight".into()),
        false => Ok(()),
    }
}

/// What holds after an update.
fn updated(before: &Value, mut asked: Value) -> Value {
    let mut after = before.clone();
    // Raw words of an earlier time would be written over the limits that are asked for now.
    after.as_object_mut().and_then(|members| members.remove("unified"));
    unlimit_swap(&mut asked);
    merge(&mut after, without_devices(asked));
    after
}

/// No limit of memory below a limit of memory and swap is none at all.
fn unlimit_swap(asked: &mut Value) {
    let memory = asked.get_mut("memory").and_then(Value::as_object_mut);
    if let Some(memory) = memory.filter(|memory| memory.get("limit") == Some(&Value::from(-1))) {
        let swap = memory.entry("swap").or_insert(Value::Null);
        if swap.is_null() {
            *swap = Value::from(-1);
        }
    }
}

/// What of `linux.resources` a later update is merged over.
pub(crate) fn without_devices(mut resources: Value) -> Value {
    if let Some(members) = resources.as_object_mut() {
        members.remove("devices");
    }
    resources
}

/// Lays `over` on `base`: objects member by member, everything else as a whole. Go's absent values are nulls.
fn merge(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over.into_iter().filter(|(_, value)| !value.is_null()) {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over,
    }
}

fn limits(resources: &Value) -> Result<Resources, Error> {
    let resources: Option<LinuxResources> =
        serde_json::from_value(resources.clone()).map_err(|error| format!("the limits are not valid: {error}"))?;
    Ok(resources.as_ref().map(plan::limits).transpose()?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parsed(line: &str) -> Result<Flags, String> {
        let mut parser = lexopt::Parser::from_args(line.split_whitespace());
        parse(&mut parser).map_err(|stop| format!("{stop:?}"))
    }

    #[track_caller]
    fn check(line: &str, expected: Value) {
        assert_eq!(Value::Object(parsed(line).unwrap().resources), expected, "{line}");
    }

    #[test]
    fn each_flag_is_a_member_of_the_specs_object() {
        check("--memory 64m --memory-swap=-1 c", json!({"memory": {"limit": 64 << 20, "swap": -1}}));
        check("c --cpu-quota -1 --cpu-period 50000", json!({"cpu": {"quota": -1, "period": 50000}}));
        check("--cpu-share 512 --cpu-idle 1 c", json!({"cpu": {"shares": 512, "idle": 1}}));
        check("--cpuset-cpus 0-1 --cpuset-mems 0 c", json!({"cpu": {"cpus": "0-1", "mems": "0"}}));
        check("--pids-limit 7 --blkio-weight 300 c", json!({"pids": {"limit": 7}, "blockIO": {"weight": 300}}));
        check("--kernel-memory 1g --cpu-quota= c", json!({}));
    }

    #[test]
    fn no_limit_of_memory_is_none_of_swap_either() {
        let before = json!({"memory": {"limit": 100, "swap": 200}});
        for (asked, after) in [
            (json!({"memory": {"limit": -1}}), json!({"memory": {"limit": -1, "swap": -1}})),
            (json!({"memory": {"limit": -1, "swap": null}}), json!({"memory": {"limit": -1, "swap": -1}})),
            (json!({"memory": {"limit": -1, "swap": 300}}), json!({"memory": {"limit": -1, "swap": 300}})),
            (json!({"memory": {"limit": 50}}), json!({"memory": {"limit": 50, "swap": 200}})),
        ] {
            assert_eq!(updated(&before, asked), after);
        }
    }

    #[test]
    fn raw_files_are_those_of_this_update_alone() {
        let before = json!({"unified": {"memory.max": "100M"}, "pids": {"limit": 9}});
        let after = updated(&before, json!({"memory": {"limit": 200}}));
        assert_eq!(after, json!({"memory": {"limit": 200}, "pids": {"limit": 9}}));
        let after = updated(&before, json!({"unified": {"memory.high": "50M"}}));
        assert_eq!(after, json!({"unified": {"memory.high": "50M"}, "pids": {"limit": 9}}));
    }

    #[test]
    fn shares_of_resctrl_are_lines_of_their_own() {
        let flags = parsed("--l3-cache-schema L3:0=f --mem-bw-schema MB:0=20 c").unwrap();
        assert_eq!((flags.cache.as_deref(), flags.bandwidth.as_deref()), (Some("L3:0=f"), Some("MB:0=20")));
        assert!(flags.resources.is_empty());
        assert_eq!(parsed("--l3-cache-schema= c").unwrap().cache, None);
    }

    #[test]
    fn what_is_no_number_is_refused_by_the_flags_name() {
        for (line, text) in [
            ("--memory foo c", "invalid value for memory: invalid size: 'foo'"),
            ("--cpu-quota x c", "invalid value for cpu-quota"),
            ("--cpu-share -1 c", "invalid value for cpu-share"),
            ("--pids-limit 1x c", "invalid value for pids-limit"),
            ("--teleport 1 c", "flag provided but not defined: -teleport"),
        ] {
            let error = parsed(line).unwrap_err();
            assert!(error.contains(text), "{line}: {error}");
        }
    }

    #[test]
    fn an_update_changes_what_it_names_and_nothing_else() {
        let mut base = json!({"cpu": {"quota": 50000, "period": 100_000}, "pids": {"limit": 9}});
        merge(&mut base, json!({"cpu": {"quota": 20000, "shares": null}, "memory": {"limit": 1}, "network": null}));
        assert_eq!(
            base,
            json!({"cpu": {"quota": 20000, "period": 100_000}, "pids": {"limit": 9}, "memory": {"limit": 1}})
        );
        assert_eq!(without_devices(json!({"devices": [], "pids": {}})), json!({"pids": {}}));
    }

    #[test]
    fn an_idle_container_gets_no_weight_unless_it_ceases_to_be_idle() {
        let (idle, shares) = (json!({"cpu": {"idle": 1}}), json!({"cpu": {"shares": 512}}));
        let error = refuse_weight_of_idle(&idle, &shares).expect_err("no weight").to_string();
        assert!(error.contains("cpu.idle is 1"), "{error}");
        for (before, asked) in [
            (&json!({"cpu": {"idle": 0}}), &shares),
            (&json!(null), &shares),
            (&idle, &json!({"cpu": {"idle": 0, "shares": 512}})),
            (&idle, &json!({"cpu": {"shares": 0}})),
            (&idle, &json!({"memory": {"limit": 1}})),
        ] {
            refuse_weight_of_idle(before, asked).expect("a weight");
        }
    }
}
