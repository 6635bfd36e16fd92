//! cgroup v1, v2 and hybrid: limits, stats, OOM watch.
