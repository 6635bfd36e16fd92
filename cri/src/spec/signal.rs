//! Signals: the CRI's enum, an image's STOPSIGNAL, and the kernel's numbers (x86_64 and most others).

use crate::failure::{Failure, Result};
use proto::Signal;

/// The first real-time signal that glibc leaves to programs.
const RTMIN: i32 = 34;
/// The last one.
const RTMAX: i32 = 64;

/// The kernel's number of a name such as `SIGTERM`, `term`, `15`, `SIGRTMIN+3`.
pub(crate) fn parse(name: &str) -> Option<i32> {
    if let Ok(number) = name.parse::<i32>() {
        return (1..=RTMAX).contains(&number).then_some(number);
    }
    let upper = name.to_ascii_uppercase();
    let plain = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(offset) = plain.strip_prefix("RTMIN") {
        return real_time(RTMIN, offset, 1);
    }
    if let Some(offset) = plain.strip_prefix("RTMAX") {
        return real_time(RTMAX, offset, -1);
    }
    let plain = match plain {
        "CLD" => "CHLD",
        "POLL" => "IO",
        "IOT" => "ABRT",
        other => other,
    };
    format!("SIG{plain}").parse::<nix::sys::signal::Signal>().ok().map(|signal| signal as i32)
}

fn real_time(base: i32, offset: &str, sign: i32) -> Option<i32> {
    let wanted = if sign > 0 { '+' } else { '-' };
    let distance = match offset.strip_prefix(wanted) {
        Some(digits) => digits.parse::<i32>().ok()?,
        None if offset.is_empty() => 0,
        None => return None,
    };
    let signal = base + sign * distance;
    (RTMIN..=RTMAX).contains(&signal).then_some(signal)
}

/// The signal that asks a container to end: the request's, the image's, or SIGTERM.
pub(crate) fn stop_signal(asked: Signal, image: &str) -> Result<i32> {
    if asked != Signal::RuntimeDefault {
        return number(asked).ok_or_else(|| Failure::invalid(format!("stop_signal: {}", asked.as_str_name())));
    }
    match image {
        "" => Ok(nix::libc::SIGTERM),
        name => parse(name).ok_or_else(|| Failure::invalid(format!("the image's STOPSIGNAL {name:?} is no signal"))),
    }
}

fn number(signal: Signal) -> Option<i32> {
    let name = signal.as_str_name();
    parse(&name.replace("PLUS", "+").replace("MINUS", "-"))
}

/// The CRI's enum for a kernel number.
pub(crate) fn to_cri(number: i32) -> Signal {
    (1..=65)
        .filter_map(|value| Signal::try_from(value).ok())
        .find(|signal| self::number(*signal) == Some(number))
        .unwrap_or(Signal::RuntimeDefault)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_understood() {
        for (name, want) in [
            ("SIGTERM", Some(15)),
            ("term", Some(15)),
            ("15", Some(15)),
            ("SIGKILL", Some(9)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMAX-1", Some(63)),
            ("SIGRTMIN", Some(34)),
            ("SIGCLD", Some(17)),
            ("SIGPOLL", Some(29)),
            ("SIGPWR", Some(30)),
            ("0", None),
            ("65", None),
            ("SIGRTMIN+99", None),
            ("SIGRTMIN-1", None),
            ("nonsense", None),
        ] {
            assert_eq!(parse(name), want, "{name}");
        }
    }

    #[test]
    fn every_signal_of_the_protocol_has_a_number_and_comes_back_equal() {
        for value in 1..=65 {
            let signal = Signal::try_from(value).unwrap();
            let number = number(signal).unwrap_or_else(|| panic!("{}", signal.as_str_name()));
            assert_eq!(self::number(to_cri(number)), Some(number), "{}", signal.as_str_name());
        }
    }

    #[test]
    fn the_request_s_signal_goes_before_the_image_s() {
        assert_eq!(stop_signal(Signal::Sigusr1, "SIGINT").unwrap(), 10);
        assert_eq!(stop_signal(Signal::RuntimeDefault, "SIGINT").unwrap(), 2);
        assert_eq!(stop_signal(Signal::RuntimeDefault, "").unwrap(), 15);
        assert!(stop_signal(Signal::RuntimeDefault, "SIGNONE").is_err());
    }
}
