//! Clients that watch a container's output and may write to its input.
//!
//! A client gets bytes as they come, from the moment it attaches. What it doesn't read is kept for it, up to
//! [`BACKLOG_LIMIT`]; then it is cut off. Nothing here ever waits: all fds are non-blocking.

use crate::log::Stream;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

/// A client that is this many bytes behind is cut off.
pub(crate) const BACKLOG_LIMIT: usize = 1024 * 1024;

/// One attached client.
#[derive(Debug)]
pub(crate) struct Client {
    /// Unique among the shim's clients.
    pub(crate) key: u64,
    /// Where its input comes from, until it ends.
    pub(crate) stdin: Option<File>,
    stdout: Option<Outlet>,
    stderr: Option<Outlet>,
}

/// A client is gone or too slow: forget it, which closes its fds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Lost;

impl Client {
    /// A client with these fds, all of them non-blocking.
    pub(crate) fn new(key: u64, stdin: Option<File>, stdout: Option<File>, stderr: Option<File>) -> Self {
        Self { key, stdin, stdout: stdout.map(Outlet::new), stderr: stderr.map(Outlet::new) }
    }

    /// Passes on what the container wrote.
    pub(crate) fn send(&mut self, stream: Stream, bytes: &[u8]) -> Result<(), Lost> {
        match self.outlet(stream) {
            Some(outlet) => outlet.send(bytes),
            None => Ok(()),
        }
    }

    /// Writes what is kept of a stream, as much as fits.
    pub(crate) fn flush(&mut self, stream: Stream) -> Result<(), Lost> {
        let Some(outlet) = self.outlet(stream) else { return Ok(()) };
        outlet.flush()?;
        if outlet.ends && outlet.backlog.is_empty() {
            *self.slot(stream) = None;
        }
        Ok(())
    }

    /// No more of a stream will come: its fd is closed once the client has taken what is kept for it.
    pub(crate) fn end(&mut self, stream: Stream) {
        if let Some(outlet) = self.outlet(stream) {
            outlet.ends = true;
        }
        if self.flush(stream).is_err() {
            *self.slot(stream) = None;
        }
    }

    /// Whether bytes of a stream are kept, and the fd that they wait for. The fd also tells when its reader is gone.
    pub(crate) fn waits(&self, stream: Stream) -> Option<(bool, BorrowedFd<'_>)> {
        let outlet = match stream {
            Stream::Stdout => self.stdout.as_ref(),
            Stream::Stderr => self.stderr.as_ref(),
        };
        outlet.map(|outlet| (!outlet.backlog.is_empty(), outlet.fd.as_fd()))
    }

    /// Nothing to tell the client and nothing to hear from it.
    pub(crate) fn is_done(&self) -> bool {
        self.stdin.is_none() && self.stdout.is_none() && self.stderr.is_none()
    }

    fn outlet(&mut self, stream: Stream) -> Option<&mut Outlet> {
        self.slot(stream).as_mut()
    }

    fn slot(&mut self, stream: Stream) -> &mut Option<Outlet> {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }
}

/// The write end of a client's pipe and what did not fit into it.
#[derive(Debug)]
struct Outlet {
    fd: File,
    /// Owns no memory while the client keeps up.
    backlog: VecDeque<u8>,
    /// Nothing will be added to the backlog.
    ends: bool,
}

impl Outlet {
    fn new(fd: File) -> Self {
        Self { fd, backlog: VecDeque::new(), ends: false }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), Lost> {
        let written = if self.backlog.is_empty() { write_some(&mut self.fd, bytes)? } else { 0 };
        let rest = &bytes[written..];
        if self.backlog.len() + rest.len() > BACKLOG_LIMIT {
            return Err(Lost);
        }
        self.backlog.extend(rest);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Lost> {
        while !self.backlog.is_empty() {
            let written = write_some(&mut self.fd, self.backlog.as_slices().0)?;
            if written == 0 {
                return Ok(());
            }
            self.backlog.drain(..written);
        }
        self.backlog = VecDeque::new();
        Ok(())
    }
}

/// Writes what fits now, maybe nothing.
fn write_some(file: &mut File, bytes: &[u8]) -> Result<usize, Lost> {
    let mut done = 0;
    while done < bytes.len() {
        match file.write(&bytes[done..]) {
            Ok(0) => return Err(Lost),
            Ok(written) => done += written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Err(Lost),
        }
    }
    Ok(done)
}

/// A container's standard input: the write end of its pipe, or its terminal.
///
/// What the container doesn't take is kept, and until it has taken it no client's input is read: a client waits for
/// the container, never the other way round.
#[derive(Debug)]
pub(crate) struct Inlet {
    fd: File,
    pending: VecDeque<u8>,
}

/// What came of passing a client's input on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fed {
    /// The client may have more.
    Open,
    /// The client's input is at its end.
    Ended,
    /// The container reads its input no more.
    Closed,
}

/// Input is read in pieces of this size: what a terminal's line discipline takes at once.
const INPUT_CHUNK: usize = 4096;

impl Inlet {
    /// An inlet over a non-blocking fd.
    pub(crate) fn new(fd: File) -> Self {
        Self { fd, pending: VecDeque::new() }
    }

    /// Whether the container has input that it has not taken yet.
    pub(crate) fn is_full(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Passes a piece of a client's input on.
    pub(crate) fn feed(&mut self, client: &mut File) -> Fed {
        let mut chunk = [0; INPUT_CHUNK];
        match client.read(&mut chunk) {
            Ok(0) => Fed::Ended,
            Ok(length) => self.give(&chunk[..length]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Fed::Open,
            Err(_) => Fed::Ended,
        }
    }

    /// Writes what is kept, as much as fits.
    pub(crate) fn flush(&mut self) -> Fed {
        while self.is_full() {
            match write_some(&mut self.fd, self.pending.as_slices().0) {
                Ok(0) => return Fed::Open,
                Ok(written) => drop(self.pending.drain(..written)),
                Err(Lost) => return Fed::Closed,
            }
        }
        self.pending = VecDeque::new();
        Fed::Open
    }

    fn give(&mut self, bytes: &[u8]) -> Fed {
        match write_some(&mut self.fd, bytes) {
            Ok(written) => {
                self.pending.extend(&bytes[written..]);
                Fed::Open
            }
            Err(Lost) => Fed::Closed,
        }
    }
}

impl AsFd for Inlet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    /// Two connected ends that never block; a socket stands for a pipe.
    fn pair() -> (File, File) {
        let (left, right) = UnixStream::pair().unwrap();
        left.set_nonblocking(true).unwrap();
        right.set_nonblocking(true).unwrap();
        (File::from(OwnedFd::from(left)), File::from(OwnedFd::from(right)))
    }

    /// All that can be read now.
    fn drain(file: &mut File) -> Vec<u8> {
        let mut all = Vec::new();
        let result = file.read_to_end(&mut all);
        assert!(result.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock));
        all
    }

    #[test]
    fn a_slow_client_gets_all_bytes_in_order_until_it_is_1_mib_behind() {
        let (mut reader, writer) = pair();
        let mut client = Client::new(1, None, Some(writer), None);
        let sent: Vec<u8> = (0..BACKLOG_LIMIT).map(|number| (number / 7) as u8).collect();
        for chunk in sent.chunks(5000) {
            client.send(Stream::Stdout, chunk).unwrap();
        }
        assert!(client.waits(Stream::Stdout).unwrap().0);
        let mut received = Vec::new();
        while received.len() < sent.len() {
            received.extend(drain(&mut reader));
            client.flush(Stream::Stdout).unwrap();
        }
        assert!(received == sent);
        assert!(!client.waits(Stream::Stdout).unwrap().0);

        let chunk = vec![0; 64 * 1024];
        let accepted = (0..64).take_while(|_| client.send(Stream::Stdout, &chunk).is_ok()).count();
        assert!((16..40).contains(&accepted), "{accepted} chunks of 64 KiB were kept for a client that reads nothing");
    }

    #[test]
    fn a_stream_that_ends_is_closed_only_when_the_client_has_read_it_all() {
        let (mut reader, writer) = pair();
        let mut client = Client::new(1, None, Some(writer), None);
        let sent = vec![7; BACKLOG_LIMIT];
        client.send(Stream::Stdout, &sent).unwrap();
        client.end(Stream::Stdout);
        let mut received = Vec::new();
        while !client.is_done() {
            received.extend(drain(&mut reader));
            client.flush(Stream::Stdout).unwrap();
        }
        reader.read_to_end(&mut received).unwrap();
        assert!(received == sent);
    }

    #[test]
    fn a_client_that_has_gone_is_lost() {
        let (reader, writer) = pair();
        let mut client = Client::new(1, None, None, Some(writer));
        drop(reader);
        assert_eq!(client.send(Stream::Stdout, b"not for it"), Ok(()));
        assert_eq!(client.send(Stream::Stderr, b"x"), Err(Lost));
    }

    #[test]
    fn input_waits_for_the_container() {
        let (mut container, writer) = pair();
        let (mut client, mut client_end) = pair();
        let mut inlet = Inlet::new(writer);
        let mut sent = 0;
        while !inlet.is_full() {
            client.write_all(&[b'x'; INPUT_CHUNK]).unwrap();
            assert_eq!(inlet.feed(&mut client_end), Fed::Open);
            sent += INPUT_CHUNK;
        }
        let mut received = 0;
        while received < sent {
            received += drain(&mut container).len();
            assert_eq!(inlet.flush(), Fed::Open);
        }
        assert_eq!(received, sent);
        drop(client);
        assert_eq!(inlet.feed(&mut client_end), Fed::Ended);
    }

    #[test]
    fn input_of_a_container_that_closed_it_is_told() {
        let (container, writer) = pair();
        let (mut client, mut client_end) = pair();
        let mut inlet = Inlet::new(writer);
        drop(container);
        client.write_all(b"x").unwrap();
        assert_eq!(inlet.feed(&mut client_end), Fed::Closed);
    }
}
