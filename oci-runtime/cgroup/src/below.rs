//! Cgroups that a container has made below its own, for processes that shall be there from their beginning.

use std::path::Path;

use crate::cgroup::Member;
use crate::{Cgroup, Error, Kind, Result};

impl Cgroup {
    /// The same cgroup, but in `path` below it: in every hierarchy, or in that of one controller. It has to be there.
    ///
    /// # Errors
    /// There is no such cgroup or controller, or the path leads out of this cgroup.
    pub fn below(mut self, controller: Option<&str>, path: &str) -> Result<Cgroup> {
        let below = path.trim_matches('/');
        // Names alone: whatever `..` leads to is not the container's.
        if !below.split('/').all(|name| !["", ".", ".."].contains(&name)) {
            return Err(Error::BadPath { path: path.to_owned(), reason: "is not a sub cgroup path" });
        }
        let meant = |member: &Member| match (controller, &member.hierarchy.kind) {
            (None, _) => true,
            (Some(""), kind) => *kind == Kind::V2,
            (Some(name), kind) => kind.controls(name),
        };
        let mut found = false;
        for member in self.members_mut().iter_mut().filter(|member| meant(member)) {
            member.dir = member.dir.subdir(Path::new(below))?;
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
