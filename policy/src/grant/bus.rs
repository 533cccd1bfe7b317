//! The local bus: what a workload hears of others of its device, and what it says to them.
//!
//! A message passes when the sender's grant *and* the receiver's admit its topic and each other. Who the other end is, is the name of a
//! verified component: nothing a guest says takes part in it.

use super::Rate;
use redan_protocol::ComponentName;
use serde::{Deserialize, Serialize};

/// One sender that is heard.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BusTrigger {
    /// The ask's name for it.
    pub id: String,
    /// Who sends.
    pub from: ComponentName,
    /// For each layer, the ask first, the filters of which one must mean the topic.
    pub subscribe: Vec<Vec<String>>,
    /// How often a message is handed over before it is dropped.
    pub handovers: u32,
    /// What is taken from this sender at most.
    pub budget: BusBudget,
}

/// One receiver that is sent to. A topic must be meant by one filter of each layer.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BusRule {
    /// The ask's name for it.
    pub id: String,
    /// Who receives.
    pub to: ComponentName,
    /// For each layer, the ask first, the filters of which one must mean the topic.
    pub publish: Vec<Vec<String>>,
    /// What is sent at most.
    pub budget: BusBudget,
}

/// Budget of one end. Never unlimited: two workloads that answer each other would go on for ever.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BusBudget {
    /// Bytes of topics and payloads.
    pub bytes: Rate,
    /// Messages.
    pub messages: Rate,
}
