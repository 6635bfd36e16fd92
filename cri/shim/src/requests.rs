//! Requests in, replies and events out.

use crate::connection::Received;
use crate::failure::{chain, failure, note};
use crate::supervisor::Shim;
use crate::task::Call;
use crate::verbs;
use serde::Deserialize;
use shim_protocol::{Answer, ErrorKind, Event, Failure, Message, Reply, Request, decode};
use std::os::fd::OwnedFd;
use std::time::Duration;
use sys::poll::Interest;

/// No verb is waited for longer than this, whatever its request says: the clock's arithmetic has an end.
const LONGEST_DEADLINE: Duration = Duration::from_secs(24 * 60 * 60);

/// What is left of a request that can't be understood.
#[derive(Deserialize)]
struct Envelope {
    id: u64,
}

impl Shim {
    /// Takes what a connection has to say, and gives it what it waits for.
    pub(crate) fn serve(&mut self, key: u64, happened: Interest) {
        let Some(index) = self.connections.iter().position(|connection| connection.key == key) else { return };
        let connection = &mut self.connections[index];
        if happened.contains(Interest::WRITE) && connection.flush().is_err() {
            return self.hang_up(key);
        }
        if !happened.intersects(Interest::READ | Interest::HANGUP | Interest::ERROR) {
            return;
        }
        match connection.receive(&mut self.buffer) {
            Ok(Received::Datagram(length, fds)) => self.understand(key, length, fds),
            Ok(Received::Nothing) => {}
            Ok(Received::Oversized) => {
                note(format_args!("hang up on a peer whose message is longer than any of ours"));
                self.hang_up(key);
            }
            Err(_) => self.hang_up(key),
        }
    }

    /// Decodes the datagram in the buffer. One with an id gets an answer, whatever else is wrong with it; a peer that
    /// sends anything else doesn't speak our language.
    fn understand(&mut self, connection: u64, length: usize, fds: Vec<OwnedFd>) {
        let datagram = &self.buffer[..length];
        match decode::<Request>(datagram) {
            Ok(request) => {
                let call = Call { connection, request: request.id };
                let deadline = Duration::from_millis(request.deadline_ms).min(LONGEST_DEADLINE);
                verbs::begin(self, call, deadline, request.verb, fds);
            }
            Err(error) => match decode::<Envelope>(datagram) {
                Ok(Envelope { id }) => {
                    let invalid = failure(ErrorKind::Invalid, chain(&error));
                    self.reply(Call { connection, request: id }, Err(invalid), Vec::new());
                }
                Err(_) => {
                    note(format_args!("hang up on a peer: {}", chain(&error)));
                    self.hang_up(connection);
                }
            },
        }
    }

    /// Answers a request; whoever asked may be gone.
    pub(crate) fn reply(&mut self, call: Call, result: Result<Answer, Failure>, fds: Vec<OwnedFd>) {
        let message = Message::Reply(Reply { id: call.request, result });
        let connection = self.connections.iter_mut().find(|connection| connection.key == call.connection);
        if connection.is_some_and(|connection| connection.send(&message, fds).is_err()) {
            self.hang_up(call.connection);
        }
    }

    /// Tells every subscriber.
    pub(crate) fn tell(&mut self, event: &Event) {
        let message = Message::Event(event.clone());
        let mut lost = Vec::new();
        for connection in self.connections.iter_mut().filter(|connection| connection.subscribed) {
            if connection.send(&message, Vec::new()).is_err() {
                lost.push(connection.key);
            }
        }
        lost.into_iter().for_each(|connection| self.hang_up(connection));
    }
}
