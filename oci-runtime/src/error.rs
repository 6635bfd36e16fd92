//! What [`create`](crate::create) and [`exec`](crate::exec) fail with.

use crate::StartError;

/// The failure of a verb; the chain of `source()` tells the whole story.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The container's own process failed and told why.
    #[error(transparent)]
    Container(#[from] StartError),
    /// Not built yet.
    #[error("{0} is not built yet")]
    Missing(&'static str),
}

impl Error {
    /// 127 when the program is missing, 126 when it can't be executed, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Container(error) => error.exit_code(),
            _ => 1,
        }
    }
}
