//! Entries of an archive become files below one directory, and nowhere else.
//!
//! A parent directory is resolved by [`RootFd`] (links in an image may lead anywhere inside the layer), and everything
//! is then done to one name in that directory, by fd, never following it. Directories get their owner, mode and times
//! last: until then they are ours alone, and what is put into them changes their times.
//!
//! Layers are unpacked without their parents, in parallel, so a directory that the archive only implies can't take its
//! owner and mode from the layer below here; it is reported in [`LayerTree::implied`] for whoever stacks the layers.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufRead, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use sys::Errno;
use sys::at::{self, OFlag, SFlag, Timestamp};
use sys::rootfd::RootFd;

use super::limits::Limits;
use super::path::{self, Marker, shown};
use super::tar::{Entries, Entry, Kind, Segment};
use super::{LayerError, TarError};

/// What overlayfs reads on a directory that hides everything below it.
const OPAQUE: &str = "trusted.overlay.opaque";
/// Directories that are kept open. Archives go depth first, so few are enough.
const OPEN_DIRECTORIES: usize = 48;
/// The components of the longest target that a link can have.
const MOST_BEHIND_A_LINK: u64 = 2048;
/// What a file system gives out at least.
const DISK_BLOCK: u64 = 4096;

/// Why an entry can't be written.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// A system call said no.
    #[error("unpack \"{path}\"")]
    Write {
        /// The path in the image, escaped.
        path: String,
        /// The call.
        #[source]
        source: sys::Error,
    },
    /// The name is a whiteout of nothing, or lies below one.
    #[error("unpack \"{path}\": not a valid whiteout")]
    Whiteout {
        /// The path in the image, escaped.
        path: String,
    },
    /// Too many directories.
    #[error("unpack \"{path}\": too many nested directories")]
    TooDeep {
        /// The path in the image, escaped and cut off.
        path: String,
    },
    /// Directories that a few bytes of the archive imply in great number, or that carry too many attributes.
    #[error("unpack \"{path}\": too many directories")]
    TooManyDirectories {
        /// The path in the image, escaped and cut off.
        path: String,
    },
    /// Something that is no directory stands where one is needed.
    #[error("unpack \"{path}\": a parent is not a directory")]
    NotADirectory {
        /// The path in the image, escaped.
        path: String,
    },
    /// The root can only be a directory.
    #[error("the archive says that the root directory is something else")]
    Root,
    /// Numbers that Linux has no room for.
    #[error("unpack \"{path}\": device {major}:{minor} is out of range")]
    Device {
        /// The path in the image, escaped.
        path: String,
        /// As the archive has it.
        major: u64,
        /// As the archive has it.
        minor: u64,
    },
}

impl ExtractError {
    /// True if another archive would have been written; false if this machine can't write (any more).
    pub(super) fn is_about_content(&self) -> bool {
        match self {
            Self::Write { source, .. } => matches!(
                source.errno(),
                Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::ENAMETOOLONG | Errno::EINVAL | Errno::EMLINK
            ),
            _ => true,
        }
    }

    /// The number of the call that failed.
    pub(crate) fn errno(&self) -> Option<Errno> {
        match self {
            Self::Write { source, .. } => Some(source.errno()),
            _ => None,
        }
    }
}

/// What came out of a layer.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct LayerTree {
    /// Bytes on disk, counted on the way.
    pub(crate) bytes: u64,
    pub(crate) inodes: u64,
    /// Directories that the archive never named, outermost first.
    pub(crate) implied: Vec<PathBuf>,
    /// Nothing of the layers below is seen: the opaque marker stood in the root.
    pub(crate) opaque_root: bool,
}

/// What a directory gets at the end.
struct DirectoryMetadata {
    mode: u32,
    uid: u32,
    gid: u32,
    modified: Option<Timestamp>,
    /// Only those that are restored.
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// No entry named it, and the lower layers' one shows through.
    implied: bool,
}

impl DirectoryMetadata {
    /// What it takes in memory until the end, with its path.
    fn weight(&self, path: &[u8]) -> usize {
        let xattrs = self.xattrs.iter().map(|(name, value)| name.len() + value.len() + size_of::<(Vec<u8>, Vec<u8>)>());
        path.len() + size_of::<(Vec<u8>, Self)>() + xattrs.sum::<usize>()
    }
}

/// Writes entries below one directory.
pub(super) struct Extractor {
    root: RootFd,
    limits: Limits,
    open: HashMap<Vec<u8>, Rc<OwnedFd>>,
    directories: BTreeMap<Vec<u8>, DirectoryMetadata>,
    /// The weight of them all.
    deferred: usize,
    /// Directories that were made without an entry of their own.
    unnamed: u64,
    tree: LayerTree,
}

impl Extractor {
    pub(super) fn new(root: RootFd, limits: Limits) -> Self {
        Self {
            root,
            limits,
            open: HashMap::new(),
            directories: BTreeMap::new(),
            deferred: 0,
            unnamed: 0,
            tree: LayerTree { inodes: 1, bytes: DISK_BLOCK, ..LayerTree::default() },
        }
    }

    /// Writes one entry, taking its content from `entries`.
    pub(super) fn entry<R: BufRead>(&mut self, entries: &mut Entries<R>, entry: Entry) -> Result<(), LayerError> {
        let path = path::clean(&entry.path, &self.limits)?;
        if path.is_empty() {
            // As containerd: the root's own owner and mode in an archive are not applied.
            return if entry.kind == Kind::Directory { Ok(()) } else { Err(ExtractError::Root.into()) };
        }
        let (up, name) = path::split(&path);
        match path::marker(&path)? {
            Some(Marker::Metadata) => return Ok(()),
            Some(Marker::Opaque) => return Ok(self.opaque(up)?),
            Some(Marker::Whiteout(hidden)) => return Ok(self.whiteout(up, hidden, &entry)?),
            None => {}
        }
        let parent = self.directory(up)?;
        let place = Place { parent: &parent, name: OsStr::from_bytes(name), path: &path };
        match &entry.kind {
            Kind::File { size, map } => return self.file(entries, &place, &entry, *size, map.as_deref()),
            Kind::Directory => self.make_directory(&place, entry)?,
            Kind::Symlink(target) => self.symlink(&place, &entry, target)?,
            Kind::HardLink(target) => self.hard_link(&place, target)?,
            Kind::CharDevice(major, minor) => self.node(&place, &entry, SFlag::S_IFCHR, (*major, *minor))?,
            Kind::BlockDevice(major, minor) => self.node(&place, &entry, SFlag::S_IFBLK, (*major, *minor))?,
            Kind::Fifo => self.node(&place, &entry, SFlag::S_IFIFO, (0, 0))?,
        }
        Ok(())
    }

    /// Gives the directories what they wait for, and sums up.
    pub(super) fn finish(mut self) -> Result<LayerTree, ExtractError> {
        self.open.clear();
        // Deepest first: changing a directory changes its parent's times on no file system, but removing the right
        // to enter it might matter to one that is not ext4.
        for (path, metadata) in std::mem::take(&mut self.directories).into_iter().rev() {
            let directory = match self.root.open_dir(Path::new(OsStr::from_bytes(&path))) {
                Ok(directory) => directory,
                // A later entry put a link or a file where this path led.
                Err(error) if error.is(Errno::ENOENT) || error.is(Errno::ENOTDIR) => continue,
                Err(source) => return Err(ExtractError::Write { path: shown(&path), source }),
            };
            let fail = |source| ExtractError::Write { path: shown(&path), source };
            own(&directory, metadata.uid, metadata.gid).map_err(fail)?;
            set_xattrs(&directory, &metadata.xattrs).map_err(fail)?;
            at::fchmod(&directory, metadata.mode).map_err(fail)?;
            if let Some(modified) = metadata.modified {
                at::futimens(&directory, modified, modified).map_err(fail)?;
            }
            if metadata.implied {
                self.tree.implied.push(PathBuf::from(OsString::from_vec(path)));
            }
        }
        self.tree.implied.reverse();
        Ok(self.tree)
    }

    fn file<R: BufRead>(
        &mut self,
        entries: &mut Entries<R>,
        place: &Place<'_>,
        entry: &Entry,
        size: u64,
        map: Option<&[Segment]>,
    ) -> Result<(), LayerError> {
        let how = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
        let file = self.put(place, || at::openat(place.parent, place.name, how, 0o600))?;
        let mut file = File::from(file);
        let written = match map {
            None => write_plain(entries, &mut file)?,
            Some(map) => write_sparse(entries, &file, size, map)?,
        };
        let stored = written.map_err(|error| place.failed(write_error(&error)))?;
        let finish = || {
            own(&file, entry.uid, entry.gid)?;
            set_xattrs(&file, &entry.xattrs)?;
            at::fchmod(&file, entry.mode)?;
            at::futimens(&file, entry.modified, entry.modified)
        };
        finish().map_err(|error| place.failed(error))?;
        self.count(stored);
        Ok(())
    }

    fn make_directory(&mut self, place: &Place<'_>, entry: Entry) -> Result<(), ExtractError> {
        self.new_directory(place)?;
        let Entry { mode, uid, gid, modified, mut xattrs, .. } = entry;
        xattrs.retain(|(name, _)| is_restored(name));
        self.defer(place.path, DirectoryMetadata { mode, uid, gid, modified: Some(modified), xattrs, implied: false })
    }

    /// Remembers what a directory gets at the end.
    fn defer(&mut self, path: &[u8], metadata: DirectoryMetadata) -> Result<(), ExtractError> {
        self.deferred += metadata.weight(path);
        if let Some(before) = self.directories.insert(path.to_vec(), metadata) {
            self.deferred -= before.weight(path);
        }
        match self.deferred > self.limits.deferred {
            true => Err(ExtractError::TooManyDirectories { path: shown(path) }),
            false => Ok(()),
        }
    }

    /// Counts directories that are about to be made for `path` and that have no entry.
    fn charge(&mut self, path: &[u8], directories: u64) -> Result<(), ExtractError> {
        self.unnamed += directories;
        match self.unnamed > self.limits.entries {
            true => Err(ExtractError::TooManyDirectories { path: shown(path) }),
            false => Ok(()),
        }
    }

    /// Makes a directory, unless there is one. In place of a whiteout it is opaque: the whiteout hid the lower one.
    fn new_directory(&mut self, place: &Place<'_>) -> Result<(), ExtractError> {
        let make = || at::mkdirat(place.parent, place.name, 0o700);
        let found = match make() {
            Ok(()) => None,
            Err(error) if error.is(Errno::EEXIST) => Some(place.existing()?),
            Err(error) => return Err(place.failed(error)),
        };
        match found {
            Some(Existing::Directory) => return Ok(()),
            Some(_) => {
                self.remove(place)?;
                make().map_err(|error| place.failed(error))?;
            }
            None => {}
        }
        if found == Some(Existing::Whiteout) {
            let directory = at::openat(place.parent, place.name, OFlag::O_PATH, 0);
            let mark = directory.and_then(|directory| at::fsetxattr(&directory, OPAQUE, b"y"));
            mark.map_err(|error| place.failed(error))?;
        }
        self.count(DISK_BLOCK);
        Ok(())
    }

    fn symlink(&mut self, place: &Place<'_>, entry: &Entry, target: &[u8]) -> Result<(), ExtractError> {
        self.put(place, || at::symlinkat(OsStr::from_bytes(target), place.parent, place.name))?;
        let finish = || {
            own_name(place, entry.uid, entry.gid)?;
            set_xattrs_of_name(place, &entry.xattrs)?;
            at::utimensat(place.parent, place.name, entry.modified, entry.modified)
        };
        finish().map_err(|error| place.failed(error))?;
        self.count(0);
        Ok(())
    }

    /// The link shares the inode of something that this layer already has; its own metadata is the same.
    fn hard_link(&mut self, place: &Place<'_>, target: &[u8]) -> Result<(), ExtractError> {
        let target = path::clean(target, &self.limits)?;
        if target == place.path {
            return Ok(());
        }
        if target.is_empty() {
            return Err(ExtractError::Root);
        }
        let (up, old) = path::split(&target);
        let directory = self.existing_directory(up).map_err(|error| place.failed(error))?;
        self.put(place, || at::linkat(&*directory, OsStr::from_bytes(old), place.parent, place.name))
    }

    fn node(
        &mut self,
        place: &Place<'_>,
        entry: &Entry,
        kind: SFlag,
        (major, minor): (u64, u64),
    ) -> Result<(), ExtractError> {
        // Linux has 12 and 20 bits for them. What makes a device harmless is the container's device cgroup.
        if major >= 1 << 12 || minor >= 1 << 20 {
            return Err(ExtractError::Device { path: shown(place.path), major, minor });
        }
        self.put(place, || at::mknodat(place.parent, place.name, kind, 0o600, at::device(major, minor)))?;
        let finish = || {
            own_name(place, entry.uid, entry.gid)?;
            set_xattrs_of_name(place, &entry.xattrs)?;
            at::fchmodat(place.parent, place.name, entry.mode)?;
            at::utimensat(place.parent, place.name, entry.modified, entry.modified)
        };
        finish().map_err(|error| place.failed(error))?;
        self.count(0);
        Ok(())
    }

    /// Hides `hidden` of the lower layers; what this layer itself has of that name stays, whichever comes first.
    fn whiteout(&mut self, up: &[u8], hidden: &[u8], entry: &Entry) -> Result<(), ExtractError> {
        let parent = self.directory(up)?;
        let path = if up.is_empty() { hidden.to_vec() } else { [up, b"/", hidden].concat() };
        let place = Place { parent: &parent, name: OsStr::from_bytes(hidden), path: &path };
        match at::mknodat(&*parent, place.name, SFlag::S_IFCHR, 0, at::device(0, 0)) {
            Ok(()) => {
                own_name(&place, entry.uid, entry.gid).map_err(|error| place.failed(error))?;
                self.count(0);
                Ok(())
            }
            Err(error) if error.is(Errno::EEXIST) => match place.existing()? {
                Existing::Directory => {
                    if let Some(metadata) = self.directories.get_mut(&path) {
                        metadata.implied = false;
                    }
                    self.opaque(&path)
                }
                _ => Ok(()), // it hides the lower one already
            },
            Err(error) => Err(place.failed(error)),
        }
    }

    /// Hides everything that the lower layers have in the directory `path`.
    fn opaque(&mut self, path: &[u8]) -> Result<(), ExtractError> {
        if path.is_empty() {
            // overlayfs does not look for the mark on a layer's root.
            self.tree.opaque_root = true;
            return Ok(());
        }
        let directory = self.directory(path)?;
        at::fsetxattr(&*directory, OPAQUE, b"y").map_err(|source| ExtractError::Write { path: shown(path), source })
    }

    /// The directory `path`, made if it is missing.
    fn directory(&mut self, path: &[u8]) -> Result<Rc<OwnedFd>, ExtractError> {
        let fail = |source| ExtractError::Write { path: shown(path), source };
        match self.existing_directory(path) {
            Err(error) if error.is(Errno::ENOENT) || error.is(Errno::ENOTDIR) => {}
            result => return result.map_err(fail),
        }
        if path.is_empty() {
            return self.existing_directory(path).map_err(fail); // the root itself is gone: say so
        }
        let (up, name) = path::split(path);
        let parent = self.directory(up)?;
        let place = Place { parent: &parent, name: OsStr::from_bytes(name), path };
        self.charge(path, 1)?;
        match at::mkdirat(&*parent, place.name, 0o700) {
            Ok(()) => {
                self.count(DISK_BLOCK);
                self.imply(path, true)?;
            }
            Err(error) if error.is(Errno::EEXIST) => match place.existing()? {
                Existing::Directory => {}
                Existing::Whiteout => {
                    self.new_directory(&place)?;
                    self.imply(path, false)?;
                }
                // A link whose target is not there yet (or only in a lower layer): the target is made, as containerd
                // does.
                Existing::Link => {
                    self.charge(path, MOST_BEHIND_A_LINK)?;
                    self.root.mkdir_all(Path::new(OsStr::from_bytes(path)), 0o755).map_err(fail)?;
                }
                Existing::Other => return Err(ExtractError::NotADirectory { path: shown(path) }),
            },
            Err(error) => return Err(fail(error)),
        }
        self.existing_directory(path).map_err(fail)
    }

    /// Notes a directory that no entry named (yet). If the lower layers' one shows through, its metadata is taken
    /// later.
    fn imply(&mut self, path: &[u8], shows_lower: bool) -> Result<(), ExtractError> {
        let (mode, uid, gid) = (0o755, 0, 0);
        let metadata = DirectoryMetadata { mode, uid, gid, modified: None, xattrs: Vec::new(), implied: shows_lower };
        self.defer(path, metadata)
    }

    fn existing_directory(&mut self, path: &[u8]) -> sys::Result<Rc<OwnedFd>> {
        if let Some(open) = self.open.get(path) {
            return Ok(open.clone());
        }
        let directory = Rc::new(self.root.open_dir(Path::new(OsStr::from_bytes(path)))?);
        if self.open.len() >= OPEN_DIRECTORIES {
            self.open.clear();
        }
        self.open.insert(path.to_vec(), directory.clone());
        Ok(directory)
    }

    /// Makes something, in place of whatever stands there.
    fn put<T>(&mut self, place: &Place<'_>, make: impl Fn() -> sys::Result<T>) -> Result<T, ExtractError> {
        let made = match make() {
            Err(error) if error.is(Errno::EEXIST) => {
                self.remove(place)?;
                make()
            }
            made => made,
        };
        made.map_err(|error| place.failed(error))
    }

    /// Removes what stands at `place`, all of it, and what we remember of it.
    fn remove(&mut self, place: &Place<'_>) -> Result<(), ExtractError> {
        sys::remove::remove_all(place.parent, place.name).map_err(|error| place.failed(error))?;
        // Paths through it, by a link too, may lead elsewhere now.
        self.open.clear();
        let itself = self.directories.remove_entry(place.path);
        // What lies below it starts with its path and a slash, and '0' is the byte after the slash.
        let (first, end) = ([place.path, b"/"].concat(), [place.path, b"0"].concat());
        let below = self.directories.extract_if(first..end, |_, _| true);
        let gone = itself.into_iter().chain(below).map(|(path, metadata)| metadata.weight(&path)).sum::<usize>();
        self.deferred -= gone;
        Ok(())
    }

    fn count(&mut self, bytes: u64) {
        self.tree.inodes += 1;
        self.tree.bytes += bytes.next_multiple_of(DISK_BLOCK);
    }
}

/// One name in one directory, and the path that led there (for messages and bookkeeping).
struct Place<'a> {
    parent: &'a OwnedFd,
    name: &'a OsStr,
    path: &'a [u8],
}

/// What stands where something is to be made.
#[derive(PartialEq, Eq)]
enum Existing {
    Directory,
    Link,
    Whiteout,
    Other,
}

impl Place<'_> {
    fn failed(&self, source: sys::Error) -> ExtractError {
        ExtractError::Write { path: shown(self.path), source }
    }

    fn existing(&self) -> Result<Existing, ExtractError> {
        let stat = at::fstatat(self.parent, self.name).map_err(|error| self.failed(error))?;
        Ok(match at::file_type(&stat) {
            SFlag::S_IFDIR => Existing::Directory,
            SFlag::S_IFLNK => Existing::Link,
            SFlag::S_IFCHR if stat.st_rdev == 0 => Existing::Whiteout,
            _ => Existing::Other,
        })
    }
}

/// The archive's fault outside, the file's inside.
type Written = Result<io::Result<u64>, TarError>;

fn write_plain<R: BufRead>(entries: &mut Entries<R>, file: &mut File) -> Written {
    let mut written = 0;
    while let Some(chunk) = entries.chunk()? {
        if let Err(error) = file.write_all(chunk) {
            return Ok(Err(error));
        }
        written += chunk.len() as u64;
    }
    Ok(Ok(written))
}

/// Writes each segment to its place; what lies between stays a hole.
fn write_sparse<R: BufRead>(entries: &mut Entries<R>, file: &File, size: u64, map: &[Segment]) -> Written {
    let mut written = 0;
    let mut segments = map.iter().copied();
    let mut segment = Segment { offset: 0, length: 0 };
    while let Some(mut chunk) = entries.chunk()? {
        while !chunk.is_empty() {
            if segment.length == 0 {
                // The reader checked that the segments hold exactly the content.
                let Some(next) = segments.next() else { return Ok(Err(io::ErrorKind::InvalidData.into())) };
                segment = next;
            }
            let take = chunk.len().min(usize::try_from(segment.length).unwrap_or(usize::MAX));
            if let Err(error) = file.write_all_at(&chunk[..take], segment.offset) {
                return Ok(Err(error));
            }
            segment = Segment { offset: segment.offset + take as u64, length: segment.length - take as u64 };
            written += take as u64;
            chunk = &chunk[take..];
        }
    }
    Ok(file.set_len(size).map(|()| written))
}

fn write_error(error: &io::Error) -> sys::Error {
    sys::Error::from_io("write", error, "")
}

/// What we make is root's already.
fn own(file: &impl std::os::fd::AsFd, uid: u32, gid: u32) -> sys::Result<()> {
    if (uid, gid) == (0, 0) { Ok(()) } else { at::fchown(file, uid, gid) }
}

fn own_name(place: &Place<'_>, uid: u32, gid: u32) -> sys::Result<()> {
    if (uid, gid) == (0, 0) { Ok(()) } else { at::fchownat(place.parent, place.name, uid, gid) }
}

fn set_xattrs(file: &impl std::os::fd::AsFd, xattrs: &[(Vec<u8>, Vec<u8>)]) -> sys::Result<()> {
    xattrs
        .iter()
        .filter(|(name, _)| is_restored(name))
        .try_for_each(|(name, value)| tolerate(name, at::fsetxattr(file, OsStr::from_bytes(name), value)))
}

fn set_xattrs_of_name(place: &Place<'_>, xattrs: &[(Vec<u8>, Vec<u8>)]) -> sys::Result<()> {
    xattrs.iter().filter(|(name, _)| is_restored(name)).try_for_each(|(name, value)| {
        tolerate(name, at::lsetxattr(place.parent, place.name, OsStr::from_bytes(name), value))
    })
}

/// What an image may say about its files. Never what overlayfs obeys (`trusted.overlay.*`, `user.overlay.*`) nor what a
/// security module of the host trusts.
fn is_restored(name: &[u8]) -> bool {
    let user = name.starts_with(b"user.") && !name.starts_with(b"user.overlay.");
    user || matches!(name, b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default")
}

/// A file system without attributes, or a kind of file that can't have them, is no reason to refuse an image.
fn tolerate(name: &[u8], result: sys::Result<()>) -> sys::Result<()> {
    match result {
        Err(error) if error.is(Errno::EOPNOTSUPP) || (error.is(Errno::EPERM) && name.starts_with(b"user.")) => {
            tracing::debug!(%error, "extended attribute left out");
            Ok(())
        }
        result => result,
    }
}
