//! Reads a log in pieces: from where the options say, records turned into what is shown, never more than a piece in
//! memory. It does not wait: [`Step::End`] says that there is no more for now.

use super::query::Options;
use super::record::Record;
use jiff::Timestamp;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

/// How much is read at a time, and about how much output a step yields.
const PIECE: usize = 32 * 1024;
/// How much a step reads at most, shown or not: between steps it is seen that the client has left.
const STRETCH: usize = 4 * 1024 * 1024;
/// The longest line that we look at. Runtimes cut at 16 KiB; what is longer was not written by one.
const LONGEST_LINE: usize = 1024 * 1024;

/// What a step found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Output; there may be more.
    Piece(Vec<u8>),
    /// Nothing to show so far; there may be.
    More,
    /// Nothing more for now.
    End,
    /// Nothing more for ever: a limit is reached.
    Done,
}

/// A log, being read.
#[derive(Debug)]
pub(super) struct Reader {
    file: File,
    /// Read, not yet shown; at most one line and one piece.
    pending: Vec<u8>,
    /// Whether the rest of a line that was too long is still to be skipped.
    skipping: bool,
    timestamps: bool,
    since: Option<Timestamp>,
    /// Bytes that may still be shown.
    bytes_left: u64,
    /// Records that may still be shown; `None` is no limit.
    records_left: Option<u64>,
    at_line_start: bool,
}

impl Reader {
    /// Reads `file` from where `options` say.
    pub(super) fn new(mut file: File, options: &Options) -> io::Result<Reader> {
        if let Some(tail) = options.tail {
            let start = tail_start(&mut file, tail)?;
            file.seek(SeekFrom::Start(start))?;
        }
        Ok(Reader {
            file,
            pending: Vec::new(),
            skipping: false,
            timestamps: options.timestamps,
            since: options.since,
            bytes_left: options.limit.unwrap_or(u64::MAX),
            // A follower has asked for the last ones *and* all that come.
            records_left: options.tail.filter(|_| !options.follow),
            at_line_start: true,
        })
    }

    /// The file that is read.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Goes on with the file that a rotation put in the place of this one.
    pub(super) fn switch(&mut self, newer: File) {
        self.file = newer;
        self.pending.clear();
        self.skipping = false;
    }

    /// Reads on. With `last`, a line that has no end yet is shown as it is: nothing will come to end it.
    pub(super) fn step(&mut self, last: bool) -> io::Result<Step> {
        let (mut out, mut read) = (Vec::new(), 0);
        loop {
            if read >= STRETCH {
                return Ok(if out.is_empty() { Step::More } else { Step::Piece(out) });
            }
            if self.bytes_left == 0 || self.records_left == Some(0) {
                return Ok(if out.is_empty() { Step::Done } else { Step::Piece(out) });
            }
            self.show_lines(&mut out);
            if out.len() >= PIECE {
                return Ok(Step::Piece(out));
            }
            if self.bytes_left == 0 || self.records_left == Some(0) {
                continue;
            }
            let more = self.fill()?;
            read += more;
            if more == 0 {
                if last && !self.pending.is_empty() {
                    let line = std::mem::take(&mut self.pending);
                    self.show(&line, &mut out);
                }
                return Ok(if out.is_empty() { Step::End } else { Step::Piece(out) });
            }
        }
    }

    /// Reads a piece of the file; 0 at its end.
    fn fill(&mut self) -> io::Result<usize> {
        let before = self.pending.len();
        self.pending.resize(before + PIECE, 0);
        let read = loop {
            match self.file.read(&mut self.pending[before..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        self.pending.truncate(before + *read.as_ref().unwrap_or(&0));
        read
    }

    /// Shows the complete lines of what is pending.
    fn show_lines(&mut self, out: &mut Vec<u8>) {
        let pending = std::mem::take(&mut self.pending);
        let mut rest = &pending[..];
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, after) = rest.split_at(end + 1);
            rest = after;
            if !std::mem::take(&mut self.skipping) {
                self.show(line, out);
            }
            if self.bytes_left == 0 || self.records_left == Some(0) || out.len() >= 2 * PIECE {
                break;
            }
        }
        self.pending = rest.to_vec();
        if self.pending.len() > LONGEST_LINE && !self.pending.contains(&b'\n') {
            self.pending.clear();
            self.skipping = true;
        }
    }

    fn show(&mut self, line: &[u8], out: &mut Vec<u8>) {
        // What no runtime wrote is not shown: it may have been planted, and it has no time to be compared.
        let Some(record) = Record::parse(line) else { return };
        if let Some(records) = &mut self.records_left {
            *records -= 1;
        }
        let too_old = self.since.is_some_and(|since| record.at().is_none_or(|at| at < since));
        if !too_old {
            if self.timestamps && self.at_line_start {
                self.push(record.fixed_time().as_bytes(), out);
                self.push(b" ", out);
            }
            self.push(record.text, out);
        }
        self.at_line_start = record.text.last().is_none_or(|byte| *byte == b'\n');
    }

    fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let room = usize::try_from(self.bytes_left).unwrap_or(usize::MAX).min(bytes.len());
        out.extend_from_slice(&bytes[..room]);
        self.bytes_left -= room as u64;
    }
}

/// Where the last `tail` lines begin. A last line without newline comes in addition, as upstream counts.
fn tail_start(file: &mut File, tail: u64) -> io::Result<u64> {
    let mut end = file.seek(SeekFrom::End(0))?;
    let mut found = 0;
    let mut block = vec![0; PIECE];
    while end > 0 {
        let start = end.saturating_sub(PIECE as u64);
        let block = &mut block[..usize::try_from(end - start).unwrap_or(PIECE)];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(block)?;
        for (index, _) in block.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            if found == tail {
                return Ok(start + index as u64 + 1);
            }
            found += 1;
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file(text: &str) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        file
    }

    fn lines(texts: &[&str]) -> String {
        let record = |(second, text): (usize, &&str)| format!("2026-01-01T00:00:0{second}.5Z stdout {text}\n");
        texts.iter().enumerate().map(record).collect()
    }

    /// Everything that a reader shows, to the end of the file.
    fn check(log: &str, options: &Options, expected: &str) {
        let mut reader = Reader::new(file(log), options).unwrap();
        let mut shown = Vec::new();
        while let Step::Piece(piece) = reader.step(true).unwrap() {
            assert!(piece.len() <= 4 * PIECE, "{}", piece.len());
            shown.extend(piece);
        }
        assert_eq!(String::from_utf8_lossy(&shown), expected, "{options:?}");
    }

    #[test]
    fn records_become_text_and_parts_are_joined() {
        let log = lines(&["F a", "P b", "F c", "F d"]);
        check(&log, &Options::default(), "a\nbc\nd\n");
        let with_times = "2026-01-01T00:00:00.500000000Z a\n2026-01-01T00:00:01.500000000Z bc\n\
                          2026-01-01T00:00:03.500000000Z d\n";
        check(&log, &Options { timestamps: true, ..Options::default() }, with_times);
    }

    #[test]
    fn tail_counts_from_the_end() {
        let log = lines(&["F a", "F b", "F c"]);
        for (tail, expected) in [(0, ""), (1, "c\n"), (2, "b\nc\n"), (3, "a\nb\nc\n"), (9, "a\nb\nc\n")] {
            check(&log, &Options { tail: Some(tail), ..Options::default() }, expected);
        }
    }

    #[test]
    fn tail_finds_its_place_across_blocks() {
        let long = "x".repeat(10_000);
        let texts: Vec<String> = (0..9).map(|n| format!("F {n}{long}")).collect();
        let log = lines(&texts.iter().map(String::as_str).collect::<Vec<_>>());
        check(
            &log,
            &Options { tail: Some(7), ..Options::default() },
            &(2..9).map(|n| format!("{n}{long}\n")).collect::<String>(),
        );
    }

    #[test]
    fn limits_cut_within_a_line() {
        let log = lines(&["F abc", "F def"]);
        check(&log, &Options { limit: Some(6), ..Options::default() }, "abc\nde");
        check(&log, &Options { limit: Some(4), ..Options::default() }, "abc\n");
    }

    #[test]
    fn since_leaves_out_what_is_older() {
        let log = lines(&["F a", "F b", "F c"]);
        let since = Some("2026-01-01T00:00:01.5Z".parse().unwrap());
        check(&log, &Options { since, ..Options::default() }, "b\nc\n");
    }

    #[test]
    fn a_last_line_without_end_is_shown_only_when_nothing_can_end_it() {
        let log = "2026-01-01T00:00:00Z stdout F whole\n2026-01-01T00:00:01Z stdout F ha";
        let mut reader = Reader::new(file(log), &Options::default()).unwrap();
        assert_eq!(reader.step(false).unwrap(), Step::Piece(b"whole\n".to_vec()));
        assert_eq!(reader.step(false).unwrap(), Step::End);
        assert_eq!(reader.step(true).unwrap(), Step::Piece(b"ha".to_vec()));
    }

    #[test]
    fn what_no_runtime_wrote_is_not_shown() {
        check("root:x:0:0\n2026-01-01T00:00:00Z stdout F mine\n", &Options::default(), "mine\n");
    }

    #[test]
    fn a_step_ends_though_nothing_is_to_be_shown() {
        let log = format!("{}\n2026-01-01T00:00:00Z stdout F after\n", "y".repeat(2 * STRETCH));
        let mut reader = Reader::new(file(&log), &Options::default()).unwrap();
        assert_eq!(reader.step(false).unwrap(), Step::More);
        assert_eq!(reader.step(false).unwrap(), Step::More);
        assert_eq!(reader.step(false).unwrap(), Step::Piece(b"after\n".to_vec()));
    }

    #[test]
    fn a_line_without_end_takes_no_memory_without_end() {
        let log = format!("{}\n2026-01-01T00:00:00Z stdout F after\n", "y".repeat(3 * LONGEST_LINE));
        let mut reader = Reader::new(file(&log), &Options::default()).unwrap();
        assert_eq!(reader.step(false).unwrap(), Step::Piece(b"after\n".to_vec()));
        assert!(reader.pending.capacity() < 2 * LONGEST_LINE + 2 * PIECE, "{}", reader.pending.capacity());
    }
}
