//! Sections about messages: subscriptions, publishing, outboxes, and the device's map of brokers.

use crate::egress::parse_authority;
use crate::grant::Protocol;
use crate::topic::{TOPIC_LEN_MAX, is_filter};
use crate::units::{PerSpan, Size, Span};
use redan_protocol::WorkloadName;
use serde::{Deserialize, Deserializer, de};
use std::collections::BTreeSet;

/// A topic filter in a document.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub struct FilterText(pub String);

impl<'de> Deserialize<'de> for FilterText {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        if is_filter(&text) {
            return Ok(Self(text));
        }
        Err(de::Error::custom(format_args!(
            "a topic filter such as \"plant/+/temp\" or \"plant/#\" is wanted: wildcards are whole levels, none begins with `$`, \
             and {TOPIC_LEN_MAX} bytes are the most"
        )))
    }
}

/// `label:plant-bus`: a broker as the device maps it.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub struct BrokerLabel(pub String);

impl<'de> Deserialize<'de> for BrokerLabel {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let label = text
            .strip_prefix("label:")
            .and_then(|label| WorkloadName::parse(label).ok());
        label.map(|label| Self(label.as_str().to_owned())).ok_or_else(|| {
            de::Error::custom("a broker is named \"label:plant-bus\"; the device ceiling says which it is")
        })
    }
}

/// `mqtt://host[:port]` or `mqtts://host[:port]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BrokerAddress {
    /// Whether TLS is spoken.
    pub tls: bool,
    /// Lower-case host name or IP address.
    pub host: String,
    /// Port; the scheme's own when none is named.
    pub port: u16,
}

impl<'de> Deserialize<'de> for BrokerAddress {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        read_address(&text).ok_or_else(|| {
            de::Error::custom(
                "an address such as \"mqtts://10.0.0.5:8883\" or \"mqtt://broker.plant:1883\" is wanted",
            )
        })
    }
}

fn read_address(text: &str) -> Option<BrokerAddress> {
    let (tls, rest, own) = match (text.strip_prefix("mqtts://"), text.strip_prefix("mqtt://")) {
        (Some(rest), _) => (true, rest, 8883),
        (_, Some(rest)) => (false, rest, 1883),
        _ => return None,
    };
    // The port is whatever follows the last bracket of an IPv6 address, or the host.
    let named = rest.rsplit(']').next().is_some_and(|after| after.contains(':'));
    let whole = if named {
        rest.to_owned()
    } else {
        format!("{rest}:{own}")
    };
    let (host, port) = parse_authority(&whole, tls)?;
    Some(BrokerAddress { tls, host, port })
}

/// `[[trigger.mqtt]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MqttTriggerSection {
    /// Its name.
    pub id: String,
    /// Its broker; above the ask, left out: whichever.
    pub broker: Option<BrokerLabel>,
    /// Filters.
    #[serde(default)]
    pub subscribe: BTreeSet<FilterText>,
    /// How often a message is handed over before it is dropped.
    pub handovers: Option<u32>,
    /// Refuse the workload rather than run it without.
    #[serde(default)]
    pub required: bool,
}

/// `[[net.mqtt]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetMqttSection {
    /// Its name.
    pub id: String,
    /// Its broker; above the ask, left out: whichever.
    pub broker: Option<BrokerLabel>,
    /// Filters.
    #[serde(default)]
    pub publish: BTreeSet<FilterText>,
    /// Budget.
    #[serde(default)]
    pub budget: PublishBudgetSection,
    /// Refuse the workload rather than run it without.
    #[serde(default)]
    pub required: bool,
}

/// `budget` of a rule of publishing.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishBudgetSection {
    /// Bytes of topics and payloads.
    pub bytes_out: Option<PerSpan>,
    /// Messages.
    pub messages: Option<PerSpan>,
}

/// `[[outbox]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutboxSection {
    /// Its name.
    pub id: String,
    /// Ask: the `id` of a `[[net.http]]`, `[[net.mqtt]]` or `[[net.bus]]` of the same ask.
    pub to: Option<String>,
    /// Quota.
    #[serde(default)]
    pub quota: OutboxQuotaSection,
    /// An item that could not be sent for so long is dropped.
    pub max_age: Option<Span>,
    /// Refuse the workload rather than run it without.
    #[serde(default)]
    pub required: bool,
}

/// `quota` of an outbox.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutboxQuotaSection {
    /// Bytes.
    pub bytes: Option<Size>,
    /// Items.
    pub messages: Option<u32>,
}

/// Device: `[[broker]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrokerSection {
    /// Its name.
    pub label: String,
    /// Where it is.
    pub address: BrokerAddress,
    /// A file of certificates that are believed, PEM; left out: the public ones.
    pub roots: Option<String>,
    /// A file of user name and password, one line each.
    pub credentials: Option<String>,
    /// What client ids begin with; left out: the device's own name.
    pub client_id: Option<String>,
    /// Version of the protocol; left out: 5.
    #[serde(default)]
    pub protocol: Protocol,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_a_broker_has_one_spelling() {
        for (text, tls, host, port) in [
            ("mqtt://127.0.0.1:1884", false, "127.0.0.1", 1884),
            ("mqtts://Broker.Plant", true, "broker.plant", 8883),
            ("mqtt://[::1]", false, "::1", 1883),
            ("mqtts://[fd00::7]:9", true, "fd00::7", 9),
        ] {
            let host = host.to_owned();
            assert_eq!(
                read_address(text),
                Some(BrokerAddress { tls, host, port }),
                "{text}"
            );
        }
        for wrong in [
            "",
            "127.0.0.1:1883",
            "http://a:1",
            "mqtt://",
            "mqtt://user@host:1",
            "mqtt://host/x",
            "mqtt://0x7f.1:1",
            "mqtt://host:0",
            "mqtt://host:x",
        ] {
            assert_eq!(read_address(wrong), None, "{wrong}");
        }
    }
}
