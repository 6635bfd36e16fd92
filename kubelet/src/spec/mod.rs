//! spec

pub mod quantity;
