//! The path of a cgroup, the same in every hierarchy.

use std::fmt;
use std::path::Path;

use crate::{Error, Result};

/// A cleaned path below the mount point of each hierarchy, never the root itself.
///
/// `linux.cgroupsPath` may be absolute or relative; what a relative one is relative to, [`Layout::locate`] says. `..` cannot
/// leave the root, as in a chroot.
///
/// [`Layout::locate`]: crate::Layout::locate
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CgroupPath {
    clean: String,
    is_relative: bool,
}

impl CgroupPath {
    /// Cleans `path`. Refused are a path that is empty or names the root, one with a NUL or a newline in it (it
    /// could not be told apart in `/proc/<pid>/cgroup`), and the systemd driver's `slice:prefix:name`.
    pub fn parse(path: &str) -> Result<CgroupPath> {
        let refuse = |reason| Error::BadPath { path: path.to_owned(), reason };
        if path.contains(['\0', '\n']) {
            return Err(refuse("holds a NUL or a newline"));
        }
        let mut clean: Vec<&str> = Vec::new();
        for component in path.split('/') {
            match component {
                "" | "." => {}
                ".." => drop(clean.pop()),
                name if name.len() > 255 => return Err(refuse("has a component longer than 255 bytes")),
                name => clean.push(name),
            }
        }
        let is_relative = !path.starts_with('/');
        match clean.as_slice() {
            [] => Err(refuse("names the root cgroup")),
            [only] if is_relative && only.split(':').count() == 3 => {
                Err(refuse("is of the systemd cgroup driver, which is not built"))
            }
            parts => Ok(CgroupPath { clean: parts.join("/"), is_relative }),
        }
    }

    /// Whether it was given without a leading slash, and not yet located.
    pub fn is_relative(&self) -> bool {
        self.is_relative
    }

    /// The same path below `base`, which is absolute.
    pub(crate) fn below(&self, base: &str) -> Result<CgroupPath> {
        CgroupPath::parse(&format!("{base}/{}", self.clean))
    }

    /// Relative to a hierarchy's mount point, without a leading slash.
    pub fn relative(&self) -> &Path {
        Path::new(&self.clean)
    }

    /// The names of the path from the top down.
    pub(crate) fn components(&self) -> impl Iterator<Item = &str> {
        self.clean.split('/')
    }
}

impl fmt::Display for CgroupPath {
    /// With a leading slash, as in `/proc/<pid>/cgroup`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.clean)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, expected: Option<&str>) {
        assert_eq!(CgroupPath::parse(path).ok().map(|path| path.to_string()).as_deref(), expected, "{path:?}");
    }

    #[test]
    fn a_path_is_cleaned_and_cannot_leave_the_root() {
        check("/kubepods/pod1/c1", Some("/kubepods/pod1/c1"));
        check("kubepods//pod1/./c1/", Some("/kubepods/pod1/c1"));
        check("../../../../some/path", Some("/some/path"));
        check("/a/../../../b", Some("/b"));
        check("/system.slice/a:b:c", Some("/system.slice/a:b:c"));
    }

    #[test]
    fn a_relative_path_is_told_apart_and_stays_below_its_base() {
        let path = |text| CgroupPath::parse(text).expect("a path");
        assert!(path("box").is_relative() && !path("/box").is_relative());
        let below = path("../../box").below("/user.slice").expect("a path");
        assert_eq!((below.to_string().as_str(), below.is_relative()), ("/user.slice/box", false));
    }

    #[test]
    fn a_path_that_no_container_may_have_is_refused() {
        check("", None);
        check("/", None);
        check("/a/..", None);
        check("/a\nb", None);
        check("/a\0b", None);
        check("system.slice:cri-containerd:abc", None);
        check(&format!("/{}", "x".repeat(256)), None);
    }
}
