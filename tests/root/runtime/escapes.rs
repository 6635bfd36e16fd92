//! One test per way in which containers got out of the peers: the CVE's number stands at each. `docs/security.md` has the
//! table of all of them, with the flaw that each was seen to find.
//!
//! Most build a root file system in which a name leads to a canary on the host, and look at the canary afterwards. Races
//! for the same names are in `races.rs`.

mod cgroups;
mod descriptors;
mod dev;
mod identity;
mod masks;
mod mounts;
mod own_file;
mod proc;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::bundle::Bundle;

/// A relative way to the host's root from anywhere in a bundle.
const ROOT_OF_ALL: &str = "../../../../../../../../..";

/// Replaces a path of the root file system by a link.
fn replace_by_link(bundle: &Bundle<'_>, path: &str, target: &Path) {
    let path = bundle.rootfs(path);
    let _absent = fs::remove_dir_all(&path);
    let _no_directory = fs::remove_file(&path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    symlink(target, path).unwrap();
}
