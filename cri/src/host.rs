//! What this machine has, as far as an answer depends on it.

use crate::config::OpenFiles;
use crate::failure::chain;
use crate::spec::Host;
use nix::sys::resource::{Resource, getrlimit};
use std::path::Path;

/// Whether AppArmor is on.
pub(crate) fn apparmor() -> bool {
    std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y'))
}

/// Whether SELinux is on.
pub(crate) fn selinux() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

/// The facts that every container's spec depends on.
pub(crate) fn facts(open_files: OpenFiles, layout: &cgroup::Layout) -> Host {
    let hard = match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((_, hard)) => hard,
        Err(error) => {
            tracing::warn!(error = chain(&error), "own limit of open files is unknown");
            open_files.hard
        }
    };
    Host {
        capabilities: capabilities(),
        open_files: (open_files.soft.min(hard), open_files.hard.min(hard)),
        unified_cgroups: layout.mode() == cgroup::Mode::V2,
        hostname: hostname(),
    }
}

/// The machine's name, now.
pub(crate) fn hostname() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    text.trim_end().to_owned()
}

/// The daemon's own permitted capabilities, proc_pid_status(5).
fn capabilities() -> u64 {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapPrm:"));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
}

/// Nanoseconds since 1970.
pub(crate) fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
