//! The runtime's own file, which a container must never be able to write (CVE-2019-5736).
//!
//! A container's process that is made to execute `/proc/self/exe`, by its entry point or by a script's `#!` line, runs our
//! file inside the container, and can open it from there. Three things stand against that: the program is compared
//! with our file before it is executed; until then the process is not dumpable, so nobody there can look at its
//! `/proc/<pid>/exe`; and the file is executed through a read-only mount of its own, so that whoever gets hold of it all
//! the same can't open it for writing, now or when no process runs it any more.

use std::convert::Infallible;
use std::ffi::{CString, OsString};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use sys::at::{self, FileStat};
use sys::mount::{Attr, MountFlags, Propagation, clone_tree, is_read_only, mount_setattr};

use crate::error::{Error, Step};

/// Makes sure that this process was executed through a read-only mount: if not, executes itself again through a detached one.
/// The first thing in `main`, before any thread and any file: only arguments and environment survive, and what was inherited.
///
/// # Errors
/// The kernel refuses the mount or the exec.
pub fn protect() -> Result<(), Error> {
    let step = || "execute the runtime from a read-only mount".to_owned();
    if is_read_only(&open().step(step)?).step(step)? {
        return Ok(());
    }
    let Err(error) = execute_again();
    Err(error).step(step)
}

/// For [`init`](crate::init) to recognise it.
pub(crate) fn stat() -> Result<FileStat, Error> {
    open().and_then(|image| at::fstat(&image)).step(|| "look at the runtime's own image".to_owned())
}

fn open() -> sys::Result<OwnedFd> {
    let opened = std::fs::File::open("/proc/self/exe");
    opened.map(OwnedFd::from).map_err(|error| sys::Error::from_io("open", &error, "\"/proc/self/exe\""))
}

fn execute_again() -> sys::Result<Infallible> {
    let image = clone_tree("/proc/self/exe", false)?;
    let change = Attr { set: MountFlags::RDONLY, propagation: Some(Propagation::Private), ..Attr::default() };
    mount_setattr(&image, false, &change)?;
    let path = c_string(format!("/proc/self/fd/{}", image.as_raw_fd()).into());
    let arguments: Vec<CString> = std::env::args_os().map(c_string).collect();
    let environment: Vec<CString> = std::env::vars_os()
        .map(|(mut name, value)| {
            name.push("=");
            name.push(value);
            c_string(name)
        })
        .collect();
    sys::process::execve(&path, &arguments, &environment)
}

/// What came from an exec holds no NUL.
fn c_string(text: OsString) -> CString {
    CString::new(text.into_vec()).unwrap_or_default()
}
