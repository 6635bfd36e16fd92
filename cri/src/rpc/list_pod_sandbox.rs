//! ListPodSandbox: from memory.

use crate::pods::Pods;
use crate::{filter, status};
use proto::{ListPodSandboxResponse, PodSandboxFilter};

pub(crate) fn list_pod_sandbox(pods: &Pods, wanted: Option<&PodSandboxFilter>) -> ListPodSandboxResponse {
    let records = pods.sandboxes.all().into_iter().map(|sandbox| sandbox.record());
    let matching = records.filter(|record| filter::sandbox(wanted, record, status::sandbox_state(record.phase)));
    ListPodSandboxResponse { items: matching.map(|record| status::listed_sandbox(&record)).collect() }
}
