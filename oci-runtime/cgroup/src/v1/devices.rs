//! Which devices may be opened or made (Documentation/admin-guide/cgroup-v1/devices.rst).

use crate::devices::Outcome;
use crate::dir::Dir;
use crate::{DeviceRule, Result, devices};

/// Writes the rules: first the rest, then each exception.
pub(crate) fn apply(dir: &Dir, rules: &[DeviceRule]) -> Result<()> {
    let Outcome { allow_rest, exceptions } = devices::outcome(rules)?;
    let (rest, exception) = match allow_rest {
        true => ("devices.allow", "devices.deny"),
        false => ("devices.deny", "devices.allow"),
    };
    dir.write(rest, "a")?;
    match exceptions.is_empty() {
        true => Ok(()),
        false => dir.write_each(exception, exceptions.iter().map(ToString::to_string)),
    }
}
