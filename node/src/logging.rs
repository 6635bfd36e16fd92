//! The daemon's log: standard error, text or JSON, filtered by level.

use crate::settings::{Log, LogFormat};
use anyhow::Context;
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Starts logging for this process.
///
/// # Errors
/// `log.level` is not a filter.
pub(crate) fn start(log: &Log) -> anyhow::Result<()> {
    let filter: EnvFilter = log.level.parse().with_context(|| format!("log.level {:?}", log.level))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    match log.format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
    Ok(())
}

/// The filter that comes nearest to a verbosity of klog: from 4 on it is for who debugs, from 6 on every call is told.
pub(crate) fn filter_of(verbosity: u32) -> &'static str {
    match verbosity {
        0..=3 => "info",
        4..=5 => "info,kubelet=debug,cri=debug,image=debug",
        _ => "info,kubelet=trace,cri=trace,image=trace",
    }
}
