//! `ReopenLog`: the log goes on in a new file, after somebody has moved the old one away.

use super::{Begun, Request};
use crate::failure::failure;
use crate::log::LogFile;
use crate::progress::{Ended, Order, Result};
use crate::report::Outcome;
use crate::supervisor::Shim;
use crate::task::Job;
use shim_protocol::{Answer, ErrorKind};
use std::fs::File;

pub(super) fn begin(shim: &mut Shim, request: Request, id: &str) -> Begun {
    let container = shim.container(id)?;
    let key = container.key;
    if container.first().is_none() {
        return Err(failure(ErrorKind::NotRunning, format_args!("container {id} is not running")));
    }
    let Some(path) = container.log_path.clone() else {
        return Err(failure(ErrorKind::Invalid, format_args!("container {id} has no log")));
    };
    let order = Order::new(request.call, request.deadline, Job::ReopenLog(key));
    shim.begin_stage(order, Vec::new(), move |_, reporter| {
        reporter.stage(&format!("open log {}", path.display()));
        Ok((Outcome::Log, vec![crate::log::open(&path)?.into()]))
    })?;
    Ok(None)
}

/// The new file is open, or the old one stays. A line is written to one of them as a whole, so a switch between two
/// writes loses nothing.
pub(super) fn finish(shim: &mut Shim, key: u64, ended: Ended, result: Result) {
    let result = result.and_then(|(_, fds)| fds.into_iter().next().ok_or_else(super::too_few_fds));
    let result = result.map(|file| {
        let container = shim.container_of(key);
        // One that has ended meanwhile has written all it had.
        if let Some(container) = container.filter(|container| container.stdio.log.is_some()) {
            container.stdio.log = Some(LogFile::new(File::from(file)));
        }
        Answer::Done
    });
    shim.answer(ended, result);
}
