//! Stand-ins for what is outside: an API server and a runtime in memory.

pub(crate) mod api;
pub(crate) mod host;
pub(crate) mod runtime;
