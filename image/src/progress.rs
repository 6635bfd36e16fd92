//! What a pull tells while it runs, for a progress bar or a log line.

use std::sync::Arc;

use crate::digest::Digest;

/// Where a layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Waiting for its turn, or for another pull that is fetching the same layer.
    Waiting,
    /// Being downloaded and unpacked, in one pass.
    Fetching,
    /// On disk and verified.
    Done,
    /// Was there before the pull.
    Present,
}

/// One event of a pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// The name was resolved and the layers are known.
    Resolved {
        /// The digest of the manifest (or index) that the reference names.
        digest: Digest,
        /// Compressed digest and size in bytes of every layer, lowest first.
        layers: Vec<(Digest, u64)>,
    },
    /// A layer moved on.
    Layer {
        /// Its compressed digest.
        digest: Digest,
        /// Where it is.
        phase: Phase,
        /// Compressed bytes that have arrived.
        done: u64,
        /// Compressed bytes in all.
        total: u64,
    },
    /// All layers are unpacked; the image is being made durable.
    Syncing,
}

/// Receives the events, from any thread; must not block.
pub type ProgressSink = Arc<dyn Fn(Progress) + Send + Sync>;
