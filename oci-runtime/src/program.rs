//! The program: finding it as runc does, and saying why it can't be executed.
//!
//! `execve(2)` has one number for a missing file, a missing interpreter of a script and a missing dynamic linker, and
//! another for every file that is no program at all. What a person needs stands in the first bytes of the file.

use std::ffi::{CStr, CString, OsStr};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sys::Errno;
use sys::at::{FileStat, OFlag};

use crate::status::StartErrorKind;

/// Why the program can't run. The texts begin as runc's, which clients look for.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProgramError {
    /// No directory of `PATH` has it.
    #[error("exec: {0:?}: executable file not found in $PATH")]
    NotInPath(String),
    /// A path was given, and nothing usable is there.
    #[error("exec: {name:?}: {problem}")]
    Unusable {
        /// As given.
        name: String,
        /// In runc's words.
        problem: String,
        /// For [`ProgramError::kind`].
        kind: StartErrorKind,
    },
    /// It leads to the runtime's own file, as it is or by the interpreters of scripts.
    #[error("exec: {0:?}: permission denied: it is the runtime itself")]
    OwnImage(String),
    /// `execve` failed.
    #[error("exec {path}: {problem}")]
    Exec {
        /// What was executed.
        path: String,
        /// The kernel's words, then what was found out.
        problem: String,
        /// For [`ProgramError::kind`].
        kind: StartErrorKind,
    },
}

impl ProgramError {
    /// Missing, or there and not executable.
    pub(crate) fn kind(&self) -> StartErrorKind {
        match self {
            ProgramError::NotInPath(_) => StartErrorKind::NotFound,
            ProgramError::OwnImage(_) => StartErrorKind::NotExecutable,
            ProgramError::Unusable { kind, .. } | ProgramError::Exec { kind, .. } => *kind,
        }
    }
}

/// The path of the program `name`: as it is if it has a slash, else from the `PATH` of its environment.
/// Called inside the container, as its user: everything is resolved as `execve` will.
pub(crate) fn find(name: &CStr, env: &[CString]) -> Result<CString, ProgramError> {
    let shown = || name.to_string_lossy().into_owned();
    if name.to_bytes().contains(&b'/') {
        return match check(Path::new(OsStr::from_bytes(name.to_bytes()))) {
            Ok(()) => Ok(name.to_owned()),
            Err(Unusable { problem, kind }) => Err(ProgramError::Unusable { name: shown(), problem, kind }),
        };
    }
    candidates(name, env)
        .find_map(|candidate| {
            check(&candidate).ok().and_then(|()| CString::new(candidate.into_os_string().as_bytes()).ok())
        })
        .ok_or_else(|| ProgramError::NotInPath(shown()))
}

/// Where `name` is looked for, in order.
fn candidates<'a>(name: &'a CStr, env: &'a [CString]) -> impl Iterator<Item = PathBuf> + 'a {
    let as_path = |bytes: &'a [u8]| Path::new(OsStr::from_bytes(bytes));
    let is_path = name.to_bytes().contains(&b'/');
    let path = env.iter().find_map(|entry| entry.to_bytes().strip_prefix(b"PATH=")).unwrap_or_default();
    let directories = path.split(|byte| *byte == b':').filter(move |_| !is_path && !name.is_empty());
    let in_path = directories.map(move |directory| {
        let directory = if directory.is_empty() { b"." } else { directory };
        as_path(directory).join(as_path(name.to_bytes()))
    });
    is_path.then(|| as_path(name.to_bytes()).to_owned()).into_iter().chain(in_path)
}

/// CVE-2019-5736: an image whose entry point leads to `/proc/self/exe`, by a link, by the `#!` line of a script or by the dynamic
/// linker that a program names, would run the runtime's own file inside, from where it could be opened and overwritten.
///
/// Called inside the container, as root: a user's script may be one that the user can execute and not read.
pub(crate) fn refuse_image(name: &CStr, env: &[CString], image: &FileStat) -> Result<(), ProgramError> {
    let leads_there = candidates(name, env).any(|candidate| leads_to(candidate, image, INTERPRETERS));
    match leads_there {
        true => Err(ProgramError::OwnImage(name.to_string_lossy().into_owned())),
        false => Ok(()),
    }
}

/// How many interpreters the kernel follows (fs/exec.c exec_binprm), and one for a dynamic linker.
const INTERPRETERS: u32 = 6;

fn leads_to(path: PathBuf, image: &FileStat, further: u32) -> bool {
    // What can't be looked at, execve can't execute, and says why.
    let Ok(metadata) = std::fs::metadata(&path) else { return false };
    if (metadata.dev(), metadata.ino()) == (image.st_dev, image.st_ino) {
        return true;
    }
    // No device is opened, which could have effects, and no FIFO, which could wait.
    if further == 0 || !metadata.is_file() {
        return false;
    }
    let head = head(&path);
    let interpreter = match head.strip_prefix(b"#!") {
        Some(line) => Some(script_interpreter(line).to_owned()),
        None => elf_interpreter(&head),
    };
    interpreter.is_some_and(|interpreter| leads_to(interpreter, image, further - 1))
}

/// What the kernel looks at, and a little more. What can't be read, or is no file, is empty.
fn head(path: &Path) -> Vec<u8> {
    let mut head = Vec::with_capacity(HEAD_BYTES as usize);
    // A FIFO may have taken the place of the file that was looked at: without O_NONBLOCK it would be waited for.
    let how = (OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits();
    let opened = std::fs::File::options().read(true).custom_flags(how).open(path);
    if let Ok(file) = opened
        && file.metadata().is_ok_and(|metadata| metadata.is_file())
    {
        let _ = file.take(HEAD_BYTES).read_to_end(&mut head);
    }
    head
}

struct Unusable {
    problem: String,
    kind: StartErrorKind,
}

fn check(path: &Path) -> Result<(), Unusable> {
    let refuse = |problem: String, kind| Err(Unusable { problem, kind });
    let shown = path.display();
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => refuse("is a directory".to_owned(), StartErrorKind::NotExecutable),
        Ok(_) => match sys::fs::may_execute(path) {
            Ok(()) => Ok(()),
            Err(_) => refuse("permission denied".to_owned(), StartErrorKind::NotExecutable),
        },
        Err(error) => match error.kind() {
            std::io::ErrorKind::NotFound => {
                refuse(format!("stat {shown}: no such file or directory"), StartErrorKind::NotFound)
            }
            std::io::ErrorKind::PermissionDenied => {
                refuse(format!("stat {shown}: permission denied"), StartErrorKind::NotExecutable)
            }
            _ => refuse(format!("stat {shown}: {error}"), StartErrorKind::NotExecutable),
        },
    }
}

/// What `execve` of `path` failing with `errno` means. Called inside the container.
pub(crate) fn explain(path: &CStr, errno: Errno) -> ProgramError {
    let file = Path::new(OsStr::from_bytes(path.to_bytes()));
    // What can't be read can't be explained: the number alone is told then.
    let found = diagnose(&head(file), errno, &|path| path.exists());
    let kind = match errno {
        Errno::ENOENT | Errno::ENOTDIR => StartErrorKind::NotFound,
        _ => StartErrorKind::NotExecutable,
    };
    let words = match errno {
        Errno::ENOEXEC => "exec format error".to_owned(),
        errno => errno.desc().to_lowercase(),
    };
    let problem = found.map_or_else(|| words.clone(), |found| format!("{words}: {found}"));
    ProgramError::Exec { path: file.display().to_string(), problem, kind }
}

/// Enough for an ELF header, its program headers and the interpreter's name where linkers put them.
const HEAD_BYTES: u64 = 4096;

/// The reason, from the first bytes of the file; `None` if they tell nothing beyond the number.
fn diagnose(head: &[u8], errno: Errno, exists: &dyn Fn(&Path) -> bool) -> Option<String> {
    if let Some(line) = head.strip_prefix(b"#!") {
        return script(line, exists);
    }
    if head.starts_with(b"\x7fELF") {
        return elf(head, errno, exists);
    }
    match (errno, head) {
        (Errno::ENOEXEC, []) => Some("the file is empty".to_owned()),
        (Errno::ENOEXEC, _) => Some("neither a program nor a script with a #! line".to_owned()),
        _ => None,
    }
}

fn script(line: &[u8], exists: &dyn Fn(&Path) -> bool) -> Option<String> {
    let interpreter = script_interpreter(line);
    match interpreter.as_os_str().as_bytes() {
        [] => Some("its #! line names no interpreter".to_owned()),
        [.., b'\r'] => Some(format!("interpreter {interpreter:?} not found (CRLF)")),
        _ if !exists(interpreter) => Some(format!("interpreter {interpreter:?} not found")),
        _ => None,
    }
}

/// The interpreter of a `#!` line, without these two characters.
fn script_interpreter(line: &[u8]) -> &Path {
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let name = line.trim_ascii_start().split(|byte| matches!(byte, b' ' | b'\t')).next().unwrap_or_default();
    Path::new(OsStr::from_bytes(name))
}

fn elf(head: &[u8], errno: Errno, exists: &dyn Fn(&Path) -> bool) -> Option<String> {
    let (class, order, machine) = (head.get(4)?, head.get(5)?, little(head, 18, 2)?);
    if (*class, *order, machine) != HOST {
        return Some(format!("image is {}, host {}", architecture(*class, *order, machine), HOST_NAME));
    }
    if errno != Errno::ENOENT {
        return None;
    }
    let linker = elf_interpreter(head)?;
    if exists(&linker) {
        return None;
    }
    let libc = if linker.to_string_lossy().contains("ld-musl") { "musl" } else { "glibc" };
    let other = match libc {
        "glibc" if exists(Path::new("/lib/ld-musl-x86_64.so.1")) => " — image is musl",
        "musl" if exists(Path::new("/lib64/ld-linux-x86-64.so.2")) => " — image is glibc",
        _ => ", which the image lacks",
    };
    Some(format!("needs {} ({libc}){other}", linker.display()))
}

/// `PT_INTERP` of a 64-bit little-endian file (elf(5)); `None` without one, or for another file.
fn elf_interpreter(head: &[u8]) -> Option<PathBuf> {
    head.strip_prefix(b"\x7fELF\x02\x01")?;
    let headers = usize::try_from(little(head, 32, 8)?).ok()?;
    let (size, count) = (little(head, 54, 2)? as usize, little(head, 56, 2)? as usize);
    (0..count).find_map(|index| {
        let header = headers.checked_add(index * size)?;
        if little(head, header, 4)? != PT_INTERP {
            return None;
        }
        let offset = usize::try_from(little(head, header.checked_add(8)?, 8)?).ok()?;
        let name = CStr::from_bytes_until_nul(head.get(offset..)?).ok()?;
        Some(PathBuf::from(OsStr::from_bytes(name.to_bytes())))
    })
}

/// A little-endian number of `bytes` bytes.
fn little(head: &[u8], at: usize, bytes: usize) -> Option<u64> {
    let field = head.get(at..at.checked_add(bytes)?)?;
    Some(field.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

const PT_INTERP: u64 = 3;

/// Class (64-bit), byte order (little), machine of this host; the runtime is built for x86_64 alone.
const HOST: (u8, u8, u64) = (2, 1, 62);
const HOST_NAME: &str = "amd64";

/// In the names that images use.
fn architecture(class: u8, order: u8, machine: u64) -> String {
    // The machine field of a big-endian file was read the wrong way round.
    let machine = if order == 2 { machine.swap_bytes() >> 48 } else { machine };
    match (machine, class, order) {
        (62, ..) => "amd64".to_owned(),
        (3, ..) => "386".to_owned(),
        (183, ..) => "arm64".to_owned(),
        (40, ..) => "arm".to_owned(),
        (243, ..) => "riscv64".to_owned(),
        (258, ..) => "loong64".to_owned(),
        (21, _, 1) => "ppc64le".to_owned(),
        (21, _, _) => "ppc64".to_owned(),
        (22, ..) => "s390x".to_owned(),
        (8, ..) => "mips".to_owned(),
        (other, ..) => format!("ELF machine {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF header with one PT_INTERP behind it.
    fn elf_file(class: u8, order: u8, machine: u16, linker: &str) -> Vec<u8> {
        let mut file = vec![0; 120];
        file[..4].copy_from_slice(b"\x7fELF");
        file[4] = class;
        file[5] = order;
        file[18..20].copy_from_slice(&if order == 2 { machine.to_be_bytes() } else { machine.to_le_bytes() });
        file[32] = 64; // e_phoff
        file[54] = 56; // e_phentsize
        file[56] = 1; // e_phnum
        file[64] = 3; // p_type
        file[72] = 120; // p_offset
        file.extend(linker.as_bytes());
        file.push(0);
        file
    }

    #[track_caller]
    fn check(head: &[u8], errno: Errno, there: &[&str], expected: Option<&str>) {
        let exists = |path: &Path| there.iter().any(|known| path == Path::new(known));
        assert_eq!(diagnose(head, errno, &exists).as_deref(), expected);
    }

    #[test]
    fn a_script_with_windows_line_ends_is_named() {
        let crlf = Some(r#"interpreter "/bin/bash\r" not found (CRLF)"#);
        check(b"#!/bin/bash\r\necho\r\n", Errno::ENOENT, &["/bin/bash"], crlf);
        check(b"#!/bin/bash\r", Errno::ENOENT, &["/bin/bash"], crlf);
    }

    #[test]
    fn a_script_without_its_interpreter_is_named() {
        let missing = Some(r#"interpreter "/usr/bin/python3" not found"#);
        check(b"#! /usr/bin/python3 -u\n", Errno::ENOENT, &[], missing);
        check(b"#!/bin/sh\n", Errno::EACCES, &["/bin/sh"], None);
        check(b"#!\n", Errno::ENOEXEC, &[], Some("its #! line names no interpreter"));
    }

    #[test]
    fn a_program_of_another_architecture_is_named() {
        check(&elf_file(2, 1, 183, ""), Errno::ENOEXEC, &[], Some("image is arm64, host amd64"));
        check(&elf_file(2, 2, 22, ""), Errno::ENOEXEC, &[], Some("image is s390x, host amd64"));
        check(&elf_file(2, 1, 21, ""), Errno::ENOEXEC, &[], Some("image is ppc64le, host amd64"));
        check(&elf_file(1, 1, 3, ""), Errno::ENOEXEC, &[], Some("image is 386, host amd64"));
    }

    #[test]
    fn a_program_without_its_dynamic_linker_is_named() {
        let glibc = elf_file(2, 1, 62, "/lib64/ld-linux-x86-64.so.2");
        let musl = elf_file(2, 1, 62, "/lib/ld-musl-x86_64.so.1");
        check(
            &glibc,
            Errno::ENOENT,
            &["/lib/ld-musl-x86_64.so.1"],
            Some("needs /lib64/ld-linux-x86-64.so.2 (glibc) — image is musl"),
        );
        check(&glibc, Errno::ENOENT, &[], Some("needs /lib64/ld-linux-x86-64.so.2 (glibc), which the image lacks"));
        check(
            &musl,
            Errno::ENOENT,
            &["/lib64/ld-linux-x86-64.so.2"],
            Some("needs /lib/ld-musl-x86_64.so.1 (musl) — image is glibc"),
        );
        check(&musl, Errno::ENOENT, &["/lib/ld-musl-x86_64.so.1"], None);
    }

    #[test]
    fn a_file_that_is_no_program_is_named() {
        check(b"", Errno::ENOEXEC, &[], Some("the file is empty"));
        check(b"echo hi\n", Errno::ENOEXEC, &[], Some("neither a program nor a script with a #! line"));
        check(b"", Errno::EACCES, &[], None);
    }

    #[test]
    fn a_truncated_program_is_no_panic() {
        let whole = elf_file(2, 1, 62, "/lib64/ld-linux-x86-64.so.2");
        for length in 0..whole.len() {
            let _ = diagnose(&whole[..length], Errno::ENOENT, &|_| false);
        }
    }
}
