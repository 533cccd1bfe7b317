//! Join tokens: what lets many devices enrol without each being admitted by hand (decision 0009).

use crate::{DeviceId, Digest, FleetId, NameError, UnixSeconds};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Longest prefix of the names a token gives, characters: twelve more make a device id of it.
pub const PREFIX_LEN_MAX: usize = 48;
/// The authentication scheme of a request for enrolment by token (RFC 9110 §11.6.2): `Redan-Join <token>.<device>.<proof>`.
pub const SCHEME: &str = "Redan-Join ";
/// TLS exporter label (RFC 8446 §7.5, RFC 5705 §4: labels for private use begin with `EXPERIMENTAL`).
pub const EXPORTER_LABEL: &[u8] = b"EXPERIMENTAL redan join 1";

/// Not what it should be.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0} is written as hexadecimal digits of its whole length, lower case")]
pub struct NotHex(&'static str);

macro_rules! hex_type {
    ($(#[$doc:meta])* $name:ident, $length:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Eq, PartialEq, Ord, PartialOrd, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name([u8; $length]);

        impl $name {
            /// Wraps bytes.
            pub const fn from_bytes(bytes: [u8; $length]) -> Self {
                Self(bytes)
            }

            /// The bytes.
            pub const fn as_bytes(&self) -> &[u8; $length] {
                &self.0
            }

            /// Parses the one accepted spelling.
            pub fn parse(text: &str) -> Result<Self, NotHex> {
                let mut bytes = [0; $length];
                let lower = !text.bytes().any(|b| b.is_ascii_uppercase());
                match hex::decode_to_slice(text, &mut bytes) {
                    Ok(()) if lower => Ok(Self(bytes)),
                    _ => Err(NotHex($what)),
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = NotHex;
            fn try_from(text: String) -> Result<Self, NotHex> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> String {
                hex::encode(value.0)
            }
        }
    };
}

hex_type! {
    /// Which token. No secret.
    TokenId, 16, "a token's id"
}
hex_type! {
    /// What a token's holder knows: 256 bits. Never sent by a device.
    TokenSecret, 32, "a token's secret"
}
hex_type! {
    /// HMAC-SHA-256 under the secret over everything the request is about.
    Proof, 32, "a proof"
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSecret(…)")
    }
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proof(…)")
    }
}

/// How the names begin that a token gives: the beginning of a device id, or nothing.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DevicePrefix(String);

impl DevicePrefix {
    /// Parses a beginning of a device id.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.len() > PREFIX_LEN_MAX {
            return Err(NameError::Length {
                kind: "a prefix of device ids",
                max: PREFIX_LEN_MAX,
                found: text.len(),
            });
        }
        // It begins a device id if a device id begins with it.
        DeviceId::parse(&format!("{text}0"))?;
        Ok(Self(text.to_owned()))
    }

    /// Whether a name begins so.
    pub fn fits(&self, device: &DeviceId) -> bool {
        device.as_str().starts_with(&self.0)
    }

    /// The name for a key where nobody says another: the prefix and the first twelve digits of its hash.
    pub fn name_for(&self, spki: Digest) -> Result<DeviceId, NameError> {
        let digits: String = spki.to_string().chars().take(12).collect();
        DeviceId::parse(&format!("{}{digits}", self.0))
    }
}

impl fmt::Display for DevicePrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for DevicePrefix {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for DevicePrefix {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        Self::parse(&text)
    }
}

impl From<DevicePrefix> for String {
    fn from(prefix: DevicePrefix) -> String {
        prefix.0
    }
}

/// The token as it travels to its devices: everything they pin, in full, and the secret. Whoever has it can enrol as many devices as it
/// has uses left.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinToken {
    /// Always `redan.token/1`.
    pub schema: TokenSchema,
    /// The fleet.
    pub fleet: FleetId,
    /// Which token.
    pub token: TokenId,
    /// The secret.
    pub secret: TokenSecret,
    /// How the names begin that it gives.
    pub prefix: DevicePrefix,
    /// The fleet's root certificate, PEM.
    pub ca: String,
    /// `1.root.json` of the release repository, whole.
    pub release_root: String,
    /// `1.root.json` of the director repository, whole.
    pub director_root: String,
    /// Where the control server listens: `host:port`.
    pub server: String,
    /// No enrolment after this time.
    pub expires: UnixSeconds,
}

/// The one schema of a [`JoinToken`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum TokenSchema {
    /// Version 1.
    #[serde(rename = "redan.token/1")]
    V1,
}

/// What a device says when it enrols by token. The proof is over the rest; nothing of it is believed without.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Claim {
    /// Which token.
    pub token: TokenId,
    /// The name it would like to have.
    pub device: DeviceId,
    /// That it knows the token's secret, on this connection and for this request.
    pub proof: Proof,
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let proof = hex::encode(self.proof.as_bytes());
        write!(f, "{SCHEME}{}.{}.{proof}", self.token, self.device)
    }
}

impl Claim {
    /// Parses the value of the header field.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix(SCHEME)?.split('.');
        let claim = Self {
            token: TokenId::parse(parts.next()?).ok()?,
            device: DeviceId::parse(parts.next()?).ok()?,
            proof: Proof::parse(parts.next()?).ok()?,
        };
        parts.next().is_none().then_some(claim)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_how_a_device_id_begins() {
        for good in ["", "press-", "press", "0"] {
            assert_eq!(DevicePrefix::parse(good).unwrap().to_string(), good);
        }
        for bad in [
            "-",
            "-press",
            "Press-",
            "press.",
            "press 1",
            &"a".repeat(PREFIX_LEN_MAX + 1),
        ] {
            assert!(DevicePrefix::parse(bad).is_err(), "{bad}");
        }
        let longest = DevicePrefix::parse(&"a".repeat(PREFIX_LEN_MAX)).unwrap();
        let named = longest.name_for(Digest::of(b"key")).unwrap();
        assert!(longest.fits(&named));
    }

    #[test]
    fn a_claim_reads_back_and_nothing_else_reads_as_one() {
        let claim = Claim {
            token: TokenId::from_bytes([1; 16]),
            device: DeviceId::parse("press-1").unwrap(),
            proof: Proof::from_bytes([2; 32]),
        };
        let text = claim.to_string();
        assert_eq!(Claim::parse(&text), Some(claim));
        for bad in [
            "",
            "Redan-Join ",
            "Basic YWRtaW46YWRtaW4=",
            &format!("{text}.x"),
            &text.replace("press-1", "Press-1"),
            &text.replace("0202", "0A02"),
            &text[..text.len() - 2],
        ] {
            assert_eq!(Claim::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_secret_is_not_shown_by_accident() {
        let secret = TokenSecret::from_bytes([7; 32]);
        assert_eq!(format!("{secret:?}"), "TokenSecret(…)");
    }
}
