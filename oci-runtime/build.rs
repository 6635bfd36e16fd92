//! The runtime begins with `sys::entry`, before the C library does.

fn main() {
    println!("cargo::rustc-link-arg-bin=orlop-runtime=-Wl,--undefined=orlop_entry,--entry=orlop_entry");
    println!("cargo::rerun-if-changed=build.rs");
    // What the small build's linker reads.
    println!("cargo::rerun-if-changed=../scripts/hot-functions");
}
