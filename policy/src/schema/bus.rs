//! Sections about the local bus: what one workload says to another of the same device.

use super::FilterText;
use crate::units::PerSpan;
use redan_protocol::{ComponentName, PublisherName};
use serde::{Deserialize, Deserializer, de};
use std::collections::BTreeSet;

/// Who is at the other end: one workload, or above the ask all of one publisher.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub enum PeerText {
    /// `acme/collector`
    One(ComponentName),
    /// `acme/*`
    AllOf(PublisherName),
}

impl PeerText {
    /// Whether this workload is meant.
    pub fn means(&self, component: &ComponentName) -> bool {
        match self {
            Self::One(one) => one == component,
            Self::AllOf(publisher) => publisher == component.publisher(),
        }
    }
}

impl<'de> Deserialize<'de> for PeerText {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let read = match text.strip_suffix("/*") {
            Some(publisher) => PublisherName::parse(publisher).ok().map(Self::AllOf),
            None => ComponentName::parse(&text).ok().map(Self::One),
        };
        read.ok_or_else(|| {
            de::Error::custom("a workload is named \"acme/collector\", all of a publisher \"acme/*\"")
        })
    }
}

/// `[[trigger.bus]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BusTriggerSection {
    /// Its name.
    pub id: String,
    /// Who sends.
    pub from: PeerText,
    /// Filters.
    #[serde(default)]
    pub subscribe: BTreeSet<FilterText>,
    /// How often a message is handed over before it is dropped.
    pub handovers: Option<u32>,
    /// Budget.
    #[serde(default)]
    pub budget: BusBudgetSection,
    /// Refuse the workload rather than run it without.
    #[serde(default)]
    pub required: bool,
}

/// `[[net.bus]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetBusSection {
    /// Its name.
    pub id: String,
    /// Who receives.
    pub to: PeerText,
    /// Filters.
    #[serde(default)]
    pub publish: BTreeSet<FilterText>,
    /// Budget.
    #[serde(default)]
    pub budget: BusBudgetSection,
    /// Refuse the workload rather than run it without.
    #[serde(default)]
    pub required: bool,
}

/// `budget` of either end.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BusBudgetSection {
    /// Bytes of topics and payloads.
    pub bytes: Option<PerSpan>,
    /// Messages.
    pub messages: Option<PerSpan>,
}
