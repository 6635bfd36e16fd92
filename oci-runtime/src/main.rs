//! `orlop-runtime`.

fn main() {}
