//! CNI on both sides of the exec.
//!
//! [`client`] drives any plugin binary by the rules of libcni, and is what a container runtime calls. [`plugins`]
//! holds our own `bridge`, `host-local`, `loopback` and `portmap`, which any runtime may call. Both speak the
//! [`result::CniResult`] of the newest protocol version and [`convert`] at the edge.
//!
//! Nothing here is async or starts a thread: a plugin enters network namespaces by `setns`, which is only simple in
//! a process with one thread, and the client blocks where its caller chooses.

mod caseless;
pub mod client;
pub mod convert;
pub mod error;
mod exec;
mod names;
pub mod plugins;
pub mod result;
pub mod version;

pub use exec::ExecError;

/// The variable by which our client tells our `bridge` and `loopback` that the pod's namespace ends right after this
/// DEL. A variable and not a key of `CNI_ARGS`: those are written to the result cache and parsed by every plugin.
pub(crate) const NETNS_ENDS: &str = "ORLOP_CNI_NETNS_ENDS";
