//! Ranges of addresses and the order in which they are tried.

use std::fmt;
use std::net::Ipv4Addr;

use crate::result::Cidr;

/// A part of a subnet, both ends included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) start: Ipv4Addr,
    pub(super) end: Ipv4Addr,
    /// Never handed out.
    pub(super) gateway: Ipv4Addr,
    /// The length of the network part of the subnet, bits.
    pub(super) subnet_prefix: u8,
}

/// Why a range is refused, in the reference's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum RangeError {
    #[error("Network {0} too small to allocate from")]
    TooSmall(Cidr),
    #[error("Network has host bits set. For a subnet mask of length {prefix} the network address is {network}")]
    HostBits { prefix: u8, network: Ipv4Addr },
    #[error("RangeStart {0} not in network {1}")]
    StartOutside(Ipv4Addr, Cidr),
    #[error("RangeEnd {0} not in network {1}")]
    EndOutside(Ipv4Addr, Cidr),
    #[error("empty range set")]
    Empty,
    #[error("subnets {0} and {1} overlap")]
    Overlap(Range, Range),
}

impl Range {
    /// The range from `start` to `end` of a subnet; by default from the first address to the last before the
    /// broadcast address, with the first as gateway.
    pub(super) fn new(
        subnet: Ipv4Addr,
        prefix: u8,
        start: Option<Ipv4Addr>,
        end: Option<Ipv4Addr>,
        gateway: Option<Ipv4Addr>,
    ) -> Result<Range, RangeError> {
        let cidr = Cidr { address: subnet.into(), prefix };
        if prefix > 30 {
            return Err(RangeError::TooSmall(cidr));
        }
        let host_bits = u32::MAX >> prefix;
        let first = subnet.to_bits() & !host_bits;
        if first != subnet.to_bits() {
            return Err(RangeError::HostBits { prefix, network: first.into() });
        }
        let inside = |address: &Ipv4Addr| address.to_bits() & !host_bits == first;
        if let Some(outside) = start.filter(|start| !inside(start)) {
            return Err(RangeError::StartOutside(outside, cidr));
        }
        let start = start.unwrap_or((first + 1).into());
        if let Some(outside) = end.filter(|end| !inside(end) || *end < start) {
            return Err(RangeError::EndOutside(outside, cidr));
        }
        let last = (first | host_bits) - 1;
        Ok(Range {
            start,
            end: end.unwrap_or(last.into()),
            gateway: gateway.unwrap_or((first + 1).into()),
            subnet_prefix: prefix,
        })
    }

    fn contains(&self, address: Ipv4Addr) -> bool {
        (self.start..=self.end).contains(&address)
    }

    fn overlaps(&self, other: &Range) -> bool {
        self.start <= other.end && other.start <= self.end
    }
}

impl fmt::Display for Range {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}-{}", self.start, self.end)
    }
}

/// Ranges of which one address is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RangeSet(Vec<Range>);

impl RangeSet {
    /// A set of ranges that don't overlap; at least one.
    pub(super) fn new(ranges: Vec<Range>) -> Result<RangeSet, RangeError> {
        if ranges.is_empty() {
            return Err(RangeError::Empty);
        }
        for (index, range) in ranges.iter().enumerate() {
            if let Some(other) = ranges[index + 1..].iter().find(|other| range.overlaps(other)) {
                return Err(RangeError::Overlap(range.clone(), other.clone()));
            }
        }
        Ok(RangeSet(ranges))
    }

    pub(super) fn overlaps(&self, other: &RangeSet) -> bool {
        self.0.iter().any(|range| other.0.iter().any(|theirs| range.overlaps(theirs)))
    }

    /// The range that holds `address`.
    pub(super) fn range_of(&self, address: Ipv4Addr) -> Option<&Range> {
        self.0.iter().find(|range| range.contains(address))
    }

    /// Every address once, gateways left out, from the one after `last` on and around to `last` itself: a crash-looping
    /// pod sees an address again only after all others had their turn.
    pub(super) fn round_robin(&self, last: Option<Ipv4Addr>) -> impl Iterator<Item = Ipv4Addr> + '_ {
        let index = last.and_then(|last| self.0.iter().position(|range| range.contains(last)));
        let (index, last) = (index.unwrap_or(0), last.filter(|_| index.is_some()));
        let current = &self.0[index];
        // The rest of the current range, the ranges after it, those before it, the start of the current one.
        let rest = match last {
            Some(last) => addresses(last.to_bits().saturating_add(1), current.end.to_bits()),
            None => addresses(current.start.to_bits(), current.end.to_bits()),
        };
        let others = self.0[index + 1..].iter().chain(&self.0[..index]);
        let start = last.map(|last| addresses(current.start.to_bits(), last.to_bits())).into_iter().flatten();
        let gateway_free = move |range: &'_ Range| {
            let gateway = range.gateway;
            move |address: &Ipv4Addr| *address != gateway
        };
        rest.filter(gateway_free(current))
            .chain(others.flat_map(move |range| {
                addresses(range.start.to_bits(), range.end.to_bits()).filter(gateway_free(range))
            }))
            .chain(start.filter(gateway_free(current)))
    }
}

fn addresses(start: u32, end: u32) -> impl Iterator<Item = Ipv4Addr> {
    (start..=end).map(Ipv4Addr::from)
}

impl fmt::Display for RangeSet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges: Vec<_> = self.0.iter().map(Range::to_string).collect();
        out.write_str(&ranges.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Ipv4Addr {
        text.parse().unwrap()
    }

    fn range(subnet: &str) -> Range {
        let (network, prefix) = subnet.split_once('/').unwrap();
        Range::new(address(network), prefix.parse().unwrap(), None, None, None).unwrap()
    }

    fn check(ranges: &[&str], last: Option<&str>, expected: &[&str]) {
        let set = RangeSet::new(ranges.iter().map(|subnet| range(subnet)).collect()).unwrap();
        let order: Vec<_> = set.round_robin(last.map(address)).map(|address| address.to_string()).collect();
        assert_eq!(order, expected);
    }

    #[test]
    fn addresses_come_in_turn_without_network_gateway_and_broadcast() {
        check(&["10.0.0.0/29"], None, &["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]);
        check(&["10.0.0.0/30"], None, &["10.0.0.2"]);
    }

    #[test]
    fn the_turn_goes_on_after_the_last_address_and_wraps_around_to_it() {
        let around = ["10.0.0.5", "10.0.0.6", "10.0.0.2", "10.0.0.3", "10.0.0.4"];
        check(&["10.0.0.0/29"], Some("10.0.0.4"), &around);
        check(&["10.0.0.0/29"], Some("10.0.0.6"), &["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]);
    }

    #[test]
    fn a_last_address_from_elsewhere_starts_over() {
        check(&["10.0.0.0/30"], Some("10.9.9.9"), &["10.0.0.2"]);
    }

    #[test]
    fn several_ranges_are_one_circle() {
        let sets = ["10.0.0.0/30", "10.0.1.0/30", "10.0.2.0/30"];
        check(&sets, Some("10.0.1.2"), &["10.0.2.2", "10.0.0.2", "10.0.1.2"]);
    }

    #[test]
    fn impossible_ranges_are_refused() {
        let new = |subnet: &str, prefix, start: Option<&str>, end: Option<&str>| {
            Range::new(address(subnet), prefix, start.map(address), end.map(address), None)
        };
        assert!(matches!(new("10.0.0.0", 31, None, None), Err(RangeError::TooSmall(_))));
        assert!(matches!(new("10.0.0.1", 24, None, None), Err(RangeError::HostBits { .. })));
        assert!(matches!(new("10.0.0.0", 24, Some("10.0.1.1"), None), Err(RangeError::StartOutside(..))));
        assert!(matches!(new("10.0.0.0", 24, None, Some("10.0.1.1")), Err(RangeError::EndOutside(..))));
        assert!(matches!(new("10.0.0.0", 24, Some("10.0.0.9"), Some("10.0.0.5")), Err(RangeError::EndOutside(..))));
        assert!(matches!(RangeSet::new(vec![]), Err(RangeError::Empty)));
        let overlapping = RangeSet::new(vec![range("10.0.0.0/24"), range("10.0.0.0/28")]);
        assert!(matches!(overlapping, Err(RangeError::Overlap(..))));
    }

    #[test]
    fn a_whole_class_a_network_is_walked_lazily() {
        let set = RangeSet::new(vec![range("0.0.0.0/0")]).unwrap();
        assert_eq!(set.round_robin(None).next(), Some(address("0.0.0.2")));
    }
}
