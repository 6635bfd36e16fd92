//! `linux.seccomp`: the profile, in the words of the crate that compiles it.

use oci_spec::runtime::LinuxSeccomp;
use seccomp::{Action, Profile};

use super::{PlanError, invalid};

/// The profile, checked as far as it can be without compiling it.
pub(super) fn profile(seccomp: &LinuxSeccomp) -> Result<Profile, PlanError> {
    // Both sides speak the runtime-spec's JSON; the other crate knows nothing of this one's types.
    let profile: Profile = serde_json::to_value(seccomp)
        .and_then(serde_json::from_value)
        .map_err(|error| invalid("linux.seccomp", error.to_string()))?;
    let asks = profile.syscalls.iter().any(|rule| rule.action == Action::Notify);
    // The wording is runc's.
    match profile.listener_path.as_deref() {
        None | Some("") if asks => Err(invalid("linux.seccomp", "seccomp listenerPath is not set")),
        Some(path) if path.contains('\0') => Err(invalid("linux.seccomp.listenerPath", "holds a NUL")),
        _ => Ok(profile),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(json: &str) -> Result<Profile, String> {
        profile(&serde_json::from_str(json).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_profile_that_asks_names_whom() {
        let rule = r#"{"names":["mkdir"],"action":"SCMP_ACT_NOTIFY"}"#;
        let json = |listener: &str| format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW",{listener}"syscalls":[{rule}]}}"#);
        let refused = Err("linux.seccomp: seccomp listenerPath is not set".to_owned());
        assert_eq!(checked(&json("")), refused);
        assert_eq!(checked(&json(r#""listenerPath":"","#)), refused);
        assert_eq!(checked(&json(r#""listenerPath":"/run/agent","#)).unwrap().listener_path.unwrap(), "/run/agent");
    }

    #[test]
    fn every_flag_and_architecture_of_the_spec_is_carried_over() {
        let json = serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW",
            "architectures": seccomp::ARCHITECTURES, "flags": seccomp::FLAGS});
        let profile = checked(&json.to_string()).unwrap();
        assert_eq!(profile.architectures.len(), seccomp::ARCHITECTURES.len());
        assert_eq!(profile.flags.unwrap().len(), seccomp::FLAGS.len());
        assert_eq!(checked(r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#).unwrap().flags, None);
    }
}
