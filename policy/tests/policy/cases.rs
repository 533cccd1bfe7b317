//! A table of files: `policies/cases/<case>/{ask,fleet,device}.toml` come to `grant.json` or `denied.txt`. A new case needs no
//! Rust; `REDAN_WRITE_CASES=1` writes the outcome of a case that has none, for a person to read before it is committed.

use redan_policy::{EffectiveGrant, intersect, parse_ask, parse_device, parse_fleet};
use std::fs;
use std::path::{Path, PathBuf};

fn policies() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies")
}

/// What the three documents of a folder come to, as `grant.json` or `denied.txt` says it.
fn outcome(case: &Path) -> (&'static str, String) {
    let read = |name: &str| fs::read_to_string(case.join(name)).unwrap();
    let parsed = parse_ask("ask.toml", &read("ask.toml")).and_then(|ask| {
        let fleet = parse_fleet("fleet.toml", &read("fleet.toml"))?;
        Ok((ask, fleet, parse_device("device.toml", &read("device.toml"))?))
    });
    let (ask, fleet, device) = match parsed {
        Ok(documents) => documents,
        Err(error) => return ("denied.txt", format!("policy-invalid\n{error}\n")),
    };
    match intersect(&ask, &fleet, &device) {
        Ok(grant) => {
            let bytes = grant.canonical_json();
            assert_eq!(
                EffectiveGrant::from_canonical_json(&bytes),
                Ok(grant),
                "{}",
                case.display()
            );
            let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
            (
                "grant.json",
                format!("{}\n", serde_json::to_string_pretty(&value).unwrap()),
            )
        }
        Err(denied) => (
            "denied.txt",
            format!("{}\n{denied}\n{}\n", denied.code(), denied.change()),
        ),
    }
}

/// Holds one case against what is written.
fn check(case: &Path) {
    let (name, text) = outcome(case);
    let other = if name == "grant.json" {
        "denied.txt"
    } else {
        "grant.json"
    };
    let case_name = case.display();
    assert!(
        !case.join(other).exists(),
        "{case_name}: expected {other}, came to {name}:\n{text}"
    );
    let path = case.join(name);
    if !path.exists() && std::env::var_os("REDAN_WRITE_CASES").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let wanted =
        fs::read_to_string(&path).unwrap_or_else(|_| panic!("{case_name}: no {name}; it came to:\n{text}"));
    assert_eq!(text, wanted, "{case_name}");
}

#[test]
fn every_case_comes_to_what_is_written() {
    let mut cases: Vec<PathBuf> = fs::read_dir(policies().join("cases"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    cases.sort();
    assert!(cases.len() >= 20, "only {} cases found", cases.len());
    for case in cases {
        check(&case);
    }
}

#[test]
fn the_demonstration_documents_grant_what_its_components_need() {
    let read = |name: &str| fs::read_to_string(policies().join(name)).unwrap();
    let fleet = parse_fleet("fleet/demo.toml", &read("fleet/demo.toml")).unwrap();
    let device = parse_device("device/demo.toml", &read("device/demo.toml")).unwrap();
    for name in ["ask/thermo.toml", "ask/tick.toml"] {
        let ask = parse_ask(name, &read(name)).unwrap();
        let grant = intersect(&ask, &fleet, &device).unwrap();
        assert_eq!(grant.denied_optional, Vec::<String>::new(), "{name}");
    }
    let fleet = parse_fleet("fleet/messages.toml", &read("fleet/messages.toml")).unwrap();
    let device = parse_device("device/messages.toml", &read("device/messages.toml")).unwrap();
    for name in ["ask/alarm.toml", "ask/uploader.toml"] {
        let ask = parse_ask(name, &read(name)).unwrap();
        let grant = intersect(&ask, &fleet, &device).unwrap();
        assert_eq!(grant.denied_optional, Vec::<String>::new(), "{name}");
        assert_eq!(grant.messages.outbox.len(), 1, "{name}");
    }
}
