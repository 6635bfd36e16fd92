//! The settings of this machine's kernel that every kubelet of a cluster changes, upstream's as ours, put back after the last one.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

const NAMES: [&str; 6] = [
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];

/// What they were, and how many kubelets hold them.
static BEFORE: Mutex<(usize, Vec<(PathBuf, String)>)> = Mutex::new((0, Vec::new()));

/// They may change while this lives.
pub(super) struct KernelSettings(());

impl KernelSettings {
    /// Remembers them, before the kubelet is started.
    pub(super) fn remember() -> KernelSettings {
        let mut before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner);
        if before.0 == 0 {
            let paths = NAMES.map(|name| Path::new("/proc/sys").join(name));
            before.1 =
                paths.into_iter().filter_map(|path| Some((path.clone(), fs::read_to_string(path).ok()?))).collect();
        }
        before.0 += 1;
        KernelSettings(())
    }
}

impl Drop for KernelSettings {
    fn drop(&mut self) {
        let mut before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner);
        before.0 -= 1;
        if before.0 > 0 {
            return;
        }
        for (path, value) in before.1.drain(..) {
            if let Err(error) = sys::fs::write_knob(&path, value.trim_end()) {
                eprintln!("a kernel setting stays changed: {error}");
            }
        }
    }
}
