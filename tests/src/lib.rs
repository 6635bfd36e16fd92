//! The harness that the two test binaries, the demo's checks and the bench share.
//!
//! A root suite enters a [`World`]: a mount and a network namespace of its own, private `/run`, `/etc` and `/var/lib`, and
//! a cgroup prefix. What it starts there cannot meet another suite or the machine, and when the World ends it proves that
//! nothing stayed behind. The rest of this crate are the things that tests put into a World: a registry with images built
//! in code, an `orlop cri` that can be killed and restarted, a CRI client.
//!
//! The crate knows only processes and public protocols. It never imports what it tests.

pub mod cgroup;
pub mod cluster;
mod containerd;
pub mod cri;
mod daemon;
mod eventually;
pub mod images;
pub mod oci;
pub mod pods;
mod programs;
mod registry;
mod snapshot;
mod world;

pub use containerd::Containerd;
pub use cri::Cri;
pub use daemon::{CriDaemon, Plugins, install_plugins, mirror_host, network};
pub use eventually::{Outcome, eventually, rounds, slow};
pub use programs::{Output, binary, cluster_program, copy_program, output, peer, tool, write, write_program};
pub use registry::Registry;
pub use snapshot::Snapshot;
pub use world::World;
