//! The registry client.

pub(crate) mod hosts;
