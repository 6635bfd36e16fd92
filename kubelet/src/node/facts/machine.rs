//! What /proc, /sys and /etc say of this machine. Paths are below a root that tests give.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A file to read the machine's identity from is small.
const MAX_FILE: u64 = 64 * 1024;

/// A machine's files.
pub(super) struct Files {
    root: PathBuf,
}

impl Files {
    /// Those below `root`, `/` but in tests.
    pub(super) fn below(root: &Path) -> Files {
        Files { root: root.to_owned() }
    }

    /// The first of these that can be read, without the white space around it.
    fn first(&self, paths: &[&str]) -> Option<String> {
        paths.iter().find_map(|path| {
            let content = sys::fs::read_bounded(self.root.join(path), MAX_FILE).ok()?;
            let text = String::from_utf8_lossy(&content);
            Some(text.trim_matches(|c: char| c.is_whitespace() || c == '\0').to_owned())
        })
    }

    /// `/etc/machine-id`.
    pub(super) fn machine_id(&self) -> String {
        self.first(&["etc/machine-id", "var/lib/dbus/machine-id"]).unwrap_or_default()
    }

    /// The firmware's UUID, or else the machine id.
    pub(super) fn system_uuid(&self) -> String {
        let places = [
            "sys/class/dmi/id/product_uuid",
            "proc/device-tree/system-id",
            "proc/device-tree/vm,uuid",
            "etc/machine-id",
        ];
        self.first(&places).unwrap_or_default()
    }

    /// Another one after each boot.
    pub(super) fn boot_id(&self) -> String {
        self.first(&["proc/sys/kernel/random/boot_id"]).unwrap_or_default()
    }

    /// `uname -r`.
    pub(super) fn kernel_version(&self) -> String {
        self.first(&["proc/sys/kernel/osrelease"]).unwrap_or_default()
    }

    /// `PRETTY_NAME` of os-release.
    pub(super) fn os_image(&self) -> String {
        let release = self.first(&["etc/os-release", "usr/lib/os-release"]).unwrap_or_default();
        let named = release.lines().find_map(|line| line.trim().strip_prefix("PRETTY_NAME="));
        let name = named.unwrap_or_default().trim_matches(['"', '\'']);
        if name.is_empty() { "Linux".to_owned() } else { name.to_owned() }
    }

    /// Memory and swap in bytes.
    pub(super) fn memory(&self) -> Option<(u64, u64)> {
        let info = self.first(&["proc/meminfo"])?;
        let of = |key: &str| {
            let line = info.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
            line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
        };
        Some((of("MemTotal")?, of("SwapTotal").unwrap_or(0)))
    }

    /// Processors that are online.
    pub(super) fn cpus(&self) -> Option<u32> {
        count_list(&self.first(&["sys/devices/system/cpu/online"])?).filter(|count| *count > 0)
    }

    /// Page size in bytes → number of pages.
    pub(super) fn huge_pages(&self) -> BTreeMap<u64, u64> {
        let folder = "sys/kernel/mm/hugepages";
        let sizes = std::fs::read_dir(self.root.join(folder)).into_iter().flatten().flatten();
        sizes
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let kib: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
                let number = self.first(&[&format!("{folder}/{name}/nr_hugepages")])?.parse().ok()?;
                Some((kib * 1024, number))
            })
            .collect()
    }
}

/// How many a list like `0-3,8` names.
fn count_list(list: &str) -> Option<u32> {
    list.split(',')
        .map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            last.checked_sub(first)?.checked_add(1)
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, Files) {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            sys::fs::atomic_write(path, content.as_bytes(), sys::fs::Durability::Rename, 0o644).unwrap();
        }
        let files = Files::below(root.path());
        (root, files)
    }

    #[test]
    fn a_machine_is_read_from_its_files() {
        let (_root, files) = machine(&[
            ("etc/machine-id", "0123\n"),
            ("sys/class/dmi/id/product_uuid", "ABCD-1\n"),
            ("proc/sys/kernel/random/boot_id", "b-1\n"),
            ("proc/sys/kernel/osrelease", "6.18.0\n"),
            ("etc/os-release", "NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n"),
            ("proc/meminfo", "MemTotal:        4028804 kB\nMemFree: 1 kB\nSwapTotal:  8 kB\n"),
            ("sys/devices/system/cpu/online", "0-3,8\n"),
            ("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "5\n"),
        ]);
        let identity = [files.machine_id(), files.system_uuid(), files.boot_id(), files.kernel_version()];
        assert_eq!(identity, ["0123", "ABCD-1", "b-1", "6.18.0"]);
        assert_eq!(files.os_image(), "Debian GNU/Linux 12 (bookworm)");
        assert_eq!(files.memory(), Some((4_028_804 * 1024, 8192)));
        assert_eq!(files.cpus(), Some(5));
        assert_eq!(files.huge_pages(), BTreeMap::from([(2 << 20, 5)]));
    }

    #[test]
    fn what_a_machine_does_not_have_is_empty_or_stood_in_for() {
        let (_root, files) = machine(&[("var/lib/dbus/machine-id", "9\n"), ("etc/os-release", "NAME=x\n")]);
        assert_eq!((files.machine_id(), files.system_uuid()), ("9".to_owned(), String::new()));
        assert_eq!((files.os_image().as_str(), files.memory(), files.cpus()), ("Linux", None, None));
        assert!(files.huge_pages().is_empty());
    }

    #[test]
    fn a_list_of_processors_is_counted() {
        for (list, expected) in
            [("0", Some(1)), ("0-1", Some(2)), ("0-3,8,10-11", Some(7)), ("", None), ("3-1", None), ("x", None)]
        {
            assert_eq!(count_list(list), expected, "{list:?}");
        }
    }
}
