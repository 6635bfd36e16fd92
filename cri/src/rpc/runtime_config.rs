//! RuntimeConfig: which cgroup driver a kubelet is to use with us.

use proto::{CgroupDriver, LinuxRuntimeConfiguration, RuntimeConfigResponse};

pub(crate) fn runtime_config() -> RuntimeConfigResponse {
    // The message is always set: without it a kubelet takes the driver for unknown, and its zero value is systemd.
    RuntimeConfigResponse { linux: Some(LinuxRuntimeConfiguration { cgroup_driver: CgroupDriver::Cgroupfs.into() }) }
}
