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
    exceptions.iter().try_for_each(|device| dir.write(exception, &device.to_string()))
}
