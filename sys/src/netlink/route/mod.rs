//! rtnetlink(7): links, addresses and routes of the namespace in which the socket was opened.
//!
//! Changes are [`Request`]s, sent as one batch whose acknowledgements are collected; questions are methods that
//! return [`Link`], [`Address`] and [`Route`]. Requests are written with the types of `netlink-packet-route`; answers
//! are walked attribute by attribute, because that crate's decoder refuses a whole message over one attribute that a
//! newer kernel spells differently.

mod answer;
mod request;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

pub use answer::{Address, Link, Route};
pub use request::{Mac, NewAddress, NewRoute, NewVeth, Peer, Request};

use nix::errno::Errno;

use super::message::Answer;
use super::{Builder, Protocol, Socket, refused};
use crate::{Error, Result};

/// `RTNLGRP_LINK`: changes of links.
const GROUP_LINK: u32 = 1;

/// A NETLINK_ROUTE socket.
#[derive(Debug)]
pub struct RouteSocket {
    socket: Socket,
}

impl RouteSocket {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open() -> Result<RouteSocket> {
        Ok(RouteSocket { socket: Socket::open(Protocol::Route)? })
    }

    /// Sends `requests` in one call and waits for every acknowledgement. The kernel works through all of them even
    /// if one fails; the first failure in their order is returned.
    pub fn run(&mut self, requests: &[Request]) -> Result<()> {
        if requests.is_empty() {
            // The kernel refuses an empty message, ENODATA: nothing to do is no error.
            return Ok(());
        }
        let mut builder = Builder::default();
        let mut pending = BTreeMap::new();
        for request in requests {
            let sequence = self.socket.next_sequence();
            request.write(&mut builder, sequence);
            pending.insert(sequence, request);
        }
        self.socket.send(&builder.finish())?;
        let mut first_failure: Option<(u32, Error)> = None;
        while !pending.is_empty() {
            for answer in self.socket.receive()? {
                let Answer::Acknowledged { sequence, errno, explanation } = answer else { continue };
                let Some(request) = pending.remove(&sequence) else { continue };
                let earlier = first_failure.as_ref().is_some_and(|(failed, _)| *failed < sequence);
                if let (Some(errno), false) = (errno, earlier) {
                    first_failure = Some((sequence, refused(request, errno, explanation)));
                }
            }
        }
        first_failure.map_or(Ok(()), |(_, error)| Err(error))
    }

    /// The link of this name, `None` if there is none.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>> {
        self.find_link(&request::Question::LinkByName(name))
    }

    /// The link with this index, `None` if there is none.
    pub fn link_by_index(&mut self, index: u32) -> Result<Option<Link>> {
        self.find_link(&request::Question::LinkByIndex(index))
    }

    /// All links.
    pub fn links(&mut self) -> Result<Vec<Link>> {
        self.ask(&request::Question::Links, Link::parse)
    }

    /// The addresses of one link.
    pub fn addresses(&mut self, link: u32) -> Result<Vec<Address>> {
        let all = self.ask(&request::Question::Addresses(link), Address::parse)?;
        Ok(all.into_iter().filter(|address| address.link == link).collect())
    }

    /// The addresses of all links.
    pub fn all_addresses(&mut self) -> Result<Vec<Address>> {
        self.ask(&request::Question::Addresses(0), Address::parse)
    }

    /// The IPv4 routes of the main table.
    pub fn routes(&mut self) -> Result<Vec<Route>> {
        let all = self.ask(&request::Question::Routes, Route::parse)?;
        Ok(all.into_iter().filter(|route| route.table == u32::from(libc::RT_TABLE_MAIN)).collect())
    }

    /// The route that a packet to `destination` takes now, `None` if it is unreachable.
    pub fn route_to(&mut self, destination: Ipv4Addr) -> Result<Option<Route>> {
        match self.ask(&request::Question::RouteTo(IpAddr::V4(destination)), Route::parse) {
            Ok(routes) => Ok(routes.into_iter().next()),
            Err(error) if error.is(Errno::ENETUNREACH) || error.is(Errno::EHOSTUNREACH) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Waits until the link's operational state is up: the kernel reports a veth's carrier from a work queue, some
    /// time after both ends are up. False if `deadline` passes first or the link goes away.
    pub fn wait_until_up(&mut self, link: u32, deadline: Instant) -> Result<bool> {
        // A socket of its own, so that the group's messages never mix with the answers of this one; subscribed
        // before the first look, so that no change falls between the two.
        let mut events = Socket::open(Protocol::Route)?;
        events.join(GROUP_LINK)?;
        let mut in_time = true;
        loop {
            match self.link_by_index(link)? {
                None => return Ok(false),
                Some(link) if link.operational => return Ok(true),
                Some(_) if !in_time => return Ok(false),
                Some(_) => {}
            }
            // The last look comes after the last wait.
            in_time = events.wait(deadline)?;
            if !in_time {
                continue;
            }
            match events.receive() {
                // An overrun only means that there were changes: the next look sees them.
                Err(error) if !error.is(Errno::ENOBUFS) => return Err(error),
                _ => {}
            }
        }
    }

    fn find_link(&mut self, question: &request::Question<'_>) -> Result<Option<Link>> {
        match self.ask(question, Link::parse) {
            Ok(links) => Ok(links.into_iter().next()),
            Err(error) if error.is(Errno::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends one question and parses the messages that answer it.
    fn ask<T>(&mut self, question: &request::Question<'_>, parse: fn(&[u8]) -> Option<T>) -> Result<Vec<T>> {
        let sequence = self.socket.next_sequence();
        let mut builder = Builder::default();
        question.write(&mut builder, sequence);
        self.socket.send(&builder.finish())?;
        let mut found = Vec::new();
        loop {
            for answer in self.socket.receive()?.filter(|answer| answer.sequence() == sequence) {
                let (errno, explanation) = match answer {
                    Answer::Message { payload, .. } => {
                        let cut_short = || refused(question, Errno::EBADMSG, "the answer is cut short");
                        found.push(parse(payload).ok_or_else(cut_short)?);
                        if question.is_dump() {
                            continue;
                        }
                        return Ok(found);
                    }
                    Answer::Acknowledged { errno, explanation, .. } => (errno, explanation),
                    Answer::Done { errno, .. } => (errno, ""),
                };
                return match errno {
                    None => Ok(found),
                    Some(errno) => Err(refused(question, errno, explanation)),
                };
            }
        }
    }
}
