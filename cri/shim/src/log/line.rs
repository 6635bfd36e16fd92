//! Cuts a byte stream into the lines of a CRI log. Pure: bytes in, pieces of lines out.
//!
//! A line is `<time> <stream> <tag> <content>\n`. Content is at most [`CONTENT_LIMIT`] bytes: a longer line becomes
//! pieces tagged `P`, the last one `F`. A `\r` right before the newline is dropped. What stands after the last newline
//! is held back until its newline, the limit or the end of the stream; at the end it is written as `P`, because its
//! writer never finished the line. Bytes are passed on as they are, valid UTF-8 or not, cut anywhere.

/// The most bytes of content in one line of the log, as containerd's `max_container_log_line_size`.
pub(crate) const CONTENT_LIMIT: usize = 16 * 1024;

/// Whether a piece ends its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tag {
    /// The line goes on in the next piece, or its writer left it unfinished.
    Partial,
    /// The line ends here.
    Full,
}

/// Content of one line of the log: `held`, then `fresh`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece<'a> {
    /// Whether the line ends here.
    pub(crate) tag: Tag,
    /// What earlier reads left over.
    pub(crate) held: &'a [u8],
    /// What this read brought.
    pub(crate) fresh: &'a [u8],
}

/// The unfinished line of one stream. It owns no memory while there is none.
#[derive(Debug, Default)]
pub(crate) struct LineBuffer {
    /// At most [`CONTENT_LIMIT`] bytes, and one more if that is a `\r` that a newline may follow.
    unfinished: Vec<u8>,
}

impl LineBuffer {
    /// The pieces that `chunk` completes. Call [`Self::keep`] with what the iterator leaves over.
    pub(crate) fn pieces<'a>(&'a self, chunk: &'a [u8]) -> Pieces<'a> {
        Pieces { held: &self.unfinished, fresh: chunk }
    }

    /// Holds back what no piece took: `rest` is [`Pieces::rest`] of the iterator over the same `chunk`.
    pub(crate) fn keep(&mut self, chunk: &[u8], rest: Rest) {
        if rest.held == 0 && rest.fresh == 0 {
            self.unfinished = Vec::new();
            return;
        }
        self.unfinished.drain(..self.unfinished.len() - rest.held);
        self.unfinished.extend_from_slice(&chunk[chunk.len() - rest.fresh..]);
    }

    /// Ends the stream: what is left, to be written as partial pieces of at most [`CONTENT_LIMIT`] bytes.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.unfinished)
    }
}

/// How many bytes at the end of the held and of the fresh part belong to no piece yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rest {
    held: usize,
    fresh: usize,
}

/// Iterates over the pieces of an unfinished line followed by a chunk.
#[derive(Debug)]
pub(crate) struct Pieces<'a> {
    held: &'a [u8],
    fresh: &'a [u8],
}

impl<'a> Pieces<'a> {
    /// What is left once the iterator has ended.
    pub(crate) fn rest(&self) -> Rest {
        Rest { held: self.held.len(), fresh: self.fresh.len() }
    }

    /// Takes [`CONTENT_LIMIT`] bytes of a line that is longer.
    fn cut(&mut self) -> Piece<'a> {
        let held_len = self.held.len().min(CONTENT_LIMIT);
        let (held, held_rest) = self.held.split_at(held_len);
        let (fresh, fresh_rest) = self.fresh.split_at(CONTENT_LIMIT - held_len);
        (self.held, self.fresh) = (held_rest, fresh_rest);
        Piece { tag: Tag::Partial, held, fresh }
    }

    /// Takes the line that ends with the newline at `end` of the fresh part.
    fn line(&mut self, end: usize) -> Piece<'a> {
        let (held, fresh) = without_carriage_return(self.held, &self.fresh[..end]);
        self.held = &[];
        self.fresh = &self.fresh[end + 1..];
        Piece { tag: Tag::Full, held, fresh }
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        let newline = self.fresh.iter().position(|byte| *byte == b'\n');
        let line = &self.fresh[..newline.unwrap_or(self.fresh.len())];
        // A `\r` at the end may turn out to be part of the line's end: it alone never makes a line too long.
        let (held, fresh) = without_carriage_return(self.held, line);
        if held.len() + fresh.len() > CONTENT_LIMIT {
            return Some(self.cut());
        }
        newline.map(|end| self.line(end))
    }
}

/// `held` followed by `fresh`, less one `\r` at the end.
fn without_carriage_return<'a>(held: &'a [u8], fresh: &'a [u8]) -> (&'a [u8], &'a [u8]) {
    match (held, fresh) {
        (_, [rest @ .., b'\r']) => (held, rest),
        ([rest @ .., b'\r'], []) => (rest, fresh),
        _ => (held, fresh),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `chunks` to one buffer; each line of the log as `P:content` or `F:content`.
    fn log_of(chunks: &[&[u8]]) -> Vec<String> {
        let mut buffer = LineBuffer::default();
        let mut lines = Vec::new();
        let mut show = |tag: Tag, content: &[u8]| {
            let tag = if tag == Tag::Full { 'F' } else { 'P' };
            lines.push(format!("{tag}:{}", String::from_utf8_lossy(content)));
        };
        for chunk in chunks {
            let mut pieces = buffer.pieces(chunk);
            for piece in pieces.by_ref() {
                show(piece.tag, &[piece.held, piece.fresh].concat());
            }
            let rest = pieces.rest();
            buffer.keep(chunk, rest);
        }
        for piece in buffer.finish().chunks(CONTENT_LIMIT) {
            show(Tag::Partial, piece);
        }
        lines
    }

    #[track_caller]
    fn check(chunks: &[&[u8]], expected: &[&str]) {
        assert_eq!(log_of(chunks), expected);
    }

    #[test]
    fn lines_are_cut_at_newlines_wherever_reads_end() {
        check(&[b"one\ntwo\n"], &["F:one", "F:two"]);
        check(&[b"on", b"e\ntw", b"o", b"\n"], &["F:one", "F:two"]);
        check(&[b"\n\n"], &["F:", "F:"]);
        check(&[], &[]);
        check(&[b""], &[]);
    }

    #[test]
    fn the_end_of_the_stream_without_a_newline_is_partial() {
        check(&[b"one\ntwo"], &["F:one", "P:two"]);
        check(&[b"two\r"], &["P:two\r"]);
    }

    #[test]
    fn one_carriage_return_before_the_newline_is_dropped() {
        check(&[b"one\r\ntwo\r\r\n"], &["F:one", "F:two\r"]);
        check(&[b"one\r", b"\ntwo"], &["F:one", "P:two"]);
        check(&[b"a\rb\n"], &["F:a\rb"]);
        check(&[b"\r\n"], &["F:"]);
    }

    #[test]
    fn a_line_of_exactly_the_limit_is_whole() {
        let line = "x".repeat(CONTENT_LIMIT);
        check(&[format!("{line}\n").as_bytes()], &[&format!("F:{line}")]);
        check(&[line.as_bytes(), b"\n"], &[&format!("F:{line}")]);
        check(&[line.as_bytes(), b"\r", b"\n"], &[&format!("F:{line}")]);
    }

    #[test]
    fn a_line_over_the_limit_is_cut_and_its_last_piece_is_full() {
        let full = "x".repeat(CONTENT_LIMIT);
        let partial = format!("P:{full}");
        check(&[format!("{full}y\n").as_bytes()], &[&partial, "F:y"]);
        check(&[full.as_bytes(), b"y\n"], &[&partial, "F:y"]);
        check(&[full.as_bytes(), b"\r", b"y\n"], &[&partial, "F:\ry"]);
        check(&[full.as_bytes(), full.as_bytes(), b"\n"], &[&partial, &format!("F:{full}")]);
        check(&[format!("{full}{full}z").as_bytes()], &[&partial, &partial, "P:z"]);
    }

    /// A linear congruential generator: the cases are many, and the same in every run.
    fn numbers(seed: u64) -> impl FnMut(usize) -> usize {
        let mut state = seed;
        move |below| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as usize % below
        }
    }

    #[test]
    fn where_reads_end_changes_nothing_for_any_input() {
        for seed in 0..200 {
            let mut number = numbers(seed);
            let length = number(4 * CONTENT_LIMIT);
            let rare = 1 + number(2 * CONTENT_LIMIT);
            let bytes: Vec<u8> = (0..length)
                .map(|_| match number(rare) {
                    0 => b'\n',
                    1 => b'\r',
                    other => b'a' + (other % 26) as u8,
                })
                .collect();
            let mut chunks = Vec::new();
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let (chunk, after) = rest.split_at((1 + number(40_000)).min(rest.len()));
                chunks.push(chunk);
                rest = after;
            }
            let at_once = log_of(&[bytes.as_slice()]);
            assert_eq!(log_of(&chunks), at_once, "seed {seed}");
            assert!(at_once.iter().all(|line| line.len() <= 2 + CONTENT_LIMIT), "seed {seed}");
            let full = at_once.iter().filter(|line| line.starts_with("F:")).count();
            assert_eq!(full, bytes.iter().filter(|byte| **byte == b'\n').count(), "seed {seed}");
        }
    }

    #[test]
    fn a_finished_line_leaves_no_memory_behind() {
        let mut buffer = LineBuffer::default();
        for chunk in [b"half ".as_slice(), b"line\n"] {
            let mut pieces = buffer.pieces(chunk);
            let _ = pieces.by_ref().count();
            let rest = pieces.rest();
            buffer.keep(chunk, rest);
        }
        assert_eq!(buffer.unfinished.capacity(), 0);
    }
}
