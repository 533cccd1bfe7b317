//! What the grammar of TOML cannot say: which keys belong to which kind of document, and how names are written.
//!
//! A key in a kind that would ignore it is an error like an unknown key: who writes it believes that it does something.

mod bus;
mod messages;
mod outside;

use crate::egress::{is_path, is_path_pattern};
use crate::grant::World;
use crate::schema::{Document, Kind};
use redan_protocol::{ComponentName, PublisherName, WorkloadName};
use std::collections::{BTreeMap, BTreeSet};

/// What is wrong, and where.
pub(crate) struct Flaw {
    /// The section, `net.http`; empty for the top.
    pub(crate) section: &'static str,
    /// Which table of it.
    pub(crate) nth: usize,
    /// The key.
    pub(crate) key: &'static str,
    /// What is wrong with it.
    pub(crate) what: &'static str,
}

/// The first flaw of a document.
pub(crate) fn check(document: &Document) -> Result<(), Flaw> {
    kinds(document)?;
    subject(document)?;
    triggers(document)?;
    net(document)?;
    storage(document)?;
    messages::check(document)?;
    names(document)?;
    outside::check(document)?;
    outside::standing(document)?;
    amounts(document)
}

/// How a fault ends up in a [`Flaw`].
fn hold(
    good: bool,
    section: &'static str,
    nth: usize,
    key: &'static str,
    what: &'static str,
) -> Result<(), Flaw> {
    if good {
        Ok(())
    } else {
        Err(Flaw {
            section,
            nth,
            key,
            what,
        })
    }
}

const ASK: &str = "belongs to an ask";
const FLEET: &str = "belongs to a fleet policy";
const DEVICE: &str = "belongs to a device ceiling";
const ABOVE: &str = "belongs to a fleet policy or a device ceiling";

fn kinds(d: &Document) -> Result<(), Flaw> {
    let (ask, fleet, device) = (d.kind == Kind::Ask, d.kind == Kind::Fleet, d.kind == Kind::Device);
    let s = &d.subject;
    for (good, section, key, what) in [
        (fleet || d.serial.is_none(), "", "serial", FLEET),
        (device || d.hardware.is_none(), "", "hardware", DEVICE),
        (ask || s.name.is_none(), "subject", "name", ASK),
        (ask || s.version.is_none(), "subject", "version", ASK),
        (ask || s.world.is_none(), "subject", "world", ASK),
        (fleet || s.publishers.is_empty(), "subject", "publishers", FLEET),
        (fleet || s.worlds.is_empty(), "subject", "worlds", FLEET),
        (
            fleet || s.device_class.is_empty(),
            "subject",
            "device_class",
            FLEET,
        ),
        (!ask || s.names.is_empty(), "subject", "names", ABOVE),
        (!ask || s.deny.is_empty(), "subject", "deny", ABOVE),
        (fleet || d.revoke.digests.is_empty(), "revoke", "digests", FLEET),
        (fleet || d.floors.is_empty(), "floors", "", FLEET),
        (fleet || d.time.maximum.is_none(), "time", "maximum", FLEET),
        (
            fleet || d.identity.renewal_grace.is_none(),
            "identity",
            "renewal_grace",
            FLEET,
        ),
        (
            !ask || d.require.isolation.is_empty(),
            "require",
            "isolation",
            ABOVE,
        ),
        (device || d.totals.memory.is_none(), "totals", "memory", DEVICE),
        (device || d.listen.is_empty(), "listen", "", DEVICE),
        (
            device || d.runtime.wasi_0_3.is_none(),
            "runtime",
            "wasi_0_3",
            DEVICE,
        ),
        (device || d.broker.is_empty(), "broker", "label", DEVICE),
        (ask || d.job.args.is_empty(), "job", "args", ASK),
        (ask || d.net.sockets.is_none(), "net.sockets", "", ASK),
    ] {
        hold(good, section, 0, key, what)?;
    }
    outside::fleet_only(d)?;
    if ask {
        return Ok(());
    }
    let required: [(&'static str, Vec<bool>); 15] = [
        (
            "trigger.mqtt",
            d.trigger.mqtt.iter().map(|s| s.required).collect(),
        ),
        ("net.mqtt", d.net.mqtt.iter().map(|s| s.required).collect()),
        ("trigger.bus", d.trigger.bus.iter().map(|s| s.required).collect()),
        ("net.bus", d.net.bus.iter().map(|s| s.required).collect()),
        ("outbox", d.outbox.iter().map(|s| s.required).collect()),
        (
            "trigger.http",
            d.trigger.http.iter().map(|s| s.required).collect(),
        ),
        (
            "trigger.timer",
            d.trigger.timer.iter().map(|s| s.required).collect(),
        ),
        ("net.http", d.net.http.iter().map(|s| s.required).collect()),
        ("fs", d.fs.iter().map(|s| s.required).collect()),
        ("kv", d.kv.iter().map(|s| s.required).collect()),
        ("env", d.env.iter().map(|s| s.required).collect()),
        ("config", d.config.iter().map(|s| s.required).collect()),
        ("clock", d.clock.iter().map(|s| s.required).collect()),
        ("random", d.random.iter().map(|s| s.required).collect()),
        ("log", d.log.iter().map(|s| s.required).collect()),
    ];
    for (section, flags) in required {
        for (nth, flag) in flags.into_iter().enumerate() {
            hold(!flag, section, nth, "required", ASK)?;
        }
    }
    for (nth, timer) in d.trigger.timer.iter().enumerate() {
        hold(timer.jitter.is_none(), "trigger.timer", nth, "jitter", ASK)?;
    }
    Ok(())
}

fn subject(d: &Document) -> Result<(), Flaw> {
    const FORM: &str = "must be a list of \"publisher/workload\" or \"publisher/*\"";
    let form = |name: &String| match name.strip_suffix("/*") {
        Some(publisher) => PublisherName::parse(publisher).is_ok(),
        None => ComponentName::parse(name).is_ok(),
    };
    hold(d.subject.names.iter().all(form), "subject", 0, "names", FORM)?;
    hold(d.subject.deny.iter().all(form), "subject", 0, "deny", FORM)
}

fn triggers(d: &Document) -> Result<(), Flaw> {
    for (nth, section) in d.trigger.http.iter().enumerate() {
        let route = section.route.strip_suffix("/...").unwrap_or(&section.route);
        let good = (route.is_empty() && section.route == "/...")
            || (is_path(route) && !route.contains(['*', '?', '#']));
        hold(
            good,
            "trigger.http",
            nth,
            "route",
            "must be a path such as \"/thermo\" or, with all below, \"/thermo/...\"",
        )?;
        hold(methods(&section.methods), "trigger.http", nth, "methods", METHODS)?;
    }
    for (nth, section) in d.trigger.timer.iter().enumerate() {
        hold(
            section.every.0.get() > 0,
            "trigger.timer",
            nth,
            "every",
            "must be longer than nothing",
        )?;
    }
    let job = d.job.args.is_empty() || d.subject.world == Some(World::Command);
    hold(
        job,
        "job",
        0,
        "args",
        "belongs to an ask of world \"wasi:cli/command@0.2\"",
    )?;
    let nul = d.job.args.iter().any(|argument| argument.contains('\0'));
    hold(!nul, "job", 0, "args", "holds a NUL")
}

const METHODS: &str = "must be a list, not empty, of methods in upper case such as \"GET\"";

fn methods(methods: &BTreeSet<String>) -> bool {
    let token = |m: &String| !m.is_empty() && m.bytes().all(|b| b.is_ascii_uppercase() || b == b'-');
    !methods.is_empty() && methods.iter().all(token)
}

const LABEL: &str = "must be one word of lower-case letters, digits and inner hyphens, such as \"cloud-2\"";
const TWICE: &str = "names something named before; write one table for it";

fn label(text: &str) -> bool {
    WorkloadName::parse(text).is_ok()
}

fn net(d: &Document) -> Result<(), Flaw> {
    let mut seen = BTreeSet::new();
    for (nth, section) in d.net.http.iter().enumerate() {
        hold(label(&section.id), "net.http", nth, "id", LABEL)?;
        hold(seen.insert(&section.id), "net.http", nth, "id", TWICE)?;
        let ask = d.kind == Kind::Ask;
        hold(
            !ask || !section.allow.is_empty(),
            "net.http",
            nth,
            "allow",
            "of an ask must name an origin such as \"https://api.example\"",
        )?;
        hold(
            !ask || section.methods.is_some(),
            "net.http",
            nth,
            "methods",
            "of an ask must be named, such as methods = [\"GET\"]",
        )?;
        hold(
            section.methods.as_ref().is_none_or(methods),
            "net.http",
            nth,
            "methods",
            METHODS,
        )?;
        let good = section
            .paths
            .iter()
            .flatten()
            .all(|pattern| is_path_pattern(pattern));
        hold(
            good,
            "net.http",
            nth,
            "paths",
            "must be a list of patterns such as \"/v1/readings/*\" or \"/v1/...\"",
        )?;
    }
    Ok(())
}

const FOLDER: &str = "must be an absolute path without `.` or `..`, such as \"/state\"";

fn storage(d: &Document) -> Result<(), Flaw> {
    let mut seen = BTreeSet::new();
    let mut guests = BTreeSet::new();
    for (nth, section) in d.fs.iter().enumerate() {
        // The name becomes a folder's name: a label holds no separator and no dots.
        hold(label(&section.name), "fs", nth, "name", LABEL)?;
        hold(seen.insert(&section.name), "fs", nth, "name", TWICE)?;
        let absolute = |path: &Option<String>| {
            path.as_ref()
                .is_none_or(|path| is_path(path) && !path.ends_with('/'))
        };
        hold(absolute(&section.guest), "fs", nth, "guest", FOLDER)?;
        hold(absolute(&section.host), "fs", nth, "host", FOLDER)?;
        hold(
            d.kind == Kind::Ask || section.guest.is_none(),
            "fs",
            nth,
            "guest",
            ASK,
        )?;
        hold(
            d.kind == Kind::Device || section.host.is_none(),
            "fs",
            nth,
            "host",
            DEVICE,
        )?;
        let guest = section
            .guest
            .clone()
            .unwrap_or_else(|| format!("/{}", section.name));
        hold(guests.insert(guest), "fs", nth, "guest", TWICE)?;
        hold(
            section.quota.keys.is_none(),
            "fs",
            nth,
            "quota.keys",
            "belongs to a bucket",
        )?;
        hold(
            section.quota.ops.is_none(),
            "fs",
            nth,
            "quota.ops",
            "belongs to a bucket",
        )?;
    }
    let mut seen = BTreeSet::new();
    for (nth, section) in d.kv.iter().enumerate() {
        hold(label(&section.label), "kv", nth, "label", LABEL)?;
        hold(seen.insert(&section.label), "kv", nth, "label", TWICE)?;
        hold(
            section.quota.files.is_none(),
            "kv",
            nth,
            "quota.files",
            "belongs to a volume",
        )?;
    }
    Ok(())
}

/// Canonical JSON does not escape them, and what is no JSON is no grant.
const CONTROL: &str = "holds a control character such as a line break; remove it";

fn one_line(values: &BTreeMap<String, String>) -> bool {
    !values.values().any(|value| value.chars().any(char::is_control))
}

fn names(d: &Document) -> Result<(), Flaw> {
    const UNNAMED: &str =
        "gives a value to a name that this document does not list; add it to the list, or remove the value";
    let variable = |name: &String| {
        !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    if let Some(env) = &d.env {
        hold(
            env.allow.iter().all(variable),
            "env",
            0,
            "allow",
            "must be a list of names such as \"TZ\"",
        )?;
        hold(
            env.values.keys().all(|name| env.allow.contains(name)),
            "env",
            0,
            "values",
            UNNAMED,
        )?;
        hold(one_line(&env.values), "env", 0, "values", CONTROL)?;
        hold(
            d.kind != Kind::Ask || env.values.is_empty(),
            "env",
            0,
            "values",
            ABOVE,
        )?;
    }
    if let Some(config) = &d.config {
        hold(
            !config
                .keys
                .iter()
                .any(|key| key.is_empty() || key.chars().any(char::is_control)),
            "config",
            0,
            "keys",
            "must be a list of keys such as \"unit\"",
        )?;
        hold(
            config.values.keys().all(|key| config.keys.contains(key)),
            "config",
            0,
            "values",
            UNNAMED,
        )?;
        hold(one_line(&config.values), "config", 0, "values", CONTROL)?;
        hold(
            d.kind != Kind::Ask || config.values.is_empty(),
            "config",
            0,
            "values",
            ABOVE,
        )?;
    }
    Ok(())
}

fn amounts(d: &Document) -> Result<(), Flaw> {
    const LONGER: &str = "must be longer than nothing";
    let some = |span: Option<crate::units::Span>| span.is_none_or(|span| span.0.get() > 0);
    // The server counts in seconds; a shorter time would silently be none.
    let whole = d.identity.renewal_grace;
    hold(
        whole.is_none_or(|span| span.0.get().checked_rem(1000) == Some(0)),
        "identity",
        0,
        "renewal_grace",
        "must be whole seconds, such as \"180d\"",
    )?;
    hold(
        d.limits.cpu.share.is_none_or(|share| share.0 > 0),
        "limits",
        0,
        "cpu.share",
        "must be more than nothing",
    )?;
    hold(some(d.health.interval), "health", 0, "interval", LONGER)?;
    hold(some(d.health.timeout), "health", 0, "timeout", LONGER)?;
    hold(
        d.health.fail_after != Some(0),
        "health",
        0,
        "fail_after",
        "must be at least 1",
    )?;
    hold(
        d.upgrade.reuse.calls != Some(0),
        "upgrade",
        0,
        "reuse.calls",
        "must be at least 1",
    )
}
