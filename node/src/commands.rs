//! One file per command.

pub(crate) mod config;
pub(crate) mod cri;
pub(crate) mod image;
pub(crate) mod kubelet;
pub(crate) mod ps;
pub(crate) mod up;

/// The environment's proxies: here is the edge where they are read.
fn proxies() -> ::image::Proxies {
    ::image::Proxies::from_variables(|name| std::env::var(name).ok())
}
