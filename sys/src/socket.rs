//! Unix sockets between our own processes: one message per datagram, fds beside it (unix(7)).
//!
//! Only sockets with a path, mode 0600: an abstract one is open to whoever shares the network namespace
//! (CVE-2020-15257).

#![allow(unsafe_code, reason = "fds that arrive in a control message become owners here")]

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use nix::fcntl::{self, OFlag};
use nix::libc;
use nix::sys::socket::{self, AddressFamily, Backlog, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, sockopt};
use nix::sys::stat::Mode;
use nix::sys::time::TimeVal;

use crate::error::{Error, Result, fd, quoted, retry};
use crate::{Errno, at};

/// How many fds one message may carry, in either direction. The kernel's own limit is 253.
pub const MAX_FDS: usize = 32;

/// A process at the other end of a connection, as it was when it connected (`SO_PEERCRED`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerCredentials {
    /// Its number: for a log only.
    pub pid: i32,
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
}

/// Two connected sockets that keep message boundaries (socketpair(2), `SOCK_SEQPACKET`).
pub fn pair() -> Result<(OwnedFd, OwnedFd)> {
    socket::socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
        .map_err(|errno| Error::new("socketpair", errno, "AF_UNIX, SOCK_SEQPACKET|SOCK_CLOEXEC, 0"))
}

/// Binds a socket that keeps message boundaries to `path`, mode 0600, and listens. EADDRINUSE if the name exists, stale or
/// not: removing it is the caller's decision.
pub fn listen(path: impl AsRef<Path>) -> Result<OwnedFd> {
    bind(path.as_ref(), SockType::SeqPacket)
}

/// As [`listen`] for a byte stream: the socket of a gRPC server.
pub fn listen_stream(path: impl AsRef<Path>) -> Result<UnixListener> {
    Ok(UnixListener::from(bind(path.as_ref(), SockType::Stream)?))
}

fn bind(path: &Path, kind: SockType) -> Result<OwnedFd> {
    let socket = new_socket(kind)?;
    // The kernel gives the name the mode of the socket's inode less the umask (net/unix/af_unix.c unix_bind_bsd): set
    // here, it is never open to others, not even between bind and chmod.
    nix::sys::stat::fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)
        .map_err(|errno| Error::new("fchmod", errno, format_args!("{}, 0600", fd(&socket))))?;
    let (_directory, address) = address(path)?;
    socket::bind(socket.as_raw_fd(), &address)
        .map_err(|errno| Error::new("bind", errno, format_args!("{}, {}", fd(&socket), quoted(path))))?;
    socket::listen(&socket, Backlog::MAXCONN)
        .map_err(|errno| Error::new("listen", errno, format_args!("{}, SOMAXCONN", fd(&socket))))?;
    Ok(socket)
}

/// Connects to a socket made by [`listen`]. ECONNREFUSED if nobody listens any more.
pub fn connect(path: impl AsRef<Path>) -> Result<OwnedFd> {
    let path = path.as_ref();
    let socket = new_socket(SockType::SeqPacket)?;
    let (_directory, address) = address(path)?;
    retry(|| socket::connect(socket.as_raw_fd(), &address))
        .map_err(|errno| Error::new("connect", errno, format_args!("{}, {}", fd(&socket), quoted(path))))?;
    Ok(socket)
}

/// Connects to the byte stream of another program's socket. Who listens there may be busy, or not look at all: EAGAIN if there is
/// no room for the connection within `patience`, which is also how long each message on it waits for room (unix(7),
/// `SO_SNDTIMEO`).
pub fn connect_stream(path: impl AsRef<Path>, patience: Duration) -> Result<UnixStream> {
    let path = path.as_ref();
    let socket = new_socket(SockType::Stream)?;
    let timeout = TimeVal::new(patience.as_secs().cast_signed(), patience.subsec_micros().into());
    socket::setsockopt(&socket, sockopt::SendTimeout, &timeout)
        .map_err(|errno| Error::new("setsockopt", errno, format_args!("{}, SO_SNDTIMEO, {patience:?}", fd(&socket))))?;
    let (_directory, address) = address(path)?;
    retry(|| socket::connect(socket.as_raw_fd(), &address)).map_err(|errno| {
        let error = Error::new("connect", errno, format_args!("{}, {}", fd(&socket), quoted(path)));
        if errno == Errno::EAGAIN { error.with_detail(format!("not accepted within {patience:?}")) } else { error }
    })?;
    Ok(UnixStream::from(socket))
}

/// The next connection; EAGAIN if the listener is non-blocking and there is none (accept4(2)).
pub fn accept(listener: &impl AsFd) -> Result<OwnedFd> {
    let number = listener.as_fd().as_raw_fd();
    let connection = retry(|| socket::accept4(number, SockFlag::SOCK_CLOEXEC))
        .map_err(|errno| Error::new("accept4", errno, format_args!("{}, NULL, NULL, SOCK_CLOEXEC", fd(listener))))?;
    // SAFETY: a new fd that nothing else owns.
    Ok(unsafe { crate::fd::own(connection.into()) })
}

fn new_socket(kind: SockType) -> Result<OwnedFd> {
    socket::socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None)
        .map_err(|errno| Error::new("socket", errno, format_args!("AF_UNIX, {kind:?}, SOCK_CLOEXEC")))
}

/// The address of `path`, and a handle that must live until it was used: a path beyond the 107 bytes of an address is named
/// through its directory's fd.
fn address(path: &Path) -> Result<(Option<OwnedFd>, UnixAddr)> {
    let failed = |errno| Error::new("bind", errno, quoted(path));
    match UnixAddr::new(path) {
        Err(Errno::ENAMETOOLONG) => {}
        result => return Ok((None, result.map_err(failed)?)),
    }
    let name = path.file_name().ok_or_else(|| failed(Errno::EINVAL))?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let how = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let directory = fcntl::open(parent, how, Mode::empty())
        .map_err(|errno| Error::new("open", errno, format_args!("{}, O_PATH|O_DIRECTORY", quoted(parent))))?;
    let short = at::proc_path(&directory).into_string().unwrap_or_default();
    let address = UnixAddr::new(&Path::new(&short).join(name)).map_err(failed)?;
    Ok((Some(directory), address))
}

/// Sends one message with the given fds beside it (sendmsg(2), `SCM_RIGHTS`). Never raises SIGPIPE: EPIPE. The message goes
/// whole or not at all (EAGAIN, EMSGSIZE).
pub fn send(socket: &impl AsFd, message: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
    let shown = |errno| {
        let arguments = format!("{}, {} bytes, {} fds", fd(socket), message.len(), fds.len());
        Error::new("sendmsg", errno, arguments)
    };
    if fds.len() > MAX_FDS {
        return Err(shown(Errno::EINVAL).with_detail(format!("more than {MAX_FDS}")));
    }
    let numbers: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let control = if fds.is_empty() { &[][..] } else { &rights[..] };
    let data = [IoSlice::new(message)];
    let number = socket.as_fd().as_raw_fd();
    let send = || socket::sendmsg::<UnixAddr>(number, &data, control, MsgFlags::MSG_NOSIGNAL, None);
    match retry(send).map_err(shown)? {
        sent if sent == message.len() => Ok(()),
        sent => Err(shown(Errno::EMSGSIZE).with_detail(format!("only {sent} bytes were sent"))),
    }
}

/// Room for [`MAX_FDS`] fds in one control message, aligned as its header wants it.
#[repr(C, align(8))]
struct Control(MaybeUninit<[u8; 16 + 4 * MAX_FDS]>);

/// Receives one message into `buffer`: its length and the fds beside it, all close-on-exec (recvmsg(2),
/// `MSG_CMSG_CLOEXEC`). Length 0 without fds is the end of the connection.
///
/// A message longer than `buffer`, or with more fds than [`MAX_FDS`] or than this process may open, is EMSGSIZE, and all
/// fds that did arrive are closed: half a message is none.
pub fn recv(socket: &impl AsFd, buffer: &mut [u8]) -> Result<(usize, Vec<OwnedFd>)> {
    let mut control = Control(MaybeUninit::zeroed());
    let size = buffer.len();
    let mut data = [IoSliceMut::new(buffer)];
    // SAFETY: all zeroes is a valid msghdr: no name, no data, no control.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = data.as_mut_ptr().cast(); // IoSliceMut has the layout of iovec
    header.msg_iovlen = data.len();
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = size_of::<Control>();
    let number = socket.as_fd().as_raw_fd();
    // SAFETY: `header` points to one slice and a control buffer of the lengths it names, both of which live on.
    let receive = || Errno::result(unsafe { libc::recvmsg(number, &raw mut header, libc::MSG_CMSG_CLOEXEC) });
    let shown = |errno| Error::new("recvmsg", errno, format_args!("{}, {size} bytes", fd(socket)));
    let length = retry(receive).map_err(shown)?;
    // SAFETY: recvmsg filled in `header`, and its control buffer is still there. Called once.
    let fds = unsafe { take_rights(&header) };
    if header.msg_flags & libc::MSG_CTRUNC != 0 {
        return Err(shown(Errno::EMSGSIZE).with_detail("the fds did not all fit (MSG_CTRUNC)"));
    }
    if header.msg_flags & libc::MSG_TRUNC != 0 {
        return Err(shown(Errno::EMSGSIZE).with_detail("the message did not fit (MSG_TRUNC)"));
    }
    Ok((usize::try_from(length).unwrap_or(0), fds))
}

/// As [`recv`], from a peer that may close the connection with something of ours unread: the kernel tells that first, as
/// ECONNRESET, and once, and then what the peer said last (net/unix/af_unix.c unix_release_sock, net/core/datagram.c
/// __skb_try_recv_datagram). Here it is no error; what comes after the last message is the end, length 0.
pub fn recv_to_end(socket: &impl AsFd, buffer: &mut [u8]) -> Result<(usize, Vec<OwnedFd>)> {
    match recv(socket, buffer) {
        Err(error) if error.is(Errno::ECONNRESET) => recv(socket, buffer),
        received => received,
    }
}

/// Makes owners of all fds in the control messages.
///
/// # Safety
/// `header` must be as recvmsg(2) left it, with its control buffer alive, and each header be given here once only.
unsafe fn take_rights(header: &libc::msghdr) -> Vec<OwnedFd> {
    let mut fds = Vec::new();
    // SAFETY: the header is as the kernel left it (the caller's promise), so CMSG_FIRSTHDR and CMSG_NXTHDR stay inside the
    // control buffer, and SCM_RIGHTS data is an array of ints that are new fds of ours.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(header);
        while let Some(current) = message.as_ref() {
            if (current.cmsg_level, current.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
                let first = libc::CMSG_DATA(current).cast::<libc::c_int>();
                let bytes = current.cmsg_len.saturating_sub(libc::CMSG_LEN(0) as usize);
                for index in 0..bytes / size_of::<libc::c_int>() {
                    fds.push(crate::fd::own(first.add(index).read_unaligned().into()));
                }
            }
            message = libc::CMSG_NXTHDR(header, current);
        }
    }
    fds
}

/// Who is at the other end (`SO_PEERCRED`).
pub fn peer_credentials(socket: &impl AsFd) -> Result<PeerCredentials> {
    let peer = socket::getsockopt(socket, sockopt::PeerCredentials)
        .map_err(|errno| Error::new("getsockopt", errno, format_args!("{}, SOL_SOCKET, SO_PEERCRED", fd(socket))))?;
    Ok(PeerCredentials { pid: peer.pid(), uid: peer.uid(), gid: peer.gid() })
}

/// Sets how many bytes may wait in the socket (`SO_SNDBUF`): messages beyond it are EAGAIN, or wait.
pub fn set_send_buffer(socket: &impl AsFd, bytes: usize) -> Result<()> {
    socket::setsockopt(socket, sockopt::SndBuf, &bytes)
        .map_err(|errno| Error::new("setsockopt", errno, format_args!("{}, SO_SNDBUF, {bytes}", fd(socket))))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    #[test]
    fn a_message_arrives_whole_with_its_fds() {
        let (ours, theirs) = pair().unwrap();
        let file = crate::fd::sealed_memfd(c"x", b"content", false).unwrap();
        send(&ours, b"hello", &[file.as_fd(), ours.as_fd()]).unwrap();
        send(&ours, b"second", &[]).unwrap();
        let mut buffer = [0; 64];
        let (length, fds) = recv(&theirs, &mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"hello");
        assert!(at::same_file(&fds[0], &file).unwrap() && at::same_file(&fds[1], &ours).unwrap());
        assert!(crate::fd::is_cloexec(&fds[0]).unwrap());
        let (length, fds) = recv(&theirs, &mut buffer).unwrap();
        assert_eq!((&buffer[..length], fds.len()), (&b"second"[..], 0));
    }

    #[test]
    fn the_end_of_a_connection_is_an_empty_message_and_a_broken_pipe() {
        let (ours, theirs) = pair().unwrap();
        drop(ours);
        assert_eq!(recv(&theirs, &mut [0; 8]).unwrap().0, 0);
        assert!(send(&theirs, b"x", &[]).unwrap_err().is(Errno::EPIPE));
    }

    #[test]
    fn the_last_words_of_a_peer_that_did_not_listen_are_received() {
        let (ours, theirs) = pair().unwrap();
        send(&ours, b"unread", &[]).unwrap();
        send(&theirs, b"last", &[]).unwrap();
        drop(theirs);
        let mut buffer = [0; 8];
        let (length, _) = recv_to_end(&ours, &mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"last");
        assert_eq!(recv_to_end(&ours, &mut buffer).unwrap().0, 0);
    }

    #[test]
    fn a_message_that_does_not_fit_is_refused_and_its_fds_are_closed() {
        let (ours, theirs) = pair().unwrap();
        let (read, write) = crate::fd::pipe().unwrap();
        send(&ours, b"too long", &[write.as_fd()]).unwrap();
        drop(write);
        let error = recv(&theirs, &mut [0; 3]).unwrap_err();
        assert!(error.is(Errno::EMSGSIZE) && error.to_string().contains("MSG_TRUNC"), "{error}");
        // The pipe has no writer left: the fd in the message was closed.
        assert_eq!(File::from(read).read(&mut [0; 1]).unwrap(), 0);
    }

    #[test]
    fn more_fds_than_there_is_room_for_are_refused_and_all_closed() {
        let (ours, theirs) = pair().unwrap();
        let (read, write) = crate::fd::pipe().unwrap();
        // Past our own `send`, which would not let it through.
        let numbers = vec![write.as_raw_fd(); MAX_FDS + 8];
        let rights = [ControlMessage::ScmRights(&numbers)];
        let data = [IoSlice::new(b"x")];
        socket::sendmsg::<UnixAddr>(ours.as_raw_fd(), &data, &rights, MsgFlags::empty(), None).unwrap();
        drop(write);
        let error = recv(&theirs, &mut [0; 8]).unwrap_err();
        assert!(error.is(Errno::EMSGSIZE) && error.to_string().contains("MSG_CTRUNC"), "{error}");
        assert_eq!(File::from(read).read(&mut [0; 1]).unwrap(), 0);
        let too_many = vec![ours.as_fd(); MAX_FDS + 1];
        assert!(send(&ours, b"x", &too_many).unwrap_err().is(Errno::EINVAL));
    }

    #[test]
    fn as_many_fds_as_allowed_arrive() {
        let (ours, theirs) = pair().unwrap();
        send(&ours, b"x", &[ours.as_fd(); MAX_FDS]).unwrap();
        assert_eq!(recv(&theirs, &mut [0; 8]).unwrap().1.len(), MAX_FDS);
    }

    #[test]
    fn a_listener_that_does_not_accept_keeps_nobody_waiting() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let listener = listen_stream(&path).unwrap();
        // Linux lets one more than the backlog wait.
        socket::listen(&listener, Backlog::new(0).unwrap()).unwrap();
        let patience = Duration::from_millis(20);
        let connection = connect_stream(&path, patience).unwrap();
        let error = connect_stream(&path, patience).unwrap_err();
        assert!(error.is(Errno::EAGAIN) && error.to_string().ends_with("not accepted within 20ms"), "{error}");
        // Nor does one that does not read.
        let message = vec![0; 16 << 20];
        send(&connection, &message, &[]).unwrap_err();
        listener.accept().unwrap();
        connect_stream(&path, patience).unwrap();
    }

    #[test]
    fn a_listening_socket_belongs_to_its_owner_alone_however_long_its_path() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("d".repeat(100)).join("e".repeat(100));
        std::fs::create_dir_all(&deep).unwrap();
        for path in [directory.path().join("s"), deep.join("s")] {
            let listener = listen(&path).unwrap();
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            let client = connect(&path).unwrap();
            let server = accept(&listener).unwrap();
            let peer = peer_credentials(&server).unwrap();
            assert_eq!(peer.pid, std::process::id().cast_signed());
            assert_eq!(peer.uid, std::fs::metadata(&path).unwrap().uid());
            send(&client, b"x", &[]).unwrap();
            assert_eq!(recv(&server, &mut [0; 8]).unwrap().0, 1);
            assert!(listen(&path).unwrap_err().is(Errno::EADDRINUSE));
            // More than a drop, which another test's child that has not executed its program yet would outlast.
            socket::shutdown(listener.as_raw_fd(), socket::Shutdown::Both).unwrap();
            drop(listener);
            assert!(connect(&path).unwrap_err().is(Errno::ECONNREFUSED));
        }
    }
}
