//! From a reference to a root file system.
