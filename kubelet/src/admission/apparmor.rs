//! AppArmor: a profile that can't be enforced is not ignored.

use super::Rejection;
use crate::pod::Pod;
use k8s_openapi::api::core::v1::AppArmorProfile;

/// Whether the kernel enforces AppArmor profiles; asked once, at start.
pub fn enabled() -> bool {
    std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y'))
}

/// Refuses a pod that asks for a profile where there is no AppArmor, or for one without a name. One that ran already
/// was asked before.
pub(super) fn check(pod: &Pod, enabled: bool) -> Result<(), Rejection> {
    let phase = pod.object().status.as_ref().and_then(|status| status.phase.as_deref());
    if !matches!(phase, None | Some("" | "Pending")) {
        return Ok(());
    }
    let own = pod.spec().security_context.as_ref().and_then(|security| security.app_armor_profile.as_ref());
    let of_containers = pod.containers().filter_map(|(_, container)| {
        container.security_context.as_ref().and_then(|security| security.app_armor_profile.as_ref())
    });
    for profile in own.into_iter().chain(of_containers).filter(|profile| profile.type_ != "Unconfined") {
        if !enabled {
            return Err(refused("AppArmor is not enabled on the host"));
        }
        if nameless(profile) {
            return Err(refused("invalid empty AppArmor profile name"));
        }
    }
    Ok(())
}

fn nameless(profile: &AppArmorProfile) -> bool {
    profile.type_ == "Localhost" && profile.localhost_profile.as_deref().is_none_or(|name| name.trim().is_empty())
}

fn refused(why: &str) -> Rejection {
    Rejection::new("AppArmor", format!("Cannot enforce AppArmor: {why}"))
}
