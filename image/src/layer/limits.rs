//! What a layer may ask of us. Everything here is far above any honest image and far below what hurts a node.

/// Bounds on one layer. containerd has none of them; CVE-2017-14992, CVE-2025-58183 and their like are why we do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Entries in the archive; and again as many directories that its paths only imply.
    pub(crate) entries: u64,
    /// Bytes of the uncompressed archive that are always allowed, whatever the ratio.
    pub(crate) free_expansion: u64,
    /// Beyond that: uncompressed bytes per compressed byte. (Deflate ends at 1032, text rarely passes 20.)
    pub(crate) ratio: u64,
    /// Apparent size of one file, holes included.
    pub(crate) file_size: u64,
    /// Segments of one sparse file.
    pub(crate) sparse_segments: usize,
    /// Bytes of one PAX header.
    pub(crate) pax_header: u64,
    /// Bytes of all extended attributes of one entry.
    pub(crate) xattr_bytes: usize,
    /// Bytes of a path; the kernel's PATH_MAX.
    pub(crate) path: usize,
    /// Directories in one path, so that nothing here or later recurses deeper.
    pub(crate) depth: usize,
    /// Bytes of memory for what directories get at the end: their paths, owners, modes, times and attributes.
    pub(crate) deferred: usize,
}

impl Limits {
    /// The limits of a pull.
    pub(crate) const PULL: Self = Self {
        entries: 5_000_000,
        free_expansion: 1 << 30,
        ratio: 200,
        file_size: 16 << 40,
        sparse_segments: 1 << 16,
        pax_header: 1 << 20,
        xattr_bytes: 128 << 10,
        path: 4096,
        depth: 256,
        deferred: 64 << 20,
    };

    /// How many uncompressed bytes may come out of `received` bytes. Not of as many as the manifest promises: who sends
    /// a bomb writes the manifest too.
    pub(crate) fn expansion(&self, received: u64) -> u64 {
        self.free_expansion.max(received.saturating_mul(self.ratio))
    }
}
