//! The smallest ask for what a component was seen to use. Pure: what was seen in, text out.
//!
//! Never wider than what was used: requests that differ in method or path get rules of their own, so that no rule admits a
//! combination nobody made. Amounts have headroom, since the next run is not this one; each is a line that narrows.

use crate::arguments::{Checked, Folder, usage};
use crate::fault::Fault;
use crate::offer::imports_sockets;
use redan_host_api::bench::Seen;
use redan_policy::egress::is_path_pattern;
use redan_policy::grant::{Origin, World};
use redan_protocol::ComponentName;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

/// What is written of a bucket, a volume, random numbers: twice what was used.
const ROOM: u64 = 2;
/// CPU time varies with the machine most: four times.
const ROOM_CPU: u64 = 4;
/// Less than this is noise, milliseconds.
const CPU_MIN: u64 = 50;
/// Least handles written; the standard library opens a few by itself.
const HANDLES_MIN: u64 = 64;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// The volumes of a run that learns, as an ask names them.
pub(crate) fn volumes(folders: &[Folder]) -> Result<String, Fault> {
    let mut text = String::new();
    let names = names(folders.iter().map(|folder| folder.guest.as_str()));
    for folder in folders {
        let Some(name) = names
            .get(folder.guest.as_str())
            .filter(|_| folder.guest.starts_with('/'))
        else {
            return Err(usage(
                format!("`{}` is no absolute path in the guest", folder.guest),
                "an ask names volumes by absolute paths: --dir HOST::/state",
            ));
        };
        let mode = if folder.write { "rw" } else { "ro" };
        let _ = writeln!(
            text,
            "[[fs]]\nname = {name:?}\nguest = {:?}\nmode = \"{mode}\"\nquota = {{ bytes = \"1024GiB\", files = 100000000 }}",
            folder.guest
        );
    }
    Ok(text)
}

/// The environment of a run that learns.
pub(crate) fn environment(env: &BTreeMap<String, String>) -> String {
    let names: Vec<&String> = env.keys().collect();
    format!("[env]\nallow = {names:?}\n")
}

/// The ask.
pub(crate) fn ask(arguments: &Checked, imports: &[String], world: World, seen: &Seen) -> String {
    let mut text = head(&arguments.name, world);
    let imported = |name: &str| imports.iter().any(|import| import.starts_with(name));
    match world {
        World::HttpProxy | World::HttpService => answered(&mut text, seen),
        World::Command => job(&mut text, &arguments.arguments),
        // Nothing called it, so nothing was seen.
        World::Messages => {}
    }
    sent(&mut text, seen, imported("wasi:http/outgoing-handler@"));
    if imports_sockets(imports) {
        text.push_str("\n# Imported, most likely by a standard library; every call of them is refused.\n[net.sockets]\n");
    }
    folders(&mut text, &arguments.folders, seen);
    buckets(&mut text, seen, imported("wasi:keyvalue/"));
    names_used(&mut text, arguments, seen, imported("wasi:config/"));
    if seen.clock {
        text.push_str("\n[clock]\n");
        if seen.wall {
            text.push_str("wall = true\n");
        }
    }
    if let Some(most) = seen.random {
        let _ = write!(text, "\n[random]\nmax_bytes_per_call = \"{most}B\"\n");
    }
    if seen.log || imported("wasi:logging/") {
        text.push_str("\n[log]\nbudget = \"64KiB/min\"\n");
    }
    limits(&mut text, seen);
    text
}

fn head(name: &ComponentName, world: World) -> String {
    format!(
        "# Learned from one run by `redan dev --learn`: what the component used, and nothing else. What this run did not reach is\n\
         # not in here. Read it before you sign it.\nschema = \"redan.policy/1\"\nkind = \"ask\"\n\n\
         [subject]\nname = \"{name}\"\nversion = \"0.1.0\"\nworld = \"{}\"\n",
        world.name()
    )
}

/// Paths that were used with the same methods: only those can share a rule.
fn by_methods(calls: &BTreeSet<(String, String)>) -> BTreeMap<Vec<&str>, Vec<&str>> {
    let mut methods: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (method, path) in calls {
        methods.entry(path).or_default().push(method);
    }
    let mut paths: BTreeMap<Vec<&str>, Vec<&str>> = BTreeMap::new();
    for (path, methods) in methods {
        paths.entry(methods).or_default().push(path);
    }
    paths
}

fn answered(text: &mut String, seen: &Seen) {
    if seen.answered.is_empty() {
        text.push_str("\n# No request came. A service needs [[trigger.http]]: route = \"/path\" (or \"/...\" for all), methods.\n");
    }
    for (methods, paths) in by_methods(&seen.answered) {
        for path in paths {
            if path.contains(['*', '?', '#']) || !is_path_pattern(path) {
                let _ = write!(
                    text,
                    "\n# {} {path:?} is no path a route can name.\n",
                    methods.join(" ")
                );
            } else {
                let _ = write!(
                    text,
                    "\n[[trigger.http]]\nroute = {path:?}\nmethods = {methods:?}\nrequired = true\n"
                );
            }
        }
    }
}

fn job(text: &mut String, arguments: &[String]) {
    if !arguments.is_empty() {
        let _ = write!(text, "\n[job]\nargs = {arguments:?}\n");
    }
    text.push_str(
        "\n# When it runs on a device is yours to say: [[trigger.timer]] every = \"1h\", jitter = \"1m\"\n",
    );
}

fn sent(text: &mut String, seen: &Seen, imported: bool) {
    let origins: BTreeMap<String, &Origin> = seen
        .sent
        .keys()
        .map(|origin| (origin.to_string(), origin))
        .collect();
    let ids = names(origins.keys().map(String::as_str));
    let mut rules = 0_u32;
    for (shown, origin) in &origins {
        let calls = seen.sent.get(*origin).map(by_methods).unwrap_or_default();
        for (nth, (methods, paths)) in (1_u32..).zip(calls) {
            let (good, bad): (Vec<&str>, Vec<&str>) = paths
                .into_iter()
                .partition(|path| !path.contains('*') && is_path_pattern(path));
            for path in bad {
                let _ = write!(
                    text,
                    "\n# {} {shown} {path:?} is no path a rule can name.\n",
                    methods.join(" ")
                );
            }
            if good.is_empty() {
                continue;
            }
            let id = ids.get(shown.as_str()).map_or("origin", String::as_str);
            let _ = write!(
                text,
                "\n[[net.http]]\nid = \"{id}-{nth}\"\nallow = [{shown:?}]\nmethods = {methods:?}\npaths = {good:?}\n"
            );
            if seen.private.contains(&origin.host) {
                text.push_str("private_addresses = true\n");
            }
            text.push_str("required = true\n");
            rules = rules.saturating_add(1);
        }
        if origin.host == "localhost" || origin.host.starts_with("127.") || origin.host == "::1" {
            text.push_str("# This machine itself: no device dials its own. Try it by name: redan dev --resolve NAME:PORT=127.0.0.1:PORT\n");
        }
    }
    if imported && rules == 0 {
        text.push_str(
            "\n# Imported and not used: a rule that admits nothing, without which it does not link.\n\
             [[net.http]]\nid = \"unused\"\nallow = [\"https://unused.invalid\"]\nmethods = [\"GET\"]\nbudget = { requests = \"0/h\" }\n",
        );
    }
}

fn folders(text: &mut String, folders: &[Folder], seen: &Seen) {
    let names = names(folders.iter().map(|folder| folder.guest.as_str()));
    for folder in folders {
        let (Some(write), Some(name)) = (seen.volumes.get(&folder.guest), names.get(folder.guest.as_str()))
        else {
            let _ = write!(text, "\n# It did not touch {}.\n", folder.guest);
            continue;
        };
        let mode = if *write { "rw" } else { "ro" };
        let (bytes, files) = measured(&folder.host);
        // Where the guest sees a volume unless an ask says otherwise.
        let guest = if folder.guest == format!("/{name}") {
            String::new()
        } else {
            format!("guest = {:?}\n", folder.guest)
        };
        let _ = write!(
            text,
            "\n[[fs]]\nname = {name:?}\n{guest}mode = \"{mode}\"\nquota = {{ bytes = \"{}\", files = {} }}\nrequired = true\n",
            size(bytes.saturating_mul(ROOM).max(64 * KIB)),
            files.saturating_mul(ROOM).max(16)
        );
    }
}

/// Bytes and files of a folder. What cannot be read counts nothing.
fn measured(folder: &Path) -> (u64, u64) {
    let (mut bytes, mut files) = (0_u64, 0_u64);
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        files = files.saturating_add(1);
        match entry.path().symlink_metadata() {
            Ok(status) if status.is_dir() => {
                let (more_bytes, more_files) = measured(&entry.path());
                bytes = bytes.saturating_add(more_bytes);
                files = files.saturating_add(more_files);
            }
            Ok(status) => bytes = bytes.saturating_add(status.len()),
            Err(_) => {}
        }
    }
    (bytes, files)
}

fn buckets(text: &mut String, seen: &Seen, imported: bool) {
    for (label, bucket) in &seen.buckets {
        let (bytes, keys) = bucket.used();
        let _ = write!(
            text,
            "\n[[kv]]\nlabel = {label:?}\nquota = {{ bytes = \"{}\", keys = {} }}\nrequired = true\n",
            size(bytes.saturating_mul(ROOM).max(4 * KIB)),
            keys.saturating_mul(ROOM).max(8)
        );
    }
    if imported && seen.buckets.is_empty() {
        text.push_str(
            "\n# Imported and not used: a bucket of nothing, without which it does not link.\n\
             [[kv]]\nlabel = \"unused\"\nquota = { bytes = \"0B\", keys = 0 }\n",
        );
    }
}

fn names_used(text: &mut String, arguments: &Checked, seen: &Seen, imported: bool) {
    if seen.env && !arguments.env.is_empty() {
        let names: Vec<&String> = arguments.env.keys().collect();
        let _ = write!(
            text,
            "\n# It read its environment, which shows nobody which names it wanted.\n[env]\nallow = {names:?}\nrequired = true\n"
        );
    }
    if !imported {
        return;
    }
    let used = arguments.config.keys();
    let used: Vec<&String> = used
        .filter(|key| seen.config_all || seen.config.contains(*key))
        .collect();
    let _ = write!(text, "\n[config]\nkeys = {used:?}\n");
    if !used.is_empty() {
        text.push_str("required = true\n");
    }
    for key in seen
        .config
        .iter()
        .filter(|key| !arguments.config.contains_key(*key))
    {
        let _ = writeln!(
            text,
            "# It asked for {key:?} too, which had no value: redan dev --config KEY=VALUE"
        );
    }
}

fn limits(text: &mut String, seen: &Seen) {
    let half_more = |used: u64| used.saturating_add(used / 2);
    let _ = write!(
        text,
        "\n# Measured, with room: memory {} used, CPU {} ms a call, {} handles, {} table elements.\n\
         [limits]\nmemory_total = \"{}\"\ntable_elements = {}\nhandles = {}\ncpu = {{ per_call = \"{}ms\" }}\n",
        size(seen.memory),
        seen.cpu,
        seen.handles,
        seen.tables,
        size(half_more(seen.memory).max(MIB).next_multiple_of(MIB)),
        half_more(seen.tables).max(100),
        seen.handles.saturating_mul(ROOM).max(HANDLES_MIN),
        seen.cpu.saturating_mul(ROOM_CPU).max(CPU_MIN),
    );
}

/// As a document writes it.
fn size(bytes: u64) -> String {
    for (unit, name) in [(MIB, "MiB"), (KIB, "KiB")] {
        if bytes >= unit && bytes.is_multiple_of(unit) {
            return format!("{}{name}", bytes / unit);
        }
    }
    format!("{bytes}B")
}

/// One label for each text: its letters and digits, and a number where two would be the same.
fn names<'a>(texts: impl Iterator<Item = &'a str>) -> BTreeMap<&'a str, String> {
    let mut taken = BTreeSet::new();
    texts
        .map(|text| {
            let words = text
                .split(|c: char| !c.is_ascii_alphanumeric())
                .filter(|word| !word.is_empty());
            let label = words.collect::<Vec<_>>().join("-").to_ascii_lowercase();
            let label: String = label.chars().take(40).collect();
            let label = if label.is_empty() {
                "x".to_owned()
            } else {
                label.trim_matches('-').to_owned()
            };
            let numbered = (2_u32..).map(|n| format!("{label}-{n}"));
            let mut free = std::iter::once(label.clone())
                .chain(numbered)
                .filter(|name| !taken.contains(name));
            let name = free.next().unwrap_or_default();
            taken.insert(name.clone());
            (text, name)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_rule_admits_a_method_on_a_path_where_it_was_not_seen() {
        let calls = [("GET", "/a"), ("POST", "/a"), ("GET", "/b"), ("GET", "/c")];
        let calls = calls.map(|(method, path)| (method.to_owned(), path.to_owned()));
        let calls = BTreeSet::from(calls);
        let rules = by_methods(&calls);
        let admitted: BTreeSet<_> = rules
            .iter()
            .flat_map(|(methods, paths)| {
                methods
                    .iter()
                    .flat_map(move |m| paths.iter().map(move |p| (*m, *p)))
            })
            .map(|(method, path)| (method.to_owned(), path.to_owned()))
            .collect();
        assert_eq!(admitted, calls);
        assert_eq!(rules.len(), 2);
    }

    #[test]
    fn two_things_never_share_a_label() {
        let named = names(["/a/b", "/a-b", "/A.b", "/"].into_iter());
        let labels: BTreeSet<_> = named.values().collect();
        assert_eq!(labels.len(), 4);
        assert_eq!(named["/"], "x");
    }
}
