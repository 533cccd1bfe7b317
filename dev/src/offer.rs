//! The ask of a component that is to be given everything this runtime offers.

use redan_policy::grant::World;
use redan_protocol::ComponentName;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Which world a component's exports are of; a service where it is both.
pub(crate) fn world(exports: &[String]) -> World {
    let has = |interface: &str| exports.iter().any(|export| export.starts_with(interface));
    if has("wasi:http/incoming-handler@") {
        World::HttpProxy
    } else if has("wasi:http/handler@0.3.") {
        World::HttpService
    } else if has("redan:messaging/handler@") {
        World::Messages
    } else {
        World::Command
    }
}

/// Limits beyond anything: outside test suites have their own.
const NO_LIMITS: &str = r#"
[limits]
memory_total = "4GiB"
table_elements = 10000000
instances_max = 10000
concurrency = 1000
cpu = { per_call = "30d" }
wall = { call = "30d", start = "30d" }
handles = 1000000
hostcall_bytes = "128MiB"
body = { request = "1024GiB", response = "1024GiB", header_bytes = "1MiB" }
"#;

/// While learning: what is measured is not bounded, what is not measured has the limits it has by default.
const MEASURED: &str = r#"
[limits]
memory_total = "4GiB"
table_elements = 10000000
instances_max = 10000
cpu = { per_call = "30d" }
wall = { call = "30d", start = "30d" }
handles = 1000000
"#;

/// The ask. `net.http` names an origin that does not exist: where requests may go is the bench's affair.
pub(crate) fn everything(
    name: &ComponentName,
    world: World,
    imports: &[String],
    config: &BTreeMap<String, String>,
    measured: bool,
) -> String {
    let keys: Vec<&String> = config.keys().collect();
    let mut text = format!(
        "schema = \"redan.policy/1\"\nkind = \"ask\"\n[subject]\nname = \"{name}\"\nversion = \"0.0.0\"\nworld = \"{}\"\n\
         [clock]\nwall = true\n[random]\nmax_bytes_per_call = \"64MiB\"\n[log]\n[config]\nkeys = {keys:?}\n\
         [[kv]]\nlabel = \"default\"\nquota = {{ bytes = \"1GiB\", keys = 1000000 }}\n\
         [[net.http]]\nid = \"bench\"\nallow = [\"https://nowhere.invalid\"]\nmethods = [\"GET\"]\n",
        world.name()
    );
    if imports_sockets(imports) {
        text.push_str("[net.sockets]\n");
    }
    let _ = write!(text, "{}", if measured { MEASURED } else { NO_LIMITS });
    text
}

pub(crate) fn imports_sockets(imports: &[String]) -> bool {
    imports.iter().any(|import| import.starts_with("wasi:sockets/"))
}
