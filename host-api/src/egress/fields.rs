//! Header fields of a request that are the host's to say: where the message ends, whom it is for, and what carries a secret.

use http::header::{CONTENT_LENGTH, HeaderMap, HeaderName, TRANSFER_ENCODING};

/// Fields that have no place in trailers (RFC 9110 §6.5.1): an upstream that merges them into the head would read another message, or
/// another sender.
const NOT_IN_TRAILERS: &[&str] = &[
    "age",
    "authorization",
    "cache-control",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "expect",
    "expires",
    "host",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authorization",
    "range",
    "retry-after",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "vary",
    "warning",
    "www-authenticate",
];

/// Whether trailers may be sent; `injected` are the fields that carry secrets of the rule.
pub(crate) fn trailers_allowed(trailers: &HeaderMap, injected: &[HeaderName]) -> bool {
    trailers.keys().all(|name| {
        !NOT_IN_TRAILERS.contains(&name.as_str())
            && !wasmtime_wasi_http::DEFAULT_FORBIDDEN_HEADERS.contains(name)
            && !name.as_str().starts_with("redan-")
            && !injected.contains(name)
    })
}

/// Leaves one way to read where the body ends: the length the guest declared, once and in digits, or chunks. `false` when it declared
/// more than one, in one field or several: an upstream and whatever stands before it could each believe another (RFC 9112 §6.3).
pub(super) fn one_framing(headers: &mut HeaderMap) -> bool {
    headers.remove(TRANSFER_ENCODING);
    let declared: Vec<_> = headers.get_all(CONTENT_LENGTH).iter().collect();
    match declared.as_slice() {
        [] => true,
        [one] => {
            let digits = one.as_bytes();
            !digits.is_empty() && digits.len() < 20 && digits.iter().all(u8::is_ascii_digit)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn a_message_has_one_end() {
        for (fields, one) in [
            (&[][..], true),
            (&[("content-length", "5")], true),
            (&[("content-length", "5"), ("transfer-encoding", "chunked")], true),
            (&[("content-length", "5"), ("content-length", "6")], false),
            (&[("content-length", "5"), ("content-length", "5")], false),
            (&[("content-length", "5, 6")], false),
            (&[("content-length", "5, 5")], false),
            (&[("content-length", "+5")], false),
            (&[("content-length", "0x5")], false),
            (&[("content-length", "")], false),
            (&[("content-length", "18446744073709551616")], false),
        ] {
            let mut headers = map(fields);
            assert_eq!(one_framing(&mut headers), one, "{fields:?}");
            assert!(!headers.contains_key("transfer-encoding"), "{fields:?}");
        }
    }

    #[test]
    fn trailers_frame_nothing_route_nothing_and_authenticate_nobody() {
        let injected = [HeaderName::from_static("x-token")];
        for name in NOT_IN_TRAILERS
            .iter()
            .chain(&["connection", "upgrade", "x-token", "redan-code"])
        {
            assert!(!trailers_allowed(&map(&[(name, "x")]), &injected), "{name}");
        }
        assert!(trailers_allowed(
            &map(&[("x-checksum", "1"), ("server-timing", "2")]),
            &injected
        ));
    }
}
