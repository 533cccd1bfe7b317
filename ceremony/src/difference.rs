//! What a request changes, for people to read before they sign: computed from the reader's own copy, complete, and free of whatever
//! could move a terminal's cursor.

use crate::error::CeremonyError;
use crate::present::Present;
use crate::recovery;
use crate::request::Request;
use redan_protocol::UnixSeconds;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// Longest value shown of one difference, characters; the payload's digest stands for the rest.
const SHOWN_MAX: usize = 400;

/// Describes a request: what it is, how roles stand after it, every difference, and its digest.
pub fn inspect(request: &Request, present: &Present, now: UnixSeconds) -> Result<String, CeremonyError> {
    // A role that signs for the first time has nothing before it.
    let old = if request.role == recovery::ROLE {
        Value::Object(serde_json::Map::new())
    } else if present.newest(&request.role) == 0 {
        Value::Null
    } else {
        present.signed(&request.role)?
    };
    let new = &request.payload;
    let mut text = String::new();
    let mut line = |words: String| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{words}");
    };
    let field = |of: &Value, name: &str| of.get(name).map_or_else(|| "none".to_owned(), shown);
    line(format!("fleet      {}", request.fleet));
    line(format!("repository {}", request.repository));
    line(format!("role       {}", clean(&request.role)));
    for name in ["profile", "version", "expires"] {
        if new.get(name).is_some() || old.get(name).is_some() {
            line(format!("{name:10} {} -> {}", field(&old, name), field(new, name)));
        }
    }
    for (name, role) in roles(new) {
        let before = roles(&old).remove(&name);
        let (was, is) = (before.as_ref().map(holders).unwrap_or_default(), holders(&role));
        let threshold = field(&role, "threshold");
        let old_threshold = before
            .as_ref()
            .map_or_else(|| "none".to_owned(), |role| field(role, "threshold"));
        let moved = if old_threshold == threshold {
            String::new()
        } else {
            format!(" (was {old_threshold})")
        };
        line(format!(
            "role {}: {threshold} of {} must sign{moved}",
            clean(&name),
            is.len()
        ));
        for key in is.difference(&was) {
            line(format!("  + key {}", clean(key)));
        }
        for key in was.difference(&is) {
            line(format!("  - key {}", clean(key)));
        }
    }
    let (was, is) = (authorities(&old), authorities(new));
    for name in was.keys().chain(is.keys()).collect::<BTreeSet<_>>() {
        let state = |of: &BTreeMap<String, String>| {
            let state = of.get(name).map(String::as_str);
            clean(state.unwrap_or("revoked"))
        };
        if state(&was) != state(&is) {
            line(format!(
                "authority {}: {} -> {}",
                clean(name),
                state(&was),
                state(&is)
            ));
        }
    }
    for (name, target) in new
        .get("targets")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        let digest = target
            .pointer("/hashes/sha256")
            .map_or_else(|| "no sha256".to_owned(), shown);
        line(format!("target {} {digest}", clean(name)));
    }
    line("every difference:".to_owned());
    let mut found = Vec::new();
    differences("", &old, new, &mut found);
    for difference in found {
        line(format!("  {difference}"));
    }
    line(match request.check(present, now) {
        Ok(checked) => format!("keeps the rules; {} keys may sign it", checked.signers.len()),
        Err(error) => format!("WOULD BE REFUSED: {error}\n  try: {}", error.remedy()),
    });
    line(format!("payload sha256 {}", request.sha256()?));
    Ok(text)
}

/// Roles by name: of a root, or delegated.
fn roles(signed: &Value) -> BTreeMap<String, Value> {
    let of_root = signed
        .get("roles")
        .and_then(Value::as_object)
        .into_iter()
        .flatten();
    let delegated = signed.pointer("/delegations/roles").and_then(Value::as_array);
    let named = |role: &Value| Some((role.get("name")?.as_str()?.to_owned(), role.clone()));
    of_root
        .map(|(name, role)| (name.clone(), role.clone()))
        .chain(delegated.into_iter().flatten().filter_map(named))
        .collect()
}

/// How a root's authorities stand; before there was a list, the one it pins.
fn authorities(signed: &Value) -> BTreeMap<String, String> {
    if let Some(listed) = signed.get("authorities").and_then(Value::as_object) {
        let state = |one: &Value| one.get("state").map_or_else(|| "none".to_owned(), shown);
        return listed
            .iter()
            .map(|(name, one)| (name.clone(), state(one)))
            .collect();
    }
    let only = signed.get("ca_sha256").and_then(Value::as_str);
    only.map(|name| (name.to_owned(), "active".to_owned()))
        .into_iter()
        .collect()
}

fn holders(role: &Value) -> BTreeSet<String> {
    let ids = role.get("keyids").and_then(Value::as_array).into_iter().flatten();
    ids.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Every leaf that differs, with its path. Lists of words are compared as sets as well, lists of named objects by name.
fn differences(path: &str, old: &Value, new: &Value, found: &mut Vec<String>) {
    if old == new {
        return;
    }
    if let (Some(old), Some(new)) = (by_name(old), by_name(new)) {
        let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        let before = found.len();
        for name in names {
            let of = |map: &BTreeMap<String, Value>| map.get(name).cloned().unwrap_or(Value::Null);
            differences(&format!("{path}/{}", clean(name)), &of(&old), &of(&new), found);
        }
        // The same members, and yet not the same: only their order is left.
        if found.len() == before {
            found.push(format!("{path}: in another order"));
        }
        return;
    }
    found.push(match (old, new) {
        (Value::Null, new) => format!("+ {path} {}", shown(new)),
        (old, Value::Null) => format!("- {path} {}", shown(old)),
        (old, new) => format!("~ {path} {} -> {}", shown(old), shown(new)),
    });
}

/// An object's members, or a list's whose entries are all different words or have all different names.
fn by_name(value: &Value) -> Option<BTreeMap<String, Value>> {
    match value {
        Value::Object(map) => Some(
            map.iter()
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
        ),
        Value::Array(list) => {
            let name = |entry: &Value| match entry {
                Value::String(word) => Some(word.clone()),
                other => Some(other.get("name")?.as_str()?.to_owned()),
            };
            let named: Option<BTreeMap<String, Value>> = list
                .iter()
                .map(|entry| Some((name(entry)?, entry.clone())))
                .collect();
            named.filter(|named| named.len() == list.len())
        }
        _ => None,
    }
}

fn shown(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut text = clean(&text);
    if text.chars().count() > SHOWN_MAX {
        text = text.chars().take(SHOWN_MAX).collect();
        text.push_str(" … (cut)");
    }
    text
}

/// Characters that could make a terminal show something else than what is there become `?`.
pub(crate) fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn found(old: &Value, new: &Value) -> Vec<String> {
        let mut found = Vec::new();
        differences("", old, new, &mut found);
        found
    }

    #[test]
    fn every_difference_is_named_and_nothing_else() {
        let old = json!({"same": 1, "gone": "x", "list": ["a", "b"], "deep": {"n": 1}, "raw": [1, 2],
            "roles": [{"name": "plan", "threshold": 2}], "order": ["a", "b"]});
        let new = json!({"same": 1, "new": true, "list": ["b", "c"], "deep": {"n": 2}, "raw": [2, 1],
            "roles": [{"name": "plan", "threshold": 1}], "order": ["b", "a"]});
        assert_eq!(
            found(&old, &new),
            [
                "~ /deep/n 1 -> 2",
                "- /gone x",
                "- /list/a a",
                "+ /list/c c",
                "+ /new true",
                "/order: in another order",
                "~ /raw [1,2] -> [2,1]",
                "~ /roles/plan/threshold 2 -> 1",
            ]
        );
        assert!(found(&old, &old).is_empty());
        // A word twice is no set.
        assert_eq!(
            found(&json!(["a"]), &json!(["a", "a"])),
            ["~  [\"a\"] -> [\"a\",\"a\"]"]
        );
    }

    #[test]
    fn nothing_that_is_shown_moves_the_cursor() {
        let old = json!({});
        let new = json!({"a\u{1b}[2K": "b\r\u{202e}c"});
        assert_eq!(found(&old, &new), ["+ /a?[2K b??c"]);
    }
}
