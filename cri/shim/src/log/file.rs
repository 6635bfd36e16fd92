//! A container's log file: whole lines are appended, several per system call; a file that can't be written to costs
//! lines, never the container's time.
//!
//! Lines that don't fit are thrown away, a torn one is cut off again, and each later batch tries anew: once there is
//! space, the log goes on with a whole line.

use super::header::{Stream, header};
use super::line::{LineBuffer, Piece, Tag};
use std::fs::File;
use std::io::{self, IoSlice, Seek, Write};
use std::time::{Duration, SystemTime};

/// Header, held part, fresh part, newline.
const SLICES_PER_LINE: usize = 4;
/// 64 lines per call: 4 KiB of stack, far below the kernel's limit of 1024 slices.
const LINES_PER_CALL: usize = 64;

/// An open log file.
#[derive(Debug)]
pub(crate) struct LogFile {
    /// Opened for appending.
    file: File,
    health: Health,
    /// When a failure was told last.
    told_at: Option<SystemTime>,
}

/// A failure is told at most this often: a disk at its brink must not fill the shim's own log.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// Whether lines arrive in the file.
#[derive(Debug)]
enum Health {
    Good,
    /// The last write failed.
    Failing {
        /// So many lines are lost since the first write that failed.
        lost: u64,
        /// Whether that was told.
        told: bool,
    },
}

/// A change of a log's health, to be told once.
#[derive(Debug)]
pub(crate) enum Change {
    /// From now on lines are lost.
    Failed(io::Error),
    /// Lines are written again, after so many were lost.
    Recovered {
        /// Lines thrown away.
        lost: u64,
    },
}

impl LogFile {
    /// Appends to `file`, which was opened with `O_APPEND`.
    pub(crate) fn new(file: File) -> Self {
        Self { file, health: Health::Good, told_at: None }
    }

    /// Appends the lines that `chunk` completes; what it leaves unfinished stays in `buffer`.
    pub(crate) fn append(
        &mut self,
        buffer: &mut LineBuffer,
        stream: Stream,
        chunk: &[u8],
        now: SystemTime,
    ) -> Option<Change> {
        let mut pieces = buffer.pieces(chunk);
        let change = self.write(&mut pieces, stream, now);
        let rest = pieces.rest();
        buffer.keep(chunk, rest);
        change
    }

    /// Ends a stream: what it left unfinished is written as partial lines.
    pub(crate) fn finish(&mut self, buffer: &mut LineBuffer, stream: Stream, now: SystemTime) -> Option<Change> {
        let rest = buffer.finish();
        let mut pieces =
            rest.chunks(super::line::CONTENT_LIMIT).map(|fresh| Piece { tag: Tag::Partial, held: &[], fresh });
        self.write(&mut pieces, stream, now)
    }

    /// Writes `pieces` as lines read at `now`, [`LINES_PER_CALL`] at a time.
    fn write<'a>(
        &mut self,
        pieces: &mut impl Iterator<Item = Piece<'a>>,
        stream: Stream,
        now: SystemTime,
    ) -> Option<Change> {
        let headers = [header(now, stream, Tag::Partial), header(now, stream, Tag::Full)];
        let mut change = None;
        loop {
            let mut slices = [IoSlice::new(&[]); SLICES_PER_LINE * LINES_PER_CALL];
            let mut lines = 0;
            for (line, piece) in slices.chunks_exact_mut(SLICES_PER_LINE).zip(pieces.by_ref()) {
                line[0] = IoSlice::new(&headers[usize::from(piece.tag == Tag::Full)]);
                line[1] = IoSlice::new(piece.held);
                line[2] = IoSlice::new(piece.fresh);
                line[3] = IoSlice::new(b"\n");
                lines += 1;
            }
            if lines == 0 {
                return change;
            }
            let result = append_lines(&mut self.file, &slices[..SLICES_PER_LINE * lines]);
            change = self.note(result, lines as u64, now).or(change);
        }
    }

    /// Keeps the books on a write of `lines`; tells if that changed the log's health.
    fn note(&mut self, result: Result<(), Torn>, lines: u64, now: SystemTime) -> Option<Change> {
        match (&mut self.health, result) {
            (Health::Good, Ok(())) => None,
            (Health::Good, Err(Torn { written, error })) => {
                // A clock that was set back counts as time that has passed.
                let told = self.told_at.is_none_or(|at| now.duration_since(at).unwrap_or(TOLD_EVERY) >= TOLD_EVERY);
                self.health = Health::Failing { lost: lines - written, told };
                self.told_at = if told { Some(now) } else { self.told_at };
                told.then_some(Change::Failed(error))
            }
            (Health::Failing { lost, told }, Ok(())) => {
                let recovered = told.then_some(Change::Recovered { lost: *lost });
                self.health = Health::Good;
                recovered
            }
            (Health::Failing { lost, .. }, Err(Torn { written, .. })) => {
                *lost += lines - written;
                None
            }
        }
    }
}

/// A batch of which only the first `written` lines are in the file.
struct Torn {
    written: u64,
    error: io::Error,
}

/// Appends the lines, each of [`SLICES_PER_LINE`] slices, or whole lines from the front of them.
fn append_lines(file: &mut File, lines: &[IoSlice<'_>]) -> Result<(), Torn> {
    let total: usize = lines.iter().map(|slice| slice.len()).sum();
    let mut done = 0;
    while done < total {
        match write_from(file, lines, done) {
            Ok(0) => return Err(tear(file, lines, done, io::ErrorKind::WriteZero.into())),
            Ok(written) => done += written,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(tear(file, lines, done, error)),
        }
    }
    Ok(())
}

/// One write of `slices` less their first `skip` bytes.
fn write_from(file: &mut File, slices: &[IoSlice<'_>], skip: usize) -> io::Result<usize> {
    if skip == 0 {
        return file.write_vectored(slices);
    }
    let mut rest = slices.to_vec();
    let mut rest = rest.as_mut_slice();
    IoSlice::advance_slices(&mut rest, skip);
    file.write_vectored(rest)
}

/// Cuts off the line of which only a part was written, `done` bytes into the batch.
fn tear(file: &mut File, lines: &[IoSlice<'_>], done: usize, error: io::Error) -> Torn {
    let mut whole = 0;
    let mut written = 0;
    for line in lines.chunks_exact(SLICES_PER_LINE) {
        let length: usize = line.iter().map(|slice| slice.len()).sum();
        if whole + length > done {
            break;
        }
        whole += length;
        written += 1;
    }
    let torn = (done - whole) as u64;
    if torn > 0 {
        // An append leaves the offset at its end. If this fails too, readers skip the torn line: it has no newline
        // of its own, but the next header starts with a time, and kubelets drop lines that they can't parse.
        let _ = file.stream_position().and_then(|end| file.set_len(end.saturating_sub(torn)));
    }
    Torn { written, error }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{OpenOptions, read_to_string};
    use std::path::PathBuf;
    use std::time::UNIX_EPOCH;

    struct TestLog {
        path: PathBuf,
        file: LogFile,
        buffer: LineBuffer,
    }

    impl TestLog {
        fn open(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("orlop-shim-log-{}-{name}", std::process::id()));
            let file = OpenOptions::new().append(true).create(true).open(&path).unwrap();
            Self { path, file: LogFile::new(file), buffer: LineBuffer::default() }
        }

        fn append(&mut self, chunk: &[u8]) -> Option<Change> {
            let now = UNIX_EPOCH + Duration::from_secs(1);
            self.file.append(&mut self.buffer, Stream::Stderr, chunk, now)
        }

        fn text(&self) -> String {
            read_to_string(&self.path).unwrap()
        }
    }

    impl Drop for TestLog {
        fn drop(&mut self) {
            std::fs::remove_file(&self.path).unwrap();
        }
    }

    #[test]
    fn lines_have_header_and_newline_and_the_rest_comes_at_the_end() {
        let mut log = TestLog::open("lines");
        assert!(log.append(b"one\r\nhal").is_none());
        assert!(log.append(b"f\n\nrest").is_none());
        assert!(log.file.finish(&mut log.buffer, Stream::Stderr, UNIX_EPOCH).is_none());
        let expected = "1970-01-01T00:00:01.000000000Z stderr F one\n\
                        1970-01-01T00:00:01.000000000Z stderr F half\n\
                        1970-01-01T00:00:01.000000000Z stderr F \n\
                        1970-01-01T00:00:00.000000000Z stderr P rest\n";
        assert_eq!(log.text(), expected);
    }

    #[test]
    fn more_lines_than_one_call_takes_are_all_written_in_order() {
        let mut log = TestLog::open("many");
        let chunk: String = (0..1000).map(|number| format!("{number}\n")).collect();
        assert!(log.append(chunk.as_bytes()).is_none());
        let text = log.text();
        let numbers: Vec<usize> = text.lines().map(|line| line[40..].parse().unwrap()).collect();
        assert_eq!(numbers, (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn a_full_disk_costs_lines_is_told_once_and_the_log_goes_on() {
        let full = OpenOptions::new().append(true).open("/dev/full").unwrap();
        let mut log = TestLog::open("full");
        let good = std::mem::replace(&mut log.file.file, full);
        assert!(matches!(log.append(b"a\nb\nc"), Some(Change::Failed(_))));
        assert!(log.append(b"\nd\n").is_none());
        log.file.file = good;
        assert!(matches!(log.append(b"e\n"), Some(Change::Recovered { lost: 4 })));
        assert!(log.append(b"f\n").is_none());
        assert_eq!(log.text().lines().map(|line| &line[40..]).collect::<Vec<_>>(), ["e", "f"]);
    }

    #[test]
    fn a_log_that_fails_again_and_again_is_told_of_once_a_minute() {
        let mut log = TestLog::open("brink");
        let mut told = 0;
        for second in 0..120 {
            let now = UNIX_EPOCH + Duration::from_secs(second);
            let torn = Torn { written: 0, error: io::ErrorKind::StorageFull.into() };
            told += log.file.note(Err(torn), 1, now).into_iter().count();
            told += log.file.note(Ok(()), 1, now).into_iter().count();
        }
        assert_eq!(told, 4);
    }

    #[test]
    fn a_torn_line_is_cut_off() {
        let mut log = TestLog::open("torn");
        log.append(b"whole\n");
        log.file.file.write_all(b"1970-01-01T00:00:01.000000000Z std").unwrap();
        let header = [b' '; 40];
        let parts: [&[u8]; 8] = [&header, b"", b"x", b"\n", &header, b"", b"y", b"\n"];
        let torn = tear(&mut log.file.file, &parts.map(IoSlice::new), 42 + 34, io::ErrorKind::StorageFull.into());
        assert_eq!(torn.written, 1);
        assert_eq!(log.text(), "1970-01-01T00:00:01.000000000Z stderr F whole\n");
    }
}
