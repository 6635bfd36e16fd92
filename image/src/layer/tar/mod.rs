//! A streaming reader of tar archives, for archives that nobody vouches for.
//!
//! It reads v7, ustar, star, GNU (long names, old sparse) and PAX (paths, sizes, attributes, sparse 0.0 to 1.0). Where
//! two tars would read the same bytes differently it stops: a size that two headers tell differently smuggled files
//! past scanners (CVE-2025-62518), and an archive that mixes GNU's and PAX's extensions or says things twice is no
//! archive that an honest tool writes. It never touches a file system.

mod header;
mod pax;
mod sparse;

use std::io::{self, BufRead};

pub(crate) use sys::at::Timestamp;

use self::header::{BLOCK, Header};
use self::pax::Records;
use crate::layer::limits::Limits;

/// Why an archive is refused.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The archive itself is wrong.
    #[error("tar entry {number}{}: {fault}", shown(.name))]
    Fault {
        /// Which entry, from 1.
        number: u64,
        /// Its name as far as it was read.
        name: Vec<u8>,
        /// What is wrong.
        fault: Fault,
    },
    /// The bytes below could not be read.
    #[error("read the layer")]
    Read(#[source] io::Error),
}

/// What can be wrong with an entry.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The header's sum does not fit.
    #[error("the header's checksum is wrong")]
    Checksum,
    /// A field is no number, or out of range.
    #[error("the {0} is not a number in range")]
    Number(&'static str),
    /// A PAX record breaks its grammar.
    #[error("a PAX record is malformed")]
    PaxRecord,
    /// Two places say different things, or one is said twice.
    #[error("the {0} is ambiguous")]
    Ambiguous(&'static str),
    /// The sparse map makes no sense.
    #[error("the sparse map is wrong: {0}")]
    Sparse(&'static str),
    /// A bound of ours is passed.
    #[error("the {0} is beyond the limit")]
    TooLarge(&'static str),
    /// The archive ends in the middle.
    #[error("the archive is cut off")]
    Truncated,
    /// An entry type that images do not have.
    #[error("entry type {0:?} is not supported")]
    Type(char),
    /// A name or a link target is empty.
    #[error("the {0} is empty")]
    Empty(&'static str),
    /// A link, directory or device that claims to have content.
    #[error("it has content, which its type can't have")]
    Content,
}

fn shown(name: &[u8]) -> String {
    match name {
        b"" => String::new(),
        name => format!(" \"{}\"", name[..name.len().min(256)].escape_ascii()),
    }
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A regular file; its content comes from [`Entries::chunk`]. With a map, the content is what lies in the map's
    /// segments, and everything else up to `size` is a hole.
    File {
        size: u64,
        map: Option<Vec<Segment>>,
    },
    Directory,
    Symlink(Vec<u8>),
    HardLink(Vec<u8>),
    CharDevice(u64, u64),
    BlockDevice(u64, u64),
    Fifo,
}

/// A run of data in a sparse file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// One entry, without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// As it stands in the archive: may be absolute, hold `..`, or end in a slash.
    pub(crate) path: Vec<u8>,
    pub(crate) kind: Kind,
    /// The lower twelve bits.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) modified: Timestamp,
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The entries of an archive, one after the other.
pub(crate) struct Entries<R> {
    input: R,
    limits: Limits,
    /// Entries so far, extension headers included.
    count: u64,
    /// Content of the current entry that is still to be read, and its padding.
    remaining: u64,
    padding: u64,
    /// Bytes of the last chunk, which the input still holds.
    lent: usize,
    /// The name for an error message.
    name: Vec<u8>,
    ended: bool,
}

/// What extension headers said about the entry that follows them.
#[derive(Default)]
struct Extensions {
    long_path: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    pax: Option<Records>,
}

impl<R: BufRead> Entries<R> {
    pub(crate) fn new(input: R, limits: Limits) -> Self {
        Self { input, limits, count: 0, remaining: 0, padding: 0, lent: 0, name: Vec::new(), ended: false }
    }

    /// The next entry; what is left of the current one's content is skipped.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, TarError> {
        if self.ended {
            return Ok(None);
        }
        self.skip_content()?;
        self.name.clear();
        let mut extensions = Extensions::default();
        loop {
            let mut block = [0; BLOCK];
            if !self.read_block(&mut block)? || self.is_end(&block)? {
                self.ended = true;
                return match extensions.any() {
                    true => Err(self.fault(Fault::Truncated)),
                    false => Ok(None),
                };
            }
            self.count += 1;
            if self.count > self.limits.entries {
                return Err(self.fault(Fault::TooLarge("number of entries")));
            }
            let header = Header::check(&block).map_err(|fault| self.fault(fault))?;
            if !self.extension(&header, &mut extensions)? {
                return self.entry(&header, extensions).map(Some);
            }
        }
    }

    /// The next run of the current entry's content; `None` at its end. Holes are not part of the content.
    pub(crate) fn chunk(&mut self) -> Result<Option<&[u8]>, TarError> {
        self.input.consume(std::mem::take(&mut self.lent));
        if self.remaining == 0 {
            return Ok(None);
        }
        // Twice, because the borrow of the first could not be returned on one path and dropped on the other.
        if self.input.fill_buf().map_err(TarError::Read)?.is_empty() {
            return Err(self.fault(Fault::Truncated));
        }
        let available = self.input.fill_buf().map_err(TarError::Read)?;
        let take = available.len().min(usize::try_from(self.remaining).unwrap_or(usize::MAX));
        self.lent = take;
        self.remaining -= take as u64;
        Ok(Some(&available[..take]))
    }

    /// Reads what follows the end of the archive, so that whoever hashes below has seen everything.
    pub(crate) fn drain(&mut self) -> Result<(), TarError> {
        loop {
            let available = self.input.fill_buf().map_err(TarError::Read)?.len();
            if available == 0 {
                return Ok(());
            }
            self.input.consume(available);
        }
    }

    /// An error about the current entry.
    pub(crate) fn fault(&self, fault: Fault) -> TarError {
        TarError::Fault { number: self.count, name: self.name.clone(), fault }
    }

    /// Takes an extension header in; `false` if `header` is an entry of its own.
    fn extension(&mut self, header: &Header<'_>, extensions: &mut Extensions) -> Result<bool, TarError> {
        let size = header.size().map_err(|fault| self.fault(fault))?;
        match header.type_flag() {
            b'L' => {
                let name = self.long_name(size)?;
                self.set_once(&mut extensions.long_path, name, "long name")?;
            }
            b'K' => {
                let name = self.long_name(size)?;
                self.set_once(&mut extensions.long_link, name, "long link name")?;
            }
            b'x' => {
                let data = self.content(size, self.limits.pax_header, "PAX header")?;
                let records = Records::parse(&data, &self.limits).map_err(|fault| self.fault(fault))?;
                self.set_once(&mut extensions.pax, records, "PAX header")?;
            }
            b'g' => {
                let data = self.content(size, self.limits.pax_header, "PAX header")?;
                let records = Records::parse(&data, &self.limits).map_err(|fault| self.fault(fault))?;
                if records.changes_entries() {
                    return Err(self.fault(Fault::Ambiguous("global PAX header")));
                }
            }
            _ => return Ok(false),
        }
        if extensions.pax.is_some() && (extensions.long_path.is_some() || extensions.long_link.is_some()) {
            return Err(self.fault(Fault::Ambiguous("mix of PAX and GNU headers")));
        }
        Ok(true)
    }

    fn set_once<T>(&self, field: &mut Option<T>, value: T, what: &'static str) -> Result<(), TarError> {
        match field.replace(value) {
            None => Ok(()),
            Some(_) => Err(self.fault(Fault::Ambiguous(what))),
        }
    }

    /// The entry that `header` and the extensions before it describe.
    fn entry(&mut self, header: &Header<'_>, extensions: Extensions) -> Result<Entry, TarError> {
        let mut pax = extensions.pax.unwrap_or_default();
        let path = pax.sparse.name.take().or(pax.path.take()).or(extensions.long_path).unwrap_or_else(|| header.path());
        self.name.clone_from(&path);
        if path.is_empty() {
            return Err(self.fault(Fault::Empty("name")));
        }
        let link = pax.link.take().or(extensions.long_link).unwrap_or_else(|| header.link());
        if path.len() > self.limits.path || link.len() > self.limits.path {
            return Err(self.fault(Fault::TooLarge("path")));
        }
        let result = self.assemble(header, pax, path, link);
        result.map_err(|error| match error {
            Stop::Fault(fault) => self.fault(fault),
            Stop::Tar(error) => error,
        })
    }

    fn assemble(&mut self, header: &Header<'_>, pax: Records, path: Vec<u8>, link: Vec<u8>) -> Result<Entry, Stop> {
        let size = self.stored_size(header, &pax)?;
        let id = |own: Option<u64>, header: Result<u64, Fault>, name| {
            let id = own.map_or(header, Ok)?;
            // The highest id is "no change" to chown(2).
            u32::try_from(id).ok().filter(|id| *id != u32::MAX).ok_or(Fault::Number(name))
        };
        let (uid, gid) = (id(pax.uid, header.uid(), "uid")?, id(pax.gid, header.gid(), "gid")?);
        let modified = match pax.modified {
            Some(modified) => modified,
            None => header.modified()?,
        };
        let (mode, xattrs) = (header.mode()?, pax.xattrs);
        self.remaining = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
        let kind = match header.type_flag() {
            b'0' | 0 | b'7' if path.ends_with(b"/") => Kind::Directory, // how v7 writes a directory
            b'0' | 0 | b'7' if pax.sparse.any() => self.pax_sparse(&pax.sparse, size)?,
            b'0' | 0 | b'7' => Kind::File { size, map: None },
            b'S' if header.is_gnu() => self.gnu_sparse(header, size)?,
            b'1' => Kind::HardLink(target(link)?),
            b'2' => Kind::Symlink(target(link)?),
            b'3' => header.device().map(|(major, minor)| Kind::CharDevice(major, minor))?,
            b'4' => header.device().map(|(major, minor)| Kind::BlockDevice(major, minor))?,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => return Err(Fault::Type(char::from(other)).into()),
        };
        match &kind {
            Kind::File { size, .. } if *size > self.limits.file_size => return Err(Fault::TooLarge("file size").into()),
            Kind::File { .. } => {}
            _ if size > 0 => return Err(Fault::Content.into()),
            _ if pax.sparse.any() => return Err(Fault::Sparse("it is on something that is no file").into()),
            _ => {}
        }
        Ok(Entry { path, kind, mode, uid, gid, modified, xattrs })
    }

    /// The bytes behind the header. A PAX record wins, but only where the ustar field could not hold the number or
    /// agrees with it.
    fn stored_size(&self, header: &Header<'_>, pax: &Records) -> Result<u64, Fault> {
        const USTAR_MAX: u64 = 0o777_7777_7777;
        let own = header.size()?;
        match pax.size {
            Some(size) if size != own && size <= USTAR_MAX => Err(Fault::Ambiguous("size")),
            Some(size) => Ok(size),
            None => Ok(own),
        }
    }

    /// The content of an `L` or `K` header: a name with its NUL.
    fn long_name(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        let mut name = self.content(size, self.limits.path as u64 + 1, "long name")?;
        while name.last() == Some(&0) {
            name.pop();
        }
        match name.is_empty() || name.contains(&0) {
            true => Err(self.fault(Fault::Ambiguous("long name"))),
            false => Ok(name),
        }
    }

    /// All of the content of an extension header, at most `max` bytes.
    fn content(&mut self, size: u64, max: u64, what: &'static str) -> Result<Vec<u8>, TarError> {
        if size > max {
            return Err(self.fault(Fault::TooLarge(what)));
        }
        self.remaining = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
        let mut data = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        while let Some(chunk) = self.chunk()? {
            data.extend_from_slice(chunk);
        }
        self.skip_content()?;
        Ok(data)
    }

    fn skip_content(&mut self) -> Result<(), TarError> {
        while self.chunk()?.is_some() {}
        self.remaining = std::mem::take(&mut self.padding);
        while self.chunk()?.is_some() {}
        Ok(())
    }

    /// Reads one block of the current entry's content, for the maps that stand there.
    fn content_block(&mut self, block: &mut [u8; BLOCK]) -> Result<(), TarError> {
        if self.remaining < BLOCK as u64 {
            return Err(self.fault(Fault::Sparse("it is longer than the entry")));
        }
        self.remaining -= BLOCK as u64;
        self.input.consume(std::mem::take(&mut self.lent));
        match self.read_block(block)? {
            true => Ok(()),
            false => Err(self.fault(Fault::Truncated)),
        }
    }

    /// `false` at the very end of the input.
    fn read_block(&mut self, block: &mut [u8; BLOCK]) -> Result<bool, TarError> {
        let mut filled = 0;
        while filled < BLOCK {
            let available = self.input.fill_buf().map_err(TarError::Read)?;
            if available.is_empty() {
                return if filled == 0 { Ok(false) } else { Err(self.fault(Fault::Truncated)) };
            }
            let take = available.len().min(BLOCK - filled);
            block[filled..filled + take].copy_from_slice(&available[..take]);
            self.input.consume(take);
            filled += take;
        }
        Ok(true)
    }

    /// Two blocks of zeros end an archive. One alone is a damaged archive to some readers and nothing to others.
    fn is_end(&mut self, block: &[u8; BLOCK]) -> Result<bool, TarError> {
        if block.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        let mut second = [0; BLOCK];
        match self.read_block(&mut second)? {
            true if second.iter().any(|byte| *byte != 0) => Err(self.fault(Fault::Ambiguous("lone block of zeros"))),
            _ => Ok(true),
        }
    }
}

impl Extensions {
    fn any(&self) -> bool {
        self.long_path.is_some() || self.long_link.is_some() || self.pax.is_some()
    }
}

/// What ends the reading of an entry, before the entry's number and name are put to it.
enum Stop {
    Fault(Fault),
    Tar(TarError),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<TarError> for Stop {
    fn from(error: TarError) -> Self {
        Self::Tar(error)
    }
}

fn target(link: Vec<u8>) -> Result<Vec<u8>, Fault> {
    if link.is_empty() { Err(Fault::Empty("link target")) } else { Ok(link) }
}

#[cfg(test)]
mod tests;
