//! Containers' output on its way into CRI log files: `line` cuts, `header` stamps, `open` opens, `file` appends.

mod file;
mod header;
mod line;
mod open;

pub(crate) use file::{Change, LogFile};
pub(crate) use header::Stream;
pub(crate) use line::LineBuffer;
pub(crate) use open::open;
