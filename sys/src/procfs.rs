//! [`ProcFd`]: a procfs of our own.
//!
//! Writes to `/proc` set LSM labels, user mappings and sysctls, so a container that can put something else in the way of one
//! redirects it (CVE-2019-16884, CVE-2025-52881). This procfs is a new, detached mount that nobody else can mount on; it is
//! checked to be one, and paths in it are resolved with openat2(2) `RESOLVE_BENEATH|RESOLVE_NO_XDEV|RESOLVE_NO_MAGICLINKS`.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, ResolveFlag};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};

use crate::error::{Error, Result, fd, flags, quoted, retry};
use crate::fs::write_once;
use crate::mount::{Fs, MountFlags, filesystem_magic};
use crate::process::{Pid, Stat};
use crate::rootfd::openat2;
use crate::{Errno, at};

/// `PROC_SUPER_MAGIC` of linux/magic.h.
const PROC_SUPER_MAGIC: i64 = 0x9fa0;
/// `PROC_ROOT_INO` of linux/proc_fs.h.
const PROC_ROOT_INO: u64 = 1;

/// A private, verified procfs. It shows the PID namespace of the process that made it; a child in a namespace below still finds
/// itself as `self`.
#[derive(Debug)]
pub struct ProcFd(OwnedFd);

impl AsFd for ProcFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl ProcFd {
    /// Makes one (fsopen(2) "proc"). Needs CAP_SYS_ADMIN in the user namespace of our PID namespace.
    pub fn open() -> Result<ProcFd> {
        let attributes = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        ProcFd::from_fd(Fs::open("proc")?.mount(attributes)?)
    }

    /// Takes the root of a procfs that another process of ours made, after checking that it is one.
    pub fn from_fd(root: OwnedFd) -> Result<ProcFd> {
        let magic = filesystem_magic(&root)?;
        let inode = at::fstat(&root)?.st_ino;
        if (magic, inode) != (PROC_SUPER_MAGIC, PROC_ROOT_INO) {
            let detail = format!("not the root of a procfs: type {magic:#x}, inode {inode}");
            return Err(Error::new("fstatfs", Errno::EXDEV, fd(&root)).with_detail(detail));
        }
        Ok(ProcFd(root))
    }

    /// Writes `value` to a file of our own process: `attr/exec`, `oom_score_adj`, `uid_map`. What is under `attr/` belongs to
    /// the calling thread.
    pub fn write_self(&self, name: &str, value: impl AsRef<[u8]>) -> Result<()> {
        let whose = if name.starts_with("attr/") { "thread-self" } else { "self" };
        write_once(&self.open_in(Path::new(whose), name, OFlag::O_WRONLY)?, value.as_ref())
    }

    /// Writes `value` to a file of the process `pid`: its `uid_map`, `gid_map`, `setgroups`.
    pub fn write_of(&self, pid: Pid, name: &str, value: impl AsRef<[u8]>) -> Result<()> {
        write_once(&self.open_in(Path::new(&pid.to_string()), name, OFlag::O_WRONLY)?, value.as_ref())
    }

    /// Sets a kernel parameter by its name in dots, as sysctl(8) writes it: `net.ipv4.ip_forward`. The namespaces of the
    /// calling process decide which `net.` and `kernel.` values those are.
    pub fn write_sysctl(&self, name: &str, value: impl AsRef<[u8]>) -> Result<()> {
        let path = sysctl_path(name).ok_or_else(|| {
            Error::new("openat2", Errno::EINVAL, quoted(name)).with_detail("not the name of a sysctl")
        })?;
        let knob = self.open_path(&path, OFlag::O_WRONLY, ResolveFlag::RESOLVE_NO_SYMLINKS)?;
        write_once(&knob, value.as_ref())
    }

    /// The value of a kernel parameter, without the newline at its end.
    pub fn read_sysctl(&self, name: &str) -> Result<String> {
        let path = sysctl_path(name).ok_or_else(|| {
            Error::new("openat2", Errno::EINVAL, quoted(name)).with_detail("not the name of a sysctl")
        })?;
        Ok(self.read_file(&path)?.trim_end_matches('\n').to_owned())
    }

    /// A namespace of the calling thread, by its name in `/proc/[pid]/ns`: `net`, `time_for_children`. For a thread whose own
    /// `/proc` is not to be trusted.
    pub fn own_namespace(&self, name: &str) -> Result<OwnedFd> {
        let how = OFlag::O_PATH | OFlag::O_DIRECTORY;
        let directory = self.open_path(Path::new("thread-self/ns"), how, ResolveFlag::empty())?;
        follow(&directory, at::component("openat", &directory, OsStr::new(name))?, OFlag::O_RDONLY)
    }

    /// Opens what an `O_PATH` fd of ours refers to, now for reading or writing, as [`at::reopen`] does; for a process whose own
    /// `/proc` is not to be trusted, or does not show it.
    pub fn reopen(&self, file: &impl AsFd, how: OFlag) -> Result<OwnedFd> {
        let directory =
            self.open_path(Path::new("self/fd"), OFlag::O_PATH | OFlag::O_DIRECTORY, ResolveFlag::empty())?;
        follow(&directory, OsStr::new(&crate::fd::number(file).to_string()), how - OFlag::O_NOFOLLOW)
    }

    /// Sets the permissions of what an `O_PATH` fd of ours refers to, as [`at::fchmod`] does; for a process as that of
    /// [`ProcFd::reopen`].
    pub fn chmod(&self, file: &impl AsFd, mode: u32) -> Result<()> {
        match at::fchmodat2_empty(file, mode) {
            Err(error) if error.is(Errno::ENOSYS) => self.chmod_link(file, mode),
            done => done,
        }
    }

    /// By the magic link, which chmod(2) follows: before Linux 6.6 no call takes an `O_PATH` fd.
    fn chmod_link(&self, file: &impl AsFd, mode: u32) -> Result<()> {
        let directory =
            self.open_path(Path::new("self/fd"), OFlag::O_PATH | OFlag::O_DIRECTORY, ResolveFlag::empty())?;
        let number = crate::fd::number(file).to_string();
        let permissions = Mode::from_bits_truncate(mode);
        retry(|| fchmodat(&directory, number.as_str(), permissions, FchmodatFlags::FollowSymlink))
            .map_err(|errno| Error::new("chmod", errno, format_args!("{}, {mode:#o}", fd(file))))
    }

    /// The content of `path` in this procfs (`self/status`, `42/cgroup`), at most 1 MiB.
    pub fn read(&self, path: &str) -> Result<String> {
        self.read_file(Path::new(path))
    }

    /// State, parent and start time of `pid`, as [`process::stat`](crate::process::stat) reads them from `/proc`. A process that
    /// is gone is ESRCH.
    pub fn stat(&self, pid: Pid) -> Result<Stat> {
        let path = format!("{pid}/stat");
        let text = self.read(&path).map_err(|error| match error.is(Errno::ENOENT) {
            true => Error::new("openat2", Errno::ESRCH, quoted(&path)),
            false => error,
        })?;
        let malformed = || Error::new("read", Errno::EBADMSG, quoted(&path)).with_detail("not the format of proc(5)");
        crate::process::parse(text.as_bytes()).ok_or_else(malformed)
    }

    /// The number of the process behind a pidfd of ours, in this procfs's PID namespace; ESRCH if it has none there, or none any
    /// more.
    pub fn pid_of(&self, pidfd: &impl AsFd) -> Result<Pid> {
        let path = format!("self/fdinfo/{}", crate::fd::number(pidfd));
        let text = self.read(&path)?;
        let pid = text.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok());
        let pid = pid.filter(|pid| *pid > 0).map(Pid::from_raw);
        pid.ok_or_else(|| Error::new("read", Errno::ESRCH, quoted(&path)).with_detail("no process is behind the pidfd"))
    }

    /// The directory of a process (`/proc/[pid]`) as an `O_PATH` fd, to read several of its files of the same process.
    pub fn process(&self, pid: Pid) -> Result<OwnedFd> {
        let how = OFlag::O_PATH | OFlag::O_DIRECTORY;
        self.open_path(Path::new(&pid.to_string()), how, ResolveFlag::RESOLVE_NO_SYMLINKS)
    }

    fn read_file(&self, path: &Path) -> Result<String> {
        let file = File::from(self.open_path(path, OFlag::O_RDONLY, ResolveFlag::empty())?);
        let mut text = Vec::new();
        let read = (&file).take(1 << 20).read_to_end(&mut text);
        read.map_err(|error| Error::from_io("read", &error, fd(&file)))?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Opens `name` below the directory `whose`; a `name` that climbs out of it is EXDEV.
    fn open_in(&self, whose: &Path, name: &str, how: OFlag) -> Result<OwnedFd> {
        let directory = self.open_path(whose, OFlag::O_PATH | OFlag::O_DIRECTORY, ResolveFlag::empty())?;
        openat2(&directory, Path::new(name), how | OFlag::O_NOFOLLOW, SAFE | ResolveFlag::RESOLVE_NO_SYMLINKS)
    }

    fn open_path(&self, path: &Path, how: OFlag, more: ResolveFlag) -> Result<OwnedFd> {
        openat2(self, path, how, SAFE | more)
    }
}

/// Opens what a magic link leads to: only these are followed, and they are of a procfs that is ours alone.
fn follow(directory: &OwnedFd, name: &OsStr, how: OFlag) -> Result<OwnedFd> {
    let how = how | OFlag::O_CLOEXEC;
    retry(|| nix::fcntl::openat(directory, name, how, Mode::empty())).map_err(|errno| {
        Error::new("openat", errno, format_args!("{}, {}, {}", fd(directory), quoted(name), flags(how)))
    })
}

const SAFE: ResolveFlag =
    ResolveFlag::RESOLVE_BENEATH.union(ResolveFlag::RESOLVE_NO_XDEV).union(ResolveFlag::RESOLVE_NO_MAGICLINKS);

/// `net.ipv4.conf.eth0/100.mtu` is `sys/net/ipv4/conf/eth0.100/mtu`: with a dot as first separator the two change places,
/// with a slash the name is a path already (sysctl.d(5)). `None` for what is not a plain name.
fn sysctl_path(name: &str) -> Option<PathBuf> {
    let dotted = matches!(name.find(['.', '/']), Some(first) if name.as_bytes()[first] == b'.');
    let swap = |character| match character {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    let path: String = if dotted { name.chars().map(swap).collect() } else { name.to_owned() };
    let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains(char::is_control);
    (path.contains('/') && path.split('/').all(plain)).then(|| Path::new("sys").join(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sysctl_is_named_with_dots_or_slashes() {
        let table = [
            ("net.ipv4.ip_forward", Some("sys/net/ipv4/ip_forward")),
            ("net/ipv4/ip_forward", Some("sys/net/ipv4/ip_forward")),
            ("net.ipv4.conf.eth0/100.mtu", Some("sys/net/ipv4/conf/eth0.100/mtu")),
            ("net/ipv4/conf/eth0.100/mtu", Some("sys/net/ipv4/conf/eth0.100/mtu")),
            ("kernel", None),
            ("", None),
            ("..", None),
            ("kernel./.core_pattern", None), // a component "."
            ("kernel//./core", None),
            ("kernel/../../x", None),
            ("kernel..x", None),
            (".kernel.x", None),
            ("kernel.core\npattern", None),
        ];
        for (name, expected) in table {
            assert_eq!(sysctl_path(name).as_deref(), expected.map(Path::new), "{name:?}");
        }
    }

    #[test]
    fn a_directory_that_is_not_a_procfs_is_refused() {
        let error = ProcFd::from_fd(File::open("/").unwrap().into()).unwrap_err();
        assert!(error.to_string().contains("not the root of a procfs"), "{error}");
        let error = ProcFd::from_fd(File::open("/proc/self").unwrap().into()).unwrap_err();
        assert!(error.to_string().contains("not the root of a procfs"), "{error}");
    }

    #[test]
    fn what_an_o_path_fd_refers_to_has_its_mode_changed_on_any_kernel() {
        let proc = ProcFd::from_fd(File::open("/proc").unwrap().into()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        nix::unistd::mkfifo(&directory.path().join("fifo"), Mode::S_IRUSR).unwrap();
        let directory = File::open(directory.path()).unwrap();
        let fifo = at::openat(&directory, "fifo", OFlag::O_PATH, 0).unwrap();
        for (set, mode) in
            [(ProcFd::chmod as fn(&ProcFd, &OwnedFd, u32) -> Result<()>, 0o1604), (ProcFd::chmod_link, 0o4711)]
        {
            set(&proc, &fifo, mode).unwrap();
            assert_eq!(at::fstat(&fifo).unwrap().st_mode & 0o7777, mode);
        }
    }

    #[test]
    fn a_pidfd_tells_its_number_and_a_number_its_start() {
        let proc = ProcFd::from_fd(File::open("/proc").unwrap().into()).unwrap();
        let pidfd = crate::process::PidFd::open(Pid::this()).unwrap();
        assert_eq!(proc.pid_of(&pidfd).unwrap(), Pid::this());
        let stat = proc.stat(Pid::this()).unwrap();
        assert_eq!(stat.start_time, crate::process::start_time(Pid::this()).unwrap());
        assert!(stat.has_executed);
        assert!(proc.stat(Pid::from_raw(i32::MAX)).unwrap_err().is(Errno::ESRCH));
        assert!(proc.pid_of(&proc).unwrap_err().is(Errno::ESRCH));
    }

    #[test]
    fn a_thread_finds_its_own_namespaces() {
        use crate::namespace::{self, Kind};
        let proc = ProcFd::from_fd(File::open("/proc").unwrap().into()).unwrap();
        for kind in Kind::ALL {
            let own = proc.own_namespace(kind.file_name()).unwrap();
            assert!(namespace::same(&own, &namespace::current(kind).unwrap()).unwrap(), "{kind:?}");
        }
        assert!(proc.own_namespace("nothing").unwrap_err().is(Errno::ENOENT));
    }

    #[test]
    fn a_real_procfs_is_read_and_written_without_magic_links() {
        let proc = ProcFd::from_fd(File::open("/proc").unwrap().into()).unwrap();
        assert!(proc.read("self/status").unwrap().contains("Name:"));
        let score = proc.read("self/oom_score_adj").unwrap();
        proc.write_self("oom_score_adj", score.trim()).unwrap();
        assert!(proc.read("self/exe").unwrap_err().is(Errno::ELOOP));
        assert!(proc.write_self("../1/oom_score_adj", "0").unwrap_err().is(Errno::EXDEV));
        assert!(!proc.read_sysctl("kernel.ostype").unwrap().ends_with('\n'));
        let error = proc.write_self("oom_score_adj", "2000").unwrap_err();
        assert!(error.to_string().contains("oom_score_adj\", \"2000\")"), "{error}");
    }
}
