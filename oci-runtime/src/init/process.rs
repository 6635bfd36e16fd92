//! From a process with the creator's powers to the container's program: streams, limits, identity, filter, exec.
//!
//! The part that a container's first process and an exec'd one share.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use sys::Errno;
use sys::at::{self, OFlag};
use sys::credentials::{self, Capabilities, CapabilitySets, Limit};
use sys::namespace::Kind;
use sys::process::PidFd;
use sys::procfs::ProcFd;
use sys::pty::Pty;
use sys::rootfd::RootFd;

use super::hooks::BeforeProgram;
use super::{console, dev, own_root, placement};
use crate::error::{Error, Step};
use crate::host::Fifo;
use crate::inputs::StdioFds;
use crate::launch::Channel;
use crate::plan::ProcessPlan;
use crate::program;
use crate::seccomp_filter::Filter;
use crate::status::Request;

/// How strict to be, and the filter.
#[derive(Debug)]
pub(crate) struct Settings {
    /// The system call filter.
    pub(crate) seccomp: Option<Filter>,
    /// See [`Inputs`](crate::Inputs).
    pub(crate) best_effort_oom_score: bool,
    /// See [`Inputs`](crate::Inputs).
    pub(crate) best_effort_rlimits: bool,
    /// See [`Inputs`](crate::Inputs).
    pub(crate) preserve_fds: u32,
    /// See [`Inputs`](crate::Inputs).
    pub(crate) keep_keyring: bool,
    /// The runtime's own image, which must never be executed as a container's program.
    pub(crate) own_image: at::FileStat,
    /// See [`Inputs`](crate::Inputs).
    pub(crate) program_at_start: bool,
}

/// Where the process stands when all around it is set up.
pub(crate) struct Standing {
    /// The container's root.
    pub(crate) root: RootFd,
    /// `HOME=…` from its passwd, if the environment has none.
    pub(crate) home: Option<CString>,
    /// The null device, if there are streams that are not given.
    pub(crate) null: Option<OwnedFd>,
    /// Its terminal.
    pub(crate) console: Option<Pty>,
    /// A FIFO to wait behind instead of the channel.
    pub(crate) fifo: Option<Fifo>,
    /// What runs between the start and the program.
    pub(crate) before_program: Option<BeforeProgram>,
}

/// Sheds the creator's signal dispositions and mask, and its umask.
pub(crate) fn reset_signals() -> Result<(), Error> {
    // Modes of what is made in the container are meant as they are given.
    credentials::set_umask(0);
    sys::signal::reset_all().step(|| "reset signals".to_owned())
}

/// A session of its own: no controlling terminal, no job control of the creator's, and unless told otherwise none of its
/// keys.
pub(crate) fn start_session(settings: &Settings) -> Result<(), Error> {
    sys::process::set_session().step(|| "start a session".to_owned())?;
    if settings.keep_keyring {
        return Ok(());
    }
    // Keys of the creator's session would be the container's too. A kernel without keyrings has none to leak.
    match sys::process::join_new_session_keyring() {
        Err(error) if !error.is(Errno::ENOSYS) => Err(error).step(|| "make a session keyring".to_owned()),
        _ => Ok(()),
    }
}

/// Writes `oomScoreAdj`; where the host forbids it and that is tolerated, it stays as inherited.
pub(crate) fn set_oom_score(plan: &ProcessPlan, settings: &Settings, procfs: &ProcFd) -> Result<(), Error> {
    let Some(score) = plan.oom_score_adj else { return Ok(()) };
    match procfs.write_self("oom_score_adj", score.to_string()) {
        Err(error) if settings.best_effort_oom_score && (error.is(Errno::EACCES) || error.is(Errno::EPERM)) => Ok(()),
        written => written.step(|| format!("set process.oomScoreAdj to {score}")),
    }
}

/// Made if the image lacks it, as runc does.
pub(super) fn make_working_directory(plan: &ProcessPlan, root: &RootFd) -> Result<(), Error> {
    match root.mkdir_all(&plan.cwd, 0o755) {
        // A read-only root without it: entering it fails with a better message.
        Err(error) if error.is(Errno::EROFS) => Ok(()),
        made => made.map(drop).step(|| format!("make working directory {}", plan.cwd.display())),
    }
}

/// `HOME` of the user, from the container's passwd; `/` without one that can be read. Through `procfs`: whose `/proc` this is,
/// nobody knows.
pub(crate) fn home(plan: &ProcessPlan, root: &RootFd, procfs: &ProcFd) -> Result<Option<CString>, Error> {
    /// Longer than any real one; a gigantic passwd is an attack on our memory (CVE-2026-47262).
    const MAX_PASSWD: u64 = 10 << 20;
    if plan.env.iter().any(|entry| entry.to_bytes().starts_with(b"HOME=")) {
        return Ok(None);
    }
    let passwd = match root.open_path_regular(Path::new("/etc/passwd")) {
        Ok(passwd) => match procfs.reopen(&passwd, OFlag::O_RDONLY | OFlag::O_NOCTTY) {
            // A file of somebody whom the container's user namespace does not know.
            Err(error) if error.is(Errno::EACCES) => Vec::new(),
            opened => {
                let opened = opened.step(|| "open the container's /etc/passwd".to_owned())?;
                sys::fd::read_bounded(&opened, MAX_PASSWD).unwrap_or_default()
            }
        },
        Err(_) => Vec::new(),
    };
    let home = home_in(&passwd, plan.uid).unwrap_or(b"/");
    Ok(CString::new([b"HOME=", home].concat()).ok())
}

/// Field 6 of the first line whose field 3 is the id (passwd(5)).
fn home_in(passwd: &[u8], uid: u32) -> Option<&[u8]> {
    let uid = uid.to_string();
    passwd.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.split(|byte| *byte == b':').skip(2);
        let found = fields.next()? == uid.as_bytes();
        let home = fields.nth(2)?;
        (found && home.starts_with(b"/")).then_some(home)
    })
}

/// Enters a running container, whose cgroup is joined by now; the PID namespace is that of children only. `null` is the
/// host's null device, for streams that are not given in a container that has none; `more` are namespaces that it has of its
/// own besides the usual ones.
pub(crate) fn enter(
    plan: &ProcessPlan,
    target: &PidFd,
    null: Option<&OwnedFd>,
    procfs: &ProcFd,
    more: impl Iterator<Item = Kind>,
) -> Result<Standing, Error> {
    // One call for all of them: no moment in which we are half inside.
    let all = [Kind::Mount, Kind::Net, Kind::Ipc, Kind::Uts, Kind::Cgroup, Kind::Pid];
    let all: Vec<Kind> = all.into_iter().chain(more).collect();
    sys::namespace::join(target, &all).step(|| "join the container's namespaces".to_owned())?;
    if all.contains(&Kind::User) {
        super::become_root()?;
    }
    let root = own_root()?;
    let console = match plan.terminal {
        true => Some(console::open_pair(plan, &console::find_devpts(&root)?)?),
        false => None,
    };
    let null = null.map(|null| dev::open_null(&root, null)).transpose().step(|| "open the null device".to_owned())?;
    let home = home(plan, &root, procfs)?;
    Ok(Standing { root, home, null, console, fifo: None, before_program: None })
}

/// What [`become_program`] goes on with.
pub(crate) struct Prepared {
    env: Vec<CString>,
    /// The master of the terminal whose peer the standard streams are.
    console: Option<OwnedFd>,
    fifo: Option<Fifo>,
    before_program: Option<BeforeProgram>,
    /// Whether root could enter the working directory.
    entered: Result<(), Error>,
}

/// What takes files and no capability of the program's: streams and working directory. A filter is not
/// in force yet, so that it need not know the calls of this.
pub(crate) fn prepare(plan: &ProcessPlan, stdio: &mut StdioFds, standing: Standing) -> Result<Prepared, Error> {
    let mut env = plan.env.clone();
    env.extend(standing.home);
    connect_streams(plan, stdio, standing.null.as_ref(), standing.console.as_ref())?;
    // As root, whatever the directory's mode; once more as the user where root may not (root-squashed NFS).
    let entered = enter_working_directory(plan, &standing.root);
    let console = standing.console.map(|console| console.master);
    Ok(Prepared { env, console, fifo: standing.fifo, before_program: standing.before_program, entered })
}

/// Closes all but the standard streams, those that the caller wants preserved, and what [`become_program`] needs: nothing of the
/// host's is left in a process that the container can see, or that waits for its start. Only `prepared` and `channel` have
/// owners that are used, or dropped, after this.
pub(crate) fn keep_only(settings: &Settings, prepared: &Prepared, channel: &Channel) -> Result<(), Error> {
    let mut kept = vec![channel.as_fd()];
    kept.extend(prepared.console.as_ref().map(AsFd::as_fd));
    kept.extend(prepared.fifo.as_ref().map(|fifo| fifo.directory.as_fd()));
    sys::fd::close_all_but(3 + settings.preserve_fds, &kept)
        .step(|| "close what the program must not inherit".to_owned())
}

/// Gives up what [`become_program`] does not need, before a process of the container can see us: for one that may trace us,
/// what we have is what it has.
pub(crate) fn shed_capabilities(plan: &ProcessPlan, settings: &Settings) -> Result<(), Error> {
    let mut names = vec!["CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP", "CAP_DAC_OVERRIDE", "CAP_KILL"];
    if settings.seccomp.is_some() && !plan.no_new_privileges {
        names.push("CAP_SYS_ADMIN");
    }
    if !plan.rlimits.is_empty() {
        names.push("CAP_SYS_RESOURCE");
    }
    if plan.scheduling.is_some() || plan.io_priority.is_some() {
        names.push("CAP_SYS_NICE");
    }
    let needed = Capabilities::from_names(names).unwrap_or(Capabilities::ALL);
    let step = || "give up capabilities".to_owned();
    let own = CapabilitySets::current().step(step)?;
    let keep = own.permitted & (needed | plan.capabilities.permitted | plan.capabilities.effective);
    CapabilitySets { effective: keep, permitted: keep, inheritable: own.inheritable & keep }.apply().step(step)
}

/// The last part of design.md's order: limits, filter or capabilities and ids, filter, exec.
pub(crate) fn become_program(
    plan: &ProcessPlan,
    settings: &Settings,
    prepared: Prepared,
    channel: &Channel,
) -> Result<Infallible, Error> {
    let Prepared { env, console, fifo, before_program, entered } = prepared;
    if console.is_some() {
        sys::pty::set_controlling(&std::io::stdin()).step(|| "take the terminal".to_owned())?;
    }
    set_rlimits(plan, settings)?;
    placement::place(plan)?;
    // Here: `/proc/self` is found in the container's PID namespace only. As root, and without a filter that minds.
    let harmless = program::refuse_image(&plan.args[0], &env, &settings.own_image).map_err(Error::from);
    if let Some(hooks) = &before_program {
        hooks.refuse_image(&settings.own_image)?;
    }
    if plan.no_new_privileges {
        credentials::set_no_new_privs().step(|| "set no_new_privs".to_owned())?;
    } else {
        // Without no_new_privs loading a filter takes CAP_SYS_ADMIN, which is about to go.
        load_filter(settings, channel)?;
    }
    take_identity(plan, channel)?;
    if entered.is_err() {
        enter_working_directory(plan, &own_root()?)?;
    }
    credentials::set_umask(plan.umask);
    let program = harmless.and_then(|()| Ok(program::find(&plan.args[0], &env)?));
    let program = if settings.program_at_start { program } else { Ok(program?) };

    // Not last, then: the creator, which has to hand its listener on, may be gone after the next step.
    let asks = settings.seccomp.as_ref().is_some_and(|filter| filter.listener.is_some());
    if plan.no_new_privileges && asks {
        load_filter(settings, channel)?;
    }
    if !channel.ready(console.as_ref().map(AsFd::as_fd)) {
        return Err(Error::Refused("the creator can't be told that all is ready".to_owned()));
    }
    drop(console);
    // Open until the exec: whoever started us by the FIFO sees by its end that the program runs.
    let gate = wait_for_start(fifo.as_ref(), channel)?;
    let execute = || {
        let path = program?;
        if plan.no_new_privileges && !asks {
            // Last of all, so that the filter need not allow anything but the exec.
            load_filter(settings, channel)?;
        }
        if let Some(hooks) = &before_program {
            hooks.run(&env)?;
        }
        let Err(error) = sys::process::execve(&path, &plan.args, &env);
        Err(program::explain(&path, error.errno()).into())
    };
    execute().inspect_err(|_| {
        // With a word before it the end is none of a program that runs. A filter may forbid it; then the end has to do.
        let _ = gate.map(|mut gate| std::io::Write::write_all(&mut gate, b"1"));
    })
}

fn connect_streams(
    plan: &ProcessPlan,
    stdio: &mut StdioFds,
    null: Option<&OwnedFd>,
    console: Option<&Pty>,
) -> Result<(), Error> {
    let step = || "connect the standard streams".to_owned();
    if let Some(console) = console {
        let peer = console.peer.as_fd();
        give_to_user(plan, peer)?;
        return sys::fd::install_table(&[peer; 3], Vec::new()).map(drop).step(step);
    }
    let streams = [stdio.stdin.take(), stdio.stdout.take(), stdio.stderr.take()];
    for stream in streams.iter().flatten() {
        give_to_user(plan, stream.as_fd())?;
    }
    let given: Vec<BorrowedFd<'_>> =
        streams.iter().filter_map(|stream| stream.as_ref().or(null)).map(AsFd::as_fd).collect();
    let table = <[BorrowedFd<'_>; 3]>::try_from(given);
    let table =
        table.map_err(|_| Error::Refused("a standard stream is missing, and no null device is open".to_owned()))?;
    sys::fd::install_table(&table, Vec::new()).map(drop).step(step)
}

/// A stream that the user may not open again (`/dev/stderr`) is a common surprise. What can't be given is left as it is:
/// a file on a read-only or foreign file system.
fn give_to_user(plan: &ProcessPlan, stream: BorrowedFd<'_>) -> Result<(), Error> {
    let step = || "give a standard stream to the user".to_owned();
    let stat = at::fstat(&stream).step(step)?;
    if stat.st_uid == plan.uid || crate::host::is_null(&stream).step(step)? {
        return Ok(());
    }
    match at::fchown(&stream, plan.uid, stat.st_gid) {
        Err(error) if [Errno::EINVAL, Errno::EPERM, Errno::EROFS, Errno::ENOSYS].contains(&error.errno()) => Ok(()),
        given => given.step(step),
    }
}

/// Makes room for `rlimits` above the creator's own hard ones, while the right to is there: it is not in a user namespace. The
/// limits themselves come last, since they may be too narrow for what is done until then.
pub(crate) fn raise_hard_limits(plan: &ProcessPlan, settings: &Settings) -> Result<(), Error> {
    for limit in &plan.rlimits {
        let step = || format!("set {} to {}:{}", limit.resource, limit.limit.soft, limit.limit.hard);
        let own = credentials::limit(limit.resource).step(step)?;
        if limit.limit.hard > own.hard {
            match credentials::set_limit(limit.resource, Limit { hard: limit.limit.hard, ..own }) {
                Err(error) if settings.best_effort_rlimits && error.is(Errno::EPERM) => {}
                raised => raised.step(step)?,
            }
        }
    }
    Ok(())
}

fn set_rlimits(plan: &ProcessPlan, settings: &Settings) -> Result<(), Error> {
    for limit in &plan.rlimits {
        let step = || format!("set {} to {}:{}", limit.resource, limit.limit.soft, limit.limit.hard);
        match credentials::set_limit(limit.resource, limit.limit) {
            Err(error) if settings.best_effort_rlimits && error.is(Errno::EPERM) => {
                let allowed = credentials::limit(limit.resource).step(step)?.hard;
                let hard = limit.limit.hard.min(allowed);
                let soft = limit.limit.soft.min(hard);
                credentials::set_limit(limit.resource, Limit { soft, hard }).step(step)?;
            }
            set => set.step(step)?,
        }
    }
    Ok(())
}

/// Loads the filter; one that asks an agent has the creator hand its listener on.
fn load_filter(settings: &Settings, channel: &Channel) -> Result<(), Error> {
    let step = || "load linux.seccomp".to_owned();
    match &settings.seccomp {
        Some(Filter { program, flags, listener: None }) => credentials::seccomp_load(program, *flags).step(step),
        Some(Filter { program, flags, listener: Some(_) }) => {
            let listener = credentials::seccomp_load_with_listener(program, *flags).step(step)?;
            channel.ask(Request::Listener(listener.as_raw_fd()), None)
        }
        None => Ok(()),
    }
}

/// Through an fd that was resolved inside the root: a `cwd` such as `/proc/self/fd/7` is a magic link, which is refused,
/// and the directory that is entered is one of the container's (CVE-2024-21626).
fn enter_working_directory(plan: &ProcessPlan, root: &RootFd) -> Result<(), Error> {
    root.open_with(&plan.cwd, OFlag::O_PATH | OFlag::O_DIRECTORY)
        .and_then(|directory| sys::process::change_directory(&directory))
        .step(|| format!("enter working directory {}", plan.cwd.display()))
}

/// A user namespace that is joined may forbid setgroups(2) (user_namespaces(7)). Then there are no groups: its creator's own
/// were shed before it was entered.
fn set_groups(plan: &ProcessPlan) -> Result<(), Error> {
    let step = || "set process.user.additionalGids".to_owned();
    match credentials::set_groups(&plan.groups) {
        Err(error)
            if error.is(Errno::EPERM) && plan.groups == [plan.gid] && credentials::groups().step(step)?.is_empty() =>
        {
            Ok(())
        }
        set => set.step(step),
    }
}

fn take_identity(plan: &ProcessPlan, channel: &Channel) -> Result<(), Error> {
    let sets = &plan.capabilities;
    // The bounding set goes while CAP_SETPCAP is there; what is permitted has to survive the change of ids.
    credentials::drop_bounding(sets.bounding).step(|| "set process.capabilities.bounding".to_owned())?;
    credentials::set_keep_capabilities(true).step(|| "keep capabilities".to_owned())?;
    set_groups(plan)?;
    credentials::set_gid(plan.gid).step(|| format!("set process.user.gid to {}", plan.gid))?;
    credentials::set_uid(plan.uid).step(|| format!("set process.user.uid to {}", plan.uid))?;
    credentials::set_keep_capabilities(false).step(|| "keep capabilities".to_owned())?;
    let wanted = CapabilitySets { effective: sets.effective, permitted: sets.permitted, inheritable: sets.inheritable };
    wanted.apply().step(|| "set process.capabilities".to_owned())?;
    credentials::clear_ambient().step(|| "set process.capabilities.ambient".to_owned())?;
    for capability in sets.ambient.each() {
        // As runc, since engines ask for ambient ones that are not inheritable.
        if let Err(error) = credentials::raise_ambient(capability) {
            channel.warn(&format!("can't raise ambient capability {capability:?}: {error}"));
        }
    }
    Ok(())
}

/// The FIFO, if it was one that we waited behind.
fn wait_for_start(fifo: Option<&Fifo>, channel: &Channel) -> Result<Option<std::fs::File>, Error> {
    let Some(fifo) = fifo else {
        return match channel.wait() {
            true => Ok(None),
            false => Err(Error::Refused("the creator ended before the start".to_owned())),
        };
    };
    let step = || "wait behind the FIFO".to_owned();
    // Opening waits for a reader, who is told with one byte that it found us.
    let gate = at::openat(&fifo.directory, &fifo.name, OFlag::O_WRONLY, 0).step(step)?;
    let mut gate = std::fs::File::from(gate);
    std::io::Write::write_all(&mut gate, b"0")
        .map_err(|error| sys::Error::from_io("write", &error, sys::error::fd(&gate)))
        .step(step)?;
    Ok(Some(gate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn home_is_that_of_the_user_id() {
        let passwd = b"root:x:0:0:root:/root:/bin/sh\n# comment\n\nweb:x:33:33::/var/www:/bin/false\nbad:x:34\nx:x:35:0::rel:/\n";
        for (uid, home) in [(0, Some("/root")), (33, Some("/var/www")), (34, None), (35, None), (1000, None)] {
            assert_eq!(home_in(passwd, uid), home.map(str::as_bytes), "{uid}");
        }
    }
}
