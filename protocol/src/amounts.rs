//! Amounts with their units in the type, so that seconds never meet bytes.

use serde::{Deserialize, Serialize};
use std::fmt;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

macro_rules! amount {
    ($(#[$doc:meta])* $name:ident, $unit:literal) => {
        amount! { $(#[$doc])* $name }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!("{}", $unit), self.0)
            }
        }
    };
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(u64);

        impl $name {
            /// Wraps a plain number of this unit.
            pub const fn new(value: u64) -> Self {
                Self(value)
            }

            /// The plain number.
            pub const fn get(self) -> u64 {
                self.0
            }
        }

    };
}

amount! {
    /// A publisher's release counter: only grows, and unlike a version string cannot be argued about.
    ReleaseCounter, ""
}
amount! {
    /// A director's sequence number for one device: only grows.
    DirectionSequence, ""
}
amount! {
    /// The version of a TUF metadata file (TUF 1.0.34 §4.3).
    Version64, ""
}
amount! {
    /// Seconds since 1970-01-01T00:00:00Z.
    UnixSeconds
}
amount! {
    /// A span of whole seconds.
    Seconds, " s"
}
amount! {
    /// A span of milliseconds.
    Millis, " ms"
}
amount! {
    /// A number of bytes.
    ByteCount, " bytes"
}

impl ByteCount {
    /// `n` KiB.
    pub const fn kib(n: u64) -> Self {
        Self(n.saturating_mul(1024))
    }

    /// `n` MiB.
    pub const fn mib(n: u64) -> Self {
        Self::kib(n.saturating_mul(1024))
    }
}

impl UnixSeconds {
    /// This time and a span later, or the end of time.
    #[must_use]
    pub const fn after(self, span: Seconds) -> Self {
        Self(self.0.saturating_add(span.get()))
    }
}

impl Millis {
    /// `n` seconds.
    pub const fn seconds(n: u64) -> Self {
        Self(n.saturating_mul(1000))
    }
}

/// A share in thousandths, 0 to 1000.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Permille(u16);

impl Permille {
    /// Everything.
    pub const ALL: Self = Self(1000);

    /// A share of at most 1000 thousandths.
    pub const fn new(value: u16) -> Option<Self> {
        if value <= 1000 { Some(Self(value)) } else { None }
    }

    /// Thousandths.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl TryFrom<u16> for Permille {
    type Error = &'static str;
    fn try_from(value: u16) -> Result<Self, Self::Error> {
        Self::new(value).ok_or("a share is at most 1000 permille")
    }
}

impl From<Permille> for u16 {
    fn from(share: Permille) -> u16 {
        share.0
    }
}

/// As people read dates (RFC 3339, UTC).
impl fmt::Display for UnixSeconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = i64::try_from(self.0).ok();
        let date = seconds.and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
        match date.and_then(|date| date.format(&Rfc3339).ok()) {
            Some(text) => f.write_str(&text),
            // Beyond the year 9999.
            None => write!(f, "second {}", self.0),
        }
    }
}

impl fmt::Display for Permille {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}‰", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_shown_as_a_date() {
        assert_eq!(UnixSeconds::new(0).to_string(), "1970-01-01T00:00:00Z");
        assert_eq!(
            UnixSeconds::new(1_796_080_588).to_string(),
            "2026-11-30T23:16:28Z"
        );
        assert_eq!(
            UnixSeconds::new(u64::MAX).to_string(),
            format!("second {}", u64::MAX)
        );
    }

    #[test]
    fn a_share_above_all_is_refused() {
        assert_eq!(Permille::new(1001), None);
        assert!(serde_json::from_str::<Permille>("1001").is_err());
        assert_eq!(serde_json::from_str::<Permille>("1000").unwrap(), Permille::ALL);
    }
}
