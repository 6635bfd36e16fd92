//! One call of the runtime with a deadline, and what may come of it.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use sys::poll::Interest;
use sys::process::{Pid, PidFd, Signal};

/// What a call came to; all of it is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::runtime) enum End {
    /// The program ran, whatever it thought of its arguments.
    Ran,
    /// One clear message.
    Refused,
}

/// How long a call may take, however busy the machine is.
const DEADLINE: Duration = Duration::from_secs(30);

/// Longer is not clear any more.
const LONGEST_MESSAGE: usize = 16 * 1024;

/// Runs `command` with its streams in files of `dir`; `failure` is the exit code of the runtime's own failures.
///
/// # Errors
/// A panic, a signal, a hang, silence or chatter.
pub(in crate::runtime) fn attempt(mut command: Command, dir: &Path, failure: i32) -> Result<(End, String), String> {
    let [out, err] = ["out", "err"].map(|name| dir.join(name));
    command.stdin(Stdio::null()).stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
    let mut child = command.spawn().expect("start the runtime");
    let process = PidFd::open(Pid::from_raw(i32::try_from(child.id()).unwrap())).expect("the runtime's pidfd");
    let ready = sys::poll::poll(&[(process.as_fd(), Interest::READ)], Some(DEADLINE * tests::slow())).expect("poll");
    let hangs = ready.iter().all(|ready| ready.is_empty());
    if hangs {
        process.send_signal(Signal::SIGKILL).expect("end what hangs");
    }
    let status = child.wait().expect("the runtime's end");
    let text = |path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
    let (stdout, stderr) = (text(&out), text(&err));
    match (hangs, status.code()) {
        (true, _) => Err(format!("it hangs: {stderr}")),
        (false, None) => Err(format!("{status}: {stderr}")),
        (false, Some(code)) => judge(code, failure, &stderr).map(|end| (end, stdout)),
    }
}

fn judge(code: i32, failure: i32, stderr: &str) -> Result<End, String> {
    let complain = |what: &str| Err(format!("{what}; exit code {code}, stderr: {stderr}"));
    if stderr.contains("panicked at") || stderr.contains("RUST_BACKTRACE") {
        return complain("a panic");
    }
    let errors: Vec<&str> = stderr.lines().filter(|line| line.contains("level=error")).collect();
    match errors.as_slice() {
        // Whatever else the program says and ends with is its own affair.
        [] => Ok(End::Ran),
        [message] if message.len() > LONGEST_MESSAGE => complain("a message that nobody reads"),
        [message] if message.ends_with("msg=\"\"") => complain("a message that says nothing"),
        [_] if code == failure => Ok(End::Refused),
        [_] => complain("an error with another exit code"),
        _ => complain("more than one error"),
    }
}
