//! The daemon's side of a pod's shim: starting it, and talking to it over one connection.
//!
//! [`Shim::call`] may be used from anywhere, many at a time; one task per pod calls [`Shim::next_event`], which also
//! hands replies to their callers, until the shim is gone.

mod spawn;

pub(crate) use spawn::{Program, dir_of, spawn};

use shim_protocol::{Answer, Event, Exit, Failure, MAX_MESSAGE, Message, Reply, Request, Verb, decode, encode};
use std::collections::HashMap;
use std::future::Future;
use std::io::ErrorKind;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use sys::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

/// How much later than a verb's own deadline its answer may come: the shim kills the stage and tells where it was.
const GRACE: Duration = Duration::from_secs(5);

/// Why a verb has no answer, or a bad one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The shim's own words.
    #[error("{0}")]
    Failed(Failure),
    /// The connection ended first: the shim was stopped or died.
    #[error("the pod's shim is gone")]
    Gone,
    /// Not even its deadline was kept.
    #[error("the pod's shim did not answer within {0:?}")]
    Silent(Duration),
    /// The message could not be made.
    #[error(transparent)]
    Codec(#[from] shim_protocol::CodecError),
    /// The socket failed.
    #[error("talk to the pod's shim")]
    Socket(#[from] std::io::Error),
}

type Answered = (Result<Answer, Failure>, Vec<OwnedFd>);

/// A connection to a shim.
#[derive(Debug)]
pub(crate) struct Shim {
    socket: AsyncFd<OwnedFd>,
    next: AtomicU64,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    gone: bool,
    replies: HashMap<u64, oneshot::Sender<Answered>>,
    execs: HashMap<String, oneshot::Sender<Exit>>,
}

impl Shim {
    /// Connects to the shim that serves `dir`.
    ///
    /// # Errors
    /// Nobody listens there.
    pub(crate) fn connect(dir: &Path) -> std::io::Result<Shim> {
        let socket = sys::socket::connect(dir.join(spawn::SOCKET)).map_err(io)?;
        sys::fd::set_nonblocking(&socket, true).map_err(io)?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe for types that may lie about their fd; an OwnedFd can't"
        )]
        let socket = AsyncFd::with_interest(socket, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Shim { socket, next: AtomicU64::new(1), waiting: Mutex::default() })
    }

    /// Asks for a verb and waits for its answer and the fds beside it.
    pub(crate) fn call(
        &self,
        verb: Verb,
        fds: Vec<OwnedFd>,
        deadline: Duration,
    ) -> impl Future<Output = Result<(Answer, Vec<OwnedFd>), CallError>> + '_ {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let stage = format!("{} in the shim", verb.name());
        let deadline_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
        let message = encode(&Request { id, deadline_ms, verb });
        async move {
            crate::stages::enter(stage);
            let message = message?;
            let reply = self.expect_reply(id)?;
            self.send(&message, &fds).await?;
            drop(fds);
            let patience = deadline.saturating_add(GRACE);
            let answered = tokio::time::timeout(patience, reply).await;
            if answered.is_err() {
                self.lock().replies.remove(&id);
            }
            let (result, fds) = answered.map_err(|_| CallError::Silent(patience))?.map_err(|_| CallError::Gone)?;
            result.map(|answer| (answer, fds)).map_err(CallError::Failed)
        }
    }

    /// What will tell how an exec ended; to be asked for before the exec is.
    pub(crate) fn expect_exit(&self, exec: &str) -> Result<oneshot::Receiver<Exit>, CallError> {
        let mut waiting = self.lock();
        if waiting.gone {
            return Err(CallError::Gone);
        }
        let (sender, receiver) = oneshot::channel();
        waiting.execs.insert(exec.to_owned(), sender);
        Ok(receiver)
    }

    /// The exec never came to be, or nobody wants to know any more.
    pub(crate) fn forget_exit(&self, exec: &str) {
        self.lock().execs.remove(exec);
    }

    /// The next thing that the shim tells on its own; `None` once it is gone. Replies and exits of execs go to those who
    /// wait for them.
    pub(crate) async fn next_event(&self) -> Option<Event> {
        loop {
            let received = self.receive().await;
            let (datagram, fds) = match received {
                Ok(Some(received)) => received,
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(error = %error, "read from a shim");
                    break;
                }
            };
            match decode::<Message>(&datagram) {
                Ok(Message::Reply(reply)) => self.hand_over(reply, fds),
                Ok(Message::Event(Event::ExecExited { exec, exit })) => {
                    if let Some(waiter) = self.lock().execs.remove(&exec) {
                        // Whoever asked may have gone; then nobody wants to know.
                        let _ = waiter.send(exit);
                    }
                }
                Ok(Message::Event(event)) => return Some(event),
                // A newer shim may tell what we have no word for.
                Err(error) => tracing::debug!(error = crate::failure::chain(&error), "a shim's message"),
            }
        }
        let mut waiting = self.lock();
        *waiting = Waiting { gone: true, ..Waiting::default() };
        None
    }

    fn hand_over(&self, reply: Reply, fds: Vec<OwnedFd>) {
        if let Some(waiter) = self.lock().replies.remove(&reply.id) {
            let _ = waiter.send((reply.result, fds));
        }
    }

    fn expect_reply(&self, id: u64) -> Result<oneshot::Receiver<Answered>, CallError> {
        let mut waiting = self.lock();
        if waiting.gone {
            return Err(CallError::Gone);
        }
        let (sender, receiver) = oneshot::channel();
        waiting.replies.insert(id, sender);
        Ok(receiver)
    }

    async fn send(&self, message: &[u8], fds: &[OwnedFd]) -> Result<(), CallError> {
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(std::os::fd::AsFd::as_fd).collect();
        let sent =
            self.socket.async_io(Interest::WRITABLE, |socket| sys::socket::send(socket, message, &fds).map_err(io));
        match sent.await {
            // Reset, if it closed the connection with an earlier message unread.
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                Err(CallError::Gone)
            }
            other => Ok(other?),
        }
    }

    async fn receive(&self) -> std::io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
        let received = self.socket.async_io(Interest::READABLE, |socket| {
            // Only for as long as a message is at hand: a node has hundreds of shims that say nothing.
            let mut buffer = vec![0; MAX_MESSAGE];
            let (length, fds) = sys::socket::recv_to_end(socket, &mut buffer).map_err(io)?;
            buffer.truncate(length);
            buffer.shrink_to_fit();
            Ok((buffer, fds))
        });
        let received = received.await?;
        Ok((!received.0.is_empty()).then_some(received))
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// tokio looks at an error's kind, so that it gets one.
fn io(error: sys::Error) -> std::io::Error {
    match error.errno() {
        Errno::EAGAIN => ErrorKind::WouldBlock.into(),
        Errno::EPIPE => ErrorKind::BrokenPipe.into(),
        Errno::ECONNRESET => ErrorKind::ConnectionReset.into(),
        Errno::ECONNREFUSED => std::io::Error::new(ErrorKind::ConnectionRefused, error),
        Errno::ENOENT => std::io::Error::new(ErrorKind::NotFound, error),
        _ => std::io::Error::other(error),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::os::fd::AsFd;

    /// A connection to a shim that answers the first request, which it does not read, and ends.
    pub(crate) fn leaving() -> Shim {
        let dir = tempfile::tempdir().expect("a state directory");
        let listener = sys::socket::listen(dir.path().join(spawn::SOCKET)).expect("a shim's socket");
        let shim = Shim::connect(dir.path()).expect("somebody listens");
        let peer = sys::socket::accept(&listener).expect("the connection");
        std::thread::spawn(move || {
            // What goes wrong here is an end without an answer, which the test sees.
            let _asked = sys::poll::poll(&[(peer.as_fd(), sys::poll::Interest::READ)], None);
            let answer = encode(&Message::Reply(Reply { id: 1, result: Ok(Answer::Done) })).expect("a short message");
            let _sent = sys::socket::send(&peer, &answer, &[]);
        });
        shim
    }

    #[tokio::test]
    async fn the_last_words_of_a_shim_that_leaves_a_request_unread_are_heard() {
        let shim = leaving();
        let stop = || shim.call(Verb::StopSandbox, Vec::new(), Duration::from_secs(10));
        let (answer, event) = tokio::join!(stop(), shim.next_event());
        assert!(event.is_none());
        assert!(matches!(answer, Ok((Answer::Done, _))), "{answer:?}");
        let late = stop().await;
        assert!(matches!(late, Err(CallError::Gone)), "{late:?}");
    }
}
