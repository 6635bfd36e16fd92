//! Kernel modules: in the order of a list, or by name through `modules.dep`.

use crate::Result;
use nix::kmod::{ModuleInitFlags, finit_module};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// Loads the modules of the list `<dir>/order`, one file name a line.
pub(crate) fn load_all(dir: &str) -> Result<()> {
    let list = format!("{dir}/order");
    let order = fs::read_to_string(&list).map_err(|error| format!("read {list}: {error}"))?;
    order.lines().try_for_each(|name| load(&Path::new(dir).join(name)))
}

/// Loads modules of the running kernel with all that they need.
pub(crate) fn load_named(names: &[&str]) -> Result<()> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").map_err(|error| format!("the release: {error}"))?;
    let dir = PathBuf::from("/lib/modules").join(release.trim());
    let path = dir.join("modules.dep");
    let table = fs::read_to_string(&path).map_err(|error| format!("read {}: {error}", path.display()))?;
    names.iter().try_for_each(|name| dependencies(&table, name)?.iter().try_for_each(|file| load(&dir.join(file))))
}

/// The files of a module and of what it needs, in the order of loading: modules.dep(5) lists a module's needs with the
/// deepest last.
fn dependencies<'t>(table: &'t str, name: &str) -> Result<Vec<&'t str>> {
    let file = format!("/{name}.ko");
    let line = table.lines().find(|line| line.split(':').next().is_some_and(|path| path.ends_with(&file)));
    let (own, needs) = line.and_then(|line| line.split_once(':')).ok_or_else(|| format!("no module {name}"))?;
    Ok(needs.split_whitespace().rev().chain([own]).collect())
}

fn load(path: &Path) -> Result<()> {
    let file = File::open(path).map_err(|error| format!("open module {}: {error}", path.display()))?;
    match finit_module(&file, c"", ModuleInitFlags::empty()) {
        Ok(()) | Err(nix::errno::Errno::EEXIST) => Ok(()),
        Err(error) => Err(format!("load module {}: {error}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_module_needs_comes_before_it() {
        let table = "kernel/b.ko: kernel/c.ko kernel/d.ko\nkernel/c.ko: kernel/d.ko\nkernel/d.ko:\n";
        assert_eq!(dependencies(table, "b").unwrap(), ["kernel/d.ko", "kernel/c.ko", "kernel/b.ko"]);
        assert_eq!(dependencies(table, "d").unwrap(), ["kernel/d.ko"]);
        assert!(dependencies(table, "x").is_err());
    }
}
