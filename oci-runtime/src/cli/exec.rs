//! exec: another process in a container.

use std::path::PathBuf;

use oci_runtime::plan::ProcessPlan;
use oci_runtime::{ExecInputs, Filter, Identity, Target, config};
use serde_json::{Value, json};

use super::Error;
use super::args::{self, Stop, Token};
use super::bundle;
use super::create;
use super::foreground::Foreground;
use super::help::Help;
use super::log::Log;
use super::store::{Container, Status, Store};
use super::streams::{self, Inherited, Sockets};

/// exec
#[derive(Debug, Default)]
pub(crate) struct Flags {
    pub(crate) id: String,
    pub(crate) args: Vec<String>,
    /// A process.json, which makes the flags on the process void.
    pub(crate) process: Option<PathBuf>,
    pub(crate) detach: bool,
    pub(crate) ignore_paused: bool,
    pub(crate) tty: bool,
    pub(crate) cwd: Option<String>,
    pub(crate) env: Vec<String>,
    pub(crate) user: Option<String>,
    pub(crate) additional_gids: Vec<u32>,
    pub(crate) capabilities: Vec<String>,
    pub(crate) no_new_privs: Option<bool>,
    pub(crate) apparmor: Option<String>,
    pub(crate) process_label: Option<String>,
    pub(crate) cgroups: Vec<String>,
    pub(crate) streams: streams::Flags,
}

const FLAGS: &[(&str, &str)] = &[
    ("--process FILE, -p FILE", "a process object; the flags on the process are ignored then"),
    ("--detach, -d", "leave the process running, with the standard streams"),
    ("--tty, -t", "give it a terminal"),
    ("--cwd DIR", "its working directory"),
    ("--env NAME=VALUE, -e NAME=VALUE", "one more variable"),
    ("--user UID[:GID], -u UID[:GID]", "who it runs as, in numbers"),
    ("--additional-gids GID, -g GID", "one more group"),
    ("--cap CAPABILITY, -c CAPABILITY", "one more capability"),
    ("--no-new-privs", "set-user-ID programs give nothing"),
    ("--apparmor PROFILE", "the AppArmor profile"),
    ("--process-label LABEL", "the SELinux label"),
    ("--cgroup [CONTROLLER,…:]PATH", "a cgroup below the container's, which must be there"),
    ("--ignore-paused", "also in a paused container"),
];

pub(crate) const HELP: Help = Help {
    about: "runs another process in a container",
    usage: "[flags] ID COMMAND [ARGUMENT]… | [flags] -p FILE ID",
    details: "The exit code is the process's, 255 for a failure of exec itself.",
    flags: &[FLAGS, streams::FLAGS],
};

/// Everything after the id is the program's, whatever it looks like.
pub(crate) fn parse(parser: &mut lexopt::Parser) -> Result<Flags, Stop> {
    let mut flags = Flags::default();
    while let Some(token) = args::next_token(parser)? {
        match token {
            Token::Flag(name) => flags.read(&name, parser)?,
            Token::Plain(id) => {
                let args = args::rest(parser)?;
                return Ok(Flags { id, args, ..flags });
            }
        }
    }
    Err(args::count_is_wrong("exec", "a minimum of 1"))
}

impl Flags {
    fn read(&mut self, name: &str, parser: &mut lexopt::Parser) -> Result<(), Stop> {
        match name {
            "-p" | "--process" => self.process = args::path(parser)?,
            "-d" | "--detach" => self.detach = args::switch(parser, name)?,
            "-t" | "--tty" => self.tty = args::switch(parser, name)?,
            "-e" | "--env" => self.env.push(args::text(parser)?),
            "-u" | "--user" => self.user = Some(args::text(parser)?),
            "-g" | "--additional-gids" => self.additional_gids.push(args::number(parser, name)?),
            "-c" | "--cap" => self.capabilities.push(args::text(parser)?),
            "--cwd" => self.cwd = Some(args::text(parser)?),
            "--no-new-privs" => self.no_new_privs = Some(args::switch(parser, name)?),
            "--apparmor" => self.apparmor = Some(args::text(parser)?),
            "--process-label" => self.process_label = Some(args::text(parser)?),
            "--ignore-paused" => self.ignore_paused = args::switch(parser, name)?,
            "--cgroup" => self.cgroups.push(args::text(parser)?),
            name => return self.streams.read(name, parser),
        }
        Ok(())
    }
}

/// The exit code is the process's own, or 0 if it was detached.
pub(crate) fn exec(store: &Store<'_>, flags: &Flags, inherited: Inherited, log: &mut Log) -> Result<u8, Error> {
    let container = store.load(&flags.id)?;
    match container.status()? {
        Status::Stopped => return Err("cannot exec in a stopped container".into()),
        Status::Paused if !flags.ignore_paused => {
            return Err("cannot exec in a paused container (use --ignore-paused to override)".into());
        }
        _ => {}
    }
    let below = cgroups(&flags.cgroups)?;
    let plan = plan(&container, flags, log)?;
    let terminal = plan.terminal;
    streams::check_terminal(&flags.streams, terminal, flags.detach)?;
    let sockets = Sockets::connect(&flags.streams)?;
    let (foreground, stdio) = match flags.detach {
        true => (None, streams::own()),
        false => {
            let (foreground, stdio) = Foreground::prepare(terminal)?;
            (Some(foreground), stdio)
        }
    };
    let target = Target {
        pid: container.record.pid,
        start_time: container.record.start_time,
        cgroup: Some(container.record.cgroup.clone()),
        resctrl: container.record.resctrl.joined.clone(),
    };
    let mut silent = |_: &str| {};
    let record = &container.record;
    let identity = Identity {
        id: record.id.clone(),
        bundle: record.bundle.clone(),
        annotations: record.annotations.clone().into_iter().collect(),
    };
    let inputs = ExecInputs {
        identity,
        stdio,
        seccomp: filter(&container)?,
        preserve_fds: inherited.count(),
        keep_keyring: container.record.keeps_keyring,
        cgroups: Some(container.layout()?.clone()),
        below,
        ..ExecInputs::new(&mut silent)
    };
    let mut created = oci_runtime::exec(plan, &target, inputs)?;
    created.warnings.iter().for_each(|warning| log.warn(warning));
    let handed_over = sockets
        .send(created.console.as_ref(), created.pidfd.as_ref())
        .and_then(|()| streams::write_pid_file(flags.streams.pid_file.as_deref(), created.pid));
    // Nobody would know of it.
    handed_over.inspect_err(|_| create::end(&created))?;
    let Some(foreground) = foreground else { return Ok(0) };
    let process =
        sys::process::Process { pid: sys::process::Pid::from_raw(created.pid), start_time: created.start_time };
    let console = created.console.take();
    foreground.attend(created.pid, process, console).inspect_err(|_| create::end(&created))
}

/// `[controller[,controller]:]path`, each controller once.
fn cgroups(arguments: &[String]) -> Result<Vec<(Option<String>, String)>, Error> {
    let mut below: Vec<(Option<String>, String)> = Vec::new();
    for argument in arguments {
        let Some((controllers, path)) = argument.split_once(':') else {
            match arguments {
                [only] => return Ok(vec![(None, only.clone())]),
                _ => return Err(format!("invalid --cgroup argument: {argument} (missing <controller>: prefix)").into()),
            }
        };
        for controller in controllers.split(',') {
            if controller.is_empty() {
                return Err(format!("invalid --cgroup argument (empty <controller> prefix): {argument}").into());
            }
            if below.iter().any(|(known, _)| known.as_deref() == Some(controller)) {
                return Err(
                    format!("invalid --cgroup argument(s): controller {controller} specified multiple times").into()
                );
            }
            below.push((Some(controller.to_owned()), path.to_owned()));
        }
    }
    Ok(below)
}

/// The process of `--process`, or that of the config as the flags change it.
fn plan(container: &Container, flags: &Flags, log: &mut Log) -> Result<ProcessPlan, Error> {
    let json = match &flags.process {
        Some(path) => sys::fs::read_bounded(path, config::MAX_SIZE)
            .map_err(|error| format!("read {}: {error}", path.display()))?,
        None => {
            serde_json::to_vec(&changed(container, flags)?).map_err(|error| format!("encode the process: {error}"))?
        }
    };
    let (process, warnings) = config::parse_process(&json)?;
    warnings.iter().for_each(|warning| log.warn(warning));
    Ok(ProcessPlan::joining(&process, &container.record.for_all)?)
}

fn changed(container: &Container, flags: &Flags) -> Result<Value, Error> {
    if flags.args.is_empty() {
        return Err("exec args cannot be empty".into());
    }
    with_flags(bundle::process_of(container)?, flags)
}

fn with_flags(mut process: Value, flags: &Flags) -> Result<Value, Error> {
    process["args"] = json!(flags.args);
    process["terminal"] = json!(flags.tty);
    let texts = [("cwd", &flags.cwd), ("apparmorProfile", &flags.apparmor), ("selinuxLabel", &flags.process_label)];
    for (key, value) in texts {
        if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
            process[key] = json!(value);
        }
    }
    if let Some(no_new_privs) = flags.no_new_privs {
        process["noNewPrivileges"] = json!(no_new_privs);
    }
    append(&mut process["env"], flags.env.iter().map(|variable| json!(variable)));
    add_capabilities(&mut process, &flags.capabilities);
    let user = &mut process["user"];
    if let Some(text) = flags.user.as_deref().filter(|text| !text.is_empty()) {
        let (uid, gid) = parse_user(text)?;
        user["uid"] = json!(uid);
        if let Some(gid) = gid {
            user["gid"] = json!(gid);
        }
    }
    append(&mut user["additionalGids"], flags.additional_gids.iter().map(|gid| json!(gid)));
    Ok(process)
}

/// Appends to a list that may not be there.
fn append(list: &mut Value, more: impl Iterator<Item = Value>) {
    let mut all = list.as_array().cloned().unwrap_or_default();
    all.extend(more);
    *list = Value::Array(all);
}

/// Ambient ones only where the config has inheritable ones: without those the kernel refuses them.
fn add_capabilities(process: &mut Value, names: &[String]) {
    if names.is_empty() {
        return;
    }
    let sets = &mut process["capabilities"];
    let ambient = sets.get("inheritable").is_some_and(Value::is_array);
    let wanted = ["bounding", "effective", "permitted"].into_iter().chain(ambient.then_some("ambient"));
    for set in wanted {
        append(&mut sets[set], names.iter().map(|name| json!(name)));
    }
}

/// `uid[:gid]`, numbers and nothing else (CVE-2026-30892).
fn parse_user(text: &str) -> Result<(u32, Option<u32>), Error> {
    let number = |what: &str, digits: &str| match digits.bytes().all(|c| c.is_ascii_digit()) {
        true => digits.parse::<u32>().map_err(|error| format!("bad {what}: {digits:?}: {error}")),
        false => Err(format!("bad {what}: {digits:?} is not a number")),
    };
    Ok(match text.split_once(':') {
        Some((uid, gid)) => (number("uid", uid)?, Some(number("gid", gid)?)),
        None => (number("uid", text)?, None),
    })
}

/// The container's own filter holds for what joins it.
fn filter(container: &Container) -> Result<Option<Filter>, Error> {
    let path = container.filter();
    match std::fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        read => {
            let bytes = read.map_err(|error| format!("read {}: {error}", path.display()))?;
            let filter = Filter::decode(&bytes).ok_or_else(|| format!("{} is not a filter", path.display()))?;
            Ok(Some(filter))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_numbers_and_nothing_else() {
        assert_eq!(parse_user("1000").unwrap(), (1000, None));
        assert_eq!(parse_user("0:4294967295").unwrap(), (0, Some(u32::MAX)));
        for text in ["1000x", "x", "-1", "+1", " 1", "1:", ":1", "1:2:3", "4294967296", "0x10", "root"] {
            parse_user(text).expect_err(text);
        }
    }

    #[test]
    fn a_cgroup_is_below_the_containers_own_in_all_hierarchies_or_in_some() {
        let parsed = |arguments: &[&str]| {
            let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
            cgroups(&arguments).map_err(|error| error.to_string())
        };
        let below = |controller: &str, path: &str| (Some(controller.to_owned()), path.to_owned());
        assert_eq!(parsed(&["/a/b"]).unwrap(), [(None, "/a/b".to_owned())]);
        assert_eq!(
            parsed(&["cpu,memory:a", "pids:b"]).unwrap(),
            [below("cpu", "a"), below("memory", "a"), below("pids", "b")]
        );
        assert!(parsed(&["a", "b"]).unwrap_err().contains("missing <controller>: prefix"));
        assert!(parsed(&[":a"]).unwrap_err().contains("empty <controller> prefix"));
        assert!(parsed(&["cpu:a", "cpu:b"]).unwrap_err().contains("controller cpu specified multiple times"));
    }

    #[test]
    fn flags_change_the_process_of_the_config() {
        let process = json!({"args": ["init"], "terminal": true, "cwd": "/", "env": ["A=1"],
            "user": {"uid": 5, "gid": 6}, "capabilities": {"bounding": ["CAP_KILL"]}});
        let flags = Flags {
            args: vec!["ls".into()],
            env: vec!["B=2".into()],
            user: Some("7".into()),
            additional_gids: vec![8],
            capabilities: vec!["CAP_CHOWN".into()],
            ..Flags::default()
        };
        let process = with_flags(process, &flags).unwrap();
        assert_eq!(process["args"], json!(["ls"]));
        assert_eq!(process["terminal"], json!(false));
        assert_eq!(process["env"], json!(["A=1", "B=2"]));
        assert_eq!(process["user"], json!({"uid": 7, "gid": 6, "additionalGids": [8]}));
        assert_eq!(process["capabilities"]["bounding"], json!(["CAP_KILL", "CAP_CHOWN"]));
        assert!(process["capabilities"].get("ambient").is_none());
    }
}
