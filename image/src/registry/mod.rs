//! The registry client: OCI distribution v1.1 and Docker's registry API v2, as far as pulling goes.
//!
//! [`session`] is one repository at all places that may serve it ([`hosts`]); [`transport`] is HTTP, where credentials
//! stop at the border of a host; [`token`] is who we are; [`retry`] decides, without waiting, when to try again.

mod body;
mod challenge;
mod error;
mod hosts;
mod retry;
mod session;
mod token;
mod transport;

pub use self::error::RegistryError;
pub use self::hosts::HostsError;
pub(crate) use self::session::{Resolved, Session};
pub(crate) use self::token::Tokens;
pub use self::transport::Proxies;
pub(crate) use self::transport::Transport;
