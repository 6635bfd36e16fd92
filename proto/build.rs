//! Generates the Rust side of `api.proto` and of `image.proto`.
//!
//! The schemas are compiled by protox, in Rust: a build needs no protoc. Besides the code it leaves the compiled descriptors,
//! which the test of wire compatibility reads.

use prost::Message as _;
use std::path::PathBuf;

/// What the daemon keeps in its records, as JSON: the two configurations and all that they hold.
const PERSISTED: &[&str] = &[
    "PodSandboxConfig",
    "PodSandboxMetadata",
    "DNSConfig",
    "PortMapping",
    "LinuxPodSandboxConfig",
    "LinuxSandboxSecurityContext",
    "NamespaceOption",
    "UserNamespace",
    "IDMapping",
    "SELinuxOption",
    "Int64Value",
    "SecurityProfile",
    "LinuxContainerResources",
    "HugepageLimit",
    "ContainerConfig",
    "ContainerMetadata",
    "ImageSpec",
    "KeyValue",
    "Mount",
    "Device",
    "CDIDevice",
    "LinuxContainerConfig",
    "LinuxContainerSecurityContext",
    "Capability",
    "LinuxContainerUser",
    "WindowsPodSandboxConfig",
    "WindowsSandboxSecurityContext",
    "WindowsNamespaceOption",
    "WindowsContainerConfig",
    "WindowsContainerResources",
    "WindowsCpuGroupAffinity",
    "WindowsContainerSecurityContext",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=api.proto");
    let descriptors = protox::compile(["api.proto"], ["."])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::File::create(out.join("descriptors.bin"))
        .and_then(|mut file| std::io::Write::write_all(&mut file, &descriptors.encode_to_vec()))?;
    let mut build = tonic_prost_build::configure()
        .btree_map(".")
        .emit_rerun_if_changed(false)
        .skip_debug([".runtime.v1.AuthConfig"]);
    for message in PERSISTED {
        let path = format!(".runtime.v1.{message}");
        build = build.message_attribute(&path, "#[derive(serde::Serialize, serde::Deserialize)] #[serde(default)]");
    }
    build.compile_fds(descriptors)?;
    println!("cargo::rerun-if-changed=image.proto");
    let private = protox::compile(["image.proto"], ["."])?;
    tonic_prost_build::configure()
        .emit_rerun_if_changed(false)
        .skip_debug([".orlop.image.v1.PullRequest"])
        .compile_fds(private)?;
    Ok(())
}
