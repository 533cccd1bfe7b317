//! The JSON Schema for editors names the keys the parser knows, no more and no fewer.

use redan_policy::{PolicyError, parse_ask, parse_device, parse_fleet};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The keys the parser says it expects in a table, asked with a key that exists nowhere.
fn parsed(section: &[String], tables: &[bool]) -> BTreeSet<String> {
    let head = "schema = \"redan.policy/1\"\nkind = \"ask\"\n";
    // In a table of an array, deeper tables are reached by dotted keys.
    let (outer, inner) = section.split_at(tables.iter().rposition(|array| *array).map_or(0, |at| at + 1));
    let header = if outer.is_empty() {
        String::new()
    } else {
        format!("[[{}]]", outer.join("."))
    };
    let key = [inner, &["nowhere".to_owned()]].concat().join(".");
    let body = format!("{head}{header}\n{key} = 1\n");
    let Err(PolicyError::Syntax { what, .. }) = parse_ask("a", &body) else {
        panic!("{body} was taken");
    };
    assert!(what.starts_with("unknown field `nowhere`"), "{body}: {what}");
    what.split('`').skip(3).step_by(2).map(str::to_owned).collect()
}

fn compare(schema: &Value, section: &[String], tables: &[bool]) {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        return;
    };
    let described: BTreeSet<String> = properties.keys().cloned().collect();
    assert_eq!(described, parsed(section, tables), "[{}]", section.join("."));
    for (name, inner) in properties {
        let array = inner.get("items").is_some();
        let inner = inner.get("items").unwrap_or(inner);
        let step = |steps: &[String]| [steps, std::slice::from_ref(name)].concat();
        compare(inner, &step(section), &[tables, &[array]].concat());
    }
}

fn policies() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies")
}

fn schema() -> Value {
    serde_json::from_slice(&std::fs::read(policies().join("redan.policy.1.schema.json")).unwrap()).unwrap()
}

#[test]
fn the_json_schema_and_the_parser_know_the_same_keys() {
    compare(&schema(), &[], &[]);
}

/// What the parser of a document's own kind says.
fn parse(text: &str) -> Result<(), PolicyError> {
    if text.contains("kind = \"ask\"") {
        parse_ask("a", text).map(drop)
    } else if text.contains("kind = \"fleet\"") {
        parse_fleet("f", text).map(drop)
    } else {
        parse_device("d", text).map(drop)
    }
}

/// A document as an editor's tools hand it to the schema. `None`: it is not even TOML.
fn value(text: &str) -> Option<Value> {
    serde_json::to_value(toml::from_str::<toml::Table>(text).ok()?).ok()
}

#[test]
fn every_document_that_is_read_is_valid_by_the_schema() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    let mut files: Vec<PathBuf> = ["ask", "fleet", "device"]
        .map(|kind| policies().join(kind))
        .to_vec();
    files.extend(
        std::fs::read_dir(policies().join("cases"))
            .unwrap()
            .map(|case| case.unwrap().path()),
    );
    let mut read = 0;
    for file in files.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap()) {
        let path = file.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        if path.extension().is_some_and(|extension| extension == "toml") && parse(&text).is_ok() {
            let document = value(&text).unwrap();
            let wrong: Vec<String> = validator.iter_errors(&document).map(|e| e.to_string()).collect();
            assert!(wrong.is_empty(), "{}: {wrong:?}", path.display());
            read += 1;
        }
    }
    assert!(read > 100, "only {read} documents were read");
}

const ASK: &str = "schema = \"redan.policy/1\"\nkind = \"ask\"\n[subject]\nname = \"acme/thermo\"\nversion = \"1.0.0\"\nworld = \"wasi:http/proxy@0.2\"\n";
const FLEET: &str = "schema = \"redan.policy/1\"\nkind = \"fleet\"\nserial = 1\n";
const DEVICE: &str = "schema = \"redan.policy/1\"\nkind = \"device\"\nhardware = \"gateway\"\n";

/// What each document is broken by, after its head.
const BROKEN: &[(&str, &str)] = &[
    (ASK, "surprise = 1\n"),
    (ASK, "[limits]\nmemory_totl = \"8MiB\"\n"),
    (ASK, "[limits]\nmemory_total = \"8MB\"\n"),
    (ASK, "[limits]\nhandles = \"many\"\n"),
    (ASK, "[limits]\nwall = { call = \"1.5s\" }\n"),
    (ASK, "[health]\nmax_error_rate = \"5\"\n"),
    (ASK, "[[kv]]\nlabel = \"../../other\"\n"),
    (ASK, "[[fs]]\nname = \"a\"\nmode = \"wr\"\n"),
    (ASK, "[[fs]]\nname = \"a\"\nmode = \"rw\"\nhost = \"/etc\"\n"),
    (
        ASK,
        "[[net.http]]\nid = \"a\"\nallow = [\"ftp://a\"]\nmethods = [\"GET\"]\n",
    ),
    (ASK, "[[net.http]]\nid = \"a\"\nallow = []\nmethods = [\"GET\"]\n"),
    (ASK, "[[net.http]]\nid = \"a\"\nallow = [\"https://a.example\"]\n"),
    (
        ASK,
        "[[net.http]]\nid = \"a\"\nallow = [\"https://a.example\"]\nmethods = [\"get\"]\n",
    ),
    (
        ASK,
        "[[net.http]]\nid = \"a\"\nallow = [\"https://a.example\"]\nmethods = [\"GET\"]\ntls = { min = \"1.2\" }\n",
    ),
    (
        ASK,
        "[[net.http]]\nid = \"a\"\nallow = [\"https://a.example\"]\nmethods = [\"GET\"]\ntls = { roots = \"none\" }\n",
    ),
    (ASK, "[env]\nallow = [\"TZ\"]\nvalues = { TZ = \"UTC\" }\n"),
    (ASK, "[listen]\n\"acme/thermo\" = \"127.0.0.1:1\"\n"),
    (ASK, "[floors]\n\"acme/thermo\" = 1\n"),
    (ASK, "[secrets]\nfiles = { \"acme/token\" = \"/token\" }\n"),
    (ASK, "[bundles]\nca = \"-----BEGIN CERTIFICATE-----\"\n"),
    (ASK, "[stale]\nmax_age = \"1d\"\n"),
    (ASK, "[report]\nevents = [\"state\"]\n"),
    (ASK, "[runtime]\nmin = \"1.0.0\"\n"),
    (ASK, "[upgrade]\nstrategy = \"whenever\"\n"),
    (FLEET, "[require]\nprovenance = \"slsa>=2\"\n"),
    (FLEET, "[revoke]\nmin_version = { \"acme/thermo\" = \"1\" }\n"),
    (FLEET, "[revoke]\nmin_version = { thermo = \"1.0.0\" }\n"),
    (FLEET, "[stale]\nafter = \"stop\"\n"),
    (FLEET, "[stale]\nmax_age = \"1d\"\nafter = \"explode\"\n"),
    (FLEET, "[report]\nevents = [\"counters\"]\n"),
    (FLEET, "[bundles]\nca = \"none\"\n"),
    (FLEET, "[secrets]\ninject = []\nfiles = { \"acme/a\" = \"/a\" }\n"),
    (FLEET, "[[kv]]\nlabel = \"a\"\nrequired = true\n"),
    (FLEET, "[[trigger.timer]]\nevery = \"1s\"\njitter = \"1s\"\n"),
    (FLEET, "[subject]\nname = \"acme/thermo\"\n"),
    (DEVICE, "[secrets]\nuse = [\"acme/token\"]\n"),
    (DEVICE, "[secrets]\nfiles = { \"acme/token\" = \"token\" }\n"),
    (DEVICE, "[require]\nask_signed_within = \"1d\"\n"),
    (
        DEVICE,
        "[revoke]\nmin_version = { \"acme/thermo\" = \"1.0.0\" }\n",
    ),
    (DEVICE, "[subject]\nworlds = [\"wasi:http/proxy@0.2\"]\n"),
    (DEVICE, "[runtime]\nmin = \"1.0.0\"\n"),
    (ASK, "[runtime]\nwasi_0_3 = true\n"),
    (FLEET, "[runtime]\nwasi_0_3 = false\n"),
];

#[test]
fn what_is_broken_is_refused_by_the_schema_and_by_the_parser() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    for whole in [ASK, FLEET, DEVICE] {
        assert!(
            parse(whole).is_ok() && validator.is_valid(&value(whole).unwrap()),
            "{whole}"
        );
    }
    for (head, broken) in BROKEN {
        let text = format!("{head}{broken}");
        assert!(parse(&text).is_err(), "the parser takes {broken}");
        assert!(
            !validator.is_valid(&value(&text).unwrap()),
            "the schema takes {broken}"
        );
    }
}
