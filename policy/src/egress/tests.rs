//! One table of spellings that must not slip past, and the few that must pass.

use super::*;
use crate::grant::NetBudget;

fn rule(origin: &str, paths: &[&str]) -> HttpRule {
    HttpRule {
        id: "cloud".into(),
        allow: vec![vec![parse_origin(origin).unwrap()]],
        deny: vec![parse_origin("https://admin.acme.example").unwrap()],
        methods: vec!["POST".into()],
        paths: vec![paths.iter().map(|path| (*path).to_owned()).collect()],
        private_addresses: false,
        roots: crate::grant::Roots::Public,
        budget: NetBudget::default(),
    }
}

/// What a guest could write to reach `127.0.0.1`, `169.254.169.254` or a private host under another name.
const BYPASSES: &[&str] = &[
    "127.1",
    "127.0.1",
    "127.000.000.001",
    "0177.0.0.1",
    "0x7f.0.0.1",
    "0x7f000001",
    "2130706433",
    "017700000001",
    "0",
    "0x0",
    "127.0.0.1.",
    "127.0.0.1%00",
    "localhost.",
    "localhost%2e",
    "user@api.acme.example",
    "user:pass@api.acme.example",
    "api.acme.example@127.0.0.1",
    "api.acme.example:443@127.0.0.1",
    "api.acme.example#@127.0.0.1",
    "api.acme.example/",
    "api.acme.example?x",
    "api.acme.example\\@127.0.0.1",
    "api.acme.example:",
    "api.acme.example:0",
    "api.acme.example:65536",
    "api.acme.example:+443",
    "api.acme.example: 443",
    "api.acme.example:443:443",
    "api..acme.example",
    ".api.acme.example",
    "-api.acme.example",
    "api-.acme.example",
    "api.acme.example\0",
    "api.acme.example\r\nhost: x",
    " api.acme.example",
    "api.acme.example ",
    "ápi.acme.example",
    "127。0。0。1",
    "①②⑦.0.0.1",
    "[127.0.0.1]",
    "[::1",
    "::1",
    "[::1%lo]",
    "[::1]x",
    "169.254.169.254.",
    "2852039166",
    "0xa9fea9fe",
    "0251.0376.0251.0376",
    "169.254.43518",
    "1.2.3",
    "1.2.3.4.5",
    "256.1.1.1",
    "0x1",
    "example.0x1",
    "example.1",
    "127.0.0.1\t",
    "127.0.0.1,api.acme.example",
    "api.acme.example;127.0.0.1",
    "api.acme.example&127.0.0.1",
    "0x7f.1",
    "00000177.1",
    "169.254.169.254.nip.io.",
    "[::ffff:127.0.0.1]@api.acme.example",
    "xn--",
    "api.acme.example%2f",
    "api%2eacme.example",
    "//api.acme.example",
    "https://api.acme.example",
    "",
];

/// Addresses that are never dialled, whatever a policy says.
const SPECIAL: &[&str] = &[
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",
    "0.1.2.3",
    "169.254.169.254",
    "169.254.0.1",
    "100.64.0.1",
    "100.127.255.255",
    "192.0.0.8",
    "192.0.2.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "168.63.129.16",
    "192.88.99.1",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::127.0.0.1",
    "64:ff9b:1::1",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::",
    "2001::1",
    "2001:db8::1",
    "100::1",
    "fe80::1",
    "fec0::1",
    "ff02::1",
    "3fff::1",
    "5f00::1",
    "4000::1",
];

#[test]
fn no_other_spelling_of_a_host_is_read() {
    for text in BYPASSES {
        assert_eq!(parse_authority(text, true), None, "{text:?}");
    }
    assert!(BYPASSES.len() >= 60, "a table of {} spellings", BYPASSES.len());
}

#[test]
fn special_addresses_are_never_dialled() {
    for text in SPECIAL {
        let address = text.parse().unwrap();
        assert_eq!(reach(address), Reach::Special, "{text}");
        assert!(!address_allowed(address, true), "{text}");
    }
}

#[test]
fn private_addresses_need_the_policy_and_public_ones_do_not() {
    for text in [
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "fd00::1",
        "::ffff:10.0.0.1",
        "64:ff9b::10.0.0.1",
    ] {
        let address = text.parse().unwrap();
        assert!(!address_allowed(address, false), "{text}");
        assert!(address_allowed(address, true), "{text}");
    }
    for text in ["1.1.1.1", "172.32.0.1", "2606:4700::1111", "64:ff9b::1.1.1.1"] {
        assert!(address_allowed(text.parse().unwrap(), false), "{text}");
    }
}

#[test]
fn an_authority_is_read_in_its_one_spelling() {
    assert_eq!(
        parse_authority("API.Acme.Example", true),
        Some(("api.acme.example".into(), 443))
    );
    assert_eq!(
        parse_authority("api.acme.example:8443", true),
        Some(("api.acme.example".into(), 8443))
    );
    assert_eq!(parse_authority("1.2.3.4", false), Some(("1.2.3.4".into(), 80)));
    assert_eq!(
        parse_authority("[2606:4700::1111]:443", true),
        Some(("2606:4700::1111".into(), 443))
    );
}

#[test]
fn only_what_every_layer_admits_and_none_denies_passes() {
    let rule = rule("https://*.acme.example", &["/v1/readings/*"]);
    let admits = |method, https, host, port, path| admits(&rule, method, https, host, port, path);
    assert!(admits(
        "POST",
        true,
        "api.acme.example",
        443,
        "/v1/readings/7?x=1"
    ));
    assert!(!admits("GET", true, "api.acme.example", 443, "/v1/readings/7"));
    assert!(!admits("POST", false, "api.acme.example", 443, "/v1/readings/7"));
    assert!(!admits("POST", true, "api.acme.example", 8443, "/v1/readings/7"));
    assert!(!admits("POST", true, "acme.example", 443, "/v1/readings/7"));
    assert!(!admits("POST", true, "evilacme.example", 443, "/v1/readings/7"));
    assert!(!admits(
        "POST",
        true,
        "api.acme.example.evil",
        443,
        "/v1/readings/7"
    ));
    assert!(!admits("POST", true, "admin.acme.example", 443, "/v1/readings/7"));
    for path in [
        "/v1/readings",
        "/v1/readings/7/8",
        "/v1/readings/..",
        "/v1/readings/%2e%2e",
        "/v1/readings/a%2fb",
        "/v1/readings/a\\b",
        "/v1//readings/7",
        "/v1/readings/%252e",
        "v1/readings/7",
        "",
    ] {
        assert!(!admits("POST", true, "api.acme.example", 443, path), "{path:?}");
    }
}

#[test]
fn a_rule_without_origins_admits_nothing() {
    let mut rule = rule("https://api.acme.example", &["/..."]);
    rule.allow.clear();
    assert!(!admits(&rule, "POST", true, "api.acme.example", 443, "/"));
    rule.allow = vec![vec![]];
    assert!(!admits(&rule, "POST", true, "api.acme.example", 443, "/"));
}

#[test]
fn path_patterns_match_within_their_segments() {
    for (pattern, path, matches) in [
        ("/a/*", "/a/b", true),
        ("/a/*", "/a/b/c", false),
        ("/a/...", "/a/b/c", true),
        ("/a/...", "/a", true),
        ("/a/...", "/ab", false),
        ("/...", "/anything/at/all", true),
        ("/a/x*y", "/a/x123y", true),
        ("/a/x*y", "/a/x123", false),
        ("/a/*b*c", "/a/1b2c", true),
        ("/a/*b*c", "/a/1c2b", false),
        ("/a", "/a/", false),
    ] {
        assert_eq!(path_matches(pattern, path), matches, "{pattern} {path}");
    }
}
