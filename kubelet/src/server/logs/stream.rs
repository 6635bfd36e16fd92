//! A log as the body of an answer: pieces as the client takes them, and with `follow` as long as the container runs.

use super::file::Location;
use super::query::Options;
use super::reader::{Reader, Step};
use bytes::Bytes;
use futures_util::stream::{self, Stream};
use std::io;
use std::time::Duration;
use tokio::time::Instant;

/// How soon a growing log is looked at again, and how seldom an idle one.
const SOON: Duration = Duration::from_millis(20);
const SELDOM: Duration = Duration::from_millis(200);

/// Says whether the container whose log this is still runs.
pub(super) type Runs = Box<dyn Fn() -> bool + Send + Sync>;

/// What the stream does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Reading,
    /// The container ended, or nobody wants to follow: what is there is read to its end, and that is all.
    Draining,
}

struct Tail {
    reader: Reader,
    location: Location,
    phase: Phase,
    /// Whether a file that takes the place of this one is read too.
    follow: bool,
    runs: Runs,
    pause: Duration,
}

/// Opens a log and streams it.
pub(super) async fn open(
    location: Location,
    options: Options,
    runs: Runs,
) -> io::Result<impl Stream<Item = io::Result<Bytes>> + Send + 'static> {
    let follow = options.follow;
    let phase = if follow { Phase::Reading } else { Phase::Draining };
    let place = location.clone();
    let reader = blocking(move || Reader::new(place.open()?, &options)).await?;
    let tail = Tail { reader, location, phase, follow, runs, pause: SOON };
    Ok(stream::try_unfold(tail, |tail| tail.next()))
}

impl Tail {
    /// The next piece, when there is one; `None` at the end.
    async fn next(mut self) -> io::Result<Option<(Bytes, Tail)>> {
        loop {
            // Asked before reading: what was written before the container ended is then read for certain.
            if self.phase == Phase::Reading && !(self.runs)() {
                self.phase = Phase::Draining;
            }
            let (step, mut tail) = self.step().await?;
            match step {
                Step::Piece(piece) => {
                    tail.pause = SOON;
                    return Ok(Some((Bytes::from(piece), tail)));
                }
                Step::More => {}
                Step::Done => return Ok(None),
                Step::End if tail.phase == Phase::Draining => return Ok(None),
                Step::End => {
                    tokio::time::sleep_until(Instant::now() + tail.pause).await;
                    tail.pause = (tail.pause * 2).min(SELDOM);
                }
            }
            self = tail;
        }
    }

    /// Reads on; at the end of a file that was rotated away, in the one that follows it.
    async fn step(mut self) -> io::Result<(Step, Tail)> {
        blocking(move || {
            let last = self.phase == Phase::Draining;
            let mut step = self.reader.step(last)?;
            if step == Step::End
                && self.follow
                && let Some(newer) = self.location.successor(self.reader.file())
            {
                // The last lines may have come between our read and the rename.
                step = self.reader.step(true)?;
                if step == Step::End {
                    self.reader.switch(newer);
                    step = self.reader.step(last)?;
                }
            }
            Ok((step, self))
        })
        .await
    }
}

/// A disk may be slow: it is waited for on a thread that may wait.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt;
    use std::fs::{File, OpenOptions};
    use std::io::Write;
    use std::path::PathBuf;
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    struct Log {
        dir: tempfile::TempDir,
        runs: Arc<AtomicBool>,
    }

    impl Log {
        fn new(lines: &[&str]) -> Log {
            let dir = tempfile::tempdir().unwrap();
            std::fs::create_dir_all(dir.path().join("p/c")).unwrap();
            let log = Log { dir, runs: Arc::new(AtomicBool::new(true)) };
            File::create(log.path()).unwrap();
            log.write(lines);
            log
        }

        fn path(&self) -> PathBuf {
            self.dir.path().join("p/c/0.log")
        }

        fn write(&self, lines: &[&str]) {
            let mut file = OpenOptions::new().append(true).create(true).open(self.path()).unwrap();
            for line in lines {
                writeln!(file, "2026-01-01T00:00:00Z stdout F {line}").unwrap();
            }
        }

        async fn follow(&self) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
            self.open(true).await
        }

        async fn open(&self, follow: bool) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
            let location = Location { root: self.dir.path().to_owned(), path: "p/c/0.log".into() };
            let runs = Arc::clone(&self.runs);
            let options = Options { follow, ..Options::default() };
            open(location, options, Box::new(move || runs.load(Ordering::SeqCst))).await.unwrap()
        }
    }

    async fn next(stream: &mut (impl Stream<Item = io::Result<Bytes>> + Unpin)) -> Option<String> {
        let piece = tokio::time::timeout(Duration::from_secs(10), stream.next()).await.expect("a piece in time");
        piece.map(|piece| String::from_utf8(piece.unwrap().to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_followed_log_shows_what_comes_until_the_container_ends() {
        let log = Log::new(&["one"]);
        let mut stream = pin!(log.follow().await);
        assert_eq!(next(&mut stream).await.as_deref(), Some("one\n"));
        log.write(&["two"]);
        assert_eq!(next(&mut stream).await.as_deref(), Some("two\n"));
        log.write(&["last words"]);
        log.runs.store(false, Ordering::SeqCst);
        assert_eq!(next(&mut stream).await.as_deref(), Some("last words\n"));
        assert_eq!(next(&mut stream).await, None);
    }

    #[tokio::test]
    async fn a_log_that_is_not_followed_ends_with_its_file() {
        let log = Log::new(&["old"]);
        let mut stream = pin!(log.open(false).await);
        assert_eq!(next(&mut stream).await.as_deref(), Some("old\n"));
        std::fs::rename(log.path(), log.path().with_extension("log.20260101-000000")).unwrap();
        log.write(&["new"]);
        assert_eq!(next(&mut stream).await, None);
    }

    #[tokio::test]
    async fn a_rotation_loses_and_repeats_nothing() {
        let log = Log::new(&["old"]);
        let mut stream = pin!(log.follow().await);
        assert_eq!(next(&mut stream).await.as_deref(), Some("old\n"));
        log.write(&["late"]);
        std::fs::rename(log.path(), log.path().with_extension("log.20260101-000000")).unwrap();
        log.write(&["new"]);
        assert_eq!(next(&mut stream).await.as_deref(), Some("late\n"));
        assert_eq!(next(&mut stream).await.as_deref(), Some("new\n"));
        log.runs.store(false, Ordering::SeqCst);
        assert_eq!(next(&mut stream).await, None);
    }

    #[tokio::test]
    async fn a_link_planted_at_rotation_is_not_followed() {
        let log = Log::new(&["mine"]);
        let secret = log.dir.path().join("secret");
        writeln!(File::create(&secret).unwrap(), "2026-01-01T00:00:00Z stdout F secret").unwrap();
        let mut stream = pin!(log.follow().await);
        assert_eq!(next(&mut stream).await.as_deref(), Some("mine\n"));
        std::fs::remove_file(log.path()).unwrap();
        std::os::unix::fs::symlink(&secret, log.path()).unwrap();
        log.runs.store(false, Ordering::SeqCst);
        assert_eq!(next(&mut stream).await, None);
    }
}
