//! A CRI runtime in memory.

use crate::runtime::{Container, ContainerState, Sandbox};
use jiff::Timestamp;

/// A container that was created and nothing else.
pub(crate) fn container(id: &str, name: &str) -> Container {
    Container {
        id: id.to_owned(),
        sandbox_id: String::new(),
        name: name.to_owned(),
        restart_count: 0,
        hash: String::new(),
        image: String::new(),
        image_ref: String::new(),
        image_id: String::new(),
        created_at: Timestamp::UNIX_EPOCH,
        state: ContainerState::Created,
        log_path: String::new(),
        termination_message: None,
        user: None,
        resources: None,
        mounts: Vec::new(),
        grace_period: None,
    }
}

/// A ready sandbox without an address.
pub(crate) fn sandbox(id: &str) -> Sandbox {
    Sandbox {
        id: id.to_owned(),
        attempt: 0,
        created_at: Timestamp::UNIX_EPOCH,
        ready: true,
        ips: Vec::new(),
        host_network: false,
    }
}
