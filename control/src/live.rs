//! Connections of devices and operators that are open now, so that a revocation closes them instead of waiting for their next request.

use redan_protocol::{Digest, SpiffeId};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use tokio::sync::watch;

/// The open connections of one fleet's devices and operators.
#[derive(Debug, Default)]
pub(crate) struct Live(Mutex<Open>);

#[derive(Debug, Default)]
struct Open {
    next: u64,
    by_member: BTreeMap<SpiffeId, BTreeMap<u64, (Digest, watch::Sender<bool>)>>,
}

/// One open connection; forgotten when this goes. Declare it before what holds the socket: that it is gone says that the socket is.
#[derive(Debug)]
pub(crate) struct Entry<'a> {
    live: &'a Live,
    member: SpiffeId,
    id: u64,
    cut: watch::Receiver<bool>,
}

impl Live {
    /// A connection of this member of the fleet begins, with a certificate under this authority.
    pub(crate) fn enter(&self, member: SpiffeId, authority: Digest) -> Entry<'_> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (sender, cut) = watch::channel(false);
        let id = open.next;
        open.next = id.wrapping_add(1);
        open.by_member
            .entry(member.clone())
            .or_default()
            .insert(id, (authority, sender));
        Entry {
            live: self,
            member,
            id,
            cut,
        }
    }

    /// Closes every connection of a member, and waits until they are closed.
    pub(crate) async fn cut(&self, member: &SpiffeId) {
        let cut = {
            let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            open.by_member.remove(member).unwrap_or_default()
        };
        end(cut.into_values().map(|(_, sender)| sender).collect()).await;
    }

    /// Closes every connection that was opened with a certificate under a revoked authority, and waits until they are closed.
    pub(crate) async fn cut_under(&self, revoked: impl Fn(Digest) -> bool) {
        let mut cut = Vec::new();
        {
            let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            for connections in open.by_member.values_mut() {
                for (authority, sender) in connections.values() {
                    if revoked(*authority) {
                        cut.push(sender.clone());
                    }
                }
                connections.retain(|_, (authority, _)| !revoked(*authority));
            }
        }
        end(cut).await;
    }

    /// Closes every connection there is.
    pub(crate) async fn cut_all(&self) {
        let members: Vec<SpiffeId> = {
            let open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            open.by_member.keys().cloned().collect()
        };
        for member in members {
            self.cut(&member).await;
        }
    }

    /// How many of devices are open.
    pub(crate) fn devices(&self) -> usize {
        let open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let devices = open.by_member.iter();
        let devices = devices.filter(|(member, _)| matches!(member, SpiffeId::Device(..)));
        devices.map(|(_, connections)| connections.len()).sum()
    }
}

/// Ends connections, and waits for it.
async fn end(cut: Vec<watch::Sender<bool>>) {
    for sender in &cut {
        // Nobody listening any more: it has just ended by itself.
        sender.send(true).ok();
    }
    for sender in &cut {
        sender.closed().await;
    }
}

impl Entry<'_> {
    /// Until the connection is to be closed.
    pub(crate) async fn cut(&mut self) {
        // The sender goes without a word only with the whole fleet.
        self.cut.wait_for(|cut| *cut).await.ok();
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        let mut open = self.live.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_member) = open.by_member.get_mut(&self.member) {
            of_member.remove(&self.id);
            if of_member.is_empty() {
                open.by_member.remove(&self.member);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(path: &str) -> SpiffeId {
        SpiffeId::parse(&format!("spiffe://plant.example/{path}")).unwrap()
    }

    #[tokio::test]
    async fn a_connection_that_ends_is_forgotten_and_one_that_is_cut_is_waited_for() {
        let live = Live::default();
        let device = member("device/press-1");
        let authority = Digest::of(b"authority");
        let ended = live.enter(device.clone(), authority);
        let mut open = live.enter(device.clone(), authority);
        let other = live.enter(member("device/press-2"), authority);
        drop(ended);
        assert_eq!(live.devices(), 2);
        let connection = async {
            open.cut().await;
            // The revocation is not over while this lives.
            tokio::task::yield_now().await;
            drop(open);
            "closed"
        };
        let order = Mutex::new(Vec::new());
        let end = |what| order.lock().unwrap().push(what);
        tokio::join!(async { end(connection.await) }, async {
            live.cut(&device).await;
            end("revoked");
        });
        assert_eq!(*order.lock().unwrap(), ["closed", "revoked"]);
        assert_eq!(live.devices(), 1);
        drop(other);
        assert_eq!(live.devices(), 0);
    }

    #[tokio::test]
    async fn only_connections_under_the_revoked_authority_are_cut() {
        let live = Live::default();
        let (old, new) = (Digest::of(b"old"), Digest::of(b"new"));
        let device = member("device/press-1");
        let (mut gone, mut stays) = (live.enter(device.clone(), old), live.enter(device, new));
        let mut operator = live.enter(member("operator/ada"), old);
        let ends = async {
            gone.cut().await;
            operator.cut().await;
            drop((gone, operator));
        };
        tokio::join!(ends, live.cut_under(|authority| authority == old));
        assert_eq!(live.devices(), 1);
        let cut = tokio::time::timeout(std::time::Duration::ZERO, stays.cut()).await;
        assert!(cut.is_err(), "it goes on");
    }
}
