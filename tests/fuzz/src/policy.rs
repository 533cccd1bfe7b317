//! Policy documents, grants, destinations and components.

use crate::Target;
use redan_benches::fleet::{ASK_JOB, ASK_SERVICE, CEILING, POLICY, grant};
use redan_policy::grant::{EffectiveGrant, HttpRule, NetBudget};
use redan_policy::{
    Ask, DeviceCeiling, FleetPolicy, egress, intersect, parse_ask, parse_device, parse_fleet,
};
use redan_publish::component;
use std::sync::OnceLock;

/// The documents of the demonstration, parsed once.
fn honest() -> &'static (Ask, FleetPolicy, DeviceCeiling) {
    static HONEST: OnceLock<(Ask, FleetPolicy, DeviceCeiling)> = OnceLock::new();
    HONEST.get_or_init(|| {
        (
            parse_ask("ask.toml", ASK_SERVICE).unwrap(),
            parse_fleet("fleet.toml", POLICY).unwrap(),
            parse_device("device.toml", CEILING).unwrap(),
        )
    })
}

pub(crate) const DOCUMENTS: Target = Target {
    name: "policy",
    seeds: || {
        [ASK_SERVICE, ASK_JOB, POLICY, CEILING]
            .map(|text| text.as_bytes().to_vec())
            .into()
    },
    run: documents,
    mutations: 4_000,
};

/// A document that parses takes part in an intersection, whose grant reads back, and asking again for what was granted changes nothing.
/// An error says which line.
fn documents(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else {
        return false;
    };
    let (ask, fleet, device) = honest();
    let (asked, allowed, ceiling) = (
        parse_ask("ask.toml", text),
        parse_fleet("fleet.toml", text),
        parse_device("device.toml", text),
    );
    for error in [
        asked.as_ref().err(),
        allowed.as_ref().err(),
        ceiling.as_ref().err(),
    ]
    .into_iter()
    .flatten()
    {
        assert!(
            error.to_string().contains(".toml"),
            "an error names its file: {error}"
        );
    }
    let mut accepted = false;
    if let Ok(asked) = &asked {
        accepted = true;
        granted(asked, fleet, device);
    }
    if let Ok(allowed) = &allowed {
        accepted = true;
        granted(ask, allowed, device);
    }
    if let Ok(ceiling) = &ceiling {
        accepted = true;
        granted(ask, fleet, ceiling);
    }
    accepted
}

fn granted(ask: &Ask, fleet: &FleetPolicy, device: &DeviceCeiling) {
    if let Ok(grant) = intersect(ask, fleet, device) {
        let read = EffectiveGrant::from_canonical_json(&grant.canonical_json()).expect("a grant reads back");
        assert_eq!(read, grant);
        assert_eq!(read.digest(), grant.digest());
    }
}

pub(crate) const GRANT: Target = Target {
    name: "grant",
    seeds: || {
        [ASK_SERVICE, ASK_JOB]
            .map(|ask| grant(ask).unwrap().canonical_json())
            .into()
    },
    run: effective_grant,
    mutations: 6_000,
};

/// What the executor reads is what would be hashed.
fn effective_grant(input: &[u8]) -> bool {
    let Ok(grant) = EffectiveGrant::from_canonical_json(input) else {
        return false;
    };
    let again = EffectiveGrant::from_canonical_json(&grant.canonical_json()).expect("a grant reads back");
    assert_eq!(again, grant);
    true
}

pub(crate) const EGRESS: Target = Target {
    name: "egress",
    seeds: || {
        [
            "https://api.example:8443\napi.example:8443\n/v1/readings",
            "https://*.example\nA.Example\n/a//b",
            "http://127.0.0.1:1\n[::ffff:127.0.0.1]:1\n/%2e%2e/",
            "https://xn--bcher-kva.example\n0x7f.1\n/../x",
        ]
        .map(|text| text.as_bytes().to_vec())
        .into()
    },
    run: destination,
    mutations: 20_000,
};

/// Three lines: an origin of a policy, what a guest gives as authority, and a path. One spelling comes out of each, and a rule admits
/// only what begins with it.
fn destination(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else {
        return false;
    };
    let mut lines = text.splitn(3, '\n');
    let mut line = || lines.next().unwrap_or_default();
    let (origin, authority, path) = (line(), line(), line());
    let parsed = egress::parse_authority(authority, true);
    if let Some((host, port)) = &parsed {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-_:".contains(c);
        assert!(host.chars().all(plain), "{host:?} is no spelling of ours");
        let shown = if host.contains(':') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        };
        assert_eq!(
            egress::parse_authority(&shown, true).as_ref(),
            Some(&(host.clone(), *port))
        );
    }
    let origin = egress::parse_origin(origin);
    if let (Some(origin), Some((host, port))) = (&origin, &parsed) {
        let rule = HttpRule {
            id: "any".into(),
            allow: vec![vec![origin.clone()]],
            deny: Vec::new(),
            methods: Vec::new(),
            paths: Vec::new(),
            private_addresses: false,
            roots: redan_policy::grant::Roots::Public,
            budget: NetBudget::default(),
        };
        if egress::admits_connection(&rule, origin.https, host, *port) {
            assert_eq!(*port, origin.port);
            let within = match origin.host.strip_prefix('*') {
                Some(parent) => host.ends_with(parent) && host.len() > parent.len(),
                None => *host == origin.host,
            };
            assert!(within, "{host} is not within {}", origin.host);
            assert!(!egress::admits_connection(&rule, !origin.https, host, *port));
        }
        let denied = HttpRule {
            deny: vec![origin.clone()],
            ..rule
        };
        assert!(!egress::admits_connection(&denied, origin.https, host, *port));
    }
    if egress::path_matches("/a/...", path) {
        // What follows is the upstream's to read; it cannot lead elsewhere.
        let path = path.split(['?', '#']).next().unwrap_or_default();
        assert!(
            path == "/a" || path.starts_with("/a/"),
            "{path:?} is not below /a"
        );
        let elsewhere = |segment: &str| segment == ".." || segment.to_ascii_lowercase().contains("%2e");
        assert!(!path.split('/').any(elsewhere), "{path:?} may mean another path");
    }
    origin.is_some() || parsed.is_some()
}

pub(crate) const COMPONENT: Target = Target {
    name: "component",
    seeds: || {
        [
            "(component)",
            "(component (import \"wasi:config/store@0.2.0-rc.1\" (instance)) (core module (func)) (component))",
            "(component (core module $m (func (export \"f\") (result i32) i32.const 1)) (core instance $i (instantiate $m))
               (func (export \"f\") (result u32) (canon lift (core func $i \"f\"))))",
        ]
        .map(|text| wat::parse_str(text).unwrap())
        .into()
    },
    run: admitted,
    mutations: 6_000,
};

/// What is admitted is a component, whole, and imports only what its ask covers.
fn admitted(input: &[u8]) -> bool {
    let Ok(found) = component::inspect(input) else {
        assert!(
            component::check(input, &honest().0).is_err(),
            "a check takes no more than an inspection"
        );
        return false;
    };
    assert_eq!(input.get(..4), Some(b"\0asm".as_slice()));
    assert_eq!(
        input.get(4..8),
        Some([0x0d, 0, 1, 0].as_slice()),
        "only components are admitted"
    );
    if let Ok(checked) = component::check(input, &honest().0) {
        assert_eq!(checked, found);
    }
    true
}
