//! The atomic writer: a pod sees all files of a volume change at once, by one rename.
//!
//! ```text
//! key        -> ..data/key                      what the pod opens
//! ..data     -> ..2026_11_21_10_00_00.17        the only thing that a change replaces
//! ..2026_11_21_10_00_00.17/key                  the content; never written to again
//! ```
//!
//! Upstream's layout and names: programs watch `..data`, and either kubelet takes over what the other one left. A crash
//! at any point leaves the old content in force; the next write removes what it left.

use super::payload::{File, Payload};
use jiff::Timestamp;
use nix::dir::Dir;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use sys::Errno;
use sys::at::{self, OFlag, RenameFlags, SFlag};
use sys::rootfd::RootFd;

/// The link that a change replaces.
const DATA: &str = "..data";
/// Its successor, until the rename.
const NEW_DATA: &str = "..data_tmp";
/// "Leave the owner as it is", for chown(2).
pub(super) const UNCHANGED: u32 = u32::MAX;

/// What a write did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// The content was there already.
    Unchanged,
    /// The pod sees new content.
    Replaced,
}

/// Makes `target` show exactly `payload`. `own` sets owners and permissions of the new folder before anybody sees it.
pub(super) fn write(
    target: &RootFd,
    payload: &Payload,
    now: Timestamp,
    own: impl FnOnce(&RootFd) -> sys::Result<()>,
) -> sys::Result<Written> {
    let old = current(target)?;
    let (folder, written) = match old {
        Some(name) if shows(target, &name, payload)? => (name, Written::Unchanged),
        _ => (replace(target, payload, now, own)?, Written::Replaced),
    };
    link_names(target, payload)?;
    remove_stale(target, payload, &folder)?;
    Ok(written)
}

/// The name of the folder that `..data` leads to; `None` without one, or if it leads anywhere but to a folder of ours.
fn current(target: &RootFd) -> sys::Result<Option<OsString>> {
    match at::readlinkat(target, DATA) {
        Ok(link) => {
            let name = link.into_os_string();
            Ok((is_ours(&name) && !name.as_bytes().contains(&b'/')).then_some(name))
        }
        Err(error) if error.is(Errno::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Names that start with `..` are the writer's; no payload has them.
fn is_ours(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b"..") && name.len() > 2
}

/// Whether the folder `name` holds the files of `payload`, no more, no less, with the same content.
fn shows(target: &RootFd, name: &OsStr, payload: &Payload) -> sys::Result<bool> {
    let folder = match at::openat(target, name, OFlag::O_RDONLY | OFlag::O_DIRECTORY, 0) {
        Ok(folder) => RootFd::from_fd(folder),
        Err(error) if matches!(error.errno(), Errno::ENOENT | Errno::ENOTDIR) => return Ok(false),
        Err(error) => return Err(error),
    };
    let files = files_below(&folder)?;
    if files.len() != payload.len() {
        return Ok(false);
    }
    for path in files {
        let Some(file) = payload.get(&path) else { return Ok(false) };
        if !holds(&folder, &path, &file.data)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether the regular file `path` holds exactly `data`.
fn holds(folder: &RootFd, path: &Path, data: &[u8]) -> sys::Result<bool> {
    let mut content = Vec::with_capacity(data.len() + 1);
    let file = folder.open_read(path)?;
    (&file)
        .take(data.len() as u64 + 1)
        .read_to_end(&mut content)
        .map_err(|error| sys::Error::from_io("read", &error, sys::error::fd(&file)))?;
    Ok(content == data)
}

/// The paths of everything below `folder` that is no directory.
fn files_below(folder: &RootFd) -> sys::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut directories = vec![PathBuf::new()];
    while let Some(path) = directories.pop() {
        let directory = folder.open_dir(&path)?;
        for name in names(folder, &path)? {
            let inside = path.join(&name);
            match at::file_type(&at::fstatat(&directory, &name)?) {
                SFlag::S_IFDIR => directories.push(inside),
                _ => files.push(inside),
            }
        }
    }
    Ok(files)
}

/// The names in a directory.
pub(super) fn names(root: &RootFd, path: &Path) -> sys::Result<Vec<OsString>> {
    let failed = |call, errno| sys::Error::new(call, errno, sys::error::quoted(path));
    let listing = Dir::from_fd(root.open_dir(path)?).map_err(|errno| failed("fdopendir", errno))?;
    let mut names = Vec::new();
    for entry in listing {
        let entry = entry.map_err(|errno| failed("getdents64", errno))?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// Writes a new folder and makes `..data` lead to it. Returns its name.
fn replace(
    target: &RootFd,
    payload: &Payload,
    now: Timestamp,
    own: impl FnOnce(&RootFd) -> sys::Result<()>,
) -> sys::Result<OsString> {
    let (name, folder) = new_folder(target, now)?;
    let filled = payload.files().try_for_each(|(path, file)| write_file(&folder, path, file));
    let published = filled.and_then(|()| own(target)).and_then(|()| publish(target, &name));
    if let Err(error) = published {
        // The first failure is the one to report; what stays is swept by the next write.
        let _ = sys::remove::remove_all(target, &name);
        return Err(error);
    }
    Ok(name)
}

/// A folder named after the time, with a number where that is taken.
fn new_folder(target: &RootFd, now: Timestamp) -> sys::Result<(OsString, RootFd)> {
    let stamp = now.strftime("..%Y_%m_%d_%H_%M_%S").to_string();
    let mut number = now.subsec_nanosecond().unsigned_abs();
    loop {
        let name = OsString::from(format!("{stamp}.{number}"));
        match at::mkdirat(target, &name, 0o700) {
            Ok(()) => {
                let folder = at::openat(target, &name, OFlag::O_RDONLY | OFlag::O_DIRECTORY, 0)?;
                at::fchmod(&folder, 0o755)?; // whatever the umask is: the pod's users pass through here
                return Ok((name, RootFd::from_fd(folder)));
            }
            Err(error) if error.is(Errno::EEXIST) => number += 1,
            Err(error) => return Err(error),
        }
    }
}

fn write_file(folder: &RootFd, path: &Path, content: &File) -> sys::Result<()> {
    let mut above = PathBuf::new();
    for name in path.parent().unwrap_or(Path::new("")) {
        above.push(name);
        at::fchmod(&folder.mkdir_all(&above, 0o755)?, 0o755)?;
    }
    let mut file = folder.create_file(path, 0o600)?;
    file.write_all(&content.data).map_err(|error| sys::Error::from_io("write", &error, sys::error::fd(&file)))?;
    if let Some(owner) = content.owner {
        at::fchown(&file, owner, UNCHANGED)?;
    }
    at::fchmod(&file, content.mode)
}

/// The one step that the pod notices.
fn publish(target: &RootFd, name: &OsStr) -> sys::Result<()> {
    match at::unlinkat(target, NEW_DATA) {
        Err(error) if !error.is(Errno::ENOENT) => return Err(error), // else: nothing, or what a crash left
        _ => {}
    }
    at::symlinkat(name, target, NEW_DATA)?;
    at::renameat(target, NEW_DATA, target, DATA, RenameFlags::empty())
}

/// Makes the links that the pod opens. What has one of the names already stays: a mount point, or the right link.
fn link_names(target: &RootFd, payload: &Payload) -> sys::Result<()> {
    for (name, owner) in payload.top_names() {
        match at::symlinkat(Path::new(DATA).join(name), target, name) {
            Ok(()) => {}
            Err(error) if error.is(Errno::EEXIST) => continue,
            Err(error) => return Err(error),
        }
        if let Some(owner) = owner {
            at::fchownat(target, name, owner, UNCHANGED)?;
        }
    }
    Ok(())
}

/// Removes links of ours to what the payload no longer has, and all folders but the one in force.
fn remove_stale(target: &RootFd, payload: &Payload, folder: &OsStr) -> sys::Result<()> {
    let wanted: BTreeSet<&OsStr> = payload.top_names().into_keys().map(OsStr::new).collect();
    for name in names(target, Path::new(""))? {
        if is_ours(&name) {
            if name != DATA && name != folder {
                sys::remove::remove_all(target, &name)?;
            }
        } else if !wanted.contains(name.as_os_str()) && is_link_to_data(target, &name) {
            at::unlinkat(target, &name)?;
        }
    }
    Ok(())
}

fn is_link_to_data(target: &RootFd, name: &OsStr) -> bool {
    at::readlinkat(target, name).is_ok_and(|link| link == Path::new(DATA).join(name))
}

#[cfg(test)]
mod tests {
    use super::super::payload::tests::payload;
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    const NOON: &str = "2026-01-01T12:00:00.000000007Z";

    struct Volume(tempfile::TempDir);

    impl Volume {
        fn new() -> Volume {
            Volume(tempfile::tempdir().unwrap())
        }

        fn write(&self, files: &[(&str, &str)]) -> Written {
            let target = RootFd::open(self.0.path()).unwrap();
            write(&target, &payload(files), NOON.parse().unwrap(), |_| Ok(())).unwrap()
        }

        /// Every file that a pod finds, with its content.
        fn seen(&self) -> Vec<(String, String)> {
            let mut found = Vec::new();
            let mut folders = vec![self.0.path().to_owned()];
            while let Some(folder) = folders.pop() {
                for entry in fs::read_dir(folder).unwrap() {
                    let path = entry.unwrap().path();
                    let name = path.strip_prefix(self.0.path()).unwrap().to_str().unwrap().to_owned();
                    match fs::metadata(&path) {
                        _ if name.starts_with("..") => {}
                        Ok(metadata) if metadata.is_dir() => folders.push(path),
                        Ok(_) => found.push((name, fs::read_to_string(path).unwrap())),
                        Err(error) => found.push((name, error.to_string())),
                    }
                }
            }
            found.sort();
            found
        }

        fn hidden(&self) -> Vec<String> {
            let names = fs::read_dir(self.0.path()).unwrap().map(|entry| entry.unwrap().file_name());
            let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
            names.retain(|name| name.starts_with(".."));
            names.sort();
            names
        }
    }

    /// After writing `first` and then `second` the pod sees `second` and nothing is left of `first`.
    fn check(first: &[(&str, &str)], second: &[(&str, &str)], expected: Written) {
        let volume = Volume::new();
        assert_eq!(volume.write(first), Written::Replaced);
        assert_eq!(volume.write(second), expected, "{first:?} → {second:?}");
        let mut wanted: Vec<_> = second.iter().map(|(path, data)| (path.to_string(), data.to_string())).collect();
        wanted.sort();
        assert_eq!(volume.seen(), wanted, "{first:?} → {second:?}");
        assert_eq!(volume.hidden().len(), 2, "{:?}", volume.hidden());
    }

    #[test]
    fn a_pod_sees_the_newest_payload_and_nothing_else() {
        use Written::{Replaced, Unchanged};
        check(&[("a", "1")], &[("a", "1")], Unchanged);
        check(&[("a", "1")], &[("a", "2")], Replaced);
        check(&[("a", "1")], &[("a", "1"), ("b", "2")], Replaced);
        check(&[("a", "1"), ("b", "2")], &[("a", "1")], Replaced);
        check(&[("a", "1")], &[], Replaced);
        check(&[], &[], Unchanged);
        check(&[("a", "12")], &[("a", "1")], Replaced);
        check(&[("d/e/f", "1"), ("d/g", "2")], &[("d/g", "2")], Replaced);
        check(&[("d/e", "1")], &[("d", "1")], Replaced);
        check(&[("d", "1")], &[("d/e", "1")], Replaced);
    }

    #[test]
    fn the_layout_is_upstreams() {
        let volume = Volume::new();
        volume.write(&[("key", "1"), ("d/e", "2")]);
        let link = |name: &str| fs::read_link(volume.0.path().join(name)).unwrap();
        assert_eq!(link("key"), Path::new("..data/key"));
        assert_eq!(link("d"), Path::new("..data/d"));
        assert_eq!(link("..data"), Path::new("..2026_01_01_12_00_00.7"));
        assert_eq!(fs::metadata(volume.0.path().join("..data")).unwrap().mode() & 0o7777, 0o755);
        assert_eq!(fs::metadata(volume.0.path().join("d")).unwrap().mode() & 0o7777, 0o755);
        assert_eq!(fs::metadata(volume.0.path().join("key")).unwrap().mode() & 0o7777, 0o644);
    }

    #[test]
    fn what_a_crash_left_is_removed_and_does_not_stop_the_next_write() {
        let volume = Volume::new();
        volume.write(&[("a", "1")]);
        fs::create_dir(volume.0.path().join("..2025_01_01_00_00_00.1")).unwrap();
        symlink("..2025_01_01_00_00_00.1", volume.0.path().join("..data_tmp")).unwrap();
        symlink("..data/gone", volume.0.path().join("gone")).unwrap();
        volume.write(&[("a", "2")]);
        assert_eq!(volume.seen(), [("a".to_owned(), "2".to_owned())]);
        assert_eq!(volume.hidden().len(), 2, "{:?}", volume.hidden());
    }

    #[test]
    fn a_link_that_is_missing_is_made_again_without_a_new_folder() {
        let volume = Volume::new();
        volume.write(&[("a", "1")]);
        fs::remove_file(volume.0.path().join("a")).unwrap();
        assert_eq!(volume.write(&[("a", "1")]), Written::Unchanged);
        assert_eq!(volume.seen().len(), 1);
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_content() {
        let volume = Volume::new();
        volume.write(&[("a", "1")]);
        let target = RootFd::open(volume.0.path()).unwrap();
        let refuse = |_: &RootFd| Err(sys::Error::new("fchownat", Errno::EPERM, "…"));
        write(&target, &payload(&[("a", "2")]), NOON.parse().unwrap(), refuse).unwrap_err();
        assert_eq!(volume.seen(), [("a".to_owned(), "1".to_owned())]);
        assert_eq!(volume.hidden().len(), 2, "{:?}", volume.hidden());
    }

    /// CVE-2017-1002102: the kubelet writes and deletes here as root, so nothing that stands here may lead it
    /// elsewhere.
    #[test]
    fn links_that_somebody_put_here_are_not_followed() {
        let volume = Volume::new();
        let canary = tempfile::tempdir().unwrap();
        fs::create_dir(canary.path().join("..victim")).unwrap();
        fs::File::create(canary.path().join("..victim/a")).unwrap();
        let place = |name: &str| volume.0.path().join(name);
        symlink(canary.path().join("..victim"), place("..data")).unwrap();
        symlink(canary.path(), place("..2020_01_01_00_00_00.1")).unwrap();
        symlink(canary.path(), place("..data_tmp")).unwrap();
        volume.write(&[("a", "1"), ("b/c", "2")]);
        assert_eq!(fs::read_link(place("..data")).unwrap(), Path::new("..2026_01_01_12_00_00.7"));
        assert_eq!(fs::read_dir(canary.path().join("..victim")).unwrap().count(), 1);
        assert_eq!(fs::metadata(canary.path().join("..victim/a")).unwrap().len(), 0);
        assert_eq!(volume.hidden().len(), 2, "{:?}", volume.hidden());
    }

    /// The pod reads a whole old or a whole new set at any moment.
    #[test]
    fn a_reader_never_sees_a_mixture() {
        use std::sync::atomic::{AtomicBool, Ordering};
        const PAIRS: usize = 300;
        let volume = Volume::new();
        volume.write(&[("a", "0"), ("b", "0")]);
        let done = AtomicBool::new(false);
        let mixed = std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in (1..).take_while(|_: &u64| !done.load(Ordering::Relaxed)) {
                    let text = number.to_string();
                    volume.write(&[("a", &text), ("b", &text)]);
                }
            });
            let read = || {
                let folder = RootFd::open(volume.0.path().join(DATA)).ok()?;
                let read = |name: &str| folder.read_bounded(Path::new(name), 20).ok();
                // A folder that is removed while we read is an old one: gone, but never mixed.
                Some((read("a")?, read("b")?))
            };
            let mixed = std::iter::repeat_with(read).flatten().take(PAIRS).find(|(a, b)| a != b);
            done.store(true, Ordering::Relaxed);
            mixed
        });
        assert_eq!(mixed, None);
    }
}
