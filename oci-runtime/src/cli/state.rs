//! state: one container, as JSON.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use serde::Serialize;

use super::args::{self, Stop};
use super::help::Help;
use super::store::{Container, Status, Store};
use super::{Error, SPEC_VERSION};

pub(crate) const HELP: Help =
    Help { about: "prints the state of a container as JSON", usage: "ID", details: "", flags: &[] };

pub(crate) fn parse(parser: &mut lexopt::Parser) -> Result<String, Stop> {
    args::only_id(parser, "state", args::no_flag)
}

/// A container as the runtime-spec and runc show it, keys in this order.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Shown {
    /// Of the runtime-spec that this output follows, not of the config.
    oci_version: &'static str,
    pub(crate) id: String,
    /// 0 once it has stopped.
    pub(crate) pid: i32,
    pub(crate) status: String,
    pub(crate) bundle: PathBuf,
    rootfs: PathBuf,
    pub(crate) created: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
    /// Of the state directory. runc leaves it empty here and fills it in for list.
    pub(crate) owner: String,
}

impl Shown {
    pub(crate) fn of(container: &Container) -> Result<Shown, Error> {
        let status = container.status()?;
        let record = &container.record;
        Ok(Shown {
            oci_version: SPEC_VERSION,
            id: record.id.clone(),
            pid: if status == Status::Stopped { 0 } else { record.pid },
            status: status.to_string(),
            bundle: record.bundle.clone(),
            rootfs: record.rootfs.clone(),
            created: record.created.to_string(),
            annotations: record.annotations.clone().into_iter().collect(),
            owner: String::new(),
        })
    }
}

/// Prints the state, without a newline at the end.
pub(crate) fn state(store: &Store<'_>, id: &str) -> Result<(), Error> {
    let shown = Shown::of(&store.load(id)?)?;
    let json = serde_json::to_vec_pretty(&shown).map_err(|error| format!("encode the state: {error}"))?;
    std::io::stdout().write_all(&json).map_err(|error| format!("write to stdout: {error}").into())
}
