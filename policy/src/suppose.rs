//! The policy and the ceiling of nobody's fleet: they admit exactly what one ask names. For a publisher's bench, which has
//! neither; no device reads them.

use crate::parse::{Ask, DeviceCeiling, FleetPolicy};
use crate::place::Source;
use crate::schema::{BudgetSection, Document, JobSection, Kind, Subject};
use std::collections::{BTreeMap, BTreeSet};

/// What a policy and a ceiling give beside leave: values and places.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Given {
    /// Values of environment variables.
    pub env: BTreeMap<String, String>,
    /// Values of configuration keys.
    pub config: BTreeMap<String, String>,
    /// Folders, by the path the guest sees.
    pub folders: BTreeMap<String, String>,
}

/// A fleet policy and a device ceiling that take nothing from an ask.
pub fn suppose(ask: &Ask, given: &Given) -> (FleetPolicy, DeviceCeiling) {
    let mut fleet = all_of(ask);
    fleet.kind = Kind::Fleet;
    fleet.serial = Some(1);
    fleet.subject.publishers = BTreeSet::from([ask.name.publisher().clone()]);
    fleet.subject.worlds = BTreeSet::from([ask.world]);
    let mut device = all_of(ask);
    device.kind = Kind::Device;
    device.hardware = Some("bench".to_owned());
    device.runtime.wasi_0_3 = ask.world.is_wasi_0_3().then_some(true);
    for volume in &mut device.fs {
        let guest = volume.guest.take().unwrap_or_else(|| format!("/{}", volume.name));
        volume.host = given.folders.get(&guest).cloned();
    }
    if let Some(env) = &mut device.env {
        env.values = given.env.clone();
    }
    if let Some(config) = &mut device.config {
        config.values = given.config.clone();
    }
    let source = |file: &str| Source {
        file: file.to_owned(),
        text: String::new(),
    };
    let fleet = FleetPolicy {
        document: fleet,
        source: source("(no fleet policy given: everything asked for)"),
        serial: 1,
    };
    let device = DeviceCeiling {
        hardware: "bench".to_owned(),
        document: device,
        source: source("(no device ceiling given: everything asked for)"),
    };
    (fleet, device)
}

/// The ask's own sections, said of it by somebody above. Of requests the origins alone: what several sections above say of one origin
/// must hold together, and would take away what the ask keeps apart.
fn all_of(ask: &Ask) -> Document {
    let mut net = ask.document.net.clone();
    for section in &mut net.http {
        section.methods = None;
        section.paths = None;
        section.private_addresses = true;
        section.budget = BudgetSection::default();
    }
    Document {
        net,
        job: JobSection::default(),
        subject: Subject {
            names: BTreeSet::from([ask.name.to_string()]),
            ..Subject::default()
        },
        ..ask.document.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{intersect, parse_ask};

    #[test]
    fn rules_an_ask_keeps_apart_stay_apart() {
        let text = "schema = \"redan.policy/1\"\nkind = \"ask\"\n[subject]\nname = \"acme/job\"\nversion = \"1.0.0\"\n\
                    world = \"wasi:cli/command@0.2\"\n\
                    [[net.http]]\nid = \"a\"\nallow = [\"https://a.example\"]\nmethods = [\"GET\"]\npaths = [\"/get\"]\n\
                    [[net.http]]\nid = \"b\"\nallow = [\"https://a.example\"]\nmethods = [\"POST\"]\npaths = [\"/post\"]\n";
        let ask = parse_ask("ask.toml", text).unwrap();
        let (fleet, device) = suppose(&ask, &Given::default());
        let grant = intersect(&ask, &fleet, &device).unwrap();
        let admitted = |method, path| {
            let mut rules = grant.net_http.iter();
            rules.any(|rule| crate::egress::admits(rule, method, true, "a.example", 443, path))
        };
        assert!(admitted("GET", "/get") && admitted("POST", "/post"));
        assert!(!admitted("POST", "/get") && !admitted("GET", "/post"));
        assert!(grant.net_http.iter().all(|rule| !rule.private_addresses));
    }

    #[test]
    fn what_is_supposed_takes_nothing_from_an_ask_and_adds_values_only_where_it_names_them() {
        let text = "schema = \"redan.policy/1\"\nkind = \"ask\"\n[subject]\nname = \"acme/job\"\nversion = \"1.0.0\"\n\
                    world = \"wasi:cli/command@0.2\"\n[job]\nargs = [\"-v\"]\n[[fs]]\nname = \"state\"\nguest = \"/var\"\n\
                    mode = \"rw\"\nrequired = true\n[env]\nallow = [\"A\"]\nrequired = true\n[limits]\nmemory_total = \"1GiB\"\n";
        let ask = parse_ask("ask.toml", text).unwrap();
        let pair = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
        let mut given = Given {
            env: pair("A", "1"),
            folders: pair("/var", "/tmp/var"),
            ..Given::default()
        };
        given.env.insert("B".to_owned(), "2".to_owned());
        let (fleet, device) = suppose(&ask, &given);
        let grant = intersect(&ask, &fleet, &device).unwrap();
        assert_eq!(grant.env, pair("A", "1"));
        assert_eq!(grant.job_args, ["-v"]);
        assert_eq!(grant.fs[0].host.as_deref(), Some("/tmp/var"));
        assert_eq!(grant.limits.memory_total, redan_protocol::ByteCount::mib(1024));
    }
}
