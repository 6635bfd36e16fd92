//! Which process a number means: the number and the start time (proc_pid_stat(5)).

use super::{Pid, PidFd};
use crate::Errno;
use crate::error::{Error, Result};

/// The fields of `/proc/[pid]/stat` that we use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// `R`, `S`, `D`, `T`, `Z` (ended, not reaped), `X` (gone), …
    pub state: char,
    /// The parent's number, 0 if it is in another PID namespace.
    pub parent: Pid,
    /// Clock ticks (1/100 s) from boot to the start of the process.
    pub start_time: u64,
    /// False as long as it runs what its parent ran: it was cloned and has executed nothing (`PF_FORKNOEXEC`).
    pub has_executed: bool,
    /// It is on its way out and has left its namespaces, or is about to, though its pidfd does not tell yet (`PF_EXITING`).
    pub is_ending: bool,
}

/// Reads state, parent and start time of `pid`. A process that is gone is ESRCH.
pub fn stat(pid: Pid) -> Result<Stat> {
    let path = format!("/proc/{pid}/stat");
    let text = crate::fs::read_record(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::new("open", Errno::ESRCH, format_args!("\"{path}\"")),
        _ => Error::from_io("open", &error, format_args!("\"{path}\"")),
    })?;
    parse(&text).ok_or_else(|| {
        Error::new("read", Errno::EBADMSG, format_args!("\"{path}\"")).with_detail("not the format of proc(5)")
    })
}

/// The name in parentheses may hold spaces, parentheses and any bytes: the fields begin after the last `)`.
pub(crate) fn parse(text: &[u8]) -> Option<Stat> {
    let end_of_name = text.iter().rposition(|&byte| byte == b')')?;
    let fields = str::from_utf8(text.get(end_of_name + 1..)?).ok()?;
    let mut fields = fields.split_ascii_whitespace(); // field 3 of proc_pid_stat(5) first
    let state = fields.next()?.chars().next()?;
    let parent = Pid::from_raw(fields.next()?.parse().ok()?);
    let flags: u64 = fields.nth(4)?.parse().ok()?; // field 9
    let start_time = fields.nth(12)?.parse().ok()?; // field 22
    const PF_EXITING: u64 = 0x4; // linux/sched.h
    const PF_FORKNOEXEC: u64 = 0x40;
    let (has_executed, is_ending) = (flags & PF_FORKNOEXEC == 0, flags & PF_EXITING != 0);
    Some(Stat { state, parent, start_time, has_executed, is_ending })
}

/// Clock ticks from boot to the start of `pid`; ESRCH if there is no such process.
pub fn start_time(pid: Pid) -> Result<u64> {
    Ok(stat(pid)?.start_time)
}

/// One process, for ever: numbers come round again, the pair of number and start time does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Process {
    /// Its number in our PID namespace.
    pub pid: Pid,
    /// Clock ticks from boot to its start.
    pub start_time: u64,
}

impl Process {
    /// The process that has the number `pid` now.
    pub fn of(pid: Pid) -> Result<Process> {
        Ok(Process { pid, start_time: start_time(pid)? })
    }

    /// A pidfd of this very process; ESRCH if it is gone, whoever has the number now.
    pub fn open(&self) -> Result<PidFd> {
        let pidfd = PidFd::open(self.pid)?;
        // Only now: the fd keeps the number from being given to another, so what we read next is about it.
        if start_time(self.pid)? != self.start_time {
            let detail = format!("the number belongs to another process than the one started at {}", self.start_time);
            return Err(Error::new("pidfd_open", Errno::ESRCH, self.pid).with_detail(detail));
        }
        Ok(pidfd)
    }

    /// True until the process has ended; one that waits to be reaped has.
    pub fn is_running(&self) -> Result<bool> {
        Ok(self.running()?.is_some())
    }

    /// What is known of the process until it has ended.
    pub fn running(&self) -> Result<Option<Stat>> {
        match stat(self.pid) {
            Ok(stat) => {
                let is_running = stat.start_time == self.start_time && !matches!(stat.state, 'Z' | 'X' | 'x');
                Ok(is_running.then_some(stat))
            }
            Err(error) if error.is(Errno::ESRCH) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_looks_like_fields_does_not_shift_them() {
        let text = b"7 (a) Z 9 (b) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 9 9\n";
        let stat =
            Stat { state: 'S', parent: Pid::from_raw(1), start_time: 4242, has_executed: true, is_ending: false };
        assert_eq!(parse(text), Some(stat));
        let forked = b"7 (a) S 1 7 7 0 -1 4194368 1 2 3 4 5 6 7 8 20 0 1 0 4242 9 9\n";
        assert!(!parse(forked).unwrap().has_executed);
        let ending = b"7 (a) S 1 7 7 0 -1 4194564 1 2 3 4 5 6 7 8 20 0 1 0 4242 9 9\n";
        assert!(parse(ending).unwrap().is_ending);
        assert_eq!(parse(b"7 (a) S 1 7"), None);
        assert_eq!(parse(b"7 (a"), None);
    }

    #[test]
    fn another_start_time_is_another_process() {
        let me = Process::of(Pid::this()).unwrap();
        assert!(me.is_running().unwrap());
        me.open().unwrap();
        let before = Process { start_time: me.start_time - 1, ..me };
        assert!(!before.is_running().unwrap());
        assert!(before.open().unwrap_err().is(Errno::ESRCH));
    }

    #[test]
    fn a_process_that_never_was_is_esrch() {
        let none = Pid::from_raw(i32::MAX);
        assert!(start_time(none).unwrap_err().is(Errno::ESRCH));
        assert!(!Process { pid: none, start_time: 1 }.is_running().unwrap());
    }
}
