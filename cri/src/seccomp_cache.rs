//! seccomp programs, compiled once for each profile and handed to shims as sealed memory files.
//!
//! RuntimeDefault depends on a container's capabilities; a node sees a handful of sets. A profile on disk is read at each
//! creation, because it may have changed, and compiled again only if it has.

use crate::failure::{Failure, Result};
use crate::spec::security::Seccomp;
use ::seccomp::Profile;
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

/// The longest profile that is read, in bytes.
const MAX_PROFILE: u64 = 4 * 1024 * 1024;

/// How many programs are kept: beyond it the cache starts afresh.
const MAX_PROGRAMS: usize = 64;

/// The compiled programs, by the profile's JSON or the capabilities of RuntimeDefault.
#[derive(Debug, Default)]
pub(crate) struct Programs(Mutex<HashMap<String, OwnedFd>>);

impl Programs {
    /// The program for a profile; `None` for none. Blocks.
    ///
    /// # Errors
    /// A profile that can't be read or compiled, by its path.
    pub(crate) fn get(&self, profile: &Seccomp, capabilities: &[String]) -> Result<Option<OwnedFd>> {
        match profile {
            Seccomp::Unconfined => Ok(None),
            Seccomp::RuntimeDefault => {
                let key = format!("RuntimeDefault {}", capabilities.join(" "));
                let names: Vec<&str> = capabilities.iter().map(String::as_str).collect();
                self.compiled(&key, || Ok(::seccomp::runtime_default(&names))).map(Some)
            }
            Seccomp::Localhost(path) => {
                let shown = path.display();
                let file = std::fs::File::open(path)
                    .map_err(|error| Failure::invalid(format!("seccomp profile {shown}: {error}")))?;
                let text = sys::fd::read_bounded(&file, MAX_PROFILE)
                    .map_err(|error| Failure::invalid(format!("seccomp profile {shown}: {error}")))?;
                let key = String::from_utf8_lossy(&text).into_owned();
                let parse = || {
                    serde_json::from_slice(&text)
                        .map_err(|error| Failure::invalid(format!("seccomp profile {shown}: {error}")))
                };
                self.compiled(&key, parse)
                    .map_err(|failure| failure.within(format!("seccomp profile {shown}")))
                    .map(Some)
            }
        }
    }

    fn compiled(&self, key: &str, profile: impl FnOnce() -> Result<Profile>) -> Result<OwnedFd> {
        let mut programs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let internal = |error: sys::Error| Failure::internal("keep a seccomp program", &error);
        if let Some(program) = programs.get(key) {
            return sys::fd::duplicate(program).map_err(internal);
        }
        let program = ::seccomp::compile(&profile()?)
            .map_err(|error| Failure::invalid(format!("compile seccomp profile: {}", crate::failure::chain(&error))))?;
        let memfd = sys::fd::sealed_memfd(c"seccomp", &program.bytes(), false).map_err(internal)?;
        let copy = sys::fd::duplicate(&memfd).map_err(internal)?;
        if programs.len() >= MAX_PROGRAMS {
            programs.clear();
        }
        programs.insert(key.to_owned(), memfd);
        Ok(copy)
    }
}
