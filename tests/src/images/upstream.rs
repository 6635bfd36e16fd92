//! The images that the upstream CRI suite names in its own source, rebuilt from busybox and `workload`.
