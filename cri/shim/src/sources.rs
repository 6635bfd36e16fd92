//! What bind mount sources need before a container's mounts are made. For stage children: a source may hang.

use crate::failure::{failure, internal};
use crate::stage::Reporter;
use shim_protocol::{ErrorKind, Failure, Propagation, Source};
use std::path::Path;
use sys::mountinfo::MountInfo;

/// Makes missing directories and checks the mounts that hold the sources, each in a stage that names it.
pub(crate) fn prepare(sources: &[Source], reporter: &Reporter) -> Result<(), Failure> {
    for source in sources {
        reporter.stage(&format!("open volume {}", source.path.display()));
        prepare_one(source)?;
    }
    Ok(())
}

fn prepare_one(source: &Source) -> Result<(), Failure> {
    let path = &source.path;
    let tried = || format!("open volume {}", path.display());
    match std::fs::metadata(path) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && source.create_missing => {
            std::fs::create_dir_all(path).map_err(|error| internal(tried(), &error))?;
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(failure(ErrorKind::Invalid, format_args!("volume {} does not exist", path.display())));
        }
        Err(error) => return Err(internal(tried(), &error)),
    }
    let Some(required) = source.require else { return Ok(()) };
    let real = std::fs::canonicalize(path).map_err(|error| internal(tried(), &error))?;
    let mounts = sys::mountinfo::read().map_err(|error| internal(tried(), &error))?;
    check_propagation(&real, &mounts, required)
}

/// Whether the mount that holds `path`, a path without links, passes mounts on as required.
fn check_propagation(path: &Path, mounts: &[MountInfo], required: Propagation) -> Result<(), Failure> {
    // The longest mount point wins, and of equals the last: it lies on top.
    let holder = mounts.iter().filter(|mount| path.starts_with(&mount.mount_point));
    let holder = holder.max_by_key(|mount| mount.mount_point.components().count());
    let Some(holder) = holder else {
        return Err(failure(ErrorKind::Internal, format_args!("no mount holds volume {}", path.display())));
    };
    let has = |tag: &str| holder.propagation.iter().any(|field| field.starts_with(tag));
    let (fits, wanted) = match required {
        Propagation::Shared => (has("shared:"), "shared"),
        Propagation::SharedOrSlave => (has("shared:") || has("master:"), "shared or slave"),
    };
    if fits {
        return Ok(());
    }
    let (path, mount) = (path.display(), holder.mount_point.display());
    let message = format!("volume {path} is mounted on {mount}, which is not a {wanted} mount");
    Err(failure(ErrorKind::Invalid, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounts(text: &str) -> Vec<MountInfo> {
        sys::mountinfo::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn the_mount_that_holds_the_source_decides() {
        let mounts = mounts(
            "1 0 8:1 / / rw shared:1 - ext4 /dev/a rw\n\
             2 1 8:2 / /mnt rw - ext4 /dev/b rw\n\
             3 2 8:3 / /mnt/slave rw master:7 - ext4 /dev/c rw\n\
             4 2 8:4 / /mnt/over rw shared:2 - ext4 /dev/d rw\n\
             5 4 8:5 / /mnt/over rw - ext4 /dev/e rw\n",
        );
        for (path, shared, slave) in [
            ("/home/data", true, true),
            ("/mntx", true, true),
            ("/mnt/data", false, false),
            ("/mnt/slave/data", false, true),
            ("/mnt/over/data", false, false),
        ] {
            let check = |required| check_propagation(Path::new(path), &mounts, required).is_ok();
            assert_eq!(check(Propagation::Shared), shared, "{path}");
            assert_eq!(check(Propagation::SharedOrSlave), slave, "{path}");
        }
    }
}
