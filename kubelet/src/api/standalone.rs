//! A node that stands alone: there is no API server.

use std::sync::Arc;

/// The API of a node that has none.
#[derive(Debug)]
pub struct Standalone {}

impl Standalone {
    /// Makes it.
    pub fn start() -> Arc<dyn super::Api> {
        todo!()
    }
}
