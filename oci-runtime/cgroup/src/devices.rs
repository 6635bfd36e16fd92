//! What a sequence of device rules comes to, on v1 and on v2.
//!
//! It starts from "nothing is allowed". The v1 kernel's own reading of such a sequence has holes: a deny of `c 1:*` does
//! not take back an earlier allow of `c 1:3`. So the sequence is worked out here, to "none but these" or "all but
//! these", and only that is put into force: as v1's files, or as a program of v2. A rule whose effect cannot be said in
//! either form is refused on both, so that a config means the same everywhere.

use crate::{Access, DeviceKind, DeviceRule, Error, Result};

/// What every container may do, after all other rules, as runc has it: make any node, and open the devices that
/// each has, its terminals and `/dev/net/tun`. Clients have come to rely on it, and cannot take it back.
const ALWAYS: [(DeviceKind, Option<u32>, Option<u32>, Access); 11] = [
    (DeviceKind::Char, None, None, Access::MKNOD),
    (DeviceKind::Block, None, None, Access::MKNOD),
    (DeviceKind::Char, Some(1), Some(3), Access::ALL),    // null
    (DeviceKind::Char, Some(1), Some(8), Access::ALL),    // random
    (DeviceKind::Char, Some(1), Some(7), Access::ALL),    // full
    (DeviceKind::Char, Some(5), Some(0), Access::ALL),    // tty
    (DeviceKind::Char, Some(1), Some(5), Access::ALL),    // zero
    (DeviceKind::Char, Some(1), Some(9), Access::ALL),    // urandom
    (DeviceKind::Char, Some(136), None, Access::ALL),     // pts/*
    (DeviceKind::Char, Some(5), Some(2), Access::ALL),    // ptmx
    (DeviceKind::Char, Some(10), Some(200), Access::ALL), // net/tun
];

/// The outcome of a sequence of rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// What happens to a device without an exception.
    pub(crate) allow_rest: bool,
    /// The others, at most once each. What is asked for in one call (to open for reading and writing) has to be granted
    /// by one of them; where the rest is allowed, one that has any part of it is enough to refuse.
    pub(crate) exceptions: Vec<Device>,
}

/// Some devices of one kind, and what may (or may not) be done with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Device {
    /// Never [`DeviceKind::All`].
    pub(crate) kind: DeviceKind,
    pub(crate) major: Option<u32>,
    pub(crate) minor: Option<u32>,
    pub(crate) access: Access,
}

impl Device {
    fn same_devices(&self, other: &Device) -> bool {
        (self.kind, self.major, self.minor) == (other.kind, other.major, other.minor)
    }

    /// True if every device of `other` is one of these.
    fn covers(&self, other: &Device) -> bool {
        let wide = |mine: Option<u32>, theirs| mine.is_none() || mine == theirs;
        self.kind == other.kind && wide(self.major, other.major) && wide(self.minor, other.minor)
    }

    fn overlaps(&self, other: &Device) -> bool {
        let meet = |mine: Option<u32>, theirs: Option<u32>| mine.is_none() || theirs.is_none() || mine == theirs;
        self.kind == other.kind && meet(self.major, other.major) && meet(self.minor, other.minor)
    }
}

/// As the kernel's files have it: `c 136:* rwm`.
impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.kind {
            DeviceKind::All => 'a',
            DeviceKind::Char => 'c',
            DeviceKind::Block => 'b',
        };
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
        write!(f, "{kind} {}:{} {}", number(self.major), number(self.minor), String::from(self.access))
    }
}

/// Works out a sequence of rules, followed by those that always hold.
pub(crate) fn outcome(rules: &[DeviceRule]) -> Result<Outcome> {
    let mut outcome = Outcome { allow_rest: false, exceptions: Vec::new() };
    for rule in rules {
        let device = Device { kind: rule.kind, major: rule.major, minor: rule.minor, access: rule.access };
        outcome.step(rule.allow, device)?;
    }
    for (kind, major, minor, access) in ALWAYS {
        outcome.step(true, Device { kind, major, minor, access })?;
    }
    Ok(outcome)
}

impl Outcome {
    fn step(&mut self, allow: bool, device: Device) -> Result<()> {
        if device.kind == DeviceKind::All {
            if device.major.is_some() || device.minor.is_some() || device.access != Access::ALL {
                return Err(refusal(allow, &device, "type a stands for all devices and every access"));
            }
            *self = Outcome { allow_rest: allow, exceptions: Vec::new() };
            return Ok(());
        }
        if device.access.is_none() {
            return Err(refusal(allow, &device, "no access is given"));
        }
        match allow == self.allow_rest {
            true => self.take_back(allow, device),
            false => self.except(device),
        }
    }

    fn except(&mut self, device: Device) -> Result<()> {
        match self.exceptions.iter_mut().find(|known| known.same_devices(&device)) {
            Some(known) => known.access = known.access.union(device.access),
            None => self.exceptions.push(device),
        }
        Ok(())
    }

    /// The rest rule takes exceptions back. One that is wider than the rule cannot be split.
    fn take_back(&mut self, allow: bool, device: Device) -> Result<()> {
        for known in &mut self.exceptions {
            if device.covers(known) {
                known.access = known.access.minus(device.access);
            } else if known.overlaps(&device) && known.access.minus(device.access) != known.access {
                let reason = format!(
                    "it would make a hole in the earlier rule {known}, which the device controller cannot express"
                );
                return Err(refusal(allow, &device, &reason));
            }
        }
        self.exceptions.retain(|known| !known.access.is_none());
        Ok(())
    }
}

fn refusal(allow: bool, device: &Device, reason: &str) -> Error {
    let verb = if allow { "allow" } else { "deny" };
    Error::BadValue { field: "devices", reason: format!("{verb} {device}: {reason}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(allow: bool, kind: DeviceKind, major: Option<u32>, minor: Option<u32>, access: &str) -> DeviceRule {
        DeviceRule { allow, kind, major, minor, access: Access::parse(access).expect("letters out of rwm") }
    }

    /// The exceptions of a sequence, without those that always hold.
    fn own(outcome: &Outcome) -> Vec<String> {
        let always = super::outcome(&[]).expect("the rules that always hold").exceptions;
        outcome.exceptions.iter().filter(|device| !always.contains(device)).map(Device::to_string).collect()
    }

    const DENY_ALL: DeviceRule =
        DeviceRule { allow: false, kind: DeviceKind::All, major: None, minor: None, access: Access::ALL };
    const ALLOW_ALL: DeviceRule = DeviceRule { allow: true, ..DENY_ALL };

    #[test]
    fn no_rules_at_all_allow_nothing_but_what_every_container_has() {
        let outcome = outcome(&[]).expect("an outcome");
        assert!(!outcome.allow_rest);
        assert_eq!(outcome.exceptions.len(), ALWAYS.len());
    }

    #[test]
    fn denying_all_and_allowing_some_is_none_but_these() {
        let outcome = outcome(&[DENY_ALL, rule(true, DeviceKind::Block, Some(8), None, "r")]).expect("an outcome");
        assert!(!outcome.allow_rest);
        assert_eq!(own(&outcome), ["b 8:* r"]);
    }

    #[test]
    fn a_privileged_container_gets_all() {
        assert_eq!(outcome(&[ALLOW_ALL]).expect("an outcome"), Outcome { allow_rest: true, exceptions: Vec::new() });
    }

    #[test]
    fn a_wide_deny_takes_back_a_narrow_allow() {
        let rules =
            [rule(true, DeviceKind::Char, Some(10), Some(1), "rw"), rule(false, DeviceKind::Char, Some(10), None, "w")];
        assert_eq!(own(&outcome(&rules).expect("an outcome")), ["c 10:1 r"]);
    }

    #[test]
    fn a_deny_that_would_make_a_hole_is_refused() {
        let rules = [
            rule(true, DeviceKind::Char, Some(10), None, "rwm"),
            rule(false, DeviceKind::Char, Some(10), Some(1), "w"),
        ];
        let error = outcome(&rules).expect_err("a hole");
        assert!(
            error.to_string().starts_with("linux.resources.devices: deny c 10:1 w: it would make a hole"),
            "{error}"
        );
    }

    #[test]
    fn all_but_some_can_be_said_too() {
        let outcome = outcome(&[ALLOW_ALL, rule(false, DeviceKind::Block, None, None, "rw")]).expect("an outcome");
        assert!(outcome.allow_rest);
        assert_eq!(own(&outcome), ["b *:* rw"]);
    }

    #[test]
    fn all_devices_with_some_access_cannot_be_said() {
        outcome(&[DeviceRule { access: Access::MKNOD, ..ALLOW_ALL }]).expect_err("type a is all or nothing");
        outcome(&[DeviceRule { major: Some(1), ..DENY_ALL }]).expect_err("type a is all or nothing");
    }
}
