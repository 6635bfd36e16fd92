//! The CRI over a Unix socket.

use std::path::Path;
use std::time::Duration;

/// A connection to a CRI runtime and its image service: made when first needed, and again when it broke.
#[derive(Debug, Clone)]
pub struct Cri {}

impl Cri {
    /// A connection to these sockets; `timeout` bounds the calls that have no natural deadline. Nothing is dialled yet.
    pub fn connect(_socket: &Path, _image_socket: &Path, _timeout: Duration) -> Cri {
        todo!()
    }
}
