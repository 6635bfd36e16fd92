//! Control groups: where a container's processes are counted, limited, frozen and killed.
//!
//! A [`Layout`] is what the host has mounted, a [`Cgroup`] one container's directory in every hierarchy of it,
//! [`Resources`] what is written there and [`Stats`] what is read. The crate knows nothing of containers' specs
//! beyond these types, logs nothing, starts no thread and never sleeps without a deadline.
//!
//! Supported are cgroup v1, cgroup v2, and the hybrid layout (v1 controllers, and cgroup v2 below `unified` with what
//! v1 left over).
//!
//! **Joining.** Writing a pid to `cgroup.procs` waits for an RCU grace period, around 10 ms, whenever the
//! machine was idle before: no function here does that. A process joins by itself, while it has one
//! thread, with [`Cgroup::join_self`]; the v2 side is joined at birth, by `clone3` with
//! `CLONE_INTO_CGROUP` and the fd that [`Cgroup::unified`] returns.
//!
//! **Paths.** A hierarchy is known by the path of its mount, in the caller's mount namespace. A cgroup is held by an fd, and its
//! files are reached relative to that. Nothing below `/sys/fs/cgroup` can be a symbolic link, so plain `openat` is enough here.
//!
//! | file | holds |
//! |---|---|
//! | `layout.rs` | what is mounted: parsing, own path rules |
//! | `cgroup.rs` | one cgroup: create, join, update, processes, delete |
//! | `interior.rs` | one that holds cgroups, as a pod's does |
//! | `below.rs` | one inside a container's own, to be joined by a process |
//! | `kill.rs`, `freeze.rs` | all its processes at once |
//! | `resources.rs`, `stats.rs`, `details.rs` | the types that go in and come out |
//! | `devices.rs` | what a list of device rules comes to; `v1/devices.rs` writes it, `v2/devices.rs` makes a program of it |
//! | `v2/controllers.rs` | passing controllers down, and which cgroups take a process |
//! | `v1/<controller>.rs`, `v2/<controller>.rs`, `hugetlb.rs`, `rdma.rs`, `pressure.rs` | one controller each, pure against a directory |
//! | `oom.rs` | a pollable fd for out-of-memory |

mod below;
mod cgroup;
mod details;
mod devices;
mod dir;
mod error;
mod freeze;
mod hugetlb;
mod interior;
mod kill;
mod layout;
mod oom;
mod path;
mod pressure;
mod rdma;
mod resources;
mod stats;
mod v1;
mod v2;

pub use cgroup::Cgroup;
pub use details::{CpuDetails, CpusetDetails, Details, IoDetails, IoEntry, MemoryDetails, MemoryUse};
pub use dir::Dir;
pub use error::{Error, Result};
pub use layout::{Hierarchy, Kind, Layout, Mode};
pub use oom::OomWatch;
pub use path::CgroupPath;
pub use resources::{
    Access, BlockIo, Cpu, Cpuset, DeviceKind, DeviceRule, DeviceWeight, HugetlbLimit, Memory, Network, Rdma, Resources,
    Throttle, Throttled,
};
pub use stats::{CpuStats, HugetlbStats, MemoryStats, PidsStats, Pressure, PressureLine, Stats, Throttling};
