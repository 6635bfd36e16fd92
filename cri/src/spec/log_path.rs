//! Where a container's log goes: `log_path` below the pod's `log_directory`.

use crate::failure::{Failure, Result};
use std::path::{Component, Path, PathBuf};

/// The absolute path; `None` if either part is empty, and then output is thrown away.
///
/// # Errors
/// A directory that is not absolute, or a path that could leave it (CVE-2025-0750).
pub(crate) fn resolve(log_directory: &str, log_path: &str) -> Result<Option<PathBuf>> {
    if log_directory.is_empty() || log_path.is_empty() {
        return Ok(None);
    }
    let directory = Path::new(log_directory);
    let plain = |path: &Path| path.components().all(|part| matches!(part, Component::Normal(_) | Component::RootDir));
    if !directory.is_absolute() || !plain(directory) || log_directory.contains('\0') {
        return Err(Failure::invalid(format!("log_directory {log_directory:?} is not a plain absolute path")));
    }
    let relative = Path::new(log_path);
    if relative.is_absolute() || !plain(relative) || log_path.contains('\0') {
        return Err(Failure::invalid(format!("log_path {log_path:?} is not a plain path below the log directory")));
    }
    Ok(Some(directory.join(relative)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_stays_below_its_directory() {
        for (directory, path, want) in [
            ("/var/log/pods/a", "web/0.log", Ok(Some("/var/log/pods/a/web/0.log"))),
            ("", "web/0.log", Ok(None)),
            ("/var/log/pods/a", "", Ok(None)),
            ("/var/log/pods/a", "../b/0.log", Err(())),
            ("/var/log/pods/a", "/etc/passwd", Err(())),
            ("/var/log/../../etc", "x", Err(())),
            ("var/log", "x", Err(())),
        ] {
            let want = want.map(|path: Option<&str>| path.map(PathBuf::from));
            assert_eq!(resolve(directory, path).map_err(drop), want, "{directory} {path}");
        }
    }
}
