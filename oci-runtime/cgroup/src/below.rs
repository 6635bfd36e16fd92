//! Cgroups that a container has made below its own, for processes that shall be there from their beginning.

use std::path::{Component, Path, PathBuf};

use crate::cgroup::Member;
use crate::{Cgroup, Error, Kind, Result};

impl Cgroup {
    /// The same cgroup, but in `path` below it: in every hierarchy, or in that of one controller. It has to be there. `/` is the
    /// cgroup itself.
    ///
    /// # Errors
    /// There is no such cgroup or controller, or the path leads out of this cgroup.
    pub fn below(mut self, controller: Option<&str>, path: &str) -> Result<Cgroup> {
        let below = clean(path)?;
        let meant = |member: &Member| match (controller, &member.hierarchy.kind) {
            (None, _) => true,
            (Some(""), kind) => *kind == Kind::V2,
            (Some(name), kind) => kind.controls(name),
        };
        let mut found = false;
        for member in self.members_mut().iter_mut().filter(|member| meant(member)) {
            if !below.as_os_str().is_empty() {
                member.dir = member.dir.subdir(&below)?;
            }
            found = true;
        }
        match found {
            true => Ok(self),
            false => {
                let what = format!("unknown controller {} in --cgroup", controller.unwrap_or_default());
                Err(Error::Unsupported { what })
            }
        }
    }
}

/// The names of a path, none for the place itself. Whatever `..` leads to is not the container's.
fn clean(path: &str) -> Result<PathBuf> {
    let mut names = PathBuf::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => names.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(Error::BadPath { path: path.to_owned(), reason: "is not a sub cgroup path" });
            }
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_below_is_the_names_in_it() {
        for (path, names) in [("/", ""), ("", ""), ("./", ""), ("a", "a"), ("/a//b/", "a/b"), ("./a/./b", "a/b")] {
            assert_eq!(clean(path).expect("a path below"), Path::new(names), "{path}");
        }
        for path in ["..", "a/../b", "/.."] {
            clean(path).expect_err(path);
        }
    }
}
