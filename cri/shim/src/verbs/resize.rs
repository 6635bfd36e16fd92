//! `Resize`: a terminal's new size.

use super::Begun;
use crate::failure::{failure, internal};
use crate::supervisor::Shim;
use shim_protocol::{Answer, ErrorKind, Resize};
use sys::pty::Size;

pub(super) fn resize(shim: &mut Shim, resize: &Resize) -> Begun {
    let id = &resize.container;
    let container = shim.container(id)?;
    if container.first().is_none() {
        return Err(failure(ErrorKind::NotRunning, format_args!("container {id} is not running")));
    }
    let terminal = container.stdio.outputs.iter().find(|output| output.terminal);
    let terminal =
        terminal.ok_or_else(|| failure(ErrorKind::Invalid, format_args!("container {id} has no terminal")))?;
    let size = Size { rows: resize.height, columns: resize.width };
    sys::pty::set_size(&terminal.file, size)
        .map_err(|error| internal(format_args!("resize the terminal of container {id}"), &error))?;
    Ok(Some(Answer::Done))
}
