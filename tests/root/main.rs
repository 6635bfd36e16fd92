//! Tests that need root.

mod critest;
mod world;
