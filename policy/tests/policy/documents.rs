//! Documents made of parts, for tests that need many.

use redan_policy::{Ask, DeviceCeiling, FleetPolicy, parse_ask, parse_device, parse_fleet};

/// An ask of `acme/thermo`, a service, with a body.
pub(crate) fn ask(body: &str) -> Ask {
    let head = "schema = \"redan.policy/1\"\nkind = \"ask\"\n[subject]\nname = \"acme/thermo\"\nversion = \"1.0.0\"\n\
                world = \"wasi:http/proxy@0.2\"\n";
    parse_ask("ask.toml", &format!("{head}{body}")).unwrap()
}

/// A fleet policy that admits it.
pub(crate) fn fleet(body: &str) -> FleetPolicy {
    let head = "schema = \"redan.policy/1\"\nkind = \"fleet\"\nserial = 1\n[subject]\npublishers = [\"acme\"]\n\
                names = [\"acme/*\"]\nworlds = [\"wasi:http/proxy@0.2\"]\n";
    parse_fleet("fleet.toml", &format!("{head}{body}")).unwrap()
}

/// A device ceiling that admits it.
pub(crate) fn device(body: &str) -> DeviceCeiling {
    let head = "schema = \"redan.policy/1\"\nkind = \"device\"\nhardware = \"gateway\"\n[subject]\nnames = [\"acme/*\"]\n";
    parse_device("device.toml", &format!("{head}{body}")).unwrap()
}
