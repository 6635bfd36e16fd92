//! What all routes share.

use super::Inputs;
use super::authentication::Authenticator;
use super::authorization::Authorizer;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// How many logs are streamed at a time: each holds a file and a buffer.
const LOG_STREAMS: usize = 512;
/// How many documents (pod lists, summaries, metrics) are written at a time: each may be a megabyte.
const DOCUMENTS: usize = 16;

/// What all routes share.
pub(super) struct State {
    pub(super) inputs: Inputs,
    pub(super) authenticator: Authenticator,
    pub(super) authorizer: Authorizer,
    pub(super) log_streams: Arc<Semaphore>,
    pub(super) documents: Arc<Semaphore>,
}

impl State {
    pub(super) fn new(inputs: Inputs, authenticator: Authenticator) -> State {
        let authorizer = Authorizer::new(&inputs.config, Arc::clone(&inputs.api));
        State {
            inputs,
            authenticator,
            authorizer,
            log_streams: Arc::new(Semaphore::new(LOG_STREAMS)),
            documents: Arc::new(Semaphore::new(DOCUMENTS)),
        }
    }
}
