//! `orlop-cni`.

fn main() {}
