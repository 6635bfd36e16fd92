//! Huge pages: `hugetlb.<size>.limit_in_bytes` on v1, `hugetlb.<size>.max` on v2.
//!
//! The one v2 controller that a hybrid host commonly has below `unified`, since nothing else claims it. There it
//! has to be enabled in every cgroup above ours, by `cgroup.subtree_control`.

use std::path::PathBuf;

use nix::errno::Errno;

use crate::dir::Dir;
use crate::{CgroupPath, Error, HugetlbLimit, HugetlbStats, Result, v2};

/// The directory that has the files, and which kind.
#[derive(Debug, Clone, Copy)]
pub(crate) enum At<'a> {
    /// `hugetlb.<size>.limit_in_bytes`
    V1(&'a Dir),
    /// `hugetlb.<size>.max`
    V2(&'a Dir),
}

/// Enables the controller from the root down to the parent of `path`.
///
/// Where a limit of 0 is all that is asked for, as a kubelet does for every page size and every container, a host
/// that cannot do it is let off; any other limit has to be kept.
pub(crate) fn enable(root: &Dir, path: &CgroupPath, limits: &[HugetlbLimit]) -> Result<()> {
    if limits.is_empty() || !lists(root, "cgroup.controllers")? {
        return Ok(());
    }
    match enable_from(root, path) {
        Err(_) if limits.iter().all(|limit| limit.limit == 0) => Ok(()),
        result => result,
    }
}

fn enable_from(root: &Dir, path: &CgroupPath) -> Result<()> {
    let mut above = PathBuf::from(".");
    for component in path.components() {
        let dir = root.subdir(&above)?;
        if !lists(&dir, "cgroup.subtree_control")? {
            dir.write("cgroup.subtree_control", "+hugetlb")?;
        }
        above.push(component);
    }
    Ok(())
}

fn lists(dir: &Dir, file: &str) -> Result<bool> {
    Ok(dir.read_if_there(file)?.is_some_and(|list| list.split_whitespace().any(|name| name == "hugetlb")))
}

/// Sets the limits. One of 0 for a size that the host does not have, or without the controller, is kept already.
pub(crate) fn apply(at: Option<At<'_>>, limits: &[HugetlbLimit]) -> Result<()> {
    for HugetlbLimit { page_size, limit } in limits {
        let valid = page_size.strip_suffix(['B']).is_some_and(|size| size.bytes().all(|c| c.is_ascii_alphanumeric()));
        if !valid {
            let reason = format!("page size {page_size:?} is not of the form 2MB or 1GB");
            return Err(Error::BadValue { field: "hugepageLimits", reason });
        }
        let written = match at {
            None => Err(Error::Missing {
                field: "hugepageLimits",
                missing: format!("{page_size}: the hugetlb controller is not mounted"),
            }),
            // Reserved pages first: a process that has reserved more than it may use dies of SIGBUS later.
            Some(At::V1(dir)) => {
                optional(dir.write(&format!("hugetlb.{page_size}.rsvd.limit_in_bytes"), &limit.to_string()))
                    .and_then(|()| dir.write(&format!("hugetlb.{page_size}.limit_in_bytes"), &limit.to_string()))
            }
            Some(At::V2(dir)) => optional(dir.write(&format!("hugetlb.{page_size}.rsvd.max"), &limit.to_string()))
                .and_then(|()| dir.write(&format!("hugetlb.{page_size}.max"), &limit.to_string())),
        };
        match written {
            Err(Error::Missing { .. }) if *limit == 0 => {}
            Err(error) if *limit == 0 && error.errno() == Some(Errno::ENOENT) => {}
            result => result?,
        }
    }
    Ok(())
}

/// Kernels before 5.7 do not count reservations.
fn optional(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(()),
        result => result,
    }
}

/// Reads the use of every page size that the directory has files for.
pub(crate) fn read(at: &At<'_>) -> Result<Vec<HugetlbStats>> {
    let mut sizes = Vec::new();
    for page_size in ["64KB", "2MB", "32MB", "512MB", "1GB", "16GB"] {
        let prefix = format!("hugetlb.{page_size}");
        let Some(usage) = at.number(&format!("{prefix}.{}", at.usage()))? else { continue };
        let reserved = at.number(&format!("{prefix}.rsvd.{}", at.usage()))?;
        let reserved = match reserved {
            Some(reserved) => Some((reserved, at.failcnt(&format!("{prefix}.rsvd"))?)),
            None => None,
        };
        sizes.push(HugetlbStats {
            page_size: page_size.to_owned(),
            usage,
            limit: at.limit(&prefix)?,
            peak: at.number(&format!("{prefix}.max_usage_in_bytes"))?.unwrap_or(0),
            failcnt: at.failcnt(&prefix)?,
            reserved,
        });
    }
    Ok(sizes)
}

impl At<'_> {
    fn dir(&self) -> &Dir {
        match self {
            At::V1(dir) | At::V2(dir) => dir,
        }
    }

    fn usage(&self) -> &'static str {
        match self {
            At::V1(_) => "usage_in_bytes",
            At::V2(_) => "current",
        }
    }

    fn number(&self, file: &str) -> Result<Option<u64>> {
        let Some(text) = self.dir().read_if_there(file)? else { return Ok(None) };
        text.trim_end().parse().map(Some).map_err(|_| self.dir().malformed(file, &text, "a number of bytes"))
    }

    /// v1 shows "no limit" as the largest number of whole pages that a 64-bit integer holds.
    fn limit(&self, prefix: &str) -> Result<Option<u64>> {
        match self {
            At::V1(dir) => Ok(Some(dir.number(&format!("{prefix}.limit_in_bytes"))?).filter(|limit| *limit < 1 << 62)),
            At::V2(dir) => dir.limit(&format!("{prefix}.max")),
        }
    }

    fn failcnt(&self, prefix: &str) -> Result<u64> {
        let figure = match self {
            At::V1(_) => self.number(&format!("{prefix}.failcnt"))?,
            At::V2(dir) => dir.read_if_there(&format!("{prefix}.events"))?.and_then(|text| v2::field(&text, "max")),
        };
        Ok(figure.unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dir::fixture::Fixture;

    fn limit(page_size: &str, limit: u64) -> HugetlbLimit {
        HugetlbLimit { page_size: page_size.to_owned(), limit }
    }

    #[test]
    fn a_limit_is_written_for_pages_in_use_and_reserved() {
        let v2 = Fixture::new(&[("hugetlb.2MB.max", "max"), ("hugetlb.2MB.rsvd.max", "max")]);
        apply(Some(At::V2(&v2.dir)), &[limit("2MB", 0)]).expect("the limit");
        assert_eq!((v2.content("hugetlb.2MB.max"), v2.content("hugetlb.2MB.rsvd.max")), ("0".into(), "0".into()));

        let v1 = Fixture::new(&[("hugetlb.1GB.limit_in_bytes", "9"), ("hugetlb.1GB.rsvd.limit_in_bytes", "9")]);
        apply(Some(At::V1(&v1.dir)), &[limit("1GB", 1 << 30)]).expect("the limit");
        assert_eq!(v1.content("hugetlb.1GB.limit_in_bytes"), "1073741824");
    }

    #[test]
    fn a_limit_of_zero_needs_no_controller_and_no_such_page_size() {
        let empty = Fixture::new(&[]);
        apply(None, &[limit("2MB", 0)]).expect("nothing to do");
        apply(Some(At::V2(&empty.dir)), &[limit("1GB", 0)]).expect("nothing to do");
    }

    #[test]
    fn a_limit_above_zero_without_the_controller_is_refused_by_name() {
        let error = apply(None, &[limit("2MB", 2 << 20)]).expect_err("no controller");
        assert_eq!(error.to_string(), "linux.resources.hugepageLimits: 2MB: the hugetlb controller is not mounted");
    }

    #[test]
    fn a_page_size_cannot_name_another_file() {
        apply(None, &[limit("../../memory.limit_in_bytes/2MB", 0)]).expect_err("not a page size");
    }

    #[test]
    fn the_use_of_each_page_size_is_read() {
        let v2 = Fixture::new(&[
            ("hugetlb.2MB.current", "4194304\n"),
            ("hugetlb.2MB.max", "max\n"),
            ("hugetlb.2MB.events", "max 5\n"),
            ("hugetlb.2MB.rsvd.current", "6291456\n"),
            ("hugetlb.2MB.rsvd.events", "max 6\n"),
        ]);
        let expected = HugetlbStats {
            page_size: "2MB".into(),
            usage: 4 << 20,
            failcnt: 5,
            reserved: Some((6 << 20, 6)),
            ..HugetlbStats::default()
        };
        assert_eq!(read(&At::V2(&v2.dir)).expect("stats"), [expected]);

        let v1 = Fixture::new(&[
            ("hugetlb.1GB.usage_in_bytes", "0\n"),
            ("hugetlb.1GB.max_usage_in_bytes", "7\n"),
            ("hugetlb.1GB.limit_in_bytes", "9223372036854771712\n"),
            ("hugetlb.1GB.failcnt", "8\n"),
        ]);
        let expected = HugetlbStats { page_size: "1GB".into(), peak: 7, failcnt: 8, ..HugetlbStats::default() };
        assert_eq!(read(&At::V1(&v1.dir)).expect("stats"), [expected]);
    }

    #[test]
    fn the_controller_is_enabled_from_the_root_down_to_the_parent() {
        let root = Fixture::new(&[
            ("cgroup.controllers", "hugetlb\n"),
            ("cgroup.subtree_control", ""),
            ("pods/cgroup.subtree_control", ""),
            ("pods/c1/cgroup.subtree_control", ""),
        ]);
        let path = CgroupPath::parse("/pods/c1").expect("a path");
        enable(&root.dir, &path, &[limit("2MB", 1)]).expect("enabled");
        assert_eq!(root.content("cgroup.subtree_control"), "+hugetlb");
        assert_eq!(root.content("pods/cgroup.subtree_control"), "+hugetlb");
        assert_eq!(root.content("pods/c1/cgroup.subtree_control"), "");
    }
}
