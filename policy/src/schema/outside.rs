//! What a workload believes and shows outside: TLS roots of an egress rule, and secrets the host adds to its requests.

use crate::grant::Roots;
use serde::{Deserialize, Deserializer, de};
use std::collections::{BTreeMap, BTreeSet};

/// `tls` of an egress rule.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSection {
    /// Whom the server's certificate has to come from. An ask that names nothing means the public roots.
    pub roots: Option<Roots>,
    /// Oldest TLS spoken.
    pub min: Option<TlsMin>,
}

/// Oldest TLS spoken with an upstream: there is one (decision 0016).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TlsMin;

impl<'de> Deserialize<'de> for TlsMin {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match String::deserialize(from)?.as_str() {
            "1.3" => Ok(Self),
            other => Err(de::Error::custom(format_args!(
                "`{other}` is not spoken; write \"1.3\", or leave `min` out, which means the same"
            ))),
        }
    }
}

/// `[secrets]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretsSection {
    /// Ask: handles it uses. Fleet: `publisher/handle` it lets them use.
    #[serde(default, rename = "use")]
    pub uses: BTreeSet<String>,
    /// Ask: which header of which egress rule carries which secret.
    #[serde(default)]
    pub inject: Vec<InjectSection>,
    /// Device: `publisher/handle` to the file that holds the value.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    /// Refuse the workload rather than run it without.
    #[serde(default)]
    pub required: bool,
}

/// One of `secrets.inject`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InjectSection {
    /// The handle.
    pub secret: String,
    /// The `id` of the egress rule.
    pub net: String,
    /// The header field, in lower case.
    pub header: String,
}
