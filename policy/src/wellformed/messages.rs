//! Sections about messages.

use super::{ASK, Flaw, LABEL, TWICE, bus, hold, label};
use crate::schema::{Document, Kind};
use std::collections::BTreeSet;

/// Longest client id a broker must take is 23 characters (MQTT 3.1.1 §3.1.3.1); brokers take more, and ours append the component.
const CLIENT_LEN_MAX: usize = 64;

const BROKER: &str = "of an ask must name a broker, \"label:plant-bus\"";
const FILTERS: &str = "of an ask must name a topic filter";

pub(super) fn check(d: &Document) -> Result<(), Flaw> {
    let ask = d.kind == Kind::Ask;
    let mut seen = BTreeSet::new();
    for (nth, section) in d.trigger.mqtt.iter().enumerate() {
        let at = "trigger.mqtt";
        hold(label(&section.id), at, nth, "id", LABEL)?;
        hold(seen.insert(&section.id), at, nth, "id", TWICE)?;
        hold(!ask || section.broker.is_some(), at, nth, "broker", BROKER)?;
        hold(
            !ask || !section.subscribe.is_empty(),
            at,
            nth,
            "subscribe",
            FILTERS,
        )?;
    }
    // An outbox names where it sends to by the id alone.
    let mut seen: BTreeSet<&String> = d.net.http.iter().map(|section| &section.id).collect();
    for (nth, section) in d.net.mqtt.iter().enumerate() {
        let at = "net.mqtt";
        hold(label(&section.id), at, nth, "id", LABEL)?;
        hold(seen.insert(&section.id), at, nth, "id", TWICE)?;
        hold(!ask || section.broker.is_some(), at, nth, "broker", BROKER)?;
        hold(!ask || !section.publish.is_empty(), at, nth, "publish", FILTERS)?;
    }
    bus::check(d, &mut seen)?;
    let mut boxes = BTreeSet::new();
    for (nth, section) in d.outbox.iter().enumerate() {
        let at = "outbox";
        hold(label(&section.id), at, nth, "id", LABEL)?;
        hold(boxes.insert(&section.id), at, nth, "id", TWICE)?;
        hold(ask || section.to.is_none(), at, nth, "to", ASK)?;
        let known = section.to.as_ref().is_some_and(|to| seen.contains(to));
        let what = "of an ask must be the id of one of its [[net.http]], [[net.mqtt]] or [[net.bus]]";
        hold(!ask || known, at, nth, "to", what)?;
    }
    let mut labels = BTreeSet::new();
    for (nth, section) in d.broker.iter().enumerate() {
        let at = "broker";
        hold(label(&section.label), at, nth, "label", LABEL)?;
        hold(labels.insert(&section.label), at, nth, "label", TWICE)?;
        let file = |path: &Option<String>| path.as_ref().is_none_or(|path| path.starts_with('/'));
        let absolute = "must be an absolute path";
        hold(file(&section.roots), at, nth, "roots", absolute)?;
        hold(file(&section.credentials), at, nth, "credentials", absolute)?;
        let plain = |id: &String| {
            !id.is_empty()
                && id.len() <= CLIENT_LEN_MAX
                && id
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        };
        let what = "must be at most 64 letters, digits, `-`, `_` and `.`";
        hold(
            section.client_id.as_ref().is_none_or(plain),
            at,
            nth,
            "client_id",
            what,
        )?;
        let what = "is of no use without TLS: write \"mqtts://…\"";
        hold(
            section.roots.is_none() || section.address.tls,
            at,
            nth,
            "roots",
            what,
        )?;
    }
    Ok(())
}
