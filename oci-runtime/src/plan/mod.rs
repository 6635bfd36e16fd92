//! Spec → Plan: everything that can be decided without touching the machine.

use std::path::Path;

use oci_spec::runtime::{Process, Spec};

/// A checked configuration, in the form that the container's first process works through.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The process to run.
    pub process: ProcessPlan,
}

/// A checked process object.
#[derive(Debug, Clone, PartialEq)]
pub struct ProcessPlan {
    /// The program and its arguments; never empty.
    pub args: Vec<String>,
    /// Whether it gets a terminal.
    pub terminal: bool,
}

/// Why a configuration can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A valid field that this version does not do.
    #[error("{field} is not supported: {reason}")]
    Unsupported {
        /// As in config.json, dotted.
        field: String,
        /// What to do without it.
        reason: String,
    },
    /// A field whose value makes no sense.
    #[error("{field}: {reason}")]
    Invalid {
        /// As in config.json, dotted.
        field: String,
        /// What is wrong.
        reason: String,
    },
}

impl Plan {
    /// Checks the whole of `spec`; relative paths in it are taken relative to `bundle`.
    ///
    /// # Errors
    /// The first field that is refused.
    pub fn from_spec(spec: &Spec, bundle: Option<&Path>) -> Result<Plan, PlanError> {
        let _ = bundle;
        let process = spec
            .process()
            .as_ref()
            .ok_or_else(|| PlanError::Invalid { field: "process".to_owned(), reason: "missing".to_owned() })?;
        Ok(Plan { process: ProcessPlan::from_process(process)? })
    }
}

impl ProcessPlan {
    /// Checks a process object, of a config.json or of an exec.
    ///
    /// # Errors
    /// The first field that is refused.
    pub fn from_process(process: &Process) -> Result<ProcessPlan, PlanError> {
        let args = process.args().clone().unwrap_or_default();
        if args.is_empty() {
            return Err(PlanError::Invalid {
                field: "process.args".to_owned(),
                reason: "must not be empty".to_owned(),
            });
        }
        Ok(ProcessPlan { args, terminal: process.terminal().unwrap_or(false) })
    }
}
