//! `orlop-shim`.

fn main() {}
