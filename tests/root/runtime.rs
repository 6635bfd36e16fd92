//! The OCI runtime by its command line: bundles, and what a container in them sees.
//!
//! The runtime under test is a parameter: `ORLOP_RUNTIME` names another one (`runc`, `crun`); what only ours promises is
//! marked as such in the tests.

pub(crate) mod bundle;
mod canary;
mod effort;

mod attributes;
mod escapes;
mod filesystems;
mod filters;
mod hooks;
mod hostile;
mod id_mapped_mounts;
mod joins;
mod mount_options;
mod net_devices;
mod processes;
mod races;
mod refusals;
mod time_namespaces;
mod tmpfs;
mod user_namespace_bounds;
mod user_namespaces;
