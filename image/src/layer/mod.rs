//! One layer: from compressed bytes to a verified tree of files, in one pass.
//!
//! ```text
//! network ──▶ sha256 ──▶ inflate ──┬──▶ sha256 (diff id)
//!  (async)      the inflating      └──▶ tar ──▶ files
//!               thread                 the caller's thread
//! ```
//!
//! Nothing is stored in between: the compressed blob is not kept, its unpacked tree is what the store holds. The tree
//! grows in a directory that nobody else looks at; [`apply`] says yes only after both digests were right.

mod extract;
mod inflate;
mod limits;
mod path;
mod tar;

use std::io::{self, BufRead, Read};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bytes::Bytes;
use sys::rootfd::RootFd;

pub use self::extract::ExtractError;
pub(crate) use self::extract::LayerTree;
pub use self::inflate::InflateError;
use self::inflate::{Compressed, inflate};
pub(crate) use self::limits::Limits;
pub use self::tar::{Fault, TarError};
use crate::digest::Digest;

/// Blocks between the inflating thread and the two that follow it.
const QUEUE: usize = 4;

/// What a layer must be.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    /// Of the compressed bytes.
    pub(crate) blob: Digest,
    /// The number of compressed bytes.
    pub(crate) size: u64,
    /// Of the uncompressed archive.
    pub(crate) diff_id: Digest,
}

/// Why a layer is not there.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The download ended early; whoever fed it knows why.
    #[error("the download ended after {got} of {want} bytes")]
    Incomplete {
        /// Bytes that came.
        got: u64,
        /// Bytes that the manifest promises.
        want: u64,
    },
    /// The compressed bytes are not those that the manifest names.
    #[error("the registry sent content whose digest is {got}")]
    WrongBlob {
        /// What came.
        got: Digest,
    },
    /// The archive is not the one that the image's config names.
    #[error("the uncompressed layer's digest is {got}, but the image's config says {want}")]
    WrongDiff {
        /// What came.
        got: Digest,
        /// What the config says.
        want: Digest,
    },
    /// It can't be inflated, or grows beyond measure.
    #[error(transparent)]
    Inflate(#[from] InflateError),
    /// It is no good archive.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// It can't be written as it is.
    #[error(transparent)]
    Extract(#[from] ExtractError),
    /// A thread could not be started.
    #[error("start a thread to unpack the layer")]
    Thread(#[source] io::Error),
}

impl LayerError {
    /// True if the fault may lie in the bytes that came, rather than in this machine.
    fn is_about_content(&self) -> bool {
        match self {
            Self::Incomplete { .. } | Self::Thread(_) => false,
            Self::Extract(error) => error.is_about_content(),
            _ => true,
        }
    }
}

/// Unpacks the layer that comes out of `input` into the empty directory `target`, and verifies it.
///
/// Blocks until the input ends; ends early if the machine can't go on. If the archive is broken the rest of the input
/// is still hashed: "the registry sent wrong bytes" is the truer error.
pub(crate) fn apply(
    input: tokio::sync::mpsc::Receiver<Bytes>,
    expected: &Expected,
    target: RootFd,
    limits: Limits,
) -> Result<LayerTree, LayerError> {
    let give_up = AtomicBool::new(false);
    let received = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let (to_files, from_inflate) = sync_channel::<Bytes>(QUEUE);
        let (to_hash, from_inflate_too) = sync_channel::<Bytes>(QUEUE);
        let named = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let inflating = named("inflate").spawn_scoped(scope, || {
            let mut compressed = Compressed::new(input, &received, expected, &give_up);
            let mut blocks = Blocks { files: Some(to_files), hash: to_hash };
            let limit = || limits.expansion(received.load(Ordering::Relaxed));
            let inflated = inflate(&mut compressed, limit, |block| blocks.send(block));
            drop(blocks);
            compressed.finish().map(|()| inflated)
        });
        let hashing = named("diff id").spawn_scoped(scope, || {
            let mut hasher = expected.diff_id.algorithm().hasher();
            from_inflate_too.into_iter().for_each(|block| hasher.update(&block));
            hasher.finish()
        });
        let (inflating, hashing) = (inflating.map_err(LayerError::Thread)?, hashing.map_err(LayerError::Thread)?);

        let tree = unpack(from_inflate, target, limits);
        if tree.as_ref().is_err_and(|error| !error.is_about_content()) {
            give_up.store(true, Ordering::Relaxed);
        }
        // Threads of ours do not panic; if one did, its panic goes on here.
        let inflated = inflating.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let diff_id = hashing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        verdict(tree, inflated, diff_id, expected)
    })
}

/// Of all that may have gone wrong, the cause rather than the consequence.
fn verdict(
    tree: Result<LayerTree, LayerError>,
    inflated: Result<Result<(), InflateError>, LayerError>,
    diff_id: Digest,
    expected: &Expected,
) -> Result<LayerTree, LayerError> {
    match tree {
        Err(error) if !error.is_about_content() => Err(error),
        tree => {
            inflated??;
            let tree = tree?;
            match diff_id == expected.diff_id {
                true => Ok(tree),
                false => Err(LayerError::WrongDiff { got: diff_id, want: expected.diff_id.clone() }),
            }
        }
    }
}

fn unpack(input: Receiver<Bytes>, target: RootFd, limits: Limits) -> Result<LayerTree, LayerError> {
    let mut entries = tar::Entries::new(BlockReader { input, block: Bytes::new() }, limits);
    let mut extractor = extract::Extractor::new(target, limits);
    while let Some(entry) = entries.next()? {
        extractor.entry(&mut entries, entry)?;
    }
    entries.drain()?;
    Ok(extractor.finish()?)
}

/// Where the inflating thread sends its blocks.
struct Blocks {
    /// `None` once the archive turned out to be broken; hashing goes on.
    files: Option<SyncSender<Bytes>>,
    hash: SyncSender<Bytes>,
}

impl Blocks {
    fn send(&mut self, block: Bytes) {
        if self.files.as_ref().is_some_and(|files| files.send(block.clone()).is_err()) {
            self.files = None;
        }
        // The hashing thread ends only after this sender.
        let _ = self.hash.send(block);
    }
}

/// The blocks as one stream.
struct BlockReader {
    input: Receiver<Bytes>,
    block: Bytes,
}

impl BufRead for BlockReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.block.is_empty()
            && let Ok(block) = self.input.recv()
        {
            self.block = block;
        }
        Ok(&self.block)
    }

    fn consume(&mut self, amount: usize) {
        bytes::Buf::advance(&mut self.block, amount);
    }
}

impl Read for BlockReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let take = available.len().min(buffer.len());
        buffer[..take].copy_from_slice(&available[..take]);
        self.consume(take);
        Ok(take)
    }
}

#[cfg(test)]
mod tests;
