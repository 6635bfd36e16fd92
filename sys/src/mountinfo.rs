//! `/proc/[pid]/mountinfo`, parsed (proc_pid_mountinfo(5)).
//!
//! For looking, never for deciding where to mount: a line can be out of date when it is read.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use crate::Errno;
use crate::error::{Error, Result, quoted};
use crate::process::Pid;

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountInfo {
    /// Number of the mount, reused after it is gone.
    pub id: u32,
    /// Number of the mount that this one lies on.
    pub parent: u32,
    /// Device of the file system.
    pub major: u32,
    /// Device of the file system.
    pub minor: u32,
    /// The directory of the file system that is mounted; for a namespace `net:[4026532008]`.
    pub root: PathBuf,
    /// Where, as seen from the reading process's root.
    pub mount_point: PathBuf,
    /// Options of this mount (`rw,nosuid,relatime`).
    pub options: String,
    /// `shared:N`, `master:N`, `propagate_from:N`, `unbindable`.
    pub propagation: Vec<String>,
    /// The type, with its subtype (`fuse.sshfs`).
    pub fstype: String,
    /// What was mounted, or `none`.
    pub source: OsString,
    /// Options of the file system (`rw,memory`).
    pub super_options: String,
}

/// The mounts of the calling thread's mount namespace.
// thread-self: a thread can have a mount namespace of its own, and tests do.
pub fn read() -> Result<Vec<MountInfo>> {
    read_file("/proc/thread-self/mountinfo")
}

/// The mounts of another process's mount namespace.
pub fn read_of(pid: Pid) -> Result<Vec<MountInfo>> {
    read_file(&format!("/proc/{pid}/mountinfo"))
}

fn read_file(path: &str) -> Result<Vec<MountInfo>> {
    let text = crate::fs::read_generated(path).map_err(|error| Error::from_io("open", &error, quoted(path)))?;
    parse(&text).map_err(|line| {
        let line = String::from_utf8_lossy(line).into_owned();
        Error::new("read", Errno::EBADMSG, quoted(path)).with_detail(format!("not a mount: {line}"))
    })
}

/// Parses the whole file; the error is the first line that does not follow the format.
pub fn parse(text: &[u8]) -> std::result::Result<Vec<MountInfo>, &[u8]> {
    let lines = text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| parse_line(line).ok_or(line)).collect()
}

fn parse_line(line: &[u8]) -> Option<MountInfo> {
    let mut fields = line.split(|&byte| byte == b' ');
    let mut text = || fields.next().map(unescape);
    let number = |field: OsString| field.to_str().and_then(|field| field.parse::<u32>().ok());
    let (id, parent) = (number(text()?)?, number(text()?)?);
    let device = text()?.into_string().ok()?;
    let (major, minor) = device.split_once(':')?;
    let (root, mount_point) = (text()?.into(), text()?.into());
    let options = text()?.into_string().ok()?;
    let mut propagation = Vec::new();
    loop {
        match text()?.into_string().ok()? {
            separator if separator == "-" => break,
            field => propagation.push(field),
        }
    }
    Some(MountInfo {
        id,
        parent,
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
        root,
        mount_point,
        options,
        propagation,
        fstype: text()?.into_string().ok()?,
        source: text()?,
        super_options: text()?.to_string_lossy().into_owned(),
    })
}

/// Space, tab, newline and backslash are written as three octal digits (fs/seq_file.c `mangle_path`).
fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = |digit: u8| (b'0'..=b'7').contains(&digit).then(|| u32::from(digit - b'0'));
        let code = match (first, tail) {
            (b'\\', [a, b, c, ..]) => {
                octal(*a).zip(octal(*b)).zip(octal(*c)).and_then(|((a, b), c)| u8::try_from(a * 64 + b * 8 + c).ok())
            }
            _ => None,
        };
        match code {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(bytes)
}

impl MountInfo {
    /// True if `option` (`memory`, `name=systemd`) is one of the file system's own.
    pub fn has_super_option(&self, option: &str) -> bool {
        self.super_options.split(',').any(|have| have == option)
    }

    /// True if the mount lies at or below `path`.
    pub fn is_under(&self, path: impl AsRef<std::path::Path>) -> bool {
        let path = path.as_ref();
        self.mount_point.starts_with(path) && !path.as_os_str().as_bytes().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_field_of_a_line_is_read() {
        let line =
            b"36 35 98:0 /mnt1 /a\\040b\\134c rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue\n";
        let mounts = parse(line).unwrap();
        let [mount] = mounts.as_slice() else { panic!("{mounts:?}") };
        assert_eq!((mount.id, mount.parent, mount.major, mount.minor), (36, 35, 98, 0));
        assert_eq!(mount.mount_point, Path::new("/a b\\c"));
        assert_eq!(mount.propagation, ["master:1", "shared:2"]);
        assert_eq!((mount.fstype.as_str(), mount.source.to_str()), ("ext3", Some("/dev/root")));
        assert!(mount.has_super_option("errors=continue") && !mount.has_super_option("errors"));
    }

    #[test]
    fn a_mount_without_source_or_propagation_is_read() {
        let mounts =
            parse(b"22 1 0:20 / /proc rw - proc  rw\n23 1 0:4 net:[4026531840] /run/n rw - nsfs nsfs rw").unwrap();
        assert_eq!(mounts[0].source, "");
        assert_eq!(mounts[1].root, Path::new("net:[4026531840]"));
    }

    #[test]
    fn a_line_that_is_cut_off_is_named() {
        assert_eq!(parse(b"22 1 0:20 / /proc rw - proc proc rw\n22 1 0:20 / /x"), Err(&b"22 1 0:20 / /x"[..]));
    }

    #[test]
    fn a_backslash_that_escapes_nothing_stays() {
        assert_eq!(unescape(br"\9\04\0407\777"), OsString::from(r"\9\04 7\777"));
    }

    #[test]
    fn our_own_mounts_hold_the_root() {
        assert!(read().unwrap().iter().any(|mount| mount.mount_point == Path::new("/")));
    }
}
