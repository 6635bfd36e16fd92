//! The directories that back an image's volumes: filled with what the image has at their paths, owners, modes and
//! extended attributes included.
//!
//! Both sides are the image's to shape, so that every step goes by fd: the source through [`RootFd`], its content as
//! [`sys::copy`] does it.

use crate::failure::{Failure, Result};
use crate::spec::mounts::Volume;
use sys::Errno;
use sys::procfs::ProcFd;
use sys::rootfd::RootFd;

/// Makes and fills the directories. Blocks.
pub(crate) fn fill(volumes: &[Volume], rootfs: &RootFd) -> Result<()> {
    for volume in volumes {
        let failure = |error: &sys::Error| Failure::internal(format!("volume {}", volume.target.display()), error);
        std::fs::create_dir_all(&volume.source)
            .map_err(|error| Failure::internal(format!("make {}", volume.source.display()), &error))?;
        let source = match rootfs.open_dir(&volume.target) {
            Ok(source) => source,
            // Nothing of the image is there: the volume is empty.
            Err(error) if error.is(Errno::ENOENT) || error.is(Errno::ENOTDIR) => continue,
            Err(error) => return Err(failure(&error)),
        };
        let target = RootFd::open(&volume.source).map_err(|error| failure(&error))?;
        let procfs = ProcFd::open().map_err(|error| failure(&error))?;
        sys::copy::copy_content(&source, &target, &procfs).map_err(|error| failure(&error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::path::Path;

    #[test]
    fn a_volume_begins_with_what_the_image_has_there_and_a_link_leads_nowhere_outside() {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        for path in [root.join("data/sub"), root.join("real"), outside.clone()] {
            std::fs::create_dir_all(path).unwrap();
        }
        let write =
            |path: &Path, text: &str| std::io::Write::write_all(&mut File::create(path).unwrap(), text.as_bytes());
        write(&outside.join("secret"), "secret").unwrap();
        write(&root.join("data/sub/file"), "content").unwrap();
        std::fs::set_permissions(root.join("data/sub/file"), std::fs::Permissions::from_mode(0o640)).unwrap();
        symlink(&outside, root.join("data/link")).unwrap();
        symlink(&outside, root.join("stolen")).unwrap();
        symlink("../../../../outside", root.join("climb")).unwrap();
        let volume = |target: &str, source: &str| Volume { target: target.into(), source: dir.path().join(source) };
        let volumes = ["/data", "/stolen", "/climb", "/absent"].map(|target| volume(target, &target[1..]));
        fill(&volumes, &RootFd::open(&root).unwrap()).unwrap();
        let copy = dir.path().join("data/sub/file");
        assert_eq!(std::fs::read_to_string(&copy).unwrap(), "content");
        assert_eq!(copy.metadata().unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(std::fs::read_link(dir.path().join("data/link")).unwrap(), outside);
        for empty in ["stolen", "climb", "absent"] {
            assert_eq!(std::fs::read_dir(dir.path().join(empty)).unwrap().count(), 0, "{empty}");
        }
    }
}
