//! `Kill`: a signal to a container's first process, or to all in its cgroup.

use super::{Begun, Request};
use crate::container::Life;
use crate::failure::{failure, internal};
use crate::progress::Order;
use crate::report::Outcome;
use crate::supervisor::Shim;
use crate::task::Job;
use shim_protocol::{Answer, ErrorKind, Kill};
use sys::Errno;

pub(super) fn begin(shim: &mut Shim, request: Request, kill: &Kill) -> Begun {
    let Kill { container: id, signal, all } = kill;
    let signal = super::signal(*signal)?;
    let container = shim.container(id)?;
    let not_running = || failure(ErrorKind::NotRunning, format_args!("container {id} is not running"));
    let Some(first) = container.first() else {
        return Err(if matches!(container.life, Life::Creating) {
            failure(ErrorKind::NotRunning, format_args!("container {id} is still being created"))
        } else {
            not_running()
        });
    };
    let cgroup = container.cgroup().map(str::to_owned);
    if let (true, Some(cgroup)) = (*all, cgroup) {
        let order = Order::new(request.call, request.deadline, Job::Plain);
        shim.begin_stage(order, Vec::new(), move |_, reporter| {
            reporter.stage("signal all in the cgroup");
            let opened = reporter.cgroups.open(&cgroup)?;
            let sent = opened.signal(signal);
            sent.map_err(|error| internal(format_args!("send signal {signal} to all in cgroup {cgroup}"), &error))?;
            Ok((Outcome::Done, Vec::new()))
        })?;
        return Ok(None);
    }
    match first.pidfd.send_signal(signal) {
        Ok(()) => Ok(Some(Answer::Done)),
        Err(error) if error.is(Errno::ESRCH) => Err(not_running()),
        Err(error) => Err(internal(format_args!("send signal {signal} to container {id}"), &error)),
    }
}
