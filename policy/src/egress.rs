//! Where a workload may connect to: origins, methods, paths and addresses. Pure; used by host-api and broker.
//!
//! Hosts have one spelling here: what a resolver would read otherwise (octal, hexadecimal, short IPv4) is refused, so that
//! the name that was checked is the name that is dialled. Addresses are judged after resolution, each one.

use crate::grant::{HttpRule, Origin};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest host name, characters (RFC 1035 §2.3.4).
const HOST_LEN_MAX: usize = 253;

/// Reads `https://host[:port]`, host possibly beginning with `*.`.
pub fn parse_origin(text: &str) -> Option<Origin> {
    let (https, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (_, Some(rest)) => (false, rest),
        _ => return None,
    };
    let (wild, rest) = rest.strip_prefix("*.").map_or((false, rest), |rest| (true, rest));
    let (host, port) = parse_authority(rest, https)?;
    if wild && host.parse::<IpAddr>().is_ok() {
        return None;
    }
    let host = if wild { format!("*.{host}") } else { host };
    Some(Origin { https, host, port })
}

/// Reads `host[:port]` as a guest gives it: no user information, no path, one spelling of the host. The host comes back
/// in lower case, an IPv6 address without brackets.
pub fn parse_authority(text: &str, https: bool) -> Option<(String, u16)> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        (host.parse::<Ipv6Addr>().ok()?.to_string(), after)
    } else {
        let end = text.find(':').unwrap_or(text.len());
        let (host, after) = text.split_at_checked(end)?;
        (parse_host(host)?, after)
    };
    let port = match port.strip_prefix(':') {
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok()?,
        None if port.is_empty() && https => 443,
        None if port.is_empty() => 80,
        _ => return None,
    };
    (port != 0).then_some((host, port))
}

/// A DNS name or a dotted-quad IPv4 address, in lower case.
fn parse_host(host: &str) -> Option<String> {
    if host.is_empty() || host.len() > HOST_LEN_MAX {
        return None;
    }
    let host = host.to_ascii_lowercase();
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if !host.split('.').all(label) {
        return None;
    }
    // A last label that is a number, decimal or hexadecimal, makes the whole an IPv4 address to resolvers (WHATWG URL
    // §3.5): then only the canonical dotted quad is taken.
    let last = host.rsplit('.').next().unwrap_or_default();
    let hexadecimal = last
        .strip_prefix("0x")
        .is_some_and(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
    if hexadecimal || last.bytes().all(|b| b.is_ascii_digit()) {
        return host.parse::<Ipv4Addr>().ok().map(|address| address.to_string());
    }
    Some(host)
}

/// Whether one origin of a document covers a destination.
fn covers(origin: &Origin, https: bool, host: &str, port: u16) -> bool {
    let host_fits = match origin.host.strip_prefix("*.") {
        Some(parent) => host
            .strip_suffix(parent)
            .is_some_and(|sub| sub.len() > 1 && sub.ends_with('.')),
        None => origin.host == host,
    };
    origin.https == https && origin.port == port && host_fits
}

/// What two origins have in common: the narrower one, since one of two overlapping origins always holds the other.
pub fn common(a: &Origin, b: &Origin) -> Option<Origin> {
    let within = |wide: &Origin, narrow: &Origin| match narrow.host.strip_prefix("*.") {
        // Only a wildcard holds a wildcard: that of the same parent, or of one further up.
        Some(parent) => {
            wide == narrow || (wide.host.starts_with("*.") && covers(wide, narrow.https, parent, narrow.port))
        }
        None => covers(wide, narrow.https, &narrow.host, narrow.port),
    };
    if within(a, b) {
        Some(b.clone())
    } else {
        within(b, a).then(|| a.clone())
    }
}

/// Whether a rule admits a connection: one `allow` of each layer, no `deny` of any. `host` as [`parse_authority`] gave it.
pub fn admits_connection(rule: &HttpRule, https: bool, host: &str, port: u16) -> bool {
    !rule.allow.is_empty()
        && rule
            .allow
            .iter()
            .all(|layer| layer.iter().any(|origin| covers(origin, https, host, port)))
        && !rule.deny.iter().any(|origin| covers(origin, https, host, port))
}

/// Whether a rule admits a whole request.
pub fn admits(rule: &HttpRule, method: &str, https: bool, host: &str, port: u16, path: &str) -> bool {
    admits_connection(rule, https, host, port)
        && rule.methods.iter().any(|allowed| allowed == method)
        && rule
            .paths
            .iter()
            .all(|layer| layer.iter().any(|pattern| path_matches(pattern, path)))
}

/// `*` matches within one segment; a final `/...` everything below. A path with dot segments, empty inner segments, escapes
/// of `/`, `.` or `%`, or a backslash matches nothing: the upstream could read it otherwise.
pub fn path_matches(pattern: &str, path: &str) -> bool {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    if !is_path(path) {
        return false;
    }
    let (pattern, below) = pattern
        .strip_suffix("/...")
        .map_or((pattern, false), |prefix| (prefix, true));
    let mut wanted = pattern.split('/');
    let mut given = path.split('/');
    loop {
        match (wanted.next(), given.next()) {
            (Some(pattern), Some(segment)) if segment_matches(pattern, segment) => {}
            (None, rest) => return below || rest.is_none(),
            _ => return false,
        }
    }
}

/// Whether a path has one reading: absolute, without dot segments, empty inner segments or escapes that could become them.
pub fn is_path(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    // Path parameters are cut by some servers before dot segments are resolved: `..;x` is `..` to them.
    let dots = |segment: &str| matches!(segment.split(';').next(), Some("." | ".."));
    path.starts_with('/')
        && !path.contains('\\')
        && !path.chars().any(char::is_control)
        && !["%2e", "%2f", "%5c", "%25", "%00"]
            .iter()
            .any(|escape| lower.contains(escape))
        && !path.contains("//")
        && !path.split('/').any(dots)
}

/// Whether a text is a pattern for [`path_matches`].
pub fn is_path_pattern(pattern: &str) -> bool {
    let path = pattern.strip_suffix("/...").unwrap_or(pattern);
    (path.is_empty() && pattern == "/...")
        || (is_path(path) && !path.contains(['?', '#']) && !path.contains("..."))
}

/// `*` matches any run of characters inside the segment.
fn segment_matches(pattern: &str, segment: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = segment.strip_prefix(first) else {
        return false;
    };
    let mut last = None;
    for part in parts {
        if let Some(previous) = last.replace(part) {
            let Some((_, after)) = rest.split_once::<&str>(previous) else {
                return false;
            };
            rest = after;
        }
    }
    match last {
        None => rest.is_empty(),
        Some(tail) => rest.ends_with(tail),
    }
}

/// What kind of address it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reach {
    /// Public unicast.
    Public,
    /// RFC 1918 or RFC 4193: only where every document says so.
    Private,
    /// Never: loopback, link-local, multicast, unspecified, carrier NAT, documentation, translation prefixes …
    Special,
}

/// Classifies an address; spellings that embed an IPv4 address are judged by the address inside (IANA special-purpose
/// registries, RFC 6890).
pub fn reach(address: IpAddr) -> Reach {
    match address {
        IpAddr::V4(address) => reach_v4(address),
        IpAddr::V6(address) => reach_v6(address),
    }
}

/// The address a spelling leads to: the IPv4 address inside an IPv6 one that carries it, else the address itself. Two addresses are the
/// same place exactly when this says the same of both.
pub fn meant(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => embedded(v6).map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    }
}

/// Whether an address may be dialled.
pub fn address_allowed(address: IpAddr, private: bool) -> bool {
    match reach(address) {
        Reach::Public => true,
        Reach::Private => private,
        Reach::Special => false,
    }
}

fn reach_v4(address: Ipv4Addr) -> Reach {
    let [a, b, c, _] = address.octets();
    let special = a == 0
        || a >= 224
        || address.is_loopback()
        || address.is_link_local()
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && (c == 0 || c == 2))
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (b == 18 || b == 19))
        || (a == 198 && b == 51 && c == 100)
        || (a == 203 && b == 0 && c == 113)
        // The wire server of one large cloud answers here, outside every special range.
        || address == Ipv4Addr::new(168, 63, 129, 16);
    if special {
        Reach::Special
    } else if address.is_private() {
        Reach::Private
    } else {
        Reach::Public
    }
}

/// IPv4-compatible and IPv4-mapped (RFC 4291 §2.5.5), NAT64 (RFC 6052) and 6to4 (RFC 3056) carry an IPv4 address: what it is inside, it
/// is outside. `::` and `::1` are no spellings of `0.0.0.0` and `0.0.0.1`, and special either way.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => Some(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low))),
        _ => None,
    }
}

fn reach_v6(address: Ipv6Addr) -> Reach {
    if let Some(inside) = embedded(address) {
        return reach_v4(inside);
    }
    match address.segments() {
        // The rest of 64:ff9b::/48 and up, Teredo and other protocol assignments, documentation, discard.
        [0x64 | 0x100 | 0x3fff | 0x5f00, ..] | [0x2001, 0..=0x1ff | 0xdb8, ..] => Reach::Special,
        [first, ..] if (first & 0xfe00) == 0xfc00 => Reach::Private,
        // Global unicast is 2000::/3; everything else is link-local, site-local, multicast or unassigned.
        [first, ..] if (first & 0xe000) == 0x2000 => Reach::Public,
        _ => Reach::Special,
    }
}

#[cfg(test)]
mod tests;
