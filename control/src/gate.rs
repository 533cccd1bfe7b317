//! How many may shake hands at once, in all and from one address: half-open connections cost those who open them nothing (attack P14).
//!
//! One address over its limit is turned away. When all together are too many, the one that has taken longest gives way: a flood from
//! many addresses then costs its own connections, and who shakes hands quickly gets through.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::oneshot;

/// Counts handshakes that have not ended.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    open: Arc<Mutex<Open>>,
    all_max: usize,
    address_max: usize,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    /// In the order they began, and how to tell each that it has to give way.
    waiting: BTreeMap<u64, (IpAddr, oneshot::Sender<Infallible>)>,
    by_address: BTreeMap<IpAddr, usize>,
}

impl Open {
    fn forget(&mut self, id: u64) {
        // Who gave way is forgotten already.
        let Some((from, _)) = self.waiting.remove(&id) else {
            return;
        };
        if let Some(of_address) = self.by_address.get_mut(&from) {
            *of_address = of_address.saturating_sub(1);
            if *of_address == 0 {
                self.by_address.remove(&from);
            }
        }
    }
}

/// A handshake that has begun; forgotten when this goes.
#[derive(Debug)]
pub(crate) struct Handshake {
    open: Arc<Mutex<Open>>,
    id: u64,
    way: oneshot::Receiver<Infallible>,
}

impl Gate {
    pub(crate) fn new(all_max: usize, address_max: usize) -> Self {
        Self {
            open: Arc::default(),
            all_max,
            address_max,
        }
    }

    /// A handshake begins; `None`: too many of its address have.
    pub(crate) fn enter(&self, from: IpAddr) -> Option<Handshake> {
        let from = counted_as(from);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let of_address = open.by_address.get(&from).copied().unwrap_or_default();
        if of_address >= self.address_max {
            return None;
        }
        if open.waiting.len() >= self.all_max {
            let oldest = open.waiting.keys().next().copied();
            open.forget(oldest?);
        }
        let id = open.next;
        open.next = id.wrapping_add(1);
        let (tell, way) = oneshot::channel();
        open.waiting.insert(id, (from, tell));
        let of_address = open.by_address.entry(from).or_default();
        *of_address = of_address.saturating_add(1);
        drop(open);
        Some(Handshake {
            open: Arc::clone(&self.open),
            id,
            way,
        })
    }
}

impl Handshake {
    /// Until it has to give way to one that has just begun.
    pub(crate) async fn gives_way(&mut self) {
        // Nothing is ever sent: the sender is dropped.
        (&mut self.way).await.ok();
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.forget(self.id);
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

    /// Whether it has to give way.
    fn over(handshake: &mut Handshake) -> bool {
        handshake.way.try_recv() == Err(oneshot::error::TryRecvError::Closed)
    }

    #[test]
    fn one_address_and_all_together_have_a_limit_and_what_ended_counts_no_longer() {
        let gate = Gate::new(3, 2);
        let mut first = gate.enter(at("192.0.2.1")).unwrap();
        let mut second = gate.enter(at("192.0.2.1")).unwrap();
        assert!(gate.enter(at("192.0.2.1")).is_none(), "of one address");
        let mut third = gate.enter(at("192.0.2.2")).unwrap();
        assert!(![&mut first, &mut second, &mut third].into_iter().any(over));
        // Of all: the oldest gives way, and counts no longer, also before it has noticed.
        let mut fourth = gate.enter(at("192.0.2.3")).unwrap();
        assert!(over(&mut first) && ![&mut second, &mut third, &mut fourth].into_iter().any(over));
        let fifth = gate.enter(at("192.0.2.1")).unwrap();
        assert!(over(&mut second));
        drop((first, second));
        assert!(!over(&mut third));
        assert_eq!(gate.open.lock().unwrap().waiting.len(), 3);
        drop((third, fourth, fifth));
        let open = gate.open.lock().unwrap();
        assert_eq!((open.waiting.len(), open.by_address.len()), (0, 0));
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
