//! Tests that need root.

mod world;
