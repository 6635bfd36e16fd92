//! The per-pod process.
