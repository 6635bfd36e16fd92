//! Signals: numbers and their names, masks, and signals as an fd.

#![allow(unsafe_code, reason = "sigaction to the default, for every signal including the real-time ones")]

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::str::FromStr;

use nix::libc;
use nix::sys::signal::{SigHandler, SigmaskHow, sigprocmask};
pub use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd as NixSignalFd};

use crate::Errno;
use crate::error::{Error, Result};

/// A signal number, 1–64, real-time ones included (images stop with `SIGRTMIN+3`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Number(i32);

/// The first real-time signal as programs count them: the C library keeps 32 and 33 for itself (signal(7)).
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

impl Number {
    /// `number` if it is a signal.
    pub fn new(number: i32) -> Option<Number> {
        (1..=RTMAX).contains(&number).then_some(Number(number))
    }

    /// The bare number.
    pub fn get(self) -> i32 {
        self.0
    }
}

impl From<Signal> for Number {
    fn from(signal: Signal) -> Number {
        Number(signal as i32)
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Signal::try_from(self.0) {
            Ok(signal) => f.write_str(signal.as_str()),
            Err(_) if self.0 == RTMIN => f.write_str("SIGRTMIN"),
            Err(_) if self.0 > RTMIN => write!(f, "SIGRTMIN+{}", self.0 - RTMIN),
            Err(_) => write!(f, "{}", self.0),
        }
    }
}

/// Not the name or number of a signal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown signal {0:?}")]
pub struct UnknownSignal(pub String);

impl FromStr for Number {
    type Err = UnknownSignal;

    /// Takes `TERM`, `sigterm`, `15`, `RTMIN+3`, `SIGRTMAX-1`.
    fn from_str(text: &str) -> std::result::Result<Number, UnknownSignal> {
        let unknown = || UnknownSignal(text.to_owned());
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if digits {
            return text.parse().ok().and_then(Number::new).ok_or_else(unknown);
        }
        let name = text.to_ascii_uppercase();
        let name = name.strip_prefix("SIG").unwrap_or(&name);
        let number = if let Some(offset) = name.strip_prefix("RTMIN") {
            RTMIN.checked_add(offset_of(offset, '+').ok_or_else(unknown)?)
        } else if let Some(offset) = name.strip_prefix("RTMAX") {
            RTMAX.checked_sub(offset_of(offset, '-').ok_or_else(unknown)?)
        } else {
            let name = match name {
                "CLD" => "CHLD",
                "POLL" => "IO",
                name => name,
            };
            return Signal::from_str(&format!("SIG{name}")).map(Number::from).map_err(|_| unknown());
        };
        number.filter(|number| (RTMIN..=RTMAX).contains(number)).map(Number).ok_or_else(unknown)
    }
}

/// The number after the sign, 0 for nothing at all.
fn offset_of(text: &str, sign: char) -> Option<i32> {
    match text.strip_prefix(sign) {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok(),
        Some(_) => None,
        None => text.is_empty().then_some(0),
    }
}

/// Blocks `signals` in the calling thread and returns the mask from before (sigprocmask(2)).
pub fn block(signals: &SigSet) -> Result<SigSet> {
    let mut before = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(signals), Some(&mut before))
        .map_err(|errno| Error::new("sigprocmask", errno, format_args!("SIG_BLOCK, {signals:?}")))?;
    Ok(before)
}

/// Makes `mask` the whole mask of the calling thread (sigprocmask(2)).
pub fn set_mask(mask: &SigSet) -> Result<()> {
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(mask), None)
        .map_err(|errno| Error::new("sigprocmask", errno, format_args!("SIG_SETMASK, {mask:?}")))
}

/// Ignores `signal` (sigaction(2), `SIG_IGN`); an exec keeps that.
pub fn ignore(signal: Signal) -> Result<()> {
    // SAFETY: SIG_IGN runs no code of ours.
    unsafe { nix::sys::signal::signal(signal, SigHandler::SigIgn) }
        .map(drop)
        .map_err(|errno| Error::new("rt_sigaction", errno, format_args!("{signal}, SIG_IGN")))
}

/// Every signal back to its default action and none blocked, as a program expects it: an exec passes on what is ignored and what
/// is blocked. std ignores SIGPIPE, and glibc's posix_spawn leaves the C library's own signals 32 and 33 ignored in what it
/// starts (sysdeps/unix/sysv/linux/spawni.c), which a program with another C library then inherits.
pub fn reset_all() -> Result<()> {
    // `struct sigaction` of the kernel, not of the C library, which refuses 32 and 33: at most four words, and all zero is SIG_DFL.
    let default = [0_u64; 4];
    const SIGSET_SIZE: usize = 8;
    let changed = changed().unwrap_or(u64::MAX);
    let resettable =
        |number: &i32| ![libc::SIGKILL, libc::SIGSTOP].contains(number) && changed >> (number - 1) & 1 == 1;
    for number in (1..=RTMAX).filter(resettable) {
        let old = std::ptr::null_mut::<u64>();
        // SAFETY: the kernel reads one action, which runs no code of ours, and writes nothing to NULL.
        let result = unsafe { libc::syscall(libc::SYS_rt_sigaction, number, default.as_ptr(), old, SIGSET_SIZE) };
        Errno::result(result).map_err(|errno| Error::new("rt_sigaction", errno, format_args!("{number}, SIG_DFL")))?;
    }
    set_mask(&SigSet::empty())
}

/// The signals that are ignored or caught, bit 0 for signal 1 (proc_pid_status(5)): one file instead of a call per signal.
/// `None` where there is no `/proc` of ours.
fn changed() -> Option<u64> {
    let status = String::from_utf8(crate::fs::read_record("/proc/self/status").ok()?).ok()?;
    let mask = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        u64::from_str_radix(line.trim(), 16).ok()
    };
    Some(mask("SigIgn:")? | mask("SigCgt:")?)
}

/// Blocked signals as an fd to poll and read (signalfd(2)).
#[derive(Debug)]
pub struct SignalFd(NixSignalFd);

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A signal that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Which.
    pub signal: Number,
    /// Who sent it, as a bare number: for a log only.
    pub sender: i32,
}

impl SignalFd {
    /// Blocks `signals` in the calling thread and delivers them here from now on; reading never waits.
    pub fn new(signals: &SigSet) -> Result<SignalFd> {
        block(signals)?;
        NixSignalFd::with_flags(signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .map(SignalFd)
            .map_err(|errno| Error::new("signalfd4", errno, format_args!("-1, {signals:?}")))
    }

    /// The next signal, `None` if there is none. Equal signals are merged by the kernel: one SIGCHLD can mean many children.
    pub fn read(&self) -> Result<Option<Received>> {
        let info = self.0.read_signal().map_err(|errno| Error::new("read", errno, crate::error::fd(self)))?;
        Ok(info.and_then(|info| {
            let signal = Number::new(info.ssi_signo.cast_signed())?;
            Some(Received { signal, sender: info.ssi_pid.cast_signed() })
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_parsed_as_images_and_users_write_them() {
        let table = [
            ("SIGTERM", Some(15)),
            ("term", Some(15)),
            ("15", Some(15)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMIN", Some(34)),
            ("rtmax-1", Some(63)),
            ("SIGRTMAX", Some(64)),
            ("SIGCLD", Some(17)),
            ("SIGPOLL", Some(29)),
            ("64", Some(64)),
            ("0", None),
            ("65", None),
            ("", None),
            ("SIG", None),
            ("SIGSIGTERM", None),
            ("-9", None),
            ("+9", None),
            ("9 ", None),
            ("RTMIN-1", None),
            ("RTMIN+31", None),
            ("RTMIN++1", None),
            ("RTMIN+", None),
            ("99999999999", None),
        ];
        for (text, expected) in table {
            assert_eq!(text.parse().ok().map(Number::get), expected, "{text:?}");
        }
    }

    #[test]
    fn what_is_shown_can_be_parsed() {
        for number in (1..=64).filter_map(Number::new) {
            assert_eq!(number.to_string().parse(), Ok(number), "{number}");
        }
    }

    #[test]
    fn a_blocked_signal_is_read_from_the_fd() {
        let mut set = SigSet::empty();
        set.add(Signal::SIGUSR2);
        let signals = SignalFd::new(&set).unwrap();
        assert_eq!(signals.read().unwrap(), None);
        nix::sys::signal::raise(Signal::SIGUSR2).unwrap(); // to this thread, which has it blocked
        let received = signals.read().unwrap().unwrap();
        assert_eq!(received.signal, Number::from(Signal::SIGUSR2));
    }
}
