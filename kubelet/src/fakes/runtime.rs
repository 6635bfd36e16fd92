//! A CRI runtime in memory.
