//! Sections about the local bus.

use super::{Flaw, LABEL, TWICE, hold, label};
use crate::schema::{Document, Kind, PeerText};
use std::collections::BTreeSet;

/// Workloads one ask may hear, and as many it may send to: each has a connection of its own between two processes. Tripped by the case
/// `one-sender-too-many`.
const PEERS_MAX: usize = 16;

const FILTERS: &str = "of an ask must name a topic filter";
const PEER: &str = "of an ask must name one workload, such as \"acme/collector\"";
const SELF: &str = "must be another workload than this one";
const MANY: &str = "names one workload too many: an ask hears at most 16, and sends to at most 16";

/// `seen` are the ids an outbox may name so far.
pub(super) fn check<'d>(d: &'d Document, seen: &mut BTreeSet<&'d String>) -> Result<(), Flaw> {
    let ask = d.kind == Kind::Ask;
    let named = |peer: &PeerText| !ask || matches!(peer, PeerText::One(_));
    let other = |peer: &PeerText| !ask || !d.subject.name.as_ref().is_some_and(|own| peer.means(own));
    let mut ids = BTreeSet::new();
    for (nth, section) in d.trigger.bus.iter().enumerate() {
        let at = "trigger.bus";
        hold(label(&section.id), at, nth, "id", LABEL)?;
        hold(ids.insert(&section.id), at, nth, "id", TWICE)?;
        hold(named(&section.from), at, nth, "from", PEER)?;
        hold(other(&section.from), at, nth, "from", SELF)?;
        hold(
            !ask || !section.subscribe.is_empty(),
            at,
            nth,
            "subscribe",
            FILTERS,
        )?;
        hold(!ask || nth < PEERS_MAX, at, nth, "id", MANY)?;
    }
    for (nth, section) in d.net.bus.iter().enumerate() {
        let at = "net.bus";
        hold(label(&section.id), at, nth, "id", LABEL)?;
        hold(seen.insert(&section.id), at, nth, "id", TWICE)?;
        hold(named(&section.to), at, nth, "to", PEER)?;
        hold(other(&section.to), at, nth, "to", SELF)?;
        hold(!ask || !section.publish.is_empty(), at, nth, "publish", FILTERS)?;
        hold(!ask || nth < PEERS_MAX, at, nth, "id", MANY)?;
    }
    Ok(())
}
