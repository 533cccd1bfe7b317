//! What people read: errors and explanations, word for word.

use crate::documents::{ask, device, fleet};
use redan_policy::{explain, parse_ask, parse_device, parse_fleet};

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
    ] {
        let error = parse_ask("ask.toml", &format!("{head}{body}")).unwrap_err();
        said.push(error);
    }
    let fleet = head.replace("\"ask\"", "\"fleet\"");
    said.push(parse_ask("fleet.toml", "schema = \"redan.policy/1\"\nkind = \"fleet\"\n").unwrap_err());
    said.push(parse_fleet("fleet.toml", &fleet).unwrap_err());
    said.push(parse_fleet("fleet.toml", "schema = \"redan.policy/1\"\nkind = \"fleet\"\n").unwrap_err());
    said.push(parse_device("device.toml", "schema = \"redan.policy/2\"\nkind = \"device\"\n").unwrap_err());
    let said: Vec<String> = said.iter().map(ToString::to_string).collect();
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
