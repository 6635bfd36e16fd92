//! Where errors and warnings are told.
//!
//! Without `--log` on stderr, in logrus's text form. With it in the file, and errors also plain on stderr. containerd
//! takes the last line of level error in the JSON file as the reason that it shows.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use super::Error;
use super::args::LogFlags;
use super::time::Timestamp;

/// The log of one call.
#[derive(Debug)]
pub(crate) struct Log {
    /// `None`: stderr.
    file: Option<File>,
    json: bool,
}

impl Log {
    /// The log before the flags are known.
    pub(crate) fn stderr() -> Log {
        Log { file: None, json: false }
    }

    /// The log that the flags ask for.
    pub(crate) fn open(flags: &LogFlags) -> Result<Log, Error> {
        let open = |path| std::fs::OpenOptions::new().append(true).create(true).mode(0o644).open(path);
        let file = match &flags.file {
            Some(path) => Some(open(path).map_err(|error| format!("open {}: {error}", path.display()))?),
            None => None,
        };
        Ok(Log { file, json: flags.json })
    }

    /// Tells why the call fails.
    pub(crate) fn error(&mut self, message: &str) {
        let message = &shortened(message);
        self.write("error", message);
        if self.file.is_some() {
            // Nobody left to tell if that fails.
            let _ = writeln!(std::io::stderr(), "{message}");
        }
    }

    /// Tells what is strange but no failure.
    pub(crate) fn warn(&mut self, message: &str) {
        self.write("warning", &shortened(message));
    }

    fn write(&mut self, level: &str, message: &str) {
        let time = Timestamp::now().to_string();
        let line = match self.json {
            true => format!("{}\n", serde_json::json!({ "level": level, "msg": message, "time": time })),
            false => format!("time={:?} level={level} msg={message:?}\n", time),
        };
        let _ = match &mut self.file {
            Some(file) => file.write_all(line.as_bytes()),
            None => std::io::stderr().write_all(line.as_bytes()),
        };
    }
}

/// A message that quotes a config quotes whatever somebody wrote there, of any length: what was tried stands at its begin,
/// why it failed at its end.
fn shortened(message: &str) -> String {
    const KEPT: usize = 1500;
    let length = message.chars().count();
    if length <= 2 * KEPT {
        return message.to_owned();
    }
    let begin: String = message.chars().take(KEPT).collect();
    let end: String = message.chars().skip(length - KEPT).collect();
    format!("{begin} … ({} characters) … {end}", length - 2 * KEPT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_of_any_length_is_told_in_a_few_lines() {
        let long = format!("mount tmpfs on {}: mkdirat: File name too long", "/dör".repeat(5000));
        let told = shortened(&long);
        assert!(told.chars().count() < 3100 && told.starts_with("mount tmpfs on /dör"), "{told}");
        assert!(
            told.ends_with("dör: mkdirat: File name too long") && told.contains(" … (17044 characters) … "),
            "{told}"
        );
        assert_eq!(shortened("short"), "short");
    }
}
