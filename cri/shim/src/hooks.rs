//! The hooks of a container whose spec has any, and the bundle that they look at.
//!
//! A daemon sends a spec and a mounted root, no bundle: one is made in the state directory, `bundles/<container>`, with the
//! spec as it came and the place where the root is found in the container's mount namespace until the pivot. All of it is
//! the work of stage children, and their deadlines are the hooks'.

use crate::failure::{chain, failure, internal, note};
use oci_runtime::plan::Hooks;
use oci_runtime::{Identity, Status, hooks};
use oci_spec::runtime::Spec;
use serde_json::Value;
use shim_protocol::{ErrorKind, Failure};
use std::path::{Path, PathBuf};
use sys::error::quoted;
use sys::fs::Durability;

/// Where the root is found, in a bundle.
const ROOTFS: &str = "rootfs";

/// Makes the bundle of a container.
pub(crate) fn make_bundle(bundle: &Path, spec: &[u8]) -> Result<(), Failure> {
    let mut spec: Value = serde_json::from_slice(spec).map_err(|error| internal("read the spec again", &error))?;
    spec["root"]["path"] = root(bundle).display().to_string().into();
    std::fs::create_dir_all(root(bundle)).map_err(|error| internal("make a bundle for hooks", &error))?;
    let config = bundle.join("config.json");
    sys::fs::atomic_write(&config, spec.to_string().as_bytes(), Durability::Rename, 0o600)
        .map_err(|error| internal("make a bundle for hooks", &error))
}

/// The directory on which the root is mounted.
pub(crate) fn root(bundle: &Path) -> PathBuf {
    bundle.join(ROOTFS)
}

/// What hooks are told of a container.
pub(crate) fn identity(id: &str, bundle: &Path, spec: &Spec) -> Identity {
    let annotations = spec.annotations().clone().unwrap_or_default();
    Identity { id: id.to_owned(), bundle: bundle.to_owned(), annotations: annotations.into_iter().collect() }
}

/// Runs the hooks that follow the start of the program.
pub(crate) fn poststart(id: &str, bundle: &Path, pid: i32) -> Result<(), Failure> {
    let (hooks, identity) = read(id, bundle)?;
    let state = identity.state(Status::Running, pid);
    hooks::poststart(&hooks, &state, &hooks::own_environment())
        .map_err(|error| failure(ErrorKind::Start, chain(&error)))
}

/// Runs the hooks that follow the end of a container, unless they began before, and removes its bundle. What fails is noted:
/// nobody waits for it.
pub(crate) fn poststop(id: &str, bundle: &Path) {
    // Hooks that hang keep nothing from being removed for ever: they have one try.
    let first = std::fs::File::create_new(bundle.join("ended")).is_ok();
    match first.then(|| read(id, bundle)) {
        Some(Ok((hooks, identity))) => {
            let state = identity.state(Status::Stopped, 0);
            for error in hooks::poststop(&hooks, &state, &hooks::own_environment()) {
                note(format_args!("container {id}: {}", chain(&error)));
            }
        }
        Some(Err(failure)) => note(format_args!("container {id}: {failure}")),
        None => {}
    }
    match std::fs::remove_dir_all(bundle) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            note(format_args!("remove {}: {error}", quoted(bundle)));
        }
        _ => {}
    }
}

fn read(id: &str, bundle: &Path) -> Result<(Hooks, Identity), Failure> {
    let text = std::fs::read(bundle.join("config.json")).map_err(|error| internal("read the spec of hooks", &error))?;
    let (spec, _) = oci_runtime::config::parse(&text).map_err(|error| internal("read the spec of hooks", &error))?;
    let hooks = Hooks::from_spec(spec.hooks().as_ref()).map_err(|error| internal("read the spec of hooks", &error))?;
    Ok((hooks, identity(id, bundle, &spec)))
}
