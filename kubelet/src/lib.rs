//! The kubelet: what makes a machine with a CRI runtime a node.
//!
//! Desired pods come from the API server and from a folder ([`sources`]), observed ones from the CRI ([`runtime`]). A pure
//! function, [`plan`], says what has to happen now; one worker per pod ([`worker`]) does it. What is, is told to the API
//! server by two other pure functions: [`status`] for pods and [`node`] for the machine. Nothing of that is kept on disk:
//! after a crash the lists of the CRI and of the API server are all there is to know of pods.
//!
//! | module | answers |
//! |---|---|
//! | [`config`] | what the flags, the KubeletConfiguration and the kubeconfig say |
//! | [`pod`], [`table`] | a pod; all pods as they are now, for whoever asks |
//! | [`sources`] | which pods should run: API server, static files, mirror pods |
//! | [`runtime`] | the CRI: its verbs, what is observed, container events |
//! | [`plan`] | desired, observed, now → actions; back-offs |
//! | [`worker`] | one task per pod: executes the plan, retries, terminates to the end |
//! | [`admission`] | may this pod run here; which field is refused |
//! | [`spec`] | pod + container → CRI configs: environment, DNS, hosts, security, resources |
//! | [`volumes`] | one file per kind; atomic writer, subPath, teardown |
//! | [`images`] | pull policies, credentials, pull back-off |
//! | [`cgroups`] | the tree of kubepods |
//! | [`probes`] | exec, http, tcp, grpc; startup, liveness, readiness |
//! | [`status`] | phases, conditions, container statuses; their writer |
//! | [`node`] | registration, node status, lease, pressures |
//! | [`api`] | the API server: objects, events, writes |
//! | [`server`], [`stats`], [`metrics`] | what :10250 serves |
//! | [`gc`] | dead containers, sandboxes, orphaned folders |

pub mod admission;
mod any_server;
pub mod api;
pub mod cgroups;
pub mod clock;
pub mod config;
pub mod gc;
pub mod images;
mod kubelet;
pub mod metrics;
pub mod node;
pub mod plan;
pub mod pod;
pub mod probes;
mod random;
pub mod runtime;
pub mod server;
pub mod sources;
pub mod spec;
mod stamp;
pub mod stats;
pub mod status;
pub mod table;
pub mod volumes;
pub mod worker;

pub use kubelet::{RunError, run};

#[cfg(test)]
mod fakes;
