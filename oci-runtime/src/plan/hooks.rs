//! `hooks`: programs that run at the turns of a container's life (config.md, "POSIX-platform Hooks").

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use oci_spec::runtime as oci;

use super::{PlanError, invalid};

/// All hooks of a config, in its order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hooks {
    /// In the runtime's namespaces, once the container's are made; the older name of the next one.
    pub prestart: Vec<Hook>,
    /// In the runtime's namespaces, once the container's are made and filled, and before its root is the only one.
    pub create_runtime: Vec<Hook>,
    /// At the same time after those, in the container's namespaces; the path is one of the host's.
    pub create_container: Vec<Hook>,
    /// In the container, as its user, right before its program.
    pub start_container: Vec<Hook>,
    /// In the runtime's namespaces, when the program runs.
    pub poststart: Vec<Hook>,
    /// In the runtime's namespaces, when the container is gone.
    pub poststop: Vec<Hook>,
}

/// One program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// Absolute.
    pub path: CString,
    /// With the name that the program has for itself; never empty.
    pub args: Vec<CString>,
    /// `None` if the config says nothing of it.
    pub env: Option<Vec<CString>>,
    /// How long it may take.
    pub timeout: Option<Duration>,
}

/// The names of the kinds, as they stand in a config.
pub const KINDS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

impl Hooks {
    /// Checks the hooks of a config.
    ///
    /// # Errors
    /// The first field that is refused.
    pub fn from_spec(hooks: Option<&oci::Hooks>) -> Result<Hooks, PlanError> {
        let Some(hooks) = hooks else { return Ok(Hooks::default()) };
        #[allow(deprecated, reason = "prestart is deprecated in the spec, and still what most hooks are")]
        let lists = [
            hooks.prestart(),
            hooks.create_runtime(),
            hooks.create_container(),
            hooks.start_container(),
            hooks.poststart(),
            hooks.poststop(),
        ];
        let mut checked = Vec::with_capacity(KINDS.len());
        for (kind, list) in KINDS.iter().zip(lists) {
            let hooks = list.iter().flatten().enumerate();
            let hooks = hooks.map(|(index, hook)| Hook::from_spec(hook, &format!("hooks.{kind}[{index}]")));
            checked.push(hooks.collect::<Result<Vec<_>, _>>()?);
        }
        let mut checked = checked.into_iter();
        let mut next = || checked.next().unwrap_or_default();
        Ok(Hooks {
            prestart: next(),
            create_runtime: next(),
            create_container: next(),
            start_container: next(),
            poststart: next(),
            poststop: next(),
        })
    }

    /// Whether any runs before the container's root is the only one: they look for it at the path that the config names.
    pub fn see_root(&self) -> bool {
        !(self.prestart.is_empty() && self.create_runtime.is_empty() && self.create_container.is_empty())
    }
}

impl Hook {
    fn from_spec(hook: &oci::Hook, field: &str) -> Result<Hook, PlanError> {
        let c_string = |bytes: &[u8], what: &str| {
            CString::new(bytes).map_err(|_| invalid(format!("{field}.{what}"), "holds a NUL"))
        };
        let list = |list: &Option<Vec<String>>, what: &str| match list {
            Some(list) => list.iter().map(|text| c_string(text.as_bytes(), what)).collect::<Result<Vec<_>, _>>(),
            None => Ok(Vec::new()),
        };
        if !hook.path().is_absolute() {
            return Err(invalid(format!("{field}.path"), format!("{:?} is not an absolute path", hook.path())));
        }
        let path = c_string(hook.path().as_os_str().as_bytes(), "path")?;
        let mut args = list(hook.args(), "args")?;
        if args.is_empty() {
            args.push(path.clone());
        }
        let timeout = match hook.timeout() {
            None => None,
            Some(seconds) => match u64::try_from(seconds) {
                Ok(seconds) if seconds > 0 => Some(Duration::from_secs(seconds)),
                _ => return Err(invalid(format!("{field}.timeout"), format!("{seconds} is not above 0"))),
            },
        };
        let env = match hook.env() {
            // As runc: an empty list says nothing.
            Some(entries) if !entries.is_empty() => Some(list(hook.env(), "env")?),
            _ => None,
        };
        Ok(Hook { path, args, env, timeout })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(json: &str) -> Result<Hooks, String> {
        let hooks: oci::Hooks = serde_json::from_str(json).unwrap_or_else(|error| panic!("{json}: {error}"));
        Hooks::from_spec(Some(&hooks)).map_err(|error| error.to_string())
    }

    #[test]
    fn each_kind_is_found_under_its_name() {
        for kind in KINDS {
            let hooks = plan(&format!(r#"{{"{kind}":[{{"path":"/{kind}"}}]}}"#)).unwrap();
            let of_kind = match kind {
                "prestart" => &hooks.prestart,
                "createRuntime" => &hooks.create_runtime,
                "createContainer" => &hooks.create_container,
                "startContainer" => &hooks.start_container,
                "poststart" => &hooks.poststart,
                _ => &hooks.poststop,
            };
            assert_eq!(of_kind[0].path.to_str().unwrap(), format!("/{kind}"));
            assert_eq!(hooks.see_root(), ["prestart", "createRuntime", "createContainer"].contains(&kind), "{kind}");
        }
    }

    #[test]
    fn what_is_left_out_of_a_hook_has_a_default() {
        let hook = &plan(r#"{"poststop":[{"path":"/bin/x","env":[]}]}"#).unwrap().poststop[0];
        assert_eq!(hook, &Hook { path: c"/bin/x".into(), args: vec![c"/bin/x".into()], env: None, timeout: None });
        let json = r#"{"poststop":[{"path":"/bin/x","args":["x","y"],"env":["A=1","B"],"timeout":3}]}"#;
        let hook = &plan(json).unwrap().poststop[0];
        assert_eq!(hook.args, [c"x".to_owned(), c"y".to_owned()]);
        assert_eq!(hook.env, Some(vec![c"A=1".to_owned(), c"B".to_owned()]));
        assert_eq!(hook.timeout, Some(Duration::from_secs(3)));
    }

    #[test]
    fn a_hook_that_makes_no_sense_is_refused() {
        for (hook, expected) in [
            (r#"{"path":"x"}"#, r#"path: "x" is not an absolute path"#),
            (r#"{"path":""}"#, r#"path: "" is not an absolute path"#),
            (r#"{"path":"/x\u0000"}"#, "path: holds a NUL"),
            (r#"{"path":"/x","args":["a","\u0000"]}"#, "args: holds a NUL"),
            (r#"{"path":"/x","env":["A=\u0000"]}"#, "env: holds a NUL"),
            (r#"{"path":"/x","timeout":0}"#, "timeout: 0 is not above 0"),
            (r#"{"path":"/x","timeout":-1}"#, "timeout: -1 is not above 0"),
        ] {
            let error = plan(&format!(r#"{{"createRuntime":[{{"path":"/ok"}},{hook}]}}"#)).unwrap_err();
            assert_eq!(error, format!("hooks.createRuntime[1].{expected}"));
        }
    }
}
