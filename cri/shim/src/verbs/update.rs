//! `Update`: new limits for a container's cgroup.

use super::{Begun, Request, read_document};
use crate::container::Life;
use crate::failure::{failure, internal};
use crate::progress::Order;
use crate::report::Outcome;
use crate::supervisor::Shim;
use crate::task::Job;
use oci_spec::runtime::LinuxResources;
use shim_protocol::ErrorKind;

pub(super) fn begin(shim: &mut Shim, request: Request, id: &str) -> Begun {
    let container = shim.container(id)?;
    if !matches!(container.life, Life::Created { .. } | Life::Starting { .. } | Life::Running { .. }) {
        return Err(failure(ErrorKind::NotRunning, format_args!("container {id} is not running")));
    }
    let Some(cgroup) = container.cgroup().map(str::to_owned) else {
        return Err(failure(ErrorKind::Unsupported, format_args!("container {id} has no cgroup of its own")));
    };
    let order = Order::new(request.call, request.deadline, Job::Plain);
    shim.begin_stage(order, request.fds, move |fds, reporter| {
        reporter.stage("read resources");
        let document = fds.first().ok_or_else(super::too_few_fds)?;
        let document = read_document("the resources", document)?;
        let resources: LinuxResources = serde_json::from_slice(&document)
            .map_err(|error| failure(ErrorKind::Invalid, format_args!("read the resources: {error}")))?;
        let resources = oci_runtime::plan::limits(&resources).map_err(|error| super::plan_failure(&error))?;
        reporter.stage("write limits");
        let opened = reporter.cgroups.open(&cgroup)?;
        opened.update(&resources).map_err(|error| internal(format_args!("update cgroup {cgroup}"), &error))?;
        Ok((Outcome::Done, Vec::new()))
    })?;
    Ok(None)
}
