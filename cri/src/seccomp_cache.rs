//! seccomp programs, compiled once for each profile and handed to shims as sealed memory files.
//!
//! RuntimeDefault depends on a container's capabilities; a node sees a handful of sets. A profile on disk is read at each
//! creation, because it may have changed, and compiled again only if it has.

use crate::failure::{Failure, Result};
use crate::spec::security::Seccomp;
use ::seccomp::Profile;
use shim_protocol::{Filter, Listener};
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

/// The longest profile that is read, in bytes.
const MAX_PROFILE: u64 = 4 * 1024 * 1024;

/// How many programs are kept: beyond it the cache starts afresh.
const MAX_PROGRAMS: usize = 64;

/// The compiled programs, by the profile's JSON or the capabilities of RuntimeDefault.
#[derive(Debug, Default)]
pub(crate) struct Programs(Mutex<HashMap<String, Program>>);

/// A program for a shim.
#[derive(Debug)]
pub(crate) struct Program {
    /// Sealed.
    pub(crate) memfd: OwnedFd,
    /// How to load it.
    pub(crate) filter: Filter,
}

impl Program {
    /// How to load the program, if there is one.
    pub(crate) fn filter_of(program: Option<&Program>) -> Filter {
        program.map(|program| program.filter.clone()).unwrap_or_default()
    }

    fn duplicate(&self) -> sys::Result<Program> {
        Ok(Program { memfd: sys::fd::duplicate(&self.memfd)?, filter: self.filter.clone() })
    }
}

impl Programs {
    /// The program for a profile; `None` for none. Blocks.
    ///
    /// # Errors
    /// A profile that can't be read or compiled, by its path.
    pub(crate) fn get(&self, profile: &Seccomp, capabilities: &[String]) -> Result<Option<Program>> {
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

    fn compiled(&self, key: &str, profile: impl FnOnce() -> Result<Profile>) -> Result<Program> {
        let mut programs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let internal = |error: sys::Error| Failure::internal("keep a seccomp program", &error);
        if let Some(program) = programs.get(key) {
            return program.duplicate().map_err(internal);
        }
        let program = compile(&profile()?)?;
        let copy = program.duplicate().map_err(internal)?;
        if programs.len() >= MAX_PROGRAMS {
            programs.clear();
        }
        programs.insert(key.to_owned(), program);
        Ok(copy)
    }
}

fn compile(profile: &Profile) -> Result<Program> {
    let program = ::seccomp::compile(profile)
        .map_err(|error| Failure::invalid(format!("compile seccomp profile: {}", crate::failure::chain(&error))))?;
    let path = profile.listener_path.as_deref().filter(|path| !path.is_empty() && program.asks());
    if program.asks() && path.is_none() {
        return Err(Failure::invalid("seccomp listenerPath is not set".to_owned()));
    }
    let metadata = profile.listener_metadata.clone().unwrap_or_default();
    let listener = path.map(|path| Listener { path: path.into(), metadata });
    let memfd = sys::fd::sealed_memfd(c"seccomp", &program.bytes(), false)
        .map_err(|error| Failure::internal("keep a seccomp program", &error))?;
    Ok(Program { memfd, filter: Filter { flags: program.flags(), listener } })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiled(json: &str) -> Result<Filter> {
        compile(&serde_json::from_str(json).unwrap()).map(|program| program.filter)
    }

    #[test]
    fn a_program_goes_with_the_flags_and_the_listener_of_its_profile() {
        let speculation = Filter { flags: 4, listener: None };
        assert_eq!(compile(&::seccomp::runtime_default(&["CAP_CHOWN"])).unwrap().filter, speculation);
        let filter = compiled(r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_LOG"]}"#).unwrap();
        assert_eq!(filter, Filter { flags: 2, listener: None });
        let rule = r#"{"names":["mkdir"],"action":"SCMP_ACT_NOTIFY"}"#;
        let json =
            |path: &str| format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"{path}","syscalls":[{rule}]}}"#);
        let filter = compiled(&json("/run/agent")).unwrap();
        assert_eq!(filter.listener, Some(Listener { path: "/run/agent".into(), metadata: String::new() }));
        assert!(compiled(&json("")).is_err());
    }
}
