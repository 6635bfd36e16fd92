//! config.json of a bundle.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use oci_runtime::Filter;
use oci_runtime::config::MAX_SIZE;
use oci_runtime::plan::Plan;
use oci_spec::runtime::Spec;
use serde_json::Value;
use sys::Errno;

use super::Error;
use super::log::Log;
use super::store::Container;

/// A config that has been read and checked.
#[derive(Debug)]
pub(crate) struct Bundle {
    /// Absolute.
    pub(crate) path: PathBuf,
    pub(crate) spec: Spec,
    pub(crate) plan: Plan,
    /// That of `linux.seccomp`.
    pub(crate) filter: Option<Filter>,
    json: Vec<u8>,
}

/// In a bundle, and, as it was when the container was made, in its state directory.
pub(crate) const CONFIG: &str = "config.json";

/// Reads the config of a bundle, by default of the working directory, and checks it whole.
pub(crate) fn load(path: Option<&Path>, log: &mut Log) -> Result<Bundle, Error> {
    let given = path.unwrap_or(Path::new("."));
    let path = given.canonicalize().map_err(|error| format!("open bundle {}: {error}", given.display()))?;
    let json = read(&path)?;
    let (spec, plan) = parse(&json, &path, log)?;
    let filter = plan.seccomp.as_ref().map(Filter::compile).transpose()?;
    Ok(Bundle { path, spec, plan, filter, json })
}

impl Bundle {
    /// Keeps the config in the state directory: what joins the container or saves it later is not to depend on what has
    /// become of the bundle. Nobody looks there yet.
    pub(crate) fn keep(&self, dir: &Path) -> Result<(), Error> {
        let path = dir.join(CONFIG);
        let mut options = std::fs::File::options();
        let written = options.write(true).create_new(true).mode(0o600).open(&path);
        let written = written.and_then(|mut file| file.write_all(&self.json));
        Ok(written.map_err(|error| format!("write {}: {error}", path.display()))?)
    }
}

fn parse(json: &[u8], bundle: &Path, log: &mut Log) -> Result<(Spec, Plan), Error> {
    let (spec, warnings) = oci_runtime::config::parse(json)?;
    warnings.iter().for_each(|warning| log.warn(warning));
    let plan = Plan::from_spec(&spec, Some(bundle))?;
    plan.warnings.iter().for_each(|warning| log.warn(warning));
    Ok((spec, plan))
}

/// What a container was made by.
pub(crate) fn plan_of(container: &Container, log: &mut Log) -> Result<Plan, Error> {
    parse(&kept(container)?, &container.record.bundle, log).map(|(_, plan)| plan)
}

/// The process object of what a container was made by, to be changed by exec's flags.
pub(crate) fn process_of(container: &Container) -> Result<Value, Error> {
    process(&kept(container)?)
}

/// One that was made before configs were kept has that of its bundle.
fn kept(container: &Container) -> Result<Vec<u8>, Error> {
    let path = container.dir.join(CONFIG);
    match sys::fs::read_bounded(&path, MAX_SIZE) {
        Err(error) if error.is(Errno::ENOENT) => read(&container.record.bundle),
        kept => Ok(kept.map_err(|error| format!("read {}: {error}", path.display()))?),
    }
}

fn process(json: &[u8]) -> Result<Value, Error> {
    let mut config: Value =
        serde_json::from_slice(json).map_err(|error| format!("config.json is not valid: {error}"))?;
    match config.get_mut("process").map(Value::take) {
        Some(process @ Value::Object(_)) => Ok(process),
        _ => Err("process property must not be empty".into()),
    }
}

fn read(bundle: &Path) -> Result<Vec<u8>, Error> {
    let path = bundle.join(CONFIG);
    sys::fs::read_bounded(&path, MAX_SIZE).map_err(|error| match error.is(Errno::ENOENT) {
        true => format!("JSON specification file {} not found", path.display()).into(),
        false => format!("read {}: {error}", path.display()).into(),
    })
}
