//! The plugins, one multi-call binary: the file name picks which.

fn main() {}
