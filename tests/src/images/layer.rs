//! A layer: a tar archive built entry by entry, and its compressed form.

use std::io::Write as _;

use tar::{EntryType, Header};

use super::{Format, digest};

/// How a layer's blob is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// The bare tar archive.
    None,
    /// gzip, the common form.
    Gzip,
    /// zstd; only OCI has a media type for it.
    Zstd,
}

/// A finished layer.
#[derive(Debug, Clone)]
pub struct Blob {
    /// The bytes as a registry serves them.
    pub bytes: Vec<u8>,
    /// The digest of `bytes`.
    pub digest: String,
    /// The digest of the uncompressed archive.
    pub diff_id: String,
    compression: Compression,
}

impl Blob {
    pub(super) fn media_type(&self, format: Format) -> &'static str {
        match (format, self.compression) {
            (Format::Docker, Compression::None) => "application/vnd.docker.image.rootfs.diff.tar",
            (Format::Docker, _) => "application/vnd.docker.image.rootfs.diff.tar.gzip",
            (Format::Oci, Compression::None) => "application/vnd.oci.image.layer.v1.tar",
            (Format::Oci, Compression::Gzip) => "application/vnd.oci.image.layer.v1.tar+gzip",
            (Format::Oci, Compression::Zstd) => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

/// A tar archive under construction. Paths are written as given, so that hostile ones can be built too.
pub struct Layer {
    archive: Vec<u8>,
}

impl Default for Layer {
    fn default() -> Layer {
        Layer::new()
    }
}

impl Layer {
    /// An empty layer.
    pub fn new() -> Layer {
        Layer { archive: Vec::new() }
    }

    /// A directory of root's.
    #[must_use]
    pub fn dir(self, path: &str, mode: u32) -> Layer {
        self.entry(EntryType::Directory, &format!("{path}/"), mode, (0, 0), "", &[])
    }

    /// A regular file of root's.
    #[must_use]
    pub fn file(self, path: &str, mode: u32, content: impl AsRef<[u8]>) -> Layer {
        self.entry(EntryType::Regular, path, mode, (0, 0), "", content.as_ref())
    }

    /// A symbolic link.
    #[must_use]
    pub fn symlink(self, path: &str, target: &str) -> Layer {
        self.entry(EntryType::Symlink, path, 0o777, (0, 0), target, &[])
    }

    /// A hard link to `target`, an earlier executable: unpackers apply the link's mode to the file they share.
    #[must_use]
    pub fn hard_link(self, path: &str, target: &str) -> Layer {
        self.entry(EntryType::Link, path, 0o755, (0, 0), target, &[])
    }

    /// Any entry: `owner` is (uid, gid), `link` the target of a link, `content` the data that follows the header.
    #[must_use]
    pub fn entry(
        mut self,
        kind: EntryType,
        path: &str,
        mode: u32,
        owner: (u64, u64),
        link: &str,
        content: &[u8],
    ) -> Layer {
        for (long, text) in [(EntryType::GNULongName, path), (EntryType::GNULongLink, link)] {
            if text.len() > 99 {
                let text = [text.as_bytes(), b"\0"].concat();
                self.raw(long, "././@LongLink", 0o644, (0, 0), "", &text);
            }
        }
        self.raw(kind, path, mode, owner, link, content);
        self
    }

    /// Bytes put into the archive as they are: a header that lies, an archive that ends early.
    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Layer {
        self.archive.extend_from_slice(bytes);
        self
    }

    /// Ends the archive and compresses it.
    pub fn finish(mut self, compression: Compression) -> Blob {
        self.archive.extend_from_slice(&[0; 1024]);
        let bytes = match compression {
            Compression::None => self.archive.clone(),
            Compression::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(&self.archive).expect("gzip into memory");
                encoder.finish().expect("gzip into memory")
            }
            Compression::Zstd => zstd::bulk::compress(&self.archive, 1).expect("zstd into memory"),
        };
        Blob { digest: digest(&bytes), diff_id: digest(&self.archive), bytes, compression }
    }

    fn raw(&mut self, kind: EntryType, path: &str, mode: u32, owner: (u64, u64), link: &str, content: &[u8]) {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(owner.0);
        header.set_gid(owner.1);
        header.set_mtime(1_700_000_000);
        header.set_size(content.len() as u64);
        let gnu = header.as_gnu_mut().expect("made as one");
        copy_field(&mut gnu.name, path);
        copy_field(&mut gnu.linkname, link);
        header.set_cksum();
        self.archive.extend_from_slice(header.as_bytes());
        self.archive.extend_from_slice(content);
        self.archive.resize(self.archive.len().next_multiple_of(512), 0);
    }
}

/// Names are copied as bytes because `Header::set_path` refuses what hostile archives contain.
fn copy_field(field: &mut [u8; 100], text: &str) {
    let length = text.len().min(99);
    field[..length].copy_from_slice(&text.as_bytes()[..length]);
}
