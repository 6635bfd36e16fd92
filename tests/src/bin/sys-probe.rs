//! Scenarios that need a process with one thread, which a test binary is not: cloning, forking, pivoting.
//!
//! `tests/root/process.rs` runs each by name: `sys-probe NAME [ARGUMENT]`. Success is exit code 0; a failure is told on
//! standard error.

use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use sys::bpf::{Instruction, Program};
use sys::mount::{self, Fs, MountFlags, Propagation};
use sys::namespace::{self, CloneFlags, Kind};
use sys::process::{self, CloneArgs, Exit, Fork, Pid, Process, Signal};
use sys::procfs::ProcFd;
use sys::rootfd::RootFd;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (name, argument) = (arguments.next().unwrap_or_default(), arguments.next().unwrap_or_default());
    let result = match name.as_str() {
        "clone" => clone_with_pidfd(),
        "sibling" => clone_a_sibling(),
        "into-cgroup" => clone_into_cgroup(Path::new(&argument)),
        "real-time-signal" => killed_by_a_real_time_signal(),
        "pid-namespace" => join_a_pid_namespace(),
        "fds" => exec_with_a_table_of_fds(),
        "signals" => reset_signals(),
        "pivot" => pivot_into_a_detached_mount(),
        "procfs" => write_past_a_mount_over_proc(),
        "identity" => change_ids_and_capabilities(),
        "interrupted-load" => load_device_programs_under_signals(),
        "stranger" => connect_as_nobody(Path::new(&argument)),
        other => Err(anyhow::anyhow!("no scenario {other:?}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs `work` as the child's whole life.
fn live(work: impl FnOnce() -> Result<()>) -> ! {
    match work() {
        Ok(()) => process::exit_now(0),
        Err(error) => {
            eprintln!("child: {error:#}");
            process::exit_now(1)
        }
    }
}

/// Connects to a socket that is for root only, as somebody else: its owner has to hang up without a word.
fn connect_as_nobody(socket: &Path) -> Result<()> {
    sys::credentials::set_gid(65534)?;
    sys::credentials::set_uid(65534)?;
    let connection = sys::socket::connect(socket)?;
    let hung_up = sys::poll::poll(&[(connection.as_fd(), sys::poll::Interest::READ)], None)?;
    ensure!(hung_up[0].contains(sys::poll::Interest::HANGUP), "not hung up: {hung_up:?}");
    Ok(())
}

/// Clones with `arguments`, lets the child do `work`, and returns it to the parent.
fn child(arguments: &CloneArgs<'_>, work: impl FnOnce() -> Result<()>) -> Result<process::Child> {
    match process::clone3(arguments)? {
        Fork::Child => live(work),
        Fork::Parent(child) => Ok(child),
    }
}

fn clone_with_pidfd() -> Result<()> {
    let (read, write) = sys::fd::pipe()?;
    let arguments = CloneArgs { pidfd: true, ..CloneArgs::default() };
    let made = match process::clone3(&arguments)? {
        Fork::Child => {
            drop(write);
            // Until the parent closes its end.
            let _ = File::from(read).read(&mut [0]);
            process::exit_now(7)
        }
        Fork::Parent(child) => child,
    };
    let pidfd = made.pidfd.context("no pidfd")?;
    ensure!(sys::fd::is_cloexec(&pidfd)?, "the pidfd survives an exec");
    ensure!(pidfd.try_wait()?.is_none(), "ended before it was let go");
    let known = Process::of(made.pid)?;
    ensure!(known.is_running()? && process::stat(made.pid)?.parent == Pid::this());
    drop(write);
    sys::poll::poll(&[(pidfd.as_fd(), sys::poll::Interest::READ)], None)?;
    ensure!(!known.is_running()?, "a process that waits to be reaped does not run");
    ensure!(pidfd.wait()? == Exit::Code(7));
    ensure!(known.open().unwrap_err().is(sys::Errno::ESRCH), "opened after it was reaped");
    ensure!(process::wait_any(true)?.is_none(), "nothing is left to reap");
    Ok(())
}

/// As the shim does it: a stage child makes the container as its own sibling.
fn clone_a_sibling() -> Result<()> {
    let (ours, theirs) = sys::socket::pair()?;
    let Fork::Parent(stage) = process::fork()? else {
        live(|| {
            let arguments =
                CloneArgs { flags: CloneFlags::CLONE_PARENT, exit_signal: None, pidfd: true, ..CloneArgs::default() };
            let container = child(&arguments, || process::exit_now(9))?;
            let pidfd = container.pidfd.context("no pidfd")?;
            sys::socket::send(&theirs, &container.pid.as_raw().to_ne_bytes(), &[pidfd.as_fd()])?;
            Ok(())
        })
    };
    let mut message = [0; 4];
    let (_, mut fds) = sys::socket::recv(&ours, &mut message)?;
    let pid = Pid::from_raw(i32::from_ne_bytes(message));
    ensure!(process::stat(pid)?.parent == Pid::this(), "not our child");
    ensure!(process::wait_for(stage.pid)?.is_success());
    let pidfd = process::PidFd::from_fd(fds.pop().context("no pidfd came")?);
    ensure!(pidfd.wait()? == Exit::Code(9));
    Ok(())
}

fn clone_into_cgroup(directory: &Path) -> Result<()> {
    let cgroup = File::open(directory)?;
    let name = directory.file_name().and_then(|name| name.to_str()).context("no name")?.to_owned();
    let arguments = CloneArgs { into_cgroup: Some(cgroup.as_fd()), ..CloneArgs::default() };
    let made = child(&arguments, || {
        let cgroups = std::fs::read_to_string("/proc/self/cgroup")?;
        let unified = cgroups.lines().find_map(|line| line.strip_prefix("0::")).context("no cgroup v2")?;
        ensure!(unified.ends_with(&name), "born in {unified}");
        Ok(())
    })?;
    ensure!(process::wait_for(made.pid)?.is_success());
    Ok(())
}

fn killed_by_a_real_time_signal() -> Result<()> {
    let (read, write) = sys::fd::pipe()?;
    let arguments = CloneArgs { pidfd: true, exit_signal: None, ..CloneArgs::default() };
    let made = match process::clone3(&arguments)? {
        Fork::Child => {
            drop(write);
            let _ = File::from(read).read(&mut [0]);
            process::exit_now(0)
        }
        Fork::Parent(child) => child,
    };
    let signal: sys::signal::Number = "SIGRTMIN+3".parse()?;
    made.pidfd.context("no pidfd")?.send_signal(signal)?;
    // Made without an exit signal, which a wait without __WALL would overlook.
    let (pid, exit) = process::wait_any(false)?.context("no child")?;
    ensure!((pid, exit.status()) == (made.pid, 128 + 37), "{exit:?}");
    Ok(())
}

/// As exec into a container does it: children into the PID namespace, and back.
fn join_a_pid_namespace() -> Result<()> {
    let (read, write) = sys::fd::pipe()?;
    let arguments = CloneArgs { flags: CloneFlags::CLONE_NEWPID, pidfd: true, ..CloneArgs::default() };
    let init = match process::clone3(&arguments)? {
        Fork::Child => {
            drop(write);
            let _ = File::from(read).read(&mut [0]);
            process::exit_now(0)
        }
        Fork::Parent(child) => child,
    };
    let theirs = namespace::of(init.pid, Kind::Pid)?;
    let before = namespace::pid_for_children()?;
    let guard = namespace::enter(&theirs, Kind::Pid)?;
    let joined = child(&CloneArgs::default(), || {
        ensure!(Pid::this() == Pid::from_raw(2), "we are {}", Pid::this());
        Ok(())
    })?;
    guard.leave()?;
    ensure!(namespace::same(&namespace::pid_for_children()?, &before)?, "not back");
    ensure!(process::wait_for(joined.pid)?.is_success());
    drop(write);
    ensure!(process::wait_for(init.pid)?.is_success());
    Ok(())
}

/// A program gets its table of fds and nothing else, whatever was open without close-on-exec before.
fn exec_with_a_table_of_fds() -> Result<()> {
    let (read, write) = sys::fd::pipe()?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    let leaked = sys::fd::duplicate(&null)?;
    sys::fd::set_cloexec(&leaked, false)?;
    let message = sys::fd::sealed_memfd(c"message", b"fd three", false)?;
    let Fork::Parent(made) = process::fork()? else {
        live(|| {
            let table: [BorrowedFd<'_>; 4] = [null.as_fd(), write.as_fd(), null.as_fd(), message.as_fd()];
            sys::fd::close_range_cloexec(3)?;
            let kept = sys::fd::install_table(&table, vec![sys::fd::duplicate(&read)?])?;
            ensure!(sys::fd::number(&kept[0]) > 3 && sys::fd::is_cloexec(&kept[0])?, "not kept");
            let script = "cat /proc/self/fd/3; for fd in /proc/$$/fd/*; do echo \" ${fd##*/}\"; done";
            let arguments = ["sh", "-c", script].map(|text| CString::new(text).unwrap_or_default());
            match process::execve(c"/bin/sh", &arguments, &[c"PATH=/usr/bin:/bin".into()])? {}
        })
    };
    drop(write);
    let output = String::from_utf8(sys::fd::read_bounded(&read, 4096)?)?;
    ensure!(process::wait_for(made.pid)?.is_success());
    let words: Vec<&str> = output.split_whitespace().collect();
    // 4 is the directory that the shell lists: the first free number, so nothing else is open.
    ensure!(words == ["fd", "three", "0", "1", "2", "3", "4"], "{output:?}");
    Ok(())
}

fn reset_signals() -> Result<()> {
    sys::signal::ignore(Signal::SIGUSR1)?;
    let mut blocked = sys::signal::SigSet::empty();
    blocked.add(Signal::SIGTERM);
    sys::signal::block(&blocked)?;
    let mask = |key: &str| -> Result<u64> {
        let status = std::fs::read_to_string("/proc/self/status")?;
        let line = status.lines().find_map(|line| line.strip_prefix(key)).context("no such line")?;
        Ok(u64::from_str_radix(line.trim(), 16)?)
    };
    ensure!(mask("SigIgn:")? & 1 << 9 != 0 && mask("SigBlk:")? == 1 << 14);
    sys::signal::reset_all()?;
    ensure!(mask("SigIgn:")? == 0 && mask("SigBlk:")? == 0);
    Ok(())
}

fn pivot_into_a_detached_mount() -> Result<()> {
    namespace::unshare(CloneFlags::CLONE_NEWNS)?;
    mount::set_propagation_root(Propagation::Slave)?;
    let fs = Fs::open("tmpfs")?;
    fs.set_string("source", "root")?.set_string("size", "64k")?;
    let detached = fs.mount(MountFlags::NOSUID | MountFlags::NODEV)?;
    let root = RootFd::from_fd(detached);
    let proc_directory = root.mkdir_all(Path::new("proc"), 0o755)?;
    mount::attach(&root, "/mnt")?;
    let procfs = Fs::open("proc")?.mount(MountFlags::empty())?;
    mount::move_mount(&procfs, &proc_directory).context("on a mount of the old tree")?;
    let target = root.try_clone()?;
    mount::pivot_root_to(&target)?;
    let mounts = sys::mountinfo::read()?;
    let points: Vec<_> = mounts.iter().map(|mount| mount.mount_point.as_path()).collect();
    ensure!(points == [Path::new("/"), Path::new("/proc")], "{mounts:?}");
    ensure!(mounts[0].options.contains("nosuid") && mounts[0].has_super_option("size=64k"), "{mounts:?}");
    ensure!(std::env::current_dir()? == Path::new("/"));
    let tight = mount::Attr { set: MountFlags::RDONLY | MountFlags::NOATIME, ..Default::default() };
    mount::mount_setattr(&target, false, &tight)?;
    let error = File::create("/x").unwrap_err();
    ensure!(error.raw_os_error() == Some(sys::Errno::EROFS as i32), "{error}");
    let Err(error) = Fs::open("tmpfs")?.set_string("size", "much").map(drop) else { bail!("taken") };
    ensure!(error.to_string().contains("FSCONFIG_SET_STRING, \"size\", \"much\""), "{error}");
    ensure!(error.to_string().contains("tmpfs: Bad value for 'size'"), "without the kernel's words: {error}");
    Ok(())
}

/// CVE-2025-52881: something lies over files of /proc when we write our attributes.
fn write_past_a_mount_over_proc() -> Result<()> {
    namespace::unshare(CloneFlags::CLONE_NEWNS)?;
    mount::set_propagation_root(Propagation::Private)?;
    let trap = Fs::open("tmpfs")?.mount(MountFlags::empty())?;
    let trap = RootFd::from_fd(trap);
    trap.create_file(Path::new("score"), 0o666)?;
    let procfs = ProcFd::open()?;
    let bait = mount::clone_fd(&trap.open_path(Path::new("score"))?, false);
    let bait = match bait {
        Ok(bait) => bait,
        // A file of a detached mount can be bound only from Linux 6.15 on: attach it first.
        Err(_) => {
            mount::attach(&trap, "/mnt")?;
            mount::clone_fd(&trap.open_path(Path::new("score"))?, false)?
        }
    };
    let own = format!("/proc/{}/oom_score_adj", Pid::this());
    mount::attach(&bait, &own)?;
    procfs.write_self("oom_score_adj", "321")?;
    ensure!(procfs.read("self/oom_score_adj")?.trim() == "321", "not written");
    ensure!(trap.read_bounded(Path::new("score"), 64)?.is_empty(), "written into the trap");
    // The host's own /proc, with the trap in it, is noticed.
    let seen = ProcFd::from_fd(File::open("/proc")?.into())?;
    let error = seen.write_self("oom_score_adj", "1").unwrap_err();
    ensure!(error.is(sys::Errno::EXDEV), "{error}");
    let error = procfs.write_sysctl("kernel.nothing_of_this_name", "1").unwrap_err();
    ensure!(error.is(sys::Errno::ENOENT), "{error}");
    namespace::unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS)?;
    procfs.write_sysctl("net.ipv4.ip_forward", "1")?;
    ensure!(procfs.read_sysctl("net.ipv4.ip_forward")? == "1");
    namespace::set_hostname("orlop-probe")?;
    ensure!(procfs.read_sysctl("kernel.hostname")? == "orlop-probe");
    Ok(())
}

/// In the order a runtime needs: bounding set, groups, ids with capabilities kept, the sets, ambient.
fn change_ids_and_capabilities() -> Result<()> {
    use sys::credentials;
    let keep = credentials::Capabilities::from_names(["CAP_NET_BIND_SERVICE", "CAP_KILL"])?;
    credentials::drop_bounding(keep)?;
    credentials::set_keep_capabilities(true)?;
    credentials::set_groups(&[2000, 3000])?;
    credentials::set_gid(1000)?;
    credentials::set_uid(1000)?;
    let sets = credentials::CapabilitySets { effective: keep, permitted: keep, inheritable: keep };
    sets.apply()?;
    credentials::clear_ambient()?;
    credentials::raise_ambient(credentials::Capabilities::from_name("CAP_KILL")?)?;
    credentials::set_no_new_privs()?;
    process::set_dumpable(false)?;
    let status = std::fs::read_to_string("/proc/thread-self/status")?;
    let line = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or("").trim().to_owned();
    ensure!(line("Uid:") == "1000\t1000\t1000\t1000" && line("Gid:") == "1000\t1000\t1000\t1000");
    ensure!(line("Groups:") == "2000 3000", "{}", line("Groups:"));
    for key in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:"] {
        ensure!(u64::from_str_radix(&line(key), 16)? == keep.0, "{key} {}", line(key));
    }
    ensure!(u64::from_str_radix(&line("CapAmb:"), 16)? == 1 << 5 && line("NoNewPrivs:") == "1");
    Ok(())
}

/// The verifier gives up a program with EAGAIN as soon as a signal waits for the process that loads it.
fn load_device_programs_under_signals() -> Result<()> {
    let ourselves = process::PidFd::open(Pid::this())?;
    let (leash, held) = sys::fd::pipe()?;
    let Fork::Parent(disturber) = process::fork()? else {
        live(|| {
            drop(held);
            let hung_up = [(leash.as_fd(), sys::poll::Interest::READ)];
            loop {
                ourselves.send_signal(Signal::SIGSTOP)?;
                ourselves.send_signal(Signal::SIGCONT)?;
                if !sys::poll::poll(&hung_up, Some(Duration::from_millis(1) * tests::slow()))?[0].is_empty() {
                    return Ok(());
                }
            }
        })
    };
    // BPF_MOV64_IMM r0, 1 and BPF_EXIT: long enough for a signal to come while the verifier looks at it.
    let allow = Instruction { code: 0xb7, registers: 0, offset: 0, immediate: 1 };
    let mut program = vec![allow; 1000];
    program.push(Instruction { code: 0x95, registers: 0, offset: 0, immediate: 0 });
    let loaded = (0..300).try_for_each(|_| Program::load_cgroup_device("interrupted", &program).map(drop));
    drop(held);
    ensure!(process::wait_for(disturber.pid)?.is_success(), "the disturber failed");
    loaded.map_err(Into::into)
}
