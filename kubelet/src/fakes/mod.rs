//! Stand-ins for what is outside: an API server and a runtime in memory.

pub(crate) mod api;
pub(crate) mod runtime;
