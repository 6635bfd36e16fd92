//! Who takes how many connections: none locks out the others.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// Connections of one address at a time.
const PER_ADDRESS: usize = 128;

/// What counts as one address: IPv4 also where it is written as IPv6, and of IPv6 the network, as its hosts have as many
/// addresses as they like.
pub(super) fn origin(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        address @ IpAddr::V4(_) => address,
    }
}

/// How many connections each address has.
#[derive(Debug, Clone, Default)]
pub(super) struct Addresses(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One of an address's connections; gives its place back when dropped.
pub(super) struct Place {
    addresses: Addresses,
    address: Option<IpAddr>,
}

impl Addresses {
    /// A place for one more connection from there, if there is one; none from this machine's own socket are counted.
    pub(super) fn take(&self, address: Option<IpAddr>) -> Option<Place> {
        let address = address.map(origin);
        if let Some(address) = address {
            let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let count = counts.entry(address).or_default();
            if *count >= PER_ADDRESS {
                return None;
            }
            *count += 1;
        }
        Some(Place { addresses: self.clone(), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(address) = self.address else { return };
        let mut counts = self.addresses.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_can_not_take_every_place() {
        let addresses = Addresses::default();
        let (one, other) = (Some("192.0.2.1".parse().unwrap()), Some("192.0.2.2".parse().unwrap()));
        let mut places: Vec<Place> = (0..PER_ADDRESS).map(|_| addresses.take(one).unwrap()).collect();
        assert!(addresses.take(one).is_none());
        assert!(addresses.take(other).is_some());
        places.pop();
        assert!(addresses.take(one).is_some());
    }

    #[test]
    fn an_address_is_one_however_it_is_written() {
        let same = |one: &str, other: &str| origin(one.parse().unwrap()) == origin(other.parse().unwrap());
        assert!(same("192.0.2.1", "::ffff:192.0.2.1"));
        assert!(!same("::ffff:192.0.2.1", "::ffff:192.0.2.2"));
        assert!(same("2001:db8::1", "2001:db8::ffff:2"));
        assert!(!same("2001:db8::1", "2001:db8:0:1::1"));
    }
}
