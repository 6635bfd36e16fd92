//! CNI on both sides of the exec.
//!
//! [`client`] drives any plugin binary by the rules of libcni, and is what a container runtime calls. `plugins`
//! holds our own `bridge`, `host-local`, `loopback` and `portmap`, which any runtime may call. Both speak the
//! [`result::CniResult`] of the newest protocol version and convert at the edge.
//!
//! Nothing here is async or starts a thread: a plugin enters network namespaces by `setns`, which is only simple in
//! a process with one thread, and the client blocks where its caller chooses.

pub mod client;
pub mod result;
