//! Names, each with its own grammar, parsed once at the edge and never again.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Longest label (device, publisher, workload, operator), characters. RFC 1035 §2.3.4: a device id is also a DNS label.
pub const LABEL_LEN_MAX: usize = 63;
/// Longest fleet name, characters. RFC 1035 §2.3.4 allows 255 for a whole name; `<id>.device.` must still fit.
pub const FLEET_LEN_MAX: usize = 180;

/// Why a text is not the name it was taken for.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NameError {
    /// Nothing, or more than the limit.
    #[error("{kind} must have 1 to {max} characters, found {found}")]
    Length {
        /// Which kind of name.
        kind: &'static str,
        /// The limit, characters.
        max: usize,
        /// What was given, bytes.
        found: usize,
    },
    /// A character outside the grammar.
    #[error("{kind} may hold only {grammar}; the character at position {at} is not one of them")]
    Character {
        /// Which kind of name.
        kind: &'static str,
        /// What is allowed, in words.
        grammar: &'static str,
        /// Zero-based byte position.
        at: usize,
    },
    /// The parts are not those the kind is made of.
    #[error("{kind} is written {form}")]
    Form {
        /// Which kind of name.
        kind: &'static str,
        /// How it is written.
        form: &'static str,
    },
}

/// `[a-z0-9-]`, not beginning or ending with `-`.
fn label(kind: &'static str, text: &str) -> Result<(), NameError> {
    if text.is_empty() || text.len() > LABEL_LEN_MAX {
        return Err(NameError::Length {
            kind,
            max: LABEL_LEN_MAX,
            found: text.len(),
        });
    }
    let grammar = "lower-case letters, digits and inner hyphens";
    let bad = text
        .bytes()
        .position(|b| !(b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'));
    let edge = if text.starts_with('-') {
        Some(0)
    } else if text.ends_with('-') {
        Some(text.len().saturating_sub(1))
    } else {
        None
    };
    match bad.or(edge) {
        Some(at) => Err(NameError::Character { kind, grammar, at }),
        None => Ok(()),
    }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Parses the name, once, where it enters the program.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                $check($kind, text)?;
                Ok(Self(text.to_owned()))
            }

            /// The name as it is written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::parse(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                $check($kind, &text)?;
                Ok(Self(text))
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }
    };
}

fn fleet(kind: &'static str, text: &str) -> Result<(), NameError> {
    if text.is_empty() || text.len() > FLEET_LEN_MAX {
        return Err(NameError::Length {
            kind,
            max: FLEET_LEN_MAX,
            found: text.len(),
        });
    }
    let mut start = 0;
    for part in text.split('.') {
        label(kind, part).map_err(|error| match error {
            NameError::Character { at, .. } => NameError::Character {
                kind,
                grammar: "lower-case letters, digits and inner hyphens, in parts joined by dots",
                at: start + at,
            },
            other => other,
        })?;
        start += part.len() + 1;
    }
    Ok(())
}

fn set(kind: &'static str, text: &str) -> Result<(), NameError> {
    fleet(kind, text)
}

name_type! {
    /// A fleet: one trust domain (SPIFFE ID §2.1). Lower-case labels joined by dots.
    FleetId, "a fleet name", fleet
}
name_type! {
    /// A device within its fleet; also a DNS label.
    DeviceId, "a device id", label
}
name_type! {
    /// An operator within a fleet.
    OperatorName, "an operator name", label
}
name_type! {
    /// Who publishes components: the first segment of a component's name.
    PublisherName, "a publisher name", label
}
name_type! {
    /// The second segment of a component's name.
    WorkloadName, "a workload name", label
}
name_type! {
    /// A release set, chosen by the release managers who sign it. Lower-case labels joined by dots.
    SetId, "a release set id", set
}

/// A component: `publisher/workload`.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ComponentName {
    publisher: PublisherName,
    workload: WorkloadName,
}

impl ComponentName {
    /// Joins two names that were parsed before.
    pub fn new(publisher: PublisherName, workload: WorkloadName) -> Self {
        Self { publisher, workload }
    }

    /// Parses `publisher/workload`.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let (publisher, workload) = text.split_once('/').ok_or(NameError::Form {
            kind: "a component name",
            form: "publisher/workload",
        })?;
        Ok(Self {
            publisher: PublisherName::parse(publisher)?,
            workload: WorkloadName::parse(workload)?,
        })
    }

    /// Who publishes it.
    pub fn publisher(&self) -> &PublisherName {
        &self.publisher
    }

    /// What it is called there.
    pub fn workload(&self) -> &WorkloadName {
        &self.workload
    }

    /// The name of the TUF role delegated to its release signers: `component.<publisher>.<workload>`.
    pub fn role(&self) -> String {
        format!("component.{}.{}", self.publisher, self.workload)
    }
}

impl fmt::Display for ComponentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.publisher, self.workload)
    }
}

impl FromStr for ComponentName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for ComponentName {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        Self::parse(&text)
    }
}

impl From<ComponentName> for String {
    fn from(name: ComponentName) -> String {
        name.to_string()
    }
}

/// A SPIFFE ID of a Redan fleet (SPIFFE ID §2). Parsed, not believed: only `redan-identity` makes identities of these.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum SpiffeId {
    /// `spiffe://<fleet>/device/<id>`
    Device(FleetId, DeviceId),
    /// `spiffe://<fleet>/control`
    Control(FleetId),
    /// `spiffe://<fleet>/operator/<name>`
    Operator(FleetId, OperatorName),
}

impl SpiffeId {
    /// Parses byte for byte: no case folding, no escapes, no port, query or fragment.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let form = NameError::Form {
            kind: "a SPIFFE ID of a fleet",
            form: "spiffe://<fleet>/device/<id>, /control or /operator/<name>",
        };
        let rest = text.strip_prefix("spiffe://").ok_or(form)?;
        let (fleet, path) = rest.split_once('/').ok_or(form)?;
        let fleet = FleetId::parse(fleet)?;
        match path.split_once('/') {
            None if path == "control" => Ok(Self::Control(fleet)),
            Some(("device", id)) => Ok(Self::Device(fleet, DeviceId::parse(id)?)),
            Some(("operator", name)) => Ok(Self::Operator(fleet, OperatorName::parse(name)?)),
            _ => Err(form),
        }
    }

    /// The trust domain.
    pub fn fleet(&self) -> &FleetId {
        match self {
            Self::Device(fleet, _) | Self::Control(fleet) | Self::Operator(fleet, _) => fleet,
        }
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(fleet, id) => write!(f, "spiffe://{fleet}/device/{id}"),
            Self::Control(fleet) => write!(f, "spiffe://{fleet}/control"),
            Self::Operator(fleet, name) => write!(f, "spiffe://{fleet}/operator/{name}"),
        }
    }
}

impl FromStr for SpiffeId {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for SpiffeId {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        Self::parse(&text)
    }
}

impl From<SpiffeId> for String {
    fn from(id: SpiffeId) -> String {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spiffe_id_is_read_byte_for_byte() {
        let id = SpiffeId::parse("spiffe://plant.example/device/press-7").unwrap();
        assert_eq!(id.to_string(), "spiffe://plant.example/device/press-7");
        for hostile in [
            "spiffe://Plant.example/device/a",
            "SPIFFE://plant.example/device/a",
            "spiffe://plant.example/device/a/b",
            "spiffe://plant.example/device/",
            "spiffe://plant.example/device/..",
            "spiffe://plant.example/device/%61",
            "spiffe://plant.example:443/device/a",
            "spiffe://plant.example/device/a?x",
            "spiffe://plant.example/device/a#x",
            "spiffe://u@plant.example/device/a",
            "spiffe://plant.example/control/",
            "spiffe://plant.example",
            "spiffe:///device/a",
            "spiffe://plant..example/device/a",
            "spiffe://plant.example/device/a\0",
        ] {
            assert!(SpiffeId::parse(hostile).is_err(), "accepted {hostile:?}");
        }
    }

    #[test]
    fn labels_refuse_what_dns_and_paths_would_trip_over() {
        let long = "a".repeat(64);
        for hostile in ["", "-a", "a-", "A", "a.b", "a/b", "..", "a b", "ä", long.as_str()] {
            assert!(DeviceId::parse(hostile).is_err(), "accepted {hostile:?}");
        }
        assert_eq!(
            DeviceId::parse("a_b"),
            Err(NameError::Character {
                kind: "a device id",
                grammar: "lower-case letters, digits and inner hyphens",
                at: 1
            })
        );
    }

    #[test]
    fn a_component_name_has_exactly_two_parts() {
        assert_eq!(
            ComponentName::parse("acme/thermo").unwrap().role(),
            "component.acme.thermo"
        );
        assert!(ComponentName::parse("acme").is_err());
        assert!(ComponentName::parse("acme/thermo/x").is_err());
    }
}
