//! Synchronous netlink sockets (netlink(7)): one request or batch out, its answers in, no thread, no runtime.
//!
//! The kernel handles a request inside `sendmsg`, so all answers wait in the socket's queue when it returns and
//! nothing here polls. [`route`] speaks NETLINK_ROUTE with types; [`crate::nft`] builds its batches on the same
//! [`Socket`]. A socket belongs to the network namespace in which it was opened, wherever its owner goes later.

#![allow(unsafe_code, reason = "setsockopt for options that nix does not know")]

mod message;
pub mod route;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::socket::{self, AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType};

use crate::{Error, Result};
pub(crate) use message::{Answer, Answers, Attributes, Builder, text_of};

/// A request that the kernel refused, in words, with the kernel's own sentence if it gave one.
pub(crate) fn refused(request: impl std::fmt::Display, errno: Errno, explanation: &str) -> Error {
    let error = Error::new("netlink", errno, request);
    if explanation.is_empty() { error } else { error.with_detail(explanation) }
}

/// The protocols that this crate speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Links, addresses, routes: rtnetlink(7).
    Route,
    /// nf_tables and connection tracking.
    Netfilter,
}

/// A netlink socket with strict checking and extended acknowledgements.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

/// An answer never exceeds this: the kernel cuts dumps into datagrams of at most 32 KiB (`netlink_dump`).
const LARGEST_DATAGRAM: usize = 64 * 1024;

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open(protocol: Protocol) -> Result<Socket> {
        let protocol = match protocol {
            Protocol::Route => SockProtocol::NetlinkRoute,
            Protocol::Netfilter => SockProtocol::NetlinkNetFilter,
        };
        let fd = socket::socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)
            .map_err(|errno| Error::new("socket", errno, "AF_NETLINK"))?;
        // The kernel's sentence on a refusal; the request's header only, not its body, in an acknowledgement; and
        // an error instead of silence for what it does not understand in a dump request.
        for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK, libc::NETLINK_GET_STRICT_CHK] {
            set_option(fd.as_fd(), option, 1)?;
        }
        Ok(Socket { fd, sequence: 0, buffer: vec![0; LARGEST_DATAGRAM] })
    }

    /// Subscribes to a multicast group, one of `RTNLGRP_*`.
    pub fn join(&self, group: u32) -> Result<()> {
        set_option(self.fd.as_fd(), libc::NETLINK_ADD_MEMBERSHIP, group as libc::c_int)
    }

    /// The number for the next message: answers carry the number of their request.
    pub(crate) fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// Sends one or more whole messages.
    pub(crate) fn send(&self, messages: &[u8]) -> Result<()> {
        let kernel = NetlinkAddr::new(0, 0);
        socket::sendto(self.fd.as_raw_fd(), messages, &kernel, MsgFlags::empty())
            .map(drop)
            .map_err(|errno| Error::new("sendto", errno, format_args!("netlink, {} bytes", messages.len())))
    }

    /// The next datagram's messages; blocks if none is queued.
    pub(crate) fn receive(&mut self) -> Result<Answers<'_>> {
        let read = loop {
            // MSG_TRUNC returns the datagram's true length, so that a cut one is noticed.
            match socket::recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_TRUNC) {
                Err(Errno::EINTR) => continue,
                other => break other.map_err(|errno| Error::new("recv", errno, "netlink"))?,
            }
        };
        let datagram = self
            .buffer
            .get(..read)
            .ok_or_else(|| Error::new("recv", Errno::EMSGSIZE, format_args!("netlink, {read} bytes")))?;
        Ok(Answers::new(datagram))
    }

    /// Waits until something is queued; false if `deadline` passed first.
    pub(crate) fn wait(&self, deadline: Instant) -> Result<bool> {
        loop {
            // Rounded up: a wait of less than a millisecond must not spin.
            let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match nix::poll::poll(&mut [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)], timeout) {
                Err(Errno::EINTR) => continue,
                Ok(ready) => return Ok(ready > 0),
                Err(errno) => return Err(Error::new("poll", errno, "netlink")),
            }
        }
    }
}

fn set_option(fd: BorrowedFd<'_>, option: libc::c_int, value: libc::c_int) -> Result<()> {
    // SAFETY: the kernel reads `size_of::<c_int>()` bytes from a live integer.
    let status = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_NETLINK,
            option,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    Errno::result(status)
        .map(drop)
        .map_err(|errno| Error::new("setsockopt", errno, format_args!("SOL_NETLINK, {option}, {value}")))
}
