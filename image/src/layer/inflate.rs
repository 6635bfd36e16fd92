//! Compressed bytes as they come from the network, hashed and inflated on the way.

use std::io::{self, BufRead, Read};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::{Buf, Bytes};
use tokio::sync::mpsc;

use super::{Expected, LayerError};
use crate::digest::Hasher;

/// Bytes per block that is handed on: large enough that queues cost nothing, small enough to stay in the cache.
const BLOCK: usize = 256 << 10;
/// The largest zstd window that is followed, 128 MiB: what zstd itself takes without being asked.
const ZSTD_WINDOW_LOG: u32 = 27;

/// Why a layer can't be inflated.
#[derive(Debug, thiserror::Error)]
pub enum InflateError {
    /// The compressed stream is broken, or is no stream of that kind.
    #[error("inflate the layer as {format}")]
    Format {
        /// `gzip`, `zstd` or `plain tar`.
        format: &'static str,
        /// What the decoder says.
        #[source]
        source: io::Error,
    },
    /// A bomb.
    #[error("the layer grows beyond {limit} bytes, which is out of proportion to its compressed size")]
    Bomb {
        /// Uncompressed bytes that were allowed.
        limit: u64,
    },
}

/// The compressed bytes: counted, hashed, compared with what the manifest says.
pub(super) struct Compressed<'a> {
    input: mpsc::Receiver<Bytes>,
    chunk: Bytes,
    got: u64,
    /// The same, for whoever inflates.
    received: &'a AtomicU64,
    hasher: Hasher,
    expected: &'a Expected,
    /// Set when what comes next interests nobody.
    give_up: &'a AtomicBool,
}

impl<'a> Compressed<'a> {
    pub(super) fn new(
        input: mpsc::Receiver<Bytes>,
        received: &'a AtomicU64,
        expected: &'a Expected,
        give_up: &'a AtomicBool,
    ) -> Self {
        let hasher = expected.blob.algorithm().hasher();
        Self { input, chunk: Bytes::new(), got: 0, received, hasher, expected, give_up }
    }

    /// Takes the rest of the input and says whether all of it was the blob that was expected.
    pub(super) fn finish(mut self) -> Result<(), LayerError> {
        while let Ok(available @ 1..) = self.fill_buf().map(<[u8]>::len) {
            self.consume(available);
        }
        if self.got != self.expected.size {
            return Err(LayerError::Incomplete { got: self.got, want: self.expected.size });
        }
        let got = self.hasher.finish();
        if got == self.expected.blob { Ok(()) } else { Err(LayerError::WrongBlob { got }) }
    }
}

impl BufRead for Compressed<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.chunk.is_empty() {
            if self.give_up.load(Ordering::Relaxed) {
                self.input.close();
                return Err(io::Error::other("nobody wants the rest"));
            }
            let Some(chunk) = self.input.blocking_recv() else { break };
            self.got += chunk.len() as u64;
            self.received.store(self.got, Ordering::Relaxed);
            self.hasher.update(&chunk);
            self.chunk = chunk;
        }
        Ok(&self.chunk)
    }

    fn consume(&mut self, amount: usize) {
        self.chunk.advance(amount);
    }
}

impl Read for Compressed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let take = available.len().min(buffer.len());
        buffer[..take].copy_from_slice(&available[..take]);
        self.consume(take);
        Ok(take)
    }
}

/// Inflates `input` into blocks, at no time more than `limit` bytes of them. The format is told by the first bytes: declared media
/// types are wrong often enough.
pub(super) fn inflate(
    input: &mut Compressed<'_>,
    limit: impl Fn() -> u64,
    send: impl FnMut(Bytes),
) -> Result<(), InflateError> {
    let mut magic = Vec::with_capacity(4);
    input
        .by_ref()
        .take(4)
        .read_to_end(&mut magic)
        .map_err(|source| InflateError::Format { format: "plain tar", source })?;
    let format = Format::of(&magic);
    let whole = Read::chain(io::Cursor::new(magic), input);
    let wrong = |source| InflateError::Format { format: format.name(), source };
    match format {
        Format::Gzip => copy(flate2::bufread::MultiGzDecoder::new(whole), limit, format, send),
        Format::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(whole).map_err(wrong)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(wrong)?;
            copy(decoder, limit, format, send)
        }
        Format::Plain => copy(whole, limit, format, send),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Gzip,
    Zstd,
    Plain,
}

impl Format {
    fn of(magic: &[u8]) -> Self {
        match magic {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // RFC 8878: a frame, or a skippable frame in front of one.
            [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => Self::Zstd,
            _ => Self::Plain,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Plain => "plain tar",
        }
    }
}

fn copy(
    mut from: impl Read,
    limit: impl Fn() -> u64,
    format: Format,
    mut send: impl FnMut(Bytes),
) -> Result<(), InflateError> {
    let mut total = 0_u64;
    loop {
        let mut block = Vec::with_capacity(BLOCK);
        let read = from.by_ref().take(BLOCK as u64).read_to_end(&mut block);
        total += block.len() as u64;
        let limit = limit();
        if total > limit {
            return Err(InflateError::Bomb { limit });
        }
        let last = block.is_empty();
        if !last {
            send(Bytes::from(block));
        }
        match read {
            Ok(_) if last => return Ok(()),
            Ok(_) => {}
            Err(source) => return Err(InflateError::Format { format: format.name(), source }),
        }
    }
}
