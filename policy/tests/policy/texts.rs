//! What people read: errors and explanations, word for word.

use crate::documents::{ask, device, fleet};
use redan_policy::{explain, parse_ask, parse_device, parse_fleet};
use std::path::Path;

#[test]
fn errors_name_file_line_and_what_to_write() {
    let head = "schema = \"redan.policy/1\"\nkind = \"ask\"\n[subject]\nname = \"acme/thermo\"\nversion = \"1.0.0\"\nworld = \"wasi:http/proxy@0.2\"\n";
    let mut said = Vec::new();
    for body in [
        "[limits]\nmemory_totl = \"8MiB\"\n",
        "[limits]\nmemory_total = \"8MB\"\n",
        "[limits]\nhandles = 1\nhandles = 2\n",
        "[limits]\nwall = { call = \"1.5s\" }\n",
        "[[kv]]\nlabel = \"../../other\"\n",
        "[[fs]]\nname = \"..\"\nmode = \"rw\"\n",
        "[[fs]]\nname = \"a\"\nmode = \"rw\"\nguest = \"/a/../etc\"\n",
        "[[fs]]\nname = \"a\"\nmode = \"rw\"\nhost = \"/etc\"\n",
        "[[fs]]\nname = \"a\"\nmode = \"wr\"\n",
        "[[kv]]\nlabel = \"a\"\n[[kv]]\nlabel = \"a\"\n",
        "[[net.http]]\nid = \"a\"\nallow = [\"https://user@a.example\"]\nmethods = [\"GET\"]\n",
        "[[net.http]]\nid = \"a\"\nallow = [\"https://0x7f.1\"]\nmethods = [\"GET\"]\n",
        "[[net.http]]\nid = \"a\"\nallow = [\"https://a.example\"]\nmethods = [\"get\"]\n",
        "[[net.http]]\nid = \"a\"\nallow = [\"https://a.example\"]\nmethods = [\"GET\"]\npaths = [\"/a/.../b\"]\n",
        "[[trigger.http]]\nroute = \"thermo\"\nmethods = [\"GET\"]\n",
        "[[trigger.timer]]\nevery = \"0s\"\n",
        "[env]\nallow = [\"TZ\"]\nvalues = { TZ = \"UTC\" }\n",
        "[listen]\n\"acme/thermo\" = \"127.0.0.1:1\"\n",
        "[floors]\n\"acme/thermo\" = 1\n",
        "[limits]\ncpu = { share = \"0%\" }\n",
        "[require]\nisolation = [\"landlock\"]\n",
        "[totals]\nmemory = \"1GiB\"\n",
        "[[fs]]\nname = \"a\"\nmode = \"rw\"\nquota = { ops = \"1/s\" }\n",
        "[limits\nhandles = 1\n",
        "[limits]\nhandles = many\n",
        "[limits]\nhandles = \"many\"\n",
        "[upgrade]\nstrategy = \"stop-strat\"\n",
        "[upgrade]\nstrategy = \"whenever\"\n",
        "[telemetry]\nall = true\n",
        "[[net.http]]\nid = \"a\"\nallow = [\"https://a.example\"]\nmethods = [\"GET\"]\ntls = { min = \"1.2\" }\n",
        "[[net.http]]\nid = \"a\"\nallow = [\"https://a.example\"]\nmethods = [\"GET\"]\ntls = { roots = \"none\" }\n",
        "[[net.http]]\nid = \"a\"\nallow = [\"http://a.example\"]\nmethods = [\"GET\"]\ntls = { roots = \"webpki\" }\n",
        "[bundles]\nca = \"\"\n",
        "[secrets]\nuse = [\"token\"]\n",
        "[secrets]\nuse = [\"acme/token\"]\n",
        "[secrets]\ninject = [{ secret = \"token\", net = \"a\", header = \"authorization\" }]\n",
        "[secrets]\nuse = [\"token\"]\ninject = [{ secret = \"token\", net = \"a\", header = \"authorization\" }]\n",
        "[secrets]\nfiles = { \"acme/token\" = \"/token\" }\n",
        "[revoke]\nmin_version = { \"acme/thermo\" = \"1\" }\n",
        "[revoke]\nmin_version = { \"acme/thermo\" = \"1.0.0\" }\n",
        "[require]\nask_signed_within = \"1d\"\n",
        "[runtime]\nmin = \"1.0.0\"\n",
        "[stale]\nmax_age = \"1d\"\n",
        "[report]\nevents = [\"state\"]\n",
    ] {
        let error = parse_ask("ask.toml", &format!("{head}{body}")).unwrap_err();
        said.push(error);
    }
    let fleet = head.replace("\"ask\"", "\"fleet\"");
    said.push(parse_ask("fleet.toml", "schema = \"redan.policy/1\"\nkind = \"fleet\"\n").unwrap_err());
    said.push(parse_fleet("fleet.toml", &fleet).unwrap_err());
    said.push(parse_fleet("fleet.toml", "schema = \"redan.policy/1\"\nkind = \"fleet\"\n").unwrap_err());
    said.push(parse_device("device.toml", "schema = \"redan.policy/2\"\nkind = \"device\"\n").unwrap_err());
    let policy = "schema = \"redan.policy/1\"\nkind = \"fleet\"\nserial = 1\n";
    for body in [
        "[require]\nprovenance = \"slsa>=2\"\n",
        "[require]\nask_signed_within = \"0s\"\n",
        "[stale]\nafter = \"stop\"\n",
        "[stale]\nmax_age = \"1500ms\"\n",
        "[stale]\nmax_age = \"1d\"\nafter = \"explode\"\n",
        "[report]\nevents = [\"counters\"]\n",
        "[report]\nevents = [\"state\", \"payload\"]\n",
        "[secrets]\nuse = [\"token\"]\n",
        "[env]\nallow = [\"A\"]\nvalues = { A = \"a\\nb\" }\n",
        "[config]\nkeys = [\"a\"]\nvalues = { a = \"a\\u0000b\" }\n",
        "[bundles]\nca = \"-----BEGIN CERTIFICATE-----\"\n",
    ] {
        said.push(parse_fleet("fleet.toml", &format!("{policy}{body}")).unwrap_err());
    }
    let said: Vec<String> = said.iter().map(ToString::to_string).collect();
    let helps = [
        "did you mean",
        "such as",
        "write",
        "add",
        "move it",
        "remove",
        "name the other",
        "must be",
        "take",
    ];
    for line in &said {
        assert!(
            helps.iter().any(|help| line.contains(help)),
            "no suggestion: {line}"
        );
    }
    insta::assert_snapshot!(said.join("\n"));
}

const ASK: &str = "[[net.http]]\nid = \"cloud\"\nallow = [\"https://api.acme.example\"]\nmethods = [\"POST\"]\npaths = [\"/v1/readings/*\"]\n\
                   [[kv]]\nlabel = \"default\"\n[log]\nbudget = \"64KiB/min\"\n[limits]\nmemory_total = \"32MiB\"\n";

#[test]
fn an_explanation_names_the_lines_that_decided() {
    let fleet = fleet(
        "[[net.http]]\nid = \"other\"\nallow = [\"https://other.example\"]\n[[net.http]]\nid = \"any-acme\"\nallow = [\"https://*.acme.example\"]\n\
         [log]\n[limits]\nmemory_total = \"16MiB\"\ncpu.per_call = \"100ms\"\n",
    );
    let device = device(
        "[[net.http]]\nid = \"all\"\nallow = [\"https://*.example\"]\n[log]\nbudget = \"8KiB/min\"\n[[kv]]\nlabel = \"default\"\n",
    );
    insta::assert_snapshot!(explain(&ask(ASK), &fleet, &device));
}

#[test]
fn a_denial_names_the_line_to_add_and_who_signs_it() {
    let ask = ask(&ASK.replace("[[kv]]\n", "[[kv]]\nrequired = true\n"));
    insta::assert_snapshot!(explain(&ask, &fleet(""), &device("")));
}

/// The base64 of what begins like a certificate: documents compare it, who verifies with it reads it.
fn certificate(seed: char) -> String {
    let body = format!("MIIB{}", seed.to_string().repeat(60));
    format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
}

#[test]
fn an_explanation_covers_roots_secrets_and_what_is_said_of_the_device() {
    let ask = ask(
        "[[net.http]]\nid = \"cloud\"\nallow = [\"https://api.acme.example\"]\nmethods = [\"POST\"]\ntls.roots = \"bundle:acme-ca\"\n\
         [[net.http]]\nid = \"other\"\nallow = [\"https://www.acme.example\"]\nmethods = [\"GET\"]\ntls.roots = \"bundle:other-ca\"\n\
         [secrets]\nuse = [\"token\", \"key\"]\ninject = [\n{ secret = \"token\", net = \"cloud\", header = \"authorization\" },\n\
         { secret = \"key\", net = \"cloud\", header = \"x-key\" }]\n[upgrade]\nstrategy = \"stop-start\"\n",
    );
    let above = "[[net.http]]\nid = \"all\"\nallow = [\"https://*.acme.example\"]\n";
    let fleet = fleet(&format!(
        "{above}[bundles]\nacme-ca = \"\"\"{}{}\"\"\"\n[secrets]\nuse = [\"acme/token\"]\n[require]\nask_signed_within = \"400d\"\n\
         [runtime]\nmin = \"0.1.0\"\n[stale]\nmax_age = \"14d\"\nafter = \"stop\"\n[report]\nevents = [\"state\"]\n\
         [revoke]\nmin_version = {{ \"acme/thermo\" = \"1.0.0\" }}\n",
        certificate('A'),
        certificate('B'),
    ));
    let device = device(&format!(
        "{above}[bundles]\nacme-ca = \"\"\"{}\"\"\"\n[secrets]\nfiles = {{ \"acme/token\" = \"/etc/redan/secrets/token\" }}\n\
         [stale]\nmax_age = \"7d\"\nafter = \"stop\"\n",
        certificate('B'),
    ));
    insta::assert_snapshot!(explain(&ask, &fleet, &device));
}

#[test]
fn a_revoked_version_says_what_to_publish() {
    let fleet = fleet("[revoke]\nmin_version = { \"acme/thermo\" = \"1.0.1\" }\n");
    insta::assert_snapshot!(explain(&ask(""), &fleet, &device("")));
}

#[test]
fn an_explanation_says_who_speaks_to_whom_on_the_device() {
    let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies/cases/bus-narrows-everywhere");
    let read = |name: &str| std::fs::read_to_string(case.join(name)).unwrap();
    let ask = parse_ask("ask.toml", &read("ask.toml")).unwrap();
    let fleet = parse_fleet("fleet.toml", &read("fleet.toml")).unwrap();
    let device = parse_device("device.toml", &read("device.toml")).unwrap();
    insta::assert_snapshot!(explain(&ask, &fleet, &device));
}
