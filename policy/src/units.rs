//! Amounts as people write them: `500ms`, `8MiB`, `5MiB/h`, `5%`.

use crate::grant::Rate;
use redan_protocol::{ByteCount, Millis};
use serde::{Deserialize, Deserializer, de};

/// Units of time and their milliseconds, longest suffix first.
const TIMES: &[(&str, u64)] = &[
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("min", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];
/// Units of size and their bytes.
const SIZES: &[(&str, u64)] = &[("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// Splits `12MiB` into its number and its unit.
fn split(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(end)?;
    Some((number.parse().ok()?, unit))
}

fn amount(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (number, unit) = split(text)?;
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*factor)
}

/// Reads `30s`, `500ms`, `2m`, `12h` or `14d`.
pub fn duration(text: &str) -> Option<Millis> {
    amount(text, TIMES).map(Millis::new)
}

/// Reads `512B`, `16KiB`, `8MiB` or `1GiB`.
pub fn size(text: &str) -> Option<ByteCount> {
    amount(text, SIZES).map(ByteCount::new)
}

/// Reads `120/min`, `5MiB/h` or `3/10m`.
pub fn rate(text: &str) -> Option<Rate> {
    let (amount_text, span) = text.split_once('/')?;
    let amount = amount_text
        .parse()
        .ok()
        .or_else(|| size(amount_text).map(ByteCount::get))?;
    let span = if span.starts_with(|c: char| c.is_ascii_digit()) {
        span.to_owned()
    } else {
        format!("1{span}")
    };
    Some(Rate {
        amount,
        per: duration(&span).filter(|per| per.get() > 0)?,
    })
}

/// Reads `5%` or `0.5%` into permille.
pub fn permille(text: &str) -> Option<u16> {
    let number = text.strip_suffix('%')?;
    let (whole, tenth) = number.split_once('.').unwrap_or((number, "0"));
    if tenth.len() != 1 {
        return None;
    }
    let value = whole
        .parse::<u16>()
        .ok()?
        .checked_mul(10)?
        .checked_add(tenth.parse().ok()?)?;
    (value <= 1000).then_some(value)
}

macro_rules! written {
    ($(#[$doc:meta])* $name:ident, $inner:ty, $read:path, $form:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub struct $name(pub $inner);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = String::deserialize(from)?;
                $read(&text).map(Self).ok_or_else(|| de::Error::custom(format_args!("`{text}` is not {}", $form)))
            }
        }
    };
}

written! {
    /// A span of time in a document.
    Span, Millis, duration, "a time such as \"500ms\", \"30s\", \"2m\", \"12h\" or \"14d\""
}
written! {
    /// A size in a document.
    Size, ByteCount, size, "a size such as \"512B\", \"16KiB\", \"8MiB\" or \"1GiB\""
}
written! {
    /// A rate in a document.
    PerSpan, Rate, rate, "a rate such as \"120/min\", \"5MiB/h\" or \"3/10m\""
}
written! {
    /// A share in a document.
    Share, u16, permille, "a share such as \"5%\" or \"0.5%\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_people_write_them() {
        assert_eq!(duration("500ms"), Some(Millis::new(500)));
        assert_eq!(duration("14d"), Some(Millis::new(14 * 86_400_000)));
        assert_eq!(size("8MiB"), Some(ByteCount::mib(8)));
        assert_eq!(
            rate("5MiB/h"),
            Some(Rate {
                amount: 5 << 20,
                per: Millis::new(3_600_000)
            })
        );
        assert_eq!(
            rate("120/min"),
            Some(Rate {
                amount: 120,
                per: Millis::new(60_000)
            })
        );
        assert_eq!(
            rate("3/10m"),
            Some(Rate {
                amount: 3,
                per: Millis::new(600_000)
            })
        );
        assert_eq!(permille("5%"), Some(50));
        assert_eq!(permille("0.5%"), Some(5));
    }

    #[test]
    fn amounts_that_could_mean_two_things_are_refused() {
        for text in [
            "",
            "5",
            "s",
            "-1s",
            "1.5s",
            "1 s",
            "99999999999999999999s",
            "18446744073709551615d",
        ] {
            assert_eq!(duration(text), None, "{text}");
        }
        for text in ["8MB", "8M", "8", "8mib"] {
            assert_eq!(size(text), None, "{text}");
        }
        for text in ["5/0s", "5", "/s", "5/"] {
            assert_eq!(rate(text), None, "{text}");
        }
        assert_eq!(permille("101%"), None);
    }
}
