//! The error that a plugin prints and a runtime reads.

use serde::{Deserialize, Serialize};

/// The codes of SPEC §5 "Error".
pub mod code {
    /// The configuration's version is not one that the plugin speaks.
    pub const INCOMPATIBLE_VERSION: u32 = 1;
    /// A key or value of the configuration is not supported.
    pub const UNSUPPORTED_FIELD: u32 = 2;
    /// The container is not known.
    pub const UNKNOWN_CONTAINER: u32 = 3;
    /// An environment variable is missing or wrong.
    pub const INVALID_ENVIRONMENT: u32 = 4;
    /// Input or output failed.
    pub const IO: u32 = 5;
    /// The input is no JSON, or not of the right form.
    pub const DECODE: u32 = 6;
    /// The configuration is not valid.
    pub const INVALID_CONFIG: u32 = 7;
    /// The network namespace is not one, or the plugin's own.
    pub const INVALID_NETNS: u32 = 8;
    /// The runtime should try again later.
    pub const TRY_AGAIN: u32 = 11;
    /// STATUS: the plugin can't serve an ADD.
    pub const NOT_AVAILABLE: u32 = 50;
    /// Everything else.
    pub const INTERNAL: u32 = 999;
}

/// What a failed plugin prints on its standard output before it exits with 1.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PluginError {
    /// The protocol version; the reference plugins leave it out, and no reader may need it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cni_version: String,
    /// One of [`code`], or from 100 on one of the plugin's own.
    pub code: u32,
    /// What went wrong, for people.
    pub msg: String,
    /// More of it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub details: String,
}

impl PluginError {
    /// An error with a code and a message.
    pub fn new(code: u32, msg: impl Into<String>) -> PluginError {
        PluginError { code, msg: msg.into(), ..PluginError::default() }
    }

    /// The same with details.
    #[must_use]
    pub fn with_details(self, details: impl Into<String>) -> PluginError {
        PluginError { details: details.into(), ..self }
    }

    /// The same with what was being done before the message.
    #[must_use]
    pub fn during(self, doing: impl std::fmt::Display) -> PluginError {
        PluginError { msg: format!("{doing}: {}", self.msg), ..self }
    }
}

impl std::fmt::Display for PluginError {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.msg)?;
        if self.details.is_empty() { Ok(()) } else { write!(out, "; {}", self.details) }
    }
}

impl std::error::Error for PluginError {}

/// A failed call of the kernel is code 999, as in the reference.
impl From<sys::Error> for PluginError {
    fn from(error: sys::Error) -> PluginError {
        PluginError::new(code::INTERNAL, error.to_string())
    }
}
