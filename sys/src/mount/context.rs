//! [`Fs`]: a file system being configured (fsopen(2), fsconfig(2), fsmount(2)).

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::libc;

use super::{MountFlags, c_text, pointer};
use crate::Errno;
use crate::error::{Error, Result, fd, flags, quoted};
use crate::fd::own;

/// The longest value that the kernel takes (fs/fsopen.c).
pub const MAX_STRING: usize = 255;

/// The commands of fsconfig(2), enum fsconfig_command of linux/mount.h.
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types, reason = "printed as strace prints them")]
enum Command {
    FSCONFIG_SET_FLAG = 0,
    FSCONFIG_SET_STRING = 1,
    FSCONFIG_SET_FD = 5,
    FSCONFIG_CMD_CREATE = 6,
    FSCONFIG_CMD_RECONFIGURE = 7,
}

/// A file system context. Options are set one by one, then [`mount`](Self::mount) makes a detached mount.
///
/// An error carries the text that the file system wrote into the context's log ("overlay: …"), which says far more than
/// the number.
#[derive(Debug)]
pub struct Fs(OwnedFd);

impl AsFd for Fs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Fs {
    /// Starts a new file system of the given type (fsopen(2)).
    pub fn open(fstype: &str) -> Result<Fs> {
        const FSOPEN_CLOEXEC: u32 = 1;
        let name = c_text("fsopen", fstype)?;
        // SAFETY: a NUL-terminated string; the kernel returns a new fd or an error.
        let result = unsafe { libc::syscall(libc::SYS_fsopen, name.as_ptr(), FSOPEN_CLOEXEC) };
        let opened = Errno::result(result)
            .map_err(|errno| Error::new("fsopen", errno, format_args!("{}, FSOPEN_CLOEXEC", quoted(fstype))))?;
        // SAFETY: a new fd that nothing else owns.
        Ok(Fs(unsafe { own(opened) }))
    }

    /// Takes up the file system that is mounted at `mount`, to [`reconfigure`](Self::reconfigure) it (fspick(2)).
    pub fn pick(mount: &impl AsFd) -> Result<Fs> {
        const FSPICK_CLOEXEC: u32 = 1;
        const FSPICK_EMPTY_PATH: u32 = 8;
        let number = mount.as_fd().as_raw_fd();
        let how = FSPICK_CLOEXEC | FSPICK_EMPTY_PATH;
        // SAFETY: the fd is borrowed for the call, the path is the static empty string.
        let result = unsafe { libc::syscall(libc::SYS_fspick, number, c"".as_ptr(), how) };
        let opened = Errno::result(result).map_err(|errno| {
            Error::new("fspick", errno, format_args!("{}, \"\", FSPICK_CLOEXEC|FSPICK_EMPTY_PATH", fd(mount)))
        })?;
        // SAFETY: a new fd that nothing else owns.
        Ok(Fs(unsafe { own(opened) }))
    }

    /// Sets an option without a value (`ro`, `newinstance`).
    pub fn set_flag(&self, key: &str) -> Result<&Fs> {
        self.configure(Command::FSCONFIG_SET_FLAG, Some(key), None, 0)
    }

    /// Sets an option (`size`, `upperdir`, `source`); the value is at most 255 bytes. Some keys add up when they are
    /// given again: overlay's `lowerdir+` (Linux 6.8), uppermost layer first.
    pub fn set_string(&self, key: &str, value: &str) -> Result<&Fs> {
        self.configure(Command::FSCONFIG_SET_STRING, Some(key), Some(value), 0)
    }

    /// Sets an option to a directory held by fd (overlay's `lowerdir+`, `upperdir`, `workdir`: Linux 6.13).
    pub fn set_fd(&self, key: &str, value: &impl AsFd) -> Result<&Fs> {
        self.configure(Command::FSCONFIG_SET_FD, Some(key), None, value.as_fd().as_raw_fd())
    }

    /// Makes the file system and a detached mount of it with `attributes` (fsconfig(2) `FSCONFIG_CMD_CREATE`,
    /// fsmount(2)).
    pub fn mount(&self, attributes: MountFlags) -> Result<OwnedFd> {
        const FSMOUNT_CLOEXEC: u32 = 1;
        self.configure(Command::FSCONFIG_CMD_CREATE, None, None, 0)?;
        let number = self.0.as_raw_fd();
        // SAFETY: our own fd and two integers; the kernel returns a new fd or an error.
        let result = unsafe { libc::syscall(libc::SYS_fsmount, number, FSMOUNT_CLOEXEC, attributes.bits()) };
        let mounted = Errno::result(result).map_err(|errno| {
            let error =
                Error::new("fsmount", errno, format_args!("{}, FSMOUNT_CLOEXEC, {}", fd(self), flags(attributes)));
            self.explain(error)
        })?;
        // SAFETY: a new fd that nothing else owns.
        Ok(unsafe { own(mounted) })
    }

    /// Applies the options to a file system that is mounted (fsconfig(2) `FSCONFIG_CMD_RECONFIGURE`): the remount of a
    /// superblock.
    pub fn reconfigure(&self) -> Result<()> {
        self.configure(Command::FSCONFIG_CMD_RECONFIGURE, None, None, 0).map(drop)
    }

    fn configure(&self, command: Command, key: Option<&str>, value: Option<&str>, aux: i32) -> Result<&Fs> {
        let c_key = key.map(|key| c_text("fsconfig", key)).transpose()?;
        let c_value = value.map(|value| c_text("fsconfig", value)).transpose()?;
        let (c_key, c_value): (Option<&CStr>, Option<&CStr>) = (c_key.as_deref(), c_value.as_deref());
        // SAFETY: our own fd; key and value are NULL or NUL-terminated strings that live through the call.
        let result = unsafe {
            let (key, value) = (pointer(c_key), pointer(c_value));
            libc::syscall(libc::SYS_fsconfig, self.0.as_raw_fd(), command as u32, key, value, aux)
        };
        match Errno::result(result) {
            Ok(_) => Ok(self),
            Err(errno) => {
                let show = |text: Option<&str>| text.map_or("NULL".to_owned(), |text| quoted(text).to_string());
                let arguments = format!("{}, {command:?}, {}, {}, {aux}", fd(self), show(key), show(value));
                let error = self.explain(Error::new("fsconfig", errno, arguments));
                Err(match value {
                    Some(value) if value.len() > MAX_STRING => {
                        error.with_detail(format!("a value has at most {MAX_STRING} bytes"))
                    }
                    _ => error,
                })
            }
        }
    }

    /// `error` with what the file system wrote into the log of the context since the last call.
    fn explain(&self, error: Error) -> Error {
        let log = self.read_log();
        if log.is_empty() { error } else { error.with_detail(log) }
    }

    /// The messages of the context: each read(2) gives one, `e text\n`, and ENODATA when there is none left.
    fn read_log(&self) -> String {
        let mut messages = Vec::new();
        let mut buffer = [0_u8; 512];
        while let Ok(length @ 1..) = nix::unistd::read(&self.0, &mut buffer) {
            let message = String::from_utf8_lossy(&buffer[..length]);
            let text = message.split_once(' ').map_or(&*message, |(_severity, text)| text);
            messages.push(text.trim_end().to_owned());
        }
        messages.join("; ")
    }
}
