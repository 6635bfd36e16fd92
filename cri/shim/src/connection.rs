//! A daemon's connection: datagrams in, datagrams out, never waiting.

use shim_protocol::{CodecError, MAX_MESSAGE, Message, encode};
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use sys::Errno;

/// A peer that leaves this many bytes unread is hung up on: it learns all it missed when it says hello again.
const QUEUE_LIMIT: usize = 1024 * 1024;

/// One connected peer.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Unique among all things of this shim.
    pub(crate) key: u64,
    /// It said hello and wants events.
    pub(crate) subscribed: bool,
    socket: OwnedFd,
    queue: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
}

/// The connection is of no use any more: close it.
#[derive(Debug)]
pub(crate) struct HungUp;

/// A datagram that came.
#[derive(Debug)]
pub(crate) enum Received {
    /// So many bytes lie in the buffer, with these fds.
    Datagram(usize, Vec<OwnedFd>),
    /// Nothing now.
    Nothing,
    /// It was longer than any message, or had more fds than any message; the rest is lost.
    Oversized,
}

impl Connection {
    /// A connection over a non-blocking `SOCK_SEQPACKET` socket.
    pub(crate) fn new(key: u64, socket: OwnedFd) -> Self {
        Self { key, subscribed: false, socket, queue: VecDeque::new() }
    }

    /// Takes one datagram; `buffer` is larger than [`MAX_MESSAGE`].
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> Result<Received, HungUp> {
        match sys::socket::recv_to_end(&self.socket, buffer) {
            // An empty datagram and the end of the connection look alike; no message of ours is empty.
            Ok((0, _)) => Err(HungUp),
            Ok((length, fds)) if length <= MAX_MESSAGE => Ok(Received::Datagram(length, fds)),
            Ok(_) => Ok(Received::Oversized),
            Err(error) if error.is(Errno::EAGAIN) || error.is(Errno::EINTR) => Ok(Received::Nothing),
            Err(error) if error.is(Errno::EMSGSIZE) => Ok(Received::Oversized),
            Err(_) => Err(HungUp),
        }
    }

    /// Sends a message, now or once the peer has read others.
    pub(crate) fn send(&mut self, message: &Message, fds: Vec<OwnedFd>) -> Result<(), HungUp> {
        let datagram = match encode(message) {
            Ok(datagram) => datagram,
            Err(error @ (CodecError::TooLong(_) | CodecError::Decode(_))) => {
                crate::failure::note(format_args!("send message: {error}"));
                return Err(HungUp);
            }
        };
        self.queue.push_back((datagram, fds));
        self.flush()
    }

    /// Sends what is queued, as much as the socket takes.
    pub(crate) fn flush(&mut self) -> Result<(), HungUp> {
        while let Some((datagram, fds)) = self.queue.front() {
            let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
            match sys::socket::send(&self.socket, datagram, &fds) {
                Ok(()) => drop(self.queue.pop_front()),
                Err(error) if error.is(Errno::EAGAIN) => break,
                Err(error) if error.is(Errno::EINTR) => {}
                Err(_) => return Err(HungUp),
            }
        }
        let unread: usize = self.queue.iter().map(|(datagram, _)| datagram.len()).sum();
        if unread > QUEUE_LIMIT { Err(HungUp) } else { Ok(()) }
    }

    /// Whether datagrams wait for room.
    pub(crate) fn is_backed_up(&self) -> bool {
        !self.queue.is_empty()
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
