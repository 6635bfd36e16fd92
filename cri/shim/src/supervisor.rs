//! The shim's state and its loop, which only polls, copies and reaps.
//!
//! Whatever could wait is done by a stage child ([`crate::stage`]); the loop itself never blocks but in `poll`, and
//! with nothing to do it never wakes: there is a timeout only while a verb is under way. One thing it does wait for: a
//! log is written and closed here, so the file system that holds the pods' logs has to answer. On one that doesn't, the
//! pod stands still, as its containers would on their next write.

use crate::cgroups::Cgroups;
use crate::connection::Connection;
use crate::container::{Container, Life, Missing};
use crate::exec_process::{ExecLife, ExecProcess};
use crate::failure::{chain, note};
use crate::log::Stream;
use crate::process::Inherited;
use crate::sandbox::Lifecycle;
use crate::state_dir::StateDir;
use crate::task::{Step, Task};
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};
use sys::Errno;
use sys::poll::{Interest, poll};
use sys::signal::SignalFd;

/// How long a shim that nobody is connected to waits for its sandbox to be started.
const ABANDONED: Duration = Duration::from_secs(60);

/// How long the shim does without what the kernel refuses it for want of fds or memory.
const PAUSE: Duration = Duration::from_secs(1);

/// Where reads go. Only pages that a read has reached cost memory: an allocation above malloc's `M_MMAP_THRESHOLD`
/// (128 KiB) is a mapping of its own, which comes zeroed and untouched.
const BUFFER: usize = 256 * 1024;

/// The most bytes taken from one stream in one turn; other fds get theirs in between.
const CHUNK: usize = 32 * 1024;

/// Everything that the shim knows.
#[derive(Debug)]
pub(crate) struct Shim {
    /// Where its socket and exit records are.
    pub(crate) dir: StateDir,
    /// The pod's namespaces, shared memory and reaper.
    pub(crate) lifecycle: Lifecycle,
    /// The pod's containers.
    pub(crate) containers: Vec<Container>,
    /// Processes run in them later.
    pub(crate) execs: Vec<ExecProcess>,
    /// Verbs under way.
    pub(crate) tasks: Vec<Task>,
    /// Children that ended before the stage child that made them could say what they are.
    pub(crate) unclaimed: VecDeque<(Instant, crate::reap::Ended)>,
    /// Daemons.
    pub(crate) connections: Vec<Connection>,
    /// What is read goes here, one read at a time.
    pub(crate) buffer: Vec<u8>,
    /// What stage children have again of what the shim was started with.
    pub(crate) inherited: Inherited,
    /// Where cgroups are.
    pub(crate) cgroups: Cgroups,
    listener: OwnedFd,
    /// The last connection could not be accepted.
    deaf: bool,
    /// Until when no other is tried.
    deaf_until: Option<Instant>,
    /// The last poll failed.
    blind: bool,
    signals: SignalFd,
    /// Since when nobody has been connected.
    alone_since: Instant,
    last_key: u64,
}

/// What an fd in the poll set is. Containers, execs, clients, tasks and connections are named by key.
#[derive(Debug, Clone, Copy)]
enum Token {
    Task(u64),
    Output(u64, Stream),
    Inlet(u64),
    ClientInput(u64, u64),
    ClientOutput(u64, u64, Stream),
    Status(u64),
    ExecStatus(u64),
    Oom(u64),
    Connection(u64),
    Listener,
    Signals,
}

impl Shim {
    /// A shim without a sandbox that serves `listener`.
    pub(crate) fn new(
        dir: StateDir,
        listener: OwnedFd,
        signals: SignalFd,
        inherited: Inherited,
        cgroups: Cgroups,
    ) -> Self {
        Self {
            dir,
            lifecycle: Lifecycle::Fresh,
            containers: Vec::new(),
            execs: Vec::new(),
            tasks: Vec::new(),
            unclaimed: VecDeque::new(),
            connections: Vec::new(),
            buffer: vec![0; BUFFER],
            inherited,
            cgroups,
            listener,
            deaf: false,
            deaf_until: None,
            blind: false,
            signals,
            alone_since: Instant::now(),
            last_key: 0,
        }
    }

    /// Serves until the sandbox has ended. No failure ends it before: the pod would end with it.
    pub(crate) fn run(&mut self) {
        while !self.is_over() {
            for (token, happened) in self.wait() {
                self.handle(token, happened);
            }
            let now = Instant::now();
            self.deaf_until = self.deaf_until.filter(|until| *until > now);
            self.expire(now);
            self.end_patience(now);
            self.advance();
        }
        self.say_goodbye();
    }

    /// A number that no other thing of this shim has.
    pub(crate) fn new_key(&mut self) -> u64 {
        self.last_key += 1;
        self.last_key
    }

    fn is_over(&self) -> bool {
        match self.lifecycle {
            Lifecycle::Over => self.tasks.is_empty(),
            Lifecycle::Fresh => self.is_alone() && self.alone_since.elapsed() >= ABANDONED,
            Lifecycle::Starting(_) | Lifecycle::Running(_) => false,
        }
    }

    fn is_alone(&self) -> bool {
        self.connections.is_empty() && self.tasks.is_empty()
    }

    /// What is ready. When the kernel can't poll all (ENOMEM, or EINVAL with more fds than we may have), only children's ends
    /// are waited for, for a moment.
    fn wait(&mut self) -> Vec<(Token, Interest)> {
        match self.poll() {
            Ok(happened) => {
                self.blind = false;
                happened
            }
            Err(error) => {
                if !self.blind {
                    note(format_args!("wait for something to happen: {}; trying again", chain(&error)));
                }
                self.blind = true;
                let mut set = PollSet::default();
                set.add(self.signals.as_fd(), Interest::READ, Token::Signals);
                set.wait(Some(PAUSE)).unwrap_or_default()
            }
        }
    }

    /// Waits until something is ready or due. What tells of processes that exist comes before what tells of their
    /// end.
    fn poll(&self) -> sys::Result<Vec<(Token, Interest)>> {
        let mut set = PollSet::default();
        for task in &self.tasks {
            if let Step::Stage(child, _) = &task.step
                && !child.is_silent()
            {
                set.add(child.as_fd(), Interest::READ, Token::Task(task.key));
            }
        }
        self.containers.iter().for_each(|container| set.add_container(container));
        for exec in &self.execs {
            if let ExecLife::Starting { status, .. } = &exec.life {
                set.add(status.as_fd(), Interest::READ, Token::ExecStatus(exec.key));
            }
        }
        for connection in &self.connections {
            let writable = if connection.is_backed_up() { Interest::WRITE } else { Interest::empty() };
            set.add(connection.as_fd(), Interest::READ | writable, Token::Connection(connection.key));
        }
        if self.deaf_until.is_none() {
            set.add(self.listener.as_fd(), Interest::READ, Token::Listener);
        }
        set.add(self.signals.as_fd(), Interest::READ, Token::Signals);
        set.wait(self.timeout(Instant::now()))
    }

    /// Until the next deadline; without one, for ever.
    fn timeout(&self, now: Instant) -> Option<Duration> {
        let tasks = self.tasks.iter().map(|task| task.deadline);
        let endings = self.containers.iter().filter_map(|container| match &container.life {
            Life::Ending(ending) => match ending.missing {
                Missing::Output { until } => Some(until),
                Missing::Deaths => None,
            },
            _ => None,
        });
        let abandoned = matches!(self.lifecycle, Lifecycle::Fresh).then_some(self.alone_since + ABANDONED);
        let abandoned = abandoned.filter(|_| self.is_alone());
        let next = tasks.chain(endings).chain(abandoned).chain(self.deaf_until).min()?;
        Some(next.saturating_duration_since(now))
    }

    fn handle(&mut self, token: Token, happened: Interest) {
        match token {
            Token::Task(task) => self.hear(task),
            Token::Output(container, stream) => self.copy(container, stream),
            Token::Inlet(container) => self.with_container(container, |container| container.stdio.flush_inlet()),
            Token::ClientInput(container, client) => {
                self.with_container(container, |container| container.stdio.feed(client));
            }
            Token::ClientOutput(container, client, stream) => self.with_container(container, |container| {
                // A pipe without a reader is an error, a socket or a terminal that the other side closed hangs up.
                if happened.intersects(Interest::ERROR | Interest::HANGUP) {
                    container.stdio.lose(client);
                } else {
                    container.stdio.flush_client(client, stream);
                }
            }),
            Token::Status(container) => self.hear_status(container),
            Token::ExecStatus(exec) => self.hear_exec_status(exec),
            Token::Oom(container) => self.hear_oom(container),
            Token::Connection(connection) => self.serve(connection, happened),
            Token::Listener => self.accept(),
            Token::Signals => {
                // Equal signals are merged: one of them is any number of children.
                while let Ok(Some(_)) = self.signals.read() {}
                self.reap();
            }
        }
    }

    fn with_container(&mut self, key: u64, act: impl FnOnce(&mut Container)) {
        // An fd of this turn's poll set may belong to a container that an earlier one made us forget.
        if let Some(container) = self.containers.iter_mut().find(|container| container.key == key) {
            act(container);
        }
    }

    /// Passes one chunk of a container's output on.
    fn copy(&mut self, key: u64, stream: Stream) {
        let Some(container) = self.containers.iter_mut().find(|container| container.key == key) else { return };
        let (_, change) = container.stdio.pump(stream, &mut self.buffer[..CHUNK]);
        if let Some(change) = change {
            crate::ending::note_log(container, &change);
        }
    }

    fn accept(&mut self) {
        let socket = match sys::socket::accept(&self.listener) {
            Ok(socket) => socket,
            // Whoever connected is gone again.
            Err(error) if error.is(Errno::EAGAIN) || error.is(Errno::ECONNABORTED) => return,
            Err(error) => {
                // It stays in the listener's queue: without a pause the loop would spin, and fill our log, which is memory.
                self.deaf_until = Some(Instant::now() + PAUSE);
                if !std::mem::replace(&mut self.deaf, true) {
                    note(format_args!("accept a connection: {}; trying again", chain(&error)));
                }
                return;
            }
        };
        self.deaf = false;
        let _ = sys::fd::set_nonblocking(&socket, true);
        match sys::socket::peer_credentials(&socket) {
            Ok(peer) if peer.uid == 0 => {
                let key = self.new_key();
                self.connections.push(Connection::new(key, socket));
            }
            Ok(peer) => note(format_args!("refuse a connection of uid {}, pid {}: only root may", peer.uid, peer.pid)),
            Err(error) => note(format_args!("refuse a connection of an unknown user: {}", chain(&error))),
        }
    }

    /// Forgets a connection; verbs that it asked for go on.
    pub(crate) fn hang_up(&mut self, key: u64) {
        self.connections.retain(|connection| connection.key != key);
        self.alone_since = Instant::now();
    }

    /// Gives the last replies a moment to be read, then the socket is gone.
    fn say_goodbye(&mut self) {
        let until = Instant::now() + Duration::from_secs(1);
        self.connections.retain_mut(|connection| {
            while connection.is_backed_up() && Instant::now() < until {
                let mut set = PollSet::default();
                set.add(connection.as_fd(), Interest::WRITE, Token::Listener);
                if set.wait(Some(Duration::from_millis(100))).is_err() || connection.flush().is_err() {
                    break;
                }
            }
            false
        });
        self.dir.remove_socket();
    }
}

/// Fds to wait for, and what they are.
#[derive(Default)]
struct PollSet<'a> {
    files: Vec<(BorrowedFd<'a>, Interest)>,
    tokens: Vec<Token>,
}

impl<'a> PollSet<'a> {
    fn add(&mut self, fd: BorrowedFd<'a>, interest: Interest, token: Token) {
        self.files.push((fd, interest));
        self.tokens.push(token);
    }

    fn add_container(&mut self, container: &'a Container) {
        let key = container.key;
        for output in &container.stdio.outputs {
            self.add(output.file.as_fd(), Interest::READ, Token::Output(key, output.stream));
        }
        let inlet = container.stdio.inlet.as_ref();
        if let Some(inlet) = inlet.filter(|inlet| inlet.is_full()) {
            self.add(inlet.as_fd(), Interest::WRITE, Token::Inlet(key));
        }
        for client in &container.stdio.clients {
            let has_room = inlet.is_some_and(|inlet| !inlet.is_full());
            if let Some(input) = client.stdin.as_ref().filter(|_| has_room) {
                self.add(input.as_fd(), Interest::READ, Token::ClientInput(key, client.key));
            }
            for stream in [Stream::Stdout, Stream::Stderr] {
                if let Some((is_behind, fd)) = client.waits(stream) {
                    let interest = if is_behind { Interest::WRITE } else { Interest::empty() };
                    self.add(fd, interest, Token::ClientOutput(key, client.key, stream));
                }
            }
        }
        if let Life::Starting { status, .. } = &container.life {
            self.add(status.as_fd(), Interest::READ, Token::Status(key));
        }
        if let Some(oom) = &container.oom {
            self.add(oom.as_fd(), Interest::READ, Token::Oom(key));
        }
    }

    fn wait(self, timeout: Option<Duration>) -> sys::Result<Vec<(Token, Interest)>> {
        let happened = poll(&self.files, timeout)?;
        Ok(self.tokens.into_iter().zip(happened).filter(|(_, happened)| !happened.is_empty()).collect())
    }
}
