//! Ports of the host: each belongs to one pod.

use super::Rejection;
use crate::pod::{Pod, Role};
use crate::table::Entry;

/// A port of the host as a pod claims it.
#[derive(PartialEq, Eq)]
struct Claim<'a> {
    protocol: &'a str,
    ip: &'a str,
    port: i32,
}

impl Claim<'_> {
    /// All addresses conflict with each.
    fn conflicts(&self, other: &Claim) -> bool {
        let any = |ip: &str| ip == "0.0.0.0";
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || any(self.ip) || any(other.ip))
    }
}

/// Refuses a pod that claims a port that another has.
pub(super) fn check(pod: &Pod, others: &[Entry]) -> Result<(), Rejection> {
    let wanted: Vec<Claim> = claims(pod).collect();
    let others = others.iter().filter(|entry| entry.active && entry.pod.uid() != pod.uid());
    let taken = others.flat_map(|entry| claims(&entry.pod)).any(|taken| wanted.iter().any(|one| one.conflicts(&taken)));
    if taken {
        return Err(Rejection::predicate("NodePorts", "node(s) didn't have free ports for the requested pod ports"));
    }
    Ok(())
}

/// What a pod claims while it runs; init containers are gone by then.
fn claims(pod: &Pod) -> impl Iterator<Item = Claim<'_>> {
    let lasting = pod.containers().filter(|(role, _)| *role != Role::Init);
    lasting.flat_map(|(_, container)| container.ports.iter().flatten()).filter_map(|port| {
        let given = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
        Some(Claim {
            protocol: if given(&port.protocol) { port.protocol.as_deref()? } else { "TCP" },
            ip: if given(&port.host_ip) { port.host_ip.as_deref()? } else { "0.0.0.0" },
            port: port.host_port.filter(|port| *port > 0)?,
        })
    })
}
