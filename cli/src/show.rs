//! Answers as people read them: short tables for what is listed, aligned JSON for the rest.

use serde_json::Value;
use std::fmt::Write as _;

/// Renders an answer.
pub fn render(answer: &Value) -> String {
    match answer {
        Value::Array(rows) if rows.is_empty() => "none yet\n".to_owned(),
        Value::Array(rows) if rows.iter().all(|row| row.get("device").is_some()) => devices(rows),
        Value::Array(rows) if rows.iter().all(|row| row.get("waves").is_some()) => rollouts(rows),
        Value::Array(rows) if rows.iter().all(|row| row.get("role").is_some()) => operators(rows),
        Value::Array(rows) if rows.iter().all(|row| row.get("uses").is_some()) => tokens(rows),
        other => serde_json::to_string_pretty(other).unwrap_or_default(),
    }
}

fn text(row: &Value, key: &str) -> String {
    match row.get(key) {
        None | Some(Value::Null) => "–".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

fn devices(rows: &[Value]) -> String {
    let heads = [
        "device",
        "set",
        "phase",
        "rollback",
        "why not updating",
        "alarm",
        "seen",
        "workloads",
    ];
    table(heads, rows, |row| {
        let workloads: Vec<String> = row
            .get("slots")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .map(|slot| {
                ["component", "version", "health"]
                    .map(|key| text(slot, key))
                    .join(" ")
            })
            .collect();
        let [device, set, phase, rollback, refusal] =
            ["device", "set", "phase", "rollback", "refusal"].map(|key| text(row, key));
        let workloads = workloads.join(", ");
        [
            device,
            set,
            phase,
            rollback,
            refusal,
            alarm(row),
            seen(row),
            workloads,
        ]
    })
}

/// How often a superseded key of the device was used again; the whole alarm is in `redan device show`.
fn alarm(row: &Value) -> String {
    match row.pointer("/clone_alarm/count") {
        Some(count) => format!("clone ({count})"),
        None => "–".to_owned(),
    }
}

/// How long ago the device checked in, in the largest unit that is full.
fn seen(row: &Value) -> String {
    let Some(silent) = row.get("silent_seconds").and_then(Value::as_u64) else {
        return "never".to_owned();
    };
    let units = [(24 * 3600, "d"), (3600, "h"), (60, "min")];
    let full = units.into_iter().find(|(seconds, _)| silent >= *seconds);
    let (seconds, unit) = full.unwrap_or((1, "s"));
    format!("{} {unit} ago", silent / seconds)
}

fn tokens(rows: &[Value]) -> String {
    let heads = ["token", "label", "prefix", "used", "of", "ended"];
    table(heads, rows, |row| {
        ["token", "label", "prefix", "used", "uses", "ended"].map(|key| text(row, key))
    })
}

fn operators(rows: &[Value]) -> String {
    table(["operator", "role", "removed"], rows, |row| {
        ["operator", "role", "removed"].map(|key| text(row, key))
    })
}

/// Who must agree, or has.
fn approval(row: &Value) -> String {
    let asked = row
        .pointer("/approval/asked")
        .map(|_| "waits for a second person".to_owned());
    let given = row.pointer("/approval/given/by").and_then(Value::as_str);
    asked
        .or(given.map(|by| format!("by {by}")))
        .unwrap_or_else(|| "–".to_owned())
}

fn rollouts(rows: &[Value]) -> String {
    let heads = ["id", "set", "state", "wave", "why", "agreed"];
    table(heads, rows, |row| {
        let [id, set, state, wave, why] =
            ["id", "set", "state", "wave", "halted_because"].map(|key| text(row, key));
        [id, set, state, wave, why, approval(row)]
    })
}

/// Columns as wide as what is in them, two spaces apart; the last one is not padded.
fn table<const COLUMNS: usize>(
    heads: [&str; COLUMNS],
    rows: &[Value],
    cells: impl Fn(&Value) -> [String; COLUMNS],
) -> String {
    let mut lines = vec![heads.map(str::to_owned)];
    lines.extend(rows.iter().map(cells));
    let widths: [usize; COLUMNS] = std::array::from_fn(|column| {
        let lengths = lines
            .iter()
            .filter_map(|line| line.get(column))
            .map(|cell| cell.chars().count());
        lengths.max().unwrap_or_default()
    });
    let mut out = String::new();
    for line in &lines {
        let padded: Vec<String> = line
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        let _ = writeln!(out, "{}", padded.join("  ").trim_end());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_empty_list_says_so() {
        assert_eq!(render(&json!([])), "none yet\n");
    }

    #[test]
    fn silence_is_shown_in_the_largest_full_unit() {
        let shown = |silent: u64| seen(&json!({"silent_seconds": silent}));
        let ages = [0, 59, 60, 3599, 3600, 86_399, 86_400, 8_640_000].map(shown);
        let expected = ["0 s", "59 s", "1 min", "59 min", "1 h", "23 h", "1 d", "100 d"];
        assert_eq!(ages.to_vec(), expected.map(|age| format!("{age} ago")).to_vec());
    }

    #[test]
    fn long_names_keep_their_columns() {
        let rows = json!([
            {"device": "a", "set": "plant-1", "phase": "steady", "rollback": null, "refusal": "not-fresh", "slots": []},
            {"device": "packaging-line-7-left", "set": null, "phase": "trial", "rollback": null, "refusal": null,
             "clone_alarm": {"count": 3}, "silent_seconds": 7300,
             "slots": [{"component": "acme/thermo", "version": "1.0.0", "health": "healthy"}]},
        ]);
        assert_eq!(
            render(&rows),
            "device                 set      phase   rollback  why not updating  alarm      seen     workloads\n\
             a                      plant-1  steady  –         not-fresh         –          never\n\
             packaging-line-7-left  –        trial   –         –                 clone (3)  2 h ago  acme/thermo 1.0.0 healthy\n"
        );
    }
}
