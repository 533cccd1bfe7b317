//! Messages in and out: what calls a handler, what may be published, and what is kept until it is sent.

use super::{BusRule, BusTrigger, Rate};
use redan_protocol::{ByteCount, Millis};
use serde::{Deserialize, Serialize};

/// What a grant says about messages. A workload without any has the grant it always had, to the byte.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Messages {
    /// What calls the handler; empty for a service or a job.
    pub trigger: Vec<MqttTrigger>,
    /// What may be published.
    pub net: Vec<MqttRule>,
    /// Workloads of this device that are heard.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bus_trigger: Vec<BusTrigger>,
    /// Workloads of this device that are sent to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bus: Vec<BusRule>,
    /// Queues on disk for what is to be sent; empty means the interface is not linked.
    pub outbox: Vec<Outbox>,
    /// The brokers that triggers and rules name, as the device maps them.
    pub brokers: Vec<Broker>,
}

impl Messages {
    /// Whether there is nothing of the kind.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The broker of a label.
    pub fn broker(&self, label: &str) -> Option<&Broker> {
        self.brokers.iter().find(|broker| broker.label == label)
    }
}

/// One subscription. Subscribed is to what the ask says; delivered is what one filter of each layer means.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MqttTrigger {
    /// The ask's name for it.
    pub id: String,
    /// Label of its broker.
    pub broker: String,
    /// For each layer, the ask first, the filters of which one must mean the topic.
    pub subscribe: Vec<Vec<String>>,
    /// How often a message is handed over before it is dropped.
    pub handovers: u32,
}

/// One rule of publishing. A topic must be meant by one filter of each layer.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MqttRule {
    /// The ask's name for it.
    pub id: String,
    /// Label of its broker.
    pub broker: String,
    /// For each layer, the ask first, the filters of which one must mean the topic.
    pub publish: Vec<Vec<String>>,
    /// Budget of the rule.
    pub budget: PublishBudget,
}

/// Budget of a rule of publishing. `None` is unlimited only if every layer left it out.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishBudget {
    /// Bytes of topics and payloads.
    pub bytes_out: Option<Rate>,
    /// Messages.
    pub messages: Option<Rate>,
}

/// A queue on disk, kept across versions.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outbox {
    /// Its name.
    pub id: String,
    /// Where its items go.
    pub to: Destination,
    /// Bytes that wait at once.
    pub bytes: ByteCount,
    /// Items that wait at once.
    pub messages: u32,
    /// An item that could not be sent for so long is dropped and counted.
    pub max_age: Millis,
}

/// A rule of the same grant, by the ask's name for it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Destination {
    /// `[[net.http]]`
    #[serde(rename = "http")]
    Http(String),
    /// `[[net.mqtt]]`
    #[serde(rename = "mqtt")]
    Mqtt(String),
    /// `[[net.bus]]`
    #[serde(rename = "bus")]
    Bus(String),
}

impl Destination {
    /// The rule's name.
    pub fn id(&self) -> &str {
        match self {
            Self::Http(id) | Self::Mqtt(id) | Self::Bus(id) => id,
        }
    }
}

/// A broker as the device's own file maps its label.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Broker {
    /// The label.
    pub label: String,
    /// Lower-case host name or IP address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Whether TLS is spoken.
    pub tls: bool,
    /// A file of certificates that are believed; `None`: the public ones.
    pub roots: Option<String>,
    /// A file of user name and password.
    pub credentials: Option<String>,
    /// What its client ids begin with; `None`: the device's own name.
    pub client_id: Option<String>,
    /// Version of the protocol.
    pub protocol: Protocol,
}

/// Version of MQTT.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub enum Protocol {
    /// MQTT 5.0
    #[default]
    #[serde(rename = "5")]
    V5,
    /// MQTT 3.1.1
    #[serde(rename = "3.1.1")]
    V311,
}
