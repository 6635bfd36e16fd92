//! The kernel settings that a node of a cluster needs, as upstream sets them; a node alone leaves them. Where
//! `protectKernelDefaults` is on, `config` has refused to start if one differs, and nothing is left to be written.

use std::path::Path;

/// Name below /proc/sys and value.
const SETTINGS: [(&str, &str); 6] = [
    // Memory limits are the cgroups' business.
    ("vm/overcommit_memory", "1"),
    // The OOM killer kills a process, not the machine.
    ("vm/panic_on_oom", "0"),
    // A machine that panicked comes back.
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    // A key ring per container.
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// Sets what is not as it should be, below `proc_sys`. What can't be set is told once: in a container /proc/sys may be
/// read-only, and a node works nevertheless. Blocks for a moment.
pub(super) fn apply(proc_sys: &Path) -> Vec<sys::Error> {
    let mut failures = Vec::new();
    for (name, wanted) in SETTINGS {
        let path = proc_sys.join(name);
        match sys::fs::read_knob(&path) {
            Ok(found) if found.trim() == wanted => {}
            Ok(found) => match sys::fs::write_knob(&path, wanted) {
                Ok(()) => tracing::info!(setting = name, from = found.trim(), to = wanted, "kernel setting changed"),
                Err(error) => failures.push(error),
            },
            Err(error) => failures.push(error),
        }
    }
    failures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_written_and_failures_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        for (name, value) in SETTINGS {
            std::fs::create_dir_all(file(name).parent().unwrap()).unwrap();
            let value = if name == "kernel/panic" { "0 " } else { value };
            sys::fs::atomic_write(file(name), value.as_bytes(), sys::fs::Durability::Rename, 0o644).unwrap();
        }
        std::fs::remove_file(file("vm/panic_on_oom")).unwrap();
        let failures = apply(folder.path());
        assert_eq!(std::fs::read_to_string(file("kernel/panic")).unwrap(), "10");
        assert_eq!(failures.len(), 1, "{failures:?}");
        assert!(failures[0].to_string().contains("panic_on_oom"), "{}", failures[0]);
    }
}
