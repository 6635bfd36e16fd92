//! A container's last words: what it wrote to its termination message file, or the end of its log.
//!
//! Both files are written by the container, so that both are opened below folders of our own, without following any link,
//! and only so much of their end is read.

use super::{Container, TerminationMessage};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;
use sys::at;
use sys::rootfd::RootFd;

/// How much of the file is told.
const MAX_MESSAGE: u64 = 4096;
/// How much of the log is told: so many bytes of so many lines.
const MAX_LOG_MESSAGE: usize = 2048;
const MAX_LOG_LINES: usize = 80;
/// How much of the log is read for that: time and stream stand before each line.
const LOG_TAIL: u64 = 32 * 1024;

/// The last words of an ended container. `root` is the kubelet's folder, `logs` that of the pods' logs. Blocks.
pub(crate) fn read(root: &Path, logs: &Path, container: &Container) -> String {
    let Some(TerminationMessage { host_path, fallback_to_logs }) = &container.termination_message else {
        return String::new();
    };
    let written = match tail(root, Path::new(host_path), MAX_MESSAGE) {
        Ok(written) => String::from_utf8_lossy(&written).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound || host_path.is_empty() => String::new(),
        Err(error) => return format!("Error on reading termination log {host_path}: {error}"),
    };
    if !written.is_empty() || !fallback_to_logs {
        return written;
    }
    match tail(logs, Path::new(&container.log_path), LOG_TAIL) {
        Ok(log) => last_of_log(&log),
        Err(error) => format!("Error on reading termination message from logs: {error}"),
    }
}

/// The last `max` bytes of a regular file below `folder`, on a way without symbolic links.
fn tail(folder: &Path, path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let below = path.strip_prefix(folder).map_err(|_| {
        io::Error::new(io::ErrorKind::PermissionDenied, format!("it is not below {}", folder.display()))
    })?;
    let handle = RootFd::open(folder)?.open_path_no_symlinks(below)?;
    if at::file_type(&at::fstat(&handle)?) != nix::sys::stat::SFlag::S_IFREG {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut file = File::from(at::reopen(&handle, nix::fcntl::OFlag::O_RDONLY)?);
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(max)))?;
    let mut content = Vec::new();
    file.take(max).read_to_end(&mut content)?;
    Ok(content)
}

/// The text of the last lines of a CRI log: `<time> <stream> <P|F> <text>`, where P continues on the next line.
fn last_of_log(log: &[u8]) -> String {
    let mut lines: VecDeque<Vec<u8>> = VecDeque::new();
    let mut continues = false;
    for entry in log.split_inclusive(|byte| *byte == b'\n') {
        let mut fields = entry.splitn(4, |byte| *byte == b' ');
        let (Some(_), Some(b"stdout" | b"stderr"), Some(tag), Some(text)) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let partial = tag.starts_with(b"P");
        let text = if partial { text.strip_suffix(b"\n").unwrap_or(text) } else { text };
        match lines.back_mut().filter(|_| continues) {
            Some(line) => line.extend_from_slice(text),
            None => lines.push_back(text.to_vec()),
        }
        continues = partial;
        if lines.len() > MAX_LOG_LINES {
            lines.pop_front();
        }
    }
    let text: Vec<u8> = lines.into_iter().flatten().collect();
    String::from_utf8_lossy(&text[text.len().saturating_sub(MAX_LOG_MESSAGE)..]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn file(folder: &Path, name: &str, content: &[u8]) -> String {
        let path = folder.join(name);
        File::create(&path).unwrap().write_all(content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// What is read of a container with this file and log.
    #[track_caller]
    fn check(host_path: &str, log_path: &str, fallback_to_logs: bool, folder: &Path, expected: &str) {
        let container = Container {
            termination_message: Some(TerminationMessage { host_path: host_path.into(), fallback_to_logs }),
            log_path: log_path.into(),
            ..crate::fakes::runtime::container("c1", "web")
        };
        assert_eq!(read(folder, folder, &container), expected);
    }

    #[test]
    fn the_end_of_the_file_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let long = [vec![b'a'; 10], vec![b'b'; 4096]].concat();
        let path = file(folder.path(), "message", &long);
        check(&path, "", false, folder.path(), &"b".repeat(4096));
    }

    #[test]
    fn the_log_stands_in_for_an_empty_file_only_where_the_policy_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let empty = file(folder.path(), "message", b"");
        let log = file(folder.path(), "0.log", b"t stdout F one\nt stderr P tw\nt stderr F o\n");
        check(&empty, &log, true, folder.path(), "one\ntwo\n");
        check(&empty, &log, false, folder.path(), "");
        let missing = folder.path().join("none");
        check(missing.to_str().unwrap(), &log, true, folder.path(), "one\ntwo\n");
    }

    #[test]
    fn only_the_last_eighty_lines_of_a_log_are_told() {
        let log: String = (0..100).map(|line| format!("t stdout F {line}\n")).collect();
        let expected: String = (20..100).map(|line| format!("{line}\n")).collect();
        assert_eq!(last_of_log(log.as_bytes()), expected);
        let wide = format!("t stdout F {}\n", "x".repeat(3000));
        assert_eq!(last_of_log(wide.as_bytes()).len(), MAX_LOG_MESSAGE);
    }

    #[test]
    fn no_link_is_followed_and_nothing_outside_is_read() {
        let outside = tempfile::tempdir().unwrap();
        let secret = file(outside.path(), "secret", b"secret");
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("message");
        std::os::unix::fs::symlink(&secret, &link).unwrap();
        for path in [link.to_str().unwrap(), &secret] {
            let container = Container {
                termination_message: Some(TerminationMessage { host_path: path.into(), fallback_to_logs: false }),
                ..crate::fakes::runtime::container("c1", "web")
            };
            let told = read(folder.path(), folder.path(), &container);
            assert!(told.starts_with("Error on reading termination log"), "{told}");
        }
    }
}
