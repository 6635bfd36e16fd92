//! `sh`: finds the program of a one-command script on `PATH`, as a shell without built-in applets would.
//!
//! busybox's shell runs `ls` from inside itself whatever stands at `/bin/ls`; the upstream suite masks that file and wants
//! the shell to fail. Every other script goes to busybox's shell unchanged.

use std::io::ErrorKind;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

/// Where the real shell is.
const BUSYBOX: &str = "/bin/busybox";
/// Commands that only a shell itself can do.
const BUILT_IN: [&str; 15] = [
    "case", "for", "while", "cd", "exec", "exit", "export", "kill", "read", "set", "test", "trap", "type", "ulimit",
    "umask",
];

/// Becomes the command of a simple `-c` script, or busybox's shell.
pub(crate) fn sh(arguments: &[String]) -> ExitCode {
    if let [flag, script] = arguments
        && flag == "-c"
        && let Some(words) = simple_command(script)
    {
        let error = Command::new(words[0]).args(&words[1..]).exec();
        let (reason, code) = match error.kind() {
            ErrorKind::NotFound => ("not found", 127),
            ErrorKind::PermissionDenied => ("Permission denied", 126),
            _ => ("can't execute", 126),
        };
        eprintln!("/bin/sh: {}: {reason}", words[0]);
        return ExitCode::from(code);
    }
    let error = Command::new(BUSYBOX).arg0("/bin/sh").args(arguments).exec();
    eprintln!("/bin/sh: exec {BUSYBOX}: {error}");
    ExitCode::from(126)
}

/// The words of a script that is one command without any shell syntax.
fn simple_command(script: &str) -> Option<Vec<&str>> {
    let plain = |word: &str| word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-+:,%@".contains(&byte));
    let words: Vec<&str> = script.split(' ').filter(|word| !word.is_empty()).collect();
    let first = *words.first()?;
    (words.iter().all(|word| plain(word)) && !BUILT_IN.contains(&first)).then_some(words)
}

#[cfg(test)]
mod tests {
    use super::simple_command;

    #[test]
    fn one_command_without_syntax_is_taken_apart() {
        assert_eq!(simple_command("ls -l /tmp"), Some(vec!["ls", "-l", "/tmp"]));
    }

    #[test]
    fn anything_with_syntax_is_left_to_the_real_shell() {
        for script in ["ls; id", "echo $HOME", "a=1 ls", "ls > x", "exit 3", "for i in 1", "echo 'a'", ""] {
            assert_eq!(simple_command(script), None, "{script}");
        }
    }
}
