//! How many may shake hands at once, in all and from one address: half-open connections cost those who open them nothing (attack P14).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts handshakes that have not ended.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    open: Arc<Mutex<Open>>,
    all_max: usize,
    address_max: usize,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    by_address: BTreeMap<IpAddr, usize>,
}

/// A handshake that has begun; forgotten when this goes.
#[derive(Debug)]
pub(crate) struct Handshake {
    open: Arc<Mutex<Open>>,
    from: IpAddr,
}

impl Gate {
    pub(crate) fn new(all_max: usize, address_max: usize) -> Self {
        Self {
            open: Arc::default(),
            all_max,
            address_max,
        }
    }

    /// A handshake begins; `None`: too many have.
    pub(crate) fn enter(&self, from: IpAddr) -> Option<Handshake> {
        let from = counted_as(from);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let of_address = open.by_address.get(&from).copied().unwrap_or_default();
        if open.all >= self.all_max || of_address >= self.address_max {
            return None;
        }
        open.all = open.all.saturating_add(1);
        open.by_address.insert(from, of_address.saturating_add(1));
        drop(open);
        Some(Handshake {
            open: Arc::clone(&self.open),
            from,
        })
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.all = open.all.saturating_sub(1);
        if let Some(of_address) = open.by_address.get_mut(&self.from) {
            *of_address = of_address.saturating_sub(1);
            if *of_address == 0 {
                open.by_address.remove(&self.from);
            }
        }
    }
}

/// Whoever has one IPv6 address has its whole /64 (RFC 4291 §2.5.4).
fn counted_as(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(long) => IpAddr::V6((long.to_bits() & !u128::from(u64::MAX)).into()),
        short @ IpAddr::V4(_) => short,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_address_and_all_together_have_a_limit_and_what_ended_counts_no_longer() {
        let gate = Gate::new(3, 2);
        let first = gate.enter(at("192.0.2.1"));
        let second = gate.enter(at("192.0.2.1"));
        assert!(first.is_some() && second.is_some());
        assert!(gate.enter(at("192.0.2.1")).is_none(), "of one address");
        let third = gate.enter(at("192.0.2.2"));
        assert!(third.is_some());
        assert!(gate.enter(at("192.0.2.3")).is_none(), "of all");
        drop((first, third));
        assert!(gate.enter(at("192.0.2.1")).is_some());
        drop(second);
        let open = gate.open.lock().unwrap();
        assert_eq!((open.all, open.by_address.len()), (0, 0));
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_and_a_mapped_address_as_itself() {
        let gate = Gate::new(10, 1);
        let _one = gate.enter(at("2001:db8::1")).unwrap();
        assert!(gate.enter(at("2001:db8::2")).is_none());
        assert!(gate.enter(at("2001:db8:0:1::1")).is_some());
        let _four = gate.enter(at("192.0.2.1")).unwrap();
        assert!(gate.enter(at("::ffff:192.0.2.1")).is_none());
    }
}
