//! A container's standard streams: output goes to the log and to attach clients, input comes from them.
//!
//! Nothing here waits. A chunk is read into the shim's one buffer, cut into lines that go to the log, and passed to
//! each client as it is.

use crate::attach::{Client, Fed, Inlet};
use crate::log::{Change, LineBuffer, LogFile, Stream};
use std::fs::File;
use std::io::{self, Read};
use std::time::SystemTime;

/// What a drain reads at most, in bytes: the most that a pipe holds by default (`/proc/sys/fs/pipe-max-size`).
/// A writer outside of the container that never stops must not keep it from ending.
const DRAIN_LIMIT: usize = 1024 * 1024;

/// The streams of one container.
#[derive(Debug, Default)]
pub(crate) struct Stdio {
    /// Where its output is read, until its end. With a terminal there is only [`Stream::Stdout`].
    pub(crate) outputs: Vec<Output>,
    /// Its input, if the container asked for it, until it closes it.
    pub(crate) inlet: Option<Inlet>,
    /// Input ends with the first client that had it.
    pub(crate) stdin_once: bool,
    /// Where output is kept; `None` throws it away.
    pub(crate) log: Option<LogFile>,
    /// Who watches.
    pub(crate) clients: Vec<Client>,
}

/// One stream of output.
#[derive(Debug)]
pub(crate) struct Output {
    /// Which one.
    pub(crate) stream: Stream,
    /// The read end of its pipe, or the terminal's master; non-blocking.
    pub(crate) file: File,
    /// It is a terminal's master.
    pub(crate) terminal: bool,
    line: LineBuffer,
}

impl Output {
    /// An output that is read from `file`, which is non-blocking.
    pub(crate) fn new(stream: Stream, file: File, terminal: bool) -> Self {
        Self { stream, file, terminal, line: LineBuffer::default() }
    }
}

/// What one read of an output brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pumped {
    /// So many bytes.
    Bytes(usize),
    /// Nothing now.
    Nothing,
    /// Nobody will write any more; the output is gone.
    End,
}

impl Stdio {
    /// Reads one chunk of an output into `buffer` and passes it on.
    pub(crate) fn pump(&mut self, stream: Stream, buffer: &mut [u8]) -> (Pumped, Option<Change>) {
        let Some(index) = self.outputs.iter().position(|output| output.stream == stream) else {
            return (Pumped::End, None);
        };
        let length = match self.outputs[index].file.read(buffer) {
            Ok(0) => return (Pumped::End, self.end(index)),
            Ok(length) => length,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return (Pumped::Nothing, None);
            }
            // A terminal whose last user has gone reads as EIO.
            Err(_) => return (Pumped::End, self.end(index)),
        };
        let chunk = &buffer[..length];
        self.broadcast(stream, chunk);
        let line = &mut self.outputs[index].line;
        let change = self.log.as_mut().and_then(|log| log.append(line, stream, chunk, SystemTime::now()));
        (Pumped::Bytes(length), change)
    }

    /// Passes a chunk to every client; one that has gone or is too far behind is forgotten.
    fn broadcast(&mut self, stream: Stream, chunk: &[u8]) {
        let lost = |client: &mut Client| client.send(stream, chunk).is_err().then_some(client.key);
        let lost: Vec<u64> = self.clients.iter_mut().filter_map(lost).collect();
        lost.into_iter().for_each(|client| self.lose(client));
    }

    /// Reads all that lies in the pipes once their writers are dead. True if a terminal may still bring more: its
    /// driver passes output on later, and then says that the other side is closed.
    pub(crate) fn drain(&mut self, buffer: &mut [u8]) -> (bool, Vec<Change>) {
        let mut changes = Vec::new();
        for stream in [Stream::Stdout, Stream::Stderr] {
            let mut total = 0;
            while total < DRAIN_LIMIT {
                let (pumped, change) = self.pump(stream, buffer);
                changes.extend(change);
                match pumped {
                    Pumped::Bytes(length) => total += length,
                    Pumped::Nothing | Pumped::End => break,
                }
            }
        }
        (self.outputs.iter().any(|output| output.terminal), changes)
    }

    /// Ends what is left: unfinished lines are written, clients may read what is kept for them and are closed then.
    pub(crate) fn close(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        while !self.outputs.is_empty() {
            changes.extend(self.end(0));
        }
        self.close_inlet();
        self.log = None;
        changes
    }

    /// Passes a piece of a client's input on.
    pub(crate) fn feed(&mut self, client_key: u64) {
        let Some(client) = self.clients.iter_mut().find(|client| client.key == client_key) else { return };
        let (Some(input), Some(inlet)) = (client.stdin.as_mut(), self.inlet.as_mut()) else { return };
        match inlet.feed(input) {
            Fed::Open => {}
            Fed::Ended => self.end_input_of(client_key),
            Fed::Closed => self.close_inlet(),
        }
    }

    /// Gives the container input that it had no room for.
    pub(crate) fn flush_inlet(&mut self) {
        if self.inlet.as_mut().is_some_and(|inlet| inlet.flush() == Fed::Closed) {
            self.close_inlet();
        }
    }

    /// Gives a client output that it had no room for.
    pub(crate) fn flush_client(&mut self, client_key: u64, stream: Stream) {
        let Some(client) = self.clients.iter_mut().find(|client| client.key == client_key) else { return };
        let flushed = client.flush(stream);
        if flushed.is_err() || client.is_done() {
            self.lose(client_key);
        }
    }

    /// Forgets a client that has gone.
    pub(crate) fn lose(&mut self, client_key: u64) {
        let had_input = self.clients.iter().any(|client| client.key == client_key && client.stdin.is_some());
        self.clients.retain(|client| client.key != client_key);
        if had_input && self.stdin_once {
            self.close_inlet();
        }
    }

    /// A client has no more input; a client that only had input is done.
    fn end_input_of(&mut self, client_key: u64) {
        for client in self.clients.iter_mut().filter(|client| client.key == client_key) {
            client.stdin = None;
        }
        self.clients.retain(|client| !client.is_done());
        if self.stdin_once {
            self.close_inlet();
        }
    }

    /// The container takes no more input, so clients need not send any.
    fn close_inlet(&mut self) {
        self.inlet = None;
        for client in &mut self.clients {
            client.stdin = None;
        }
        self.clients.retain(|client| !client.is_done());
    }

    /// Ends an output.
    fn end(&mut self, index: usize) -> Option<Change> {
        let mut output = self.outputs.swap_remove(index);
        self.clients.iter_mut().for_each(|client| client.end(output.stream));
        self.clients.retain(|client| !client.is_done());
        self.log.as_mut().and_then(|log| log.finish(&mut output.line, output.stream, SystemTime::now()))
    }
}
