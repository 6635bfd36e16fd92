//! ListContainers: from memory.

use crate::pods::Pods;
use crate::{filter, status};
use proto::{ContainerFilter, ListContainersResponse};

pub(crate) fn list_containers(pods: &Pods, wanted: Option<&ContainerFilter>) -> ListContainersResponse {
    let containers = pods.containers.all().into_iter().map(|container| (container.record(), container.life()));
    let matching = containers.filter(|(record, life)| filter::container(wanted, record, life));
    ListContainersResponse {
        containers: matching.map(|(record, life)| status::listed_container(&record, &life)).collect(),
    }
}
