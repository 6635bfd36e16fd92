//! Tests that need root.

mod crictl;
mod critest;
mod process;
mod rootfd;
mod world;
