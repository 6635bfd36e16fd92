//! Traffic of a pod's interfaces, from its network namespace's `/proc/net/dev` as its shim sees it.

use crate::sandbox::SandboxRecord;
use proto::{NetworkInterfaceUsage, NetworkUsage, UInt64Value};

/// The pod's traffic; nothing for a pod on the host's network or one that is gone.
pub(crate) fn of(record: &SandboxRecord, at: i64) -> Option<NetworkUsage> {
    record.netns.as_ref()?;
    let shim = record.processes.as_ref()?.shim;
    // The shim lives in the pod's network namespace, and proc(5) shows each process its own.
    let table = std::fs::read_to_string(format!("/proc/{}/net/dev", shim.pid)).ok()?;
    let mut interfaces = parse(&table);
    interfaces.retain(|interface| interface.name != "lo");
    let default = interfaces.iter().position(|interface| interface.name == crate::network::INTERFACE);
    let default_interface = default.map(|index| interfaces.remove(index));
    Some(NetworkUsage { timestamp: at, default_interface, interfaces })
}

/// Two lines of headings, then per interface eight columns received and eight sent: bytes, packets, errors, …
fn parse(table: &str) -> Vec<NetworkInterfaceUsage> {
    let interface = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let numbers: Vec<u64> = numbers.split_whitespace().map_while(|number| number.parse().ok()).collect();
        let value = |column: usize| numbers.get(column).map(|&value| UInt64Value { value });
        Some(NetworkInterfaceUsage {
            name: name.trim().to_owned(),
            rx_bytes: value(0),
            rx_errors: value(2),
            tx_bytes: value(8),
            tx_errors: value(10),
        })
    };
    table.lines().skip(2).filter_map(interface).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_an_interface() {
        let table = "Inter-| Receive | Transmit\n face |bytes …\n    lo: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n  \
                     eth0:100 2 0 0 0 0 0 0 200 3 1 0 0 0 0 0\n";
        let interfaces = parse(table);
        assert_eq!(interfaces.len(), 2);
        let eth0 = &interfaces[1];
        let values = [eth0.rx_bytes, eth0.rx_errors, eth0.tx_bytes, eth0.tx_errors].map(|value| value.unwrap().value);
        assert_eq!((eth0.name.as_str(), values), ("eth0", [100, 0, 200, 1]));
    }
}
