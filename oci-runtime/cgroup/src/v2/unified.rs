//! `linux.resources.unified`: files of the container's own cgroup by their names, values as the kernel takes them.

use std::collections::BTreeMap;

use nix::errno::Errno;

use crate::dir::Dir;
use crate::{Error, Result};

/// Of the files that every cgroup has, those that are limits. The others would stop the container before it has begun, move
/// processes of the host into it, or give its cgroup another form.
const LIMITS_OF_CGROUPS: [&str; 3] = ["cgroup.max.depth", "cgroup.max.descendants", "cgroup.pressure"];

/// Refuses names that are not `controller.parameter`, in runc's words, and files that are no limits.
pub(super) fn validate(files: &BTreeMap<String, String>) -> Result<()> {
    let refuse = |reason| Err(Error::BadValue { field: "unified", reason });
    for name in files.keys() {
        if name.contains('/') {
            return refuse(format!("unified resource {name:?} must be a file name (no slashes)"));
        }
        match name.split_once('.') {
            Some((controller, parameter)) if !controller.is_empty() && !parameter.is_empty() => {}
            _ => return refuse(format!("unified resource {name:?} must be in the form CONTROLLER.PARAMETER")),
        }
        if name.starts_with("cgroup.") && !LIMITS_OF_CGROUPS.contains(&name.as_str()) {
            let limits = LIMITS_OF_CGROUPS.join(", ");
            return refuse(format!("unified resource {name:?} is no limit; of cgroup.* there are {limits}"));
        }
    }
    Ok(())
}

/// The controllers that the files belong to; those that begin with `cgroup` are every cgroup's.
pub(super) fn controllers(files: &BTreeMap<String, String>) -> impl Iterator<Item = &str> {
    files
        .keys()
        .filter_map(|name| name.split_once('.'))
        .map(|(controller, _)| controller)
        .filter(|name| *name != "cgroup")
}

/// Writes each value; one of several lines a line at a time, as files keyed by a device want it.
pub(super) fn apply(dir: &Dir, files: &BTreeMap<String, String>) -> Result<()> {
    for (name, value) in files {
        for line in value.lines() {
            dir.write(name, line).map_err(|error| match error.errno() {
                Some(Errno::ENOENT) => {
                    let missing = format!("this kernel has no {name} in cgroup {}", dir.path().display());
                    Error::Missing { field: "unified", missing }
                }
                _ => error,
            })?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dir::fixture::Fixture;

    fn files(list: &[(&str, &str)]) -> BTreeMap<String, String> {
        list.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn each_line_is_written_by_itself() {
        let fixture = Fixture::new(&[("memory.high", ""), ("io.max", "")]);
        let wanted = files(&[("memory.high", "1000"), ("io.max", "8:0 rbps=1\n8:16 rbps=2")]);
        apply(&fixture.dir, &wanted).expect("written");
        // The last write of several is what a plain file shows.
        assert_eq!((fixture.content("memory.high"), fixture.content("io.max")), ("1000".into(), "8:16 rbps=2".into()));
    }

    #[test]
    fn a_file_that_the_kernel_lacks_is_named() {
        let error = apply(&Fixture::new(&[]).dir, &files(&[("memory.reclaim", "1")])).expect_err("no such file");
        assert!(error.to_string().starts_with("linux.resources.unified: this kernel has no memory.reclaim"), "{error}");
    }

    #[test]
    fn of_the_files_of_every_cgroup_only_limits_are_taken() {
        for name in ["freeze", "procs", "threads", "kill", "type", "subtree_control", "events", "max"] {
            let name = &*format!("cgroup.{name}");
            let error = validate(&files(&[(name, "1")])).expect_err(name).to_string();
            assert!(error.contains(name) && error.contains("is no limit"), "{error}");
        }
        validate(&files(&[("cgroup.max.depth", "1"), ("cgroup.max.descendants", "9"), ("cgroup.pressure", "0")]))
            .expect("limits");
    }

    #[test]
    fn what_is_no_file_of_a_controller_is_refused() {
        for name in ["../memory.max", "memory", ".max", "cpu."] {
            validate(&files(&[(name, "1")])).expect_err(name);
        }
        let wanted = files(&[("cgroup.max.depth", "1"), ("memory.oom.group", "1"), ("cpu.max", "max")]);
        validate(&wanted).expect("files");
        assert_eq!(controllers(&wanted).collect::<Vec<_>>(), ["cpu", "memory"]);
    }
}
