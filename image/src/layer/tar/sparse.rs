//! Sparse files: where their data lies. Old GNU (`S` headers with extension blocks) and PAX 0.0, 0.1 and 1.0
//! (the last keeps its map in front of the data).

use std::io::BufRead;

use super::header::{BLOCK, GnuSparse, Header, gnu_segments};
use super::pax::{SparseRecords, decimal};
use super::{Entries, Fault, Kind, Segment, Stop};

impl<R: BufRead> Entries<R> {
    /// The file of an old GNU sparse header; its extension blocks stand between header and content, and are not
    /// counted in `stored`.
    pub(super) fn gnu_sparse(&mut self, header: &Header<'_>, stored: u64) -> Result<Kind, Stop> {
        let GnuSparse { segments: mut pairs, real_size, mut more } = header.gnu_sparse()?;
        let mut block = [0; BLOCK];
        while more {
            if !self.read_block(&mut block)? {
                return Err(Fault::Truncated.into());
            }
            pairs.extend(gnu_segments(&block[..504])?);
            if pairs.len() > self.limits.sparse_segments {
                return Err(Fault::TooLarge("sparse map").into());
            }
            more = block[504] != 0;
        }
        Ok(file(pairs, real_size, stored)?)
    }

    /// The file that PAX records describe.
    pub(super) fn pax_sparse(&mut self, records: &SparseRecords, stored: u64) -> Result<Kind, Stop> {
        let Some(real_size) = records.real_size else {
            return Err(Fault::Sparse("the real size is missing").into());
        };
        match (records.major, records.minor) {
            (Some(1), Some(0)) if records.numbers.is_empty() => {
                let pairs = self.leading_map()?;
                let data = self.remaining;
                Ok(file(pairs, real_size, data)?)
            }
            (None | Some(0), None | Some(0 | 1)) => {
                if !records.numbers.len().is_multiple_of(2) {
                    return Err(Fault::Sparse("an offset has no length").into());
                }
                let pairs = records.numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
                Ok(file(pairs, real_size, stored)?)
            }
            _ => Err(Fault::Sparse("an unknown version").into()),
        }
    }

    /// Format 1.0: decimal lines (a count, then offsets and lengths), padded to a block, in front of the data.
    fn leading_map(&mut self) -> Result<Vec<(u64, u64)>, Stop> {
        let mut text = Vec::new();
        let mut numbers: Vec<u64> = Vec::new();
        let mut wanted = None;
        loop {
            let mut block = [0; BLOCK];
            self.content_block(&mut block)?;
            text.extend_from_slice(&block);
            let mut read = 0;
            while let Some(end) = text[read..].iter().position(|b| *b == b'\n') {
                if wanted.is_some_and(|wanted| numbers.len() == wanted) {
                    break; // what follows is padding
                }
                let number = decimal(&text[read..read + end])?;
                read += end + 1;
                match wanted {
                    None => {
                        let count = usize::try_from(number).unwrap_or(usize::MAX);
                        if count > self.limits.sparse_segments {
                            return Err(Fault::TooLarge("sparse map").into());
                        }
                        wanted = Some(2 * count);
                    }
                    Some(_) => numbers.push(number),
                }
            }
            text.drain(..read);
            if wanted.is_some_and(|wanted| numbers.len() == wanted) {
                return Ok(numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect());
            }
            if text.len() > 32 {
                return Err(Fault::Sparse("a line of it is too long").into());
            }
        }
    }
}

/// Checks that the segments are in order, inside the file, and hold exactly the `stored` bytes.
fn file(pairs: Vec<(u64, u64)>, size: u64, stored: u64) -> Result<Kind, Fault> {
    let mut end = 0_u64;
    let mut data = 0_u64;
    let mut map = Vec::with_capacity(pairs.len());
    for (offset, length) in pairs {
        if offset < end {
            return Err(Fault::Sparse("segments overlap or go backwards"));
        }
        end = offset
            .checked_add(length)
            .filter(|end| *end <= size)
            .ok_or(Fault::Sparse("a segment ends beyond the file"))?;
        data += length; // segments do not overlap, so this is at most `size`
        if length > 0 {
            map.push(Segment { offset, length });
        }
    }
    if data != stored {
        return Err(Fault::Sparse("the segments are not as long as the data"));
    }
    Ok(Kind::File { size, map: Some(map) })
}
