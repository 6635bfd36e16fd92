//! The status channel of a process that is being started.

use crate::failure::{chain, failure};
use oci_runtime::{StartError, StartErrorKind};
use shim_protocol::{ErrorKind, Failure};
use std::fs::File;
use std::io::{ErrorKind as IoErrorKind, Read};

/// What the process says: `None` nothing yet, `Some(Ok)` that its program runs, `Some(Err)` why it can't.
pub(crate) fn read(status: &mut File, buffer: &mut [u8]) -> Option<Result<(), Failure>> {
    let length = match status.read(buffer) {
        Ok(length) => length,
        Err(error) if matches!(error.kind(), IoErrorKind::WouldBlock | IoErrorKind::Interrupted) => return None,
        // The channel is a socket, which is reset when the process ends with the start's byte unread (af_unix.c,
        // unix_release_sock): its program never ran. The byte is read before anything is executed.
        Err(error) => {
            let unheard = format_args!("its first process ended before the program ran: {error}");
            return Some(Err(failure(ErrorKind::Start, unheard)));
        }
    };
    Some(StartError::from_status(&buffer[..length]).map_or(Ok(()), |error| Err(refusal(&error))))
}

/// The failure for a process that could not be set up or whose program can't be run.
pub(crate) fn refusal(error: &StartError) -> Failure {
    let kind = match error.kind() {
        StartErrorKind::NotFound | StartErrorKind::NotExecutable => ErrorKind::Start,
        StartErrorKind::Setup => ErrorKind::Internal,
    };
    failure(kind, chain(error))
}
