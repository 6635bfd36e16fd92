//! The kubelet: node registration, status, leases, pod sync, volumes, probes and the :10250 server.
//!
//! Not built yet. `orlop kubelet` says so and ends with an error; nothing here pretends otherwise.
