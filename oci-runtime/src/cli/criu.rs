//! CRIU, which saves and restores processes: one call of its program for each (`criu swrk`, <https://criu.org/RPC>).
//!
//! A request goes to it over a socket; while it works it asks us to do our part at certain points, and at the end it says how
//! it went. Its log names what it could not do.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use sys::Errno;

use super::Error;
use super::args::{self, Stop};
use wire::{Message, fields};

pub(crate) mod wire;

/// The flags that checkpoint and restore share.
#[derive(Debug, Default)]
pub(crate) struct Flags {
    pub(crate) image_path: Option<PathBuf>,
    pub(crate) work_path: Option<PathBuf>,
    tcp_established: bool,
    ext_unix_sk: bool,
    shell_job: bool,
    file_locks: bool,
    auto_dedup: bool,
    pub(crate) lazy_pages: bool,
    manage_cgroups: Option<CgroupMode>,
    /// `CLONE_NEW*` of namespaces whose content is left out.
    empty_namespaces: u32,
}

pub(crate) const FLAGS: &[(&str, &str)] = &[
    ("--image-path DIR", "where the images are; `checkpoint` in the working directory without it"),
    ("--work-path DIR", "where criu puts its log; the images' directory without it"),
    ("--tcp-established", "take open TCP connections along"),
    ("--ext-unix-sk", "allow Unix sockets whose other end is outside"),
    ("--shell-job", "allow a session and terminal from outside"),
    ("--file-locks", "take file locks along"),
    ("--auto-dedup", "remove pages from parent images that newer ones have"),
    ("--lazy-pages", "restore memory when it is used (userfaultfd)"),
    ("--manage-cgroups-mode MODE", "soft (the default), full, strict or ignore"),
    ("--empty-ns NAMESPACE", "leave out what is in the namespace; only network"),
];

/// How criu treats cgroups (`enum criu_cg_mode`).
#[derive(Debug, Clone, Copy)]
enum CgroupMode {
    Ignore = 0,
    Soft = 3,
    Full = 4,
    Strict = 5,
}

impl Flags {
    pub(crate) fn read(&mut self, name: &str, parser: &mut lexopt::Parser) -> Result<(), Stop> {
        let switch = match name {
            "--tcp-established" => &mut self.tcp_established,
            "--ext-unix-sk" => &mut self.ext_unix_sk,
            "--shell-job" => &mut self.shell_job,
            "--file-locks" => &mut self.file_locks,
            "--auto-dedup" => &mut self.auto_dedup,
            "--lazy-pages" => &mut self.lazy_pages,
            name => return self.read_value(name, parser),
        };
        *switch = args::switch(parser, name)?;
        Ok(())
    }

    fn read_value(&mut self, name: &str, parser: &mut lexopt::Parser) -> Result<(), Stop> {
        match name {
            "--image-path" => self.image_path = args::path(parser)?,
            "--work-path" => self.work_path = args::path(parser)?,
            "--manage-cgroups-mode" => {
                self.manage_cgroups = Some(match args::text(parser)?.as_str() {
                    "soft" => CgroupMode::Soft,
                    "full" => CgroupMode::Full,
                    "strict" => CgroupMode::Strict,
                    "ignore" => CgroupMode::Ignore,
                    _ => return Err("Invalid manage-cgroups-mode value".into()),
                });
            }
            "--empty-ns" => match args::text(parser)?.as_str() {
                "network" => self.empty_namespaces |= sys::process::CloneFlags::CLONE_NEWNET.bits().cast_unsigned(),
                other => return Err(format!("namespace {other:?} is not supported").into()),
            },
            name => return Err(args::unknown(name)),
        }
        Ok(())
    }

    /// `criu_opts`, with what both verbs want; `log` is the name of criu's log.
    pub(crate) fn options(&self, images: &OwnedFd, work: &OwnedFd, log: &str) -> Message {
        let mut options = Message::default();
        options
            .number(1, sys::fd::number(images).cast_unsigned().into())
            .switch(4, self.ext_unix_sk)
            .switch(5, self.tcp_established)
            .switch(7, self.shell_job)
            .switch(8, self.file_locks)
            .number(9, LOG_DEBUG)
            .text(10, log)
            .switch(12, true)
            .switch(16, self.auto_dedup)
            .number(17, sys::fd::number(work).cast_unsigned().into())
            .switch(24, true)
            .number(34, self.manage_cgroups.unwrap_or(CgroupMode::Soft) as u64)
            .switch(48, self.lazy_pages)
            .switch(50, true);
        if self.empty_namespaces != 0 {
            options.number(38, self.empty_namespaces.into());
        }
        options
    }

    /// The directories of images and of the log, made if they are not there.
    pub(crate) fn directories(&self) -> Result<(OwnedFd, OwnedFd, PathBuf), Error> {
        let images = self.image_path.clone().unwrap_or_else(|| PathBuf::from("checkpoint"));
        let work = self.work_path.clone().unwrap_or_else(|| images.clone());
        Ok((directory(&images)?, directory(&work)?, work))
    }
}

/// What is said of [`add_config`] in both verbs' help.
pub(crate) const DETAILS: &str = "It takes the program criu, which also follows its own configuration files, and besides those\n\
    /etc/criu/runc.conf, or in its place what the annotation org.criu.config names, if that is not empty.\n\
    They count for more than the flags.";

/// The annotation of a container that names a configuration file of criu's.
pub(crate) const CONFIG_ANNOTATION: &str = "org.criu.config";

/// Names a configuration file that criu follows besides its own, as runc does: that of the container's annotation, an empty
/// one for none, or by default runc's. One that is not there is none to criu.
pub(crate) fn add_config(options: &mut Message, annotations: &HashMap<String, String>) {
    let named = annotations.get(CONFIG_ANNOTATION);
    options.text(51, named.map_or("/etc/criu/runc.conf", String::as_str));
}

/// Everything that it has to say: the log is for those who look for a reason.
const LOG_DEBUG: u64 = 4;

fn directory(path: &Path) -> Result<OwnedFd, Error> {
    let named = |error: std::io::Error| format!("open {}: {error}", path.display());
    std::fs::create_dir_all(path).map_err(named)?;
    Ok(std::fs::File::open(path).map_err(named)?.into())
}

/// What is asked for (`enum criu_req_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    Dump = 1,
    Restore = 2,
    PreDump = 4,
}

const NOTIFY: u64 = 6;

impl Request {
    fn name(self) -> &'static str {
        match self {
            Request::Dump => "DUMP",
            Request::Restore => "RESTORE",
            Request::PreDump => "PRE_DUMP",
        }
    }
}

/// One point of criu's work at which we are asked.
pub(crate) struct Notice<'a> {
    /// Its name, for example `post-restore`.
    pub(crate) script: &'a str,
    /// The first process, at points that are about it.
    pub(crate) pid: Option<i32>,
    /// At `orphan-pts-master` the terminal's master.
    pub(crate) fd: Option<OwnedFd>,
}

/// One call of criu.
pub(crate) struct Criu {
    process: Child,
    socket: OwnedFd,
}

impl Criu {
    /// Starts it with these standard streams.
    pub(crate) fn start(stdio: [Stdio; 3]) -> Result<Criu, Error> {
        let (socket, theirs) = sys::socket::pair()?;
        sys::fd::set_cloexec(&theirs, false)?;
        let [stdin, stdout, stderr] = stdio;
        let mut command = Command::new("criu");
        command.arg("swrk").arg(sys::fd::number(&theirs).to_string());
        // Its own message of a failure is in its log and in its answer.
        command.stdin(stdin).stdout(stdout).stderr(stderr).arg0(OsStr::new("criu"));
        let process = command.spawn().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                "criu is not installed: checkpoint and restore need the program of that name in $PATH".to_owned()
            }
            _ => format!("run criu: {error}"),
        })?;
        Ok(Criu { process, socket })
    }

    /// Asks, and attends to criu until it has done it: its answer. `work` is where it puts its log.
    pub(crate) fn ask(
        mut self,
        request: Request,
        options: &Message,
        log: &Path,
        attend: &mut dyn FnMut(Notice<'_>) -> Result<(), Error>,
    ) -> Result<Vec<u8>, Error> {
        let mut message = Message::default();
        message.number(1, request as u64).message(2, options);
        sys::socket::send(&self.socket, message.bytes(), &[])?;
        let answer = self.converse(request, log, attend);
        drop(self.socket);
        let _ended = self.process.wait();
        answer
    }

    fn converse(
        &self,
        request: Request,
        log: &Path,
        attend: &mut dyn FnMut(Notice<'_>) -> Result<(), Error>,
    ) -> Result<Vec<u8>, Error> {
        /// criu's own limit of a message.
        const MAX_MESSAGE: usize = 64 * 1024;
        loop {
            let mut buffer = vec![0; MAX_MESSAGE];
            let (length, fds) = match sys::socket::recv(&self.socket, &mut buffer) {
                // It ended without so much as reading the request.
                Err(error) if error.is(Errno::ECONNRESET) => (0, Vec::new()),
                received => received?,
            };
            buffer.truncate(length);
            let answer = fields(&buffer).ok_or("criu's answer is not a message")?;
            let number = |wanted| answer.number(wanted);
            match (number(1), number(2)) {
                (Some(NOTIFY), _) => {
                    let notice = answer.message(5).and_then(fields).ok_or("criu's notice is not a message")?;
                    let script = notice.text(1).unwrap_or_default();
                    let pid = notice.number(2).and_then(|pid| i32::try_from(pid).ok());
                    let done = attend(Notice { script, pid, fd: fds.into_iter().next() });
                    let mut message = Message::default();
                    message.number(1, NOTIFY).switch(3, done.is_ok());
                    sys::socket::send(&self.socket, message.bytes(), &[])?;
                    done?;
                }
                (Some(_), Some(1)) => return Ok(buffer),
                (None, _) => return Err(format!("criu ended without an answer\nlog file: {}", log.display()).into()),
                (Some(_), _) => {
                    let errno = number(7).unwrap_or(0);
                    let text = answer.text(9).unwrap_or_default();
                    let name = request.name();
                    return Err(
                        format!("criu failed: type {name} errno {errno}: {text}\nlog file: {}", log.display()).into()
                    );
                }
            }
        }
    }
}
