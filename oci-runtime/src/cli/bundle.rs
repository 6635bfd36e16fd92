//! config.json of a bundle.

use std::path::{Path, PathBuf};

use oci_runtime::Filter;
use oci_runtime::config::MAX_SIZE;
use oci_runtime::plan::Plan;
use oci_spec::runtime::Spec;
use serde_json::Value;
use sys::Errno;

use super::Error;
use super::log::Log;

/// A config that has been read and checked.
#[derive(Debug)]
pub(crate) struct Bundle {
    /// Absolute.
    pub(crate) path: PathBuf,
    pub(crate) spec: Spec,
    pub(crate) plan: Plan,
    /// That of `linux.seccomp`.
    pub(crate) filter: Option<Filter>,
}

/// Reads the config of a bundle, by default of the working directory, and checks it whole.
pub(crate) fn load(path: Option<&Path>, log: &mut Log) -> Result<Bundle, Error> {
    let given = path.unwrap_or(Path::new("."));
    let path = given.canonicalize().map_err(|error| format!("open bundle {}: {error}", given.display()))?;
    let json = read(&path)?;
    let (spec, warnings) = oci_runtime::config::parse(&json)?;
    warnings.iter().for_each(|warning| log.warn(warning));
    let plan = Plan::from_spec(&spec, Some(&path))?;
    plan.warnings.iter().for_each(|warning| log.warn(warning));
    let filter = plan.seccomp.as_ref().map(Filter::compile).transpose()?;
    Ok(Bundle { path, spec, plan, filter })
}

/// The process object of a bundle's config, to be changed by exec's flags.
pub(crate) fn process(bundle: &Path) -> Result<Value, Error> {
    let mut config: Value =
        serde_json::from_slice(&read(bundle)?).map_err(|error| format!("config.json is not valid: {error}"))?;
    match config.get_mut("process").map(Value::take) {
        Some(process @ Value::Object(_)) => Ok(process),
        _ => Err("process property must not be empty".into()),
    }
}

fn read(bundle: &Path) -> Result<Vec<u8>, Error> {
    let path = bundle.join("config.json");
    sys::fs::read_bounded(&path, MAX_SIZE).map_err(|error| match error.is(Errno::ENOENT) {
        true => format!("JSON specification file {} not found", path.display()).into(),
        false => format!("read {}: {error}", path.display()).into(),
    })
}
