//! `process`: the program, who it runs as and what it may do; of a config.json or of an exec.

use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::path::PathBuf;

use oci_spec::runtime::{PosixRlimit, Process, User};
use sys::credentials::{Limit, Resource};
use sys::process::Scheduling;

use super::capabilities::CapabilitySets;
use super::container_wide::{self, ContainerWide};
use super::memory_policy::MemoryPolicy;
use super::scheduling::{self, CpuAffinity, IoPriority};
use super::{PlanError, invalid, label, mounts};

/// A checked process object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessPlan {
    /// The program and its arguments; never empty.
    pub args: Vec<CString>,
    /// `NAME=value`, each name once, the last one given; without `HOME` if that was empty.
    pub env: Vec<CString>,
    /// Where it runs, in the container; absolute and clean.
    pub cwd: PathBuf,
    /// Whether it gets a terminal.
    pub terminal: bool,
    /// The terminal's size at first, rows and columns.
    pub console_size: Option<(u16, u16)>,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups, each once. The primary one is among them: a set-group-ID program would otherwise shed
    /// it, and with it what is denied to that group (CVE-2022-2989 and its siblings).
    pub groups: Vec<u32>,
    /// File mode creation mask.
    pub umask: u32,
    /// The five sets.
    pub capabilities: CapabilitySets,
    /// Resource limits, each once.
    pub rlimits: Vec<Rlimit>,
    /// Set-user-ID programs and file capabilities give nothing.
    pub no_new_privileges: bool,
    /// `/proc/<pid>/oom_score_adj`; `None` inherits.
    pub oom_score_adj: Option<i32>,
    /// AppArmor profile for the program.
    pub apparmor_profile: Option<String>,
    /// SELinux context of the program and of its session keyring.
    pub selinux_label: Option<String>,
    /// How it is scheduled; `None` inherits.
    pub scheduling: Option<Scheduling>,
    /// How its I/O is scheduled; `None` inherits.
    pub io_priority: Option<IoPriority>,
    /// The CPUs of a process that joins a container; the first process has those of its cpuset.
    pub exec_cpu_affinity: CpuAffinity,
    /// The execution domain, `PER_*` (`personality(2)`); `None` inherits.
    pub personality: Option<u32>,
    /// From which nodes its memory comes; `None` inherits.
    pub memory_policy: Option<MemoryPolicy>,
}

/// One `setrlimit(2)` limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rlimit {
    /// `RLIMIT_*`.
    pub resource: Resource,
    /// The one that applies, and how far the process may raise it.
    pub limit: Limit,
}

impl ProcessPlan {
    /// Checks a process object by itself. The caller runs exec with [`ProcessPlan::joining`], a config goes through
    /// [`Plan::from_spec`](super::Plan::from_spec).
    ///
    /// # Errors
    /// The first field that is refused.
    pub fn from_process(process: &Process) -> Result<ProcessPlan, PlanError> {
        ProcessPlan::joining(process, &ContainerWide::default())
    }

    /// Checks a process object for a container of which this is known.
    ///
    /// # Errors
    /// The first field that is refused.
    pub fn joining(process: &Process, container: &ContainerWide) -> Result<ProcessPlan, PlanError> {
        let wide = container.or_of(process);
        let args = process.args().as_deref().unwrap_or_default();
        if args.is_empty() {
            return Err(invalid("process.args", "must not be empty"));
        }
        if !process.cwd().is_absolute() {
            return Err(invalid("process.cwd", format!("{:?} is not an absolute path", process.cwd())));
        }
        let user = process.user();
        Ok(ProcessPlan {
            args: args
                .iter()
                .enumerate()
                .map(|(index, arg)| c_string(arg, "process.args", index))
                .collect::<Result<_, _>>()?,
            env: environment(process.env().as_deref().unwrap_or_default())?,
            cwd: mounts::clean(process.cwd()),
            terminal: process.terminal().unwrap_or(false),
            console_size: process.console_size().map(|size| (clamp(size.height()), clamp(size.width()))),
            uid: id("process.user.uid", user.uid())?,
            gid: id("process.user.gid", user.gid())?,
            groups: groups(user)?,
            umask: umask(user)?,
            capabilities: CapabilitySets::from_spec(process.capabilities().as_ref()),
            rlimits: rlimits(process.rlimits().as_deref().unwrap_or_default())?,
            no_new_privileges: process.no_new_privileges().unwrap_or(false),
            oom_score_adj: process.oom_score_adj().map(oom_score_adj).transpose()?,
            apparmor_profile: label("process.apparmorProfile", process.apparmor_profile())?,
            selinux_label: label("process.selinuxLabel", process.selinux_label())?,
            scheduling: wide.scheduler.as_ref().map(scheduling::scheduler).transpose()?,
            io_priority: wide.io_priority.as_ref().map(scheduling::io_priority).transpose()?,
            exec_cpu_affinity: match &wide.exec_cpu_affinity {
                Some(affinity) => scheduling::cpu_affinity(affinity)?,
                None => CpuAffinity::default(),
            },
            personality: wide.personality.as_ref().map(container_wide::personality).transpose()?,
            memory_policy: wide.memory_policy.as_ref().map(MemoryPolicy::from_spec).transpose()?,
        })
    }
}

fn c_string(text: &str, field: &str, index: usize) -> Result<CString, PlanError> {
    CString::new(text).map_err(|_| invalid(format!("{field}[{index}]"), "holds a NUL"))
}

fn environment(list: &[String]) -> Result<Vec<CString>, PlanError> {
    // A pod can have tens of thousands of them, for all services of its namespace.
    let mut places: HashMap<&str, usize> = HashMap::with_capacity(list.len());
    let mut env: Vec<CString> = Vec::with_capacity(list.len());
    for (index, entry) in list.iter().enumerate() {
        let name = match entry.split_once('=') {
            Some((name, _)) if !name.is_empty() => name,
            _ => return Err(invalid(format!("process.env[{index}]"), format!("{entry:?} is not NAME=value"))),
        };
        let entry = c_string(entry, "process.env", index)?;
        match places.insert(name, env.len()) {
            Some(place) => {
                env[place] = entry;
                places.insert(name, place);
            }
            None => env.push(entry),
        }
    }
    env.retain(|entry| entry.as_bytes() != b"HOME=");
    Ok(env)
}

/// `u32::MAX` means "leave it as it is" to `setresuid(2)`: taken for an id it would be the creator's, root.
fn id(field: &str, id: u32) -> Result<u32, PlanError> {
    match id {
        u32::MAX => Err(invalid(field, "4294967295 is not an id")),
        id => Ok(id),
    }
}

fn groups(user: &User) -> Result<Vec<u32>, PlanError> {
    let (mut groups, mut known) = (vec![user.gid()], HashSet::from([user.gid()]));
    for gid in user.additional_gids().iter().flatten() {
        let gid = id("process.user.additionalGids", *gid)?;
        if known.insert(gid) {
            groups.push(gid);
        }
    }
    Ok(groups)
}

fn umask(user: &User) -> Result<u32, PlanError> {
    match user.umask() {
        None => Ok(0o022),
        Some(mask) if mask <= 0o777 => Ok(mask),
        Some(mask) => Err(invalid("process.user.umask", format!("{mask:#o} is above 0o777"))),
    }
}

fn oom_score_adj(score: i32) -> Result<i32, PlanError> {
    match score {
        -1000..=1000 => Ok(score),
        _ => Err(invalid("process.oomScoreAdj", format!("{score} is not between -1000 and 1000"))),
    }
}

fn clamp(cells: u64) -> u16 {
    u16::try_from(cells).unwrap_or(u16::MAX)
}

fn rlimits(list: &[PosixRlimit]) -> Result<Vec<Rlimit>, PlanError> {
    let mut limits: Vec<Rlimit> = Vec::with_capacity(list.len());
    for (index, entry) in list.iter().enumerate() {
        let field = format!("process.rlimits[{index}]");
        let resource: Resource = match entry.typ().to_string().parse() {
            Ok(resource) => resource,
            Err(error) => return Err(invalid(field, format!("{error}"))),
        };
        if limits.iter().any(|known| known.resource == resource) {
            return Err(invalid(field, format!("a second {resource}")));
        }
        if entry.soft() > entry.hard() {
            return Err(invalid(
                field,
                format!("soft limit {} of {resource} is above hard {}", entry.soft(), entry.hard()),
            ));
        }
        limits.push(Rlimit { resource, limit: Limit { soft: entry.soft(), hard: entry.hard() } });
    }
    Ok(limits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::worked;
    use sys::credentials::Capabilities;

    /// A process object with these fields besides the required ones.
    fn plan(fields: &str) -> Result<ProcessPlan, String> {
        let comma = if fields.is_empty() { "" } else { "," };
        let user = if fields.contains("\"user\"") { "" } else { r#""user":{"uid":0,"gid":0},"# };
        let args = if fields.contains("\"args\"") { "" } else { r#""args":["true"],"# };
        let cwd = if fields.contains("\"cwd\"") { r#""noNewPrivileges":false"# } else { r#""cwd":"/""# };
        let json = format!("{{{user}{args}{cwd}{comma}{fields}}}");
        let process: Process = serde_json::from_str(&json).unwrap_or_else(|error| panic!("{json}: {error}"));
        ProcessPlan::from_process(&process).map_err(|error| error.to_string())
    }

    #[track_caller]
    fn check_refused(fields: &str, expected: &str) {
        assert_eq!(plan(fields).map(|_| ()), Err(expected.to_owned()), "{fields}");
    }

    #[test]
    fn a_bare_process_gets_the_strict_defaults() {
        let plan = plan("").unwrap();
        assert_eq!(plan.capabilities, CapabilitySets::default());
        assert_eq!((plan.umask, plan.terminal, plan.no_new_privileges), (0o022, false, false));
        assert_eq!((plan.uid, plan.gid, plan.groups.as_slice()), (0, 0, &[0][..]));
    }

    #[test]
    fn the_primary_group_is_among_the_groups_and_each_is_there_once() {
        let plan = plan(r#""user":{"uid":1000,"gid":100,"additionalGids":[5,100,5,7]}"#).unwrap();
        assert_eq!(plan.groups, [100, 5, 7]);
    }

    #[test]
    fn the_last_value_of_a_variable_wins_and_an_empty_home_is_none() {
        let env = plan(r#""env":["A=1","HOME=","B=2","A=3=4"]"#).unwrap().env;
        assert_eq!(env, [c"A=3=4".to_owned(), c"B=2".to_owned()]);
    }

    #[test]
    fn a_process_without_an_inheritable_set_gets_none() {
        let capabilities =
            r#""capabilities":{"bounding":["CAP_CHOWN"],"permitted":["CAP_CHOWN"],"effective":["CAP_CHOWN"]}"#;
        let sets = plan(capabilities).unwrap().capabilities;
        let (none, chown) = (Capabilities::NONE, Capabilities(1));
        assert_eq!((sets.bounding, sets.permitted, sets.effective), (chown, chown, chown));
        assert_eq!((sets.inheritable, sets.ambient), (none, none));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        check_refused(r#""args":[]"#, "process.args: must not be empty");
        check_refused(r#""args":["a\u0000b"]"#, "process.args[0]: holds a NUL");
        check_refused(r#""env":["A"]"#, "process.env[0]: \"A\" is not NAME=value");
        check_refused(r#""env":["A=1","=x"]"#, "process.env[1]: \"=x\" is not NAME=value");
        check_refused(r#""cwd":"tmp""#, "process.cwd: \"tmp\" is not an absolute path");
        check_refused(r#""user":{"uid":4294967295,"gid":0}"#, "process.user.uid: 4294967295 is not an id");
        check_refused(r#""user":{"uid":0,"gid":0,"umask":1024}"#, "process.user.umask: 0o2000 is above 0o777");
        check_refused(r#""oomScoreAdj":1001"#, "process.oomScoreAdj: 1001 is not between -1000 and 1000");
        let nofile = r#"{"type":"RLIMIT_NOFILE","soft":2,"hard":1}"#;
        check_refused(
            &format!(r#""rlimits":[{nofile}]"#),
            "process.rlimits[0]: soft limit 2 of RLIMIT_NOFILE is above hard 1",
        );
        let core = r#"{"type":"RLIMIT_CORE","soft":0,"hard":0}"#;
        check_refused(&format!(r#""rlimits":[{core},{core}]"#), "process.rlimits[1]: a second RLIMIT_CORE");
    }

    #[test]
    fn every_kind_of_limit_is_known() {
        let kinds = [
            "AS",
            "CORE",
            "CPU",
            "DATA",
            "FSIZE",
            "LOCKS",
            "MEMLOCK",
            "MSGQUEUE",
            "NICE",
            "NOFILE",
            "NPROC",
            "RSS",
            "RTPRIO",
            "RTTIME",
            "SIGPENDING",
            "STACK",
        ];
        let list = kinds.map(|kind| format!(r#"{{"type":"RLIMIT_{kind}","soft":1,"hard":2}}"#)).join(",");
        let limits = plan(&format!(r#""rlimits":[{list}]"#)).unwrap().rlimits;
        assert_eq!(
            limits.iter().map(|limit| limit.resource.to_string()).collect::<Vec<_>>(),
            kinds.map(|kind| format!("RLIMIT_{kind}"))
        );
    }

    #[test]
    fn every_policy_and_flag_of_scheduling_has_the_kernels_number() {
        for (policy, number) in
            [("OTHER", 0), ("FIFO", 1), ("RR", 2), ("BATCH", 3), ("ISO", 4), ("IDLE", 5), ("DEADLINE", 6)]
        {
            let scheduling = plan(&format!(r#""scheduler":{{"policy":"SCHED_{policy}"}}"#)).unwrap().scheduling;
            assert_eq!(scheduling, Some(Scheduling { policy: number, ..Scheduling::default() }));
        }
        for (flag, bit) in [
            ("SCHED_RESET_ON_FORK", 1),
            ("SCHED_FLAG_RECLAIM", 2),
            ("SCHED_FLAG_D_L_OVERRUN", 4),
            ("SCHED_FLAG_KEEP_POLICY", 8),
            ("SCHED_FLAG_KEEP_PARAMS", 16),
            ("SCHED_FLAG_UTIL_CLAMP_MIN", 32),
            ("SCHED_FLAG_UTIL_CLAMP_MAX", 64),
        ] {
            let scheduling = plan(&format!(r#""scheduler":{{"policy":"SCHED_OTHER","flags":["{flag}"]}}"#)).unwrap();
            assert_eq!(scheduling.scheduling.unwrap().flags, bit, "{flag}");
        }
        let deadline = r#""scheduler":{"policy":"SCHED_DEADLINE","runtime":1,"deadline":2,"period":3}"#;
        let scheduling = plan(deadline).unwrap().scheduling.unwrap();
        assert_eq!((scheduling.runtime, scheduling.deadline, scheduling.period), (1, 2, 3));
    }

    #[test]
    fn scheduling_that_the_policy_does_not_have_is_refused() {
        for (scheduler, expected) in [
            (r#""policy":"SCHED_OTHER","nice":20"#, "nice: 20 is not between -20 and 19"),
            (r#""policy":"SCHED_BATCH","nice":-21"#, "nice: -21 is not between -20 and 19"),
            (r#""policy":"SCHED_OTHER","priority":1"#, "priority: is for SCHED_FIFO and SCHED_RR only"),
            (r#""policy":"SCHED_FIFO","priority":-1"#, "priority: is not between 0 and 99"),
            (r#""policy":"SCHED_RR","priority":100"#, "priority: is not between 0 and 99"),
            (r#""policy":"SCHED_FIFO","runtime":1"#, "runtime: is for SCHED_DEADLINE only"),
            (r#""policy":"SCHED_IDLE","deadline":1"#, "deadline: is for SCHED_DEADLINE only"),
            (r#""policy":"SCHED_OTHER","period":1"#, "period: is for SCHED_DEADLINE only"),
        ] {
            check_refused(&format!(r#""scheduler":{{{scheduler}}}"#), &format!("process.scheduler.{expected}"));
        }
        for priority in [-1, 8] {
            check_refused(
                &format!(r#""ioPriority":{{"class":"IOPRIO_CLASS_BE","priority":{priority}}}"#),
                &format!("process.ioPriority.priority: {priority} is not between 0 and 7"),
            );
        }
        check_refused(
            r#""execCPUAffinity":{"final":"3-1"}"#,
            "process.execCPUAffinity.final: \"3-1\": 3-1 runs backwards",
        );
        check_refused(r#""selinuxLabel":"a\u0000b""#, "process.selinuxLabel: \"a\\0b\" is not a label");
    }

    #[test]
    fn a_hundred_thousand_variables_and_groups_are_read_in_a_moment() {
        let env: Vec<String> = (0..100_000).map(|number| format!("SERVICE_{}=1", number % 99_999)).collect();
        let groups: Vec<u32> = (0..100_000).collect();
        let json = serde_json::json!({"user": {"uid": 0, "gid": 0, "additionalGids": groups}, "args": ["true"], "cwd": "/", "env": env});
        let process = serde_json::from_value(json).unwrap();
        let begun = worked();
        let plan = ProcessPlan::joining(&process, &ContainerWide::default()).unwrap();
        assert_eq!((plan.env.len(), plan.groups.len()), (99_999, 100_000));
        let took = worked() - begun;
        assert!(took < std::time::Duration::from_secs(5), "{took:?}");
    }

    #[test]
    fn a_process_that_joins_has_what_its_container_has_unless_it_says_otherwise() {
        let container: ContainerWide = serde_json::from_str(
            r#"{"personality":{"domain":"LINUX32"},"memoryPolicy":{"mode":"MPOL_LOCAL"},
                "scheduler":{"policy":"SCHED_BATCH"},"ioPriority":{"class":"IOPRIO_CLASS_IDLE","priority":0},
                "execCPUAffinity":{"initial":"0","final":"1"}}"#,
        )
        .unwrap();
        let joining = |fields: &str| {
            let json = format!(r#"{{"user":{{"uid":0,"gid":0}},"args":["true"],"cwd":"/"{fields}}}"#);
            ProcessPlan::joining(&serde_json::from_str(&json).unwrap(), &container).unwrap()
        };
        let plan = joining("");
        assert_eq!(plan.personality, Some(8));
        assert_eq!(plan.memory_policy.unwrap().name, "MPOL_LOCAL");
        assert_eq!(plan.scheduling.unwrap().policy, 3);
        assert_eq!(plan.io_priority, Some(IoPriority { class: 3, priority: 0 }));
        assert_eq!(plan.exec_cpu_affinity, CpuAffinity { initial: Some(vec![1]), last: Some(vec![2]) });
        let plan = joining(
            r#","scheduler":{"policy":"SCHED_IDLE"},"ioPriority":{"class":"IOPRIO_CLASS_BE","priority":1},
            "execCPUAffinity":{"initial":"2"}"#,
        );
        assert_eq!(plan.personality, Some(8));
        assert_eq!(plan.scheduling.unwrap().policy, 5);
        assert_eq!(plan.io_priority, Some(IoPriority { class: 2, priority: 1 }));
        assert_eq!(plan.exec_cpu_affinity, CpuAffinity { initial: Some(vec![4]), last: None });
    }
}
