//! Answers as people read them: short tables for what is listed, aligned JSON for the rest.

use serde_json::Value;
use std::fmt::Write as _;

/// Renders an answer.
pub fn render(answer: &Value) -> String {
    match answer {
        Value::Array(rows) if rows.iter().all(|row| row.get("device").is_some()) => devices(rows),
        Value::Array(rows) if rows.iter().all(|row| row.get("waves").is_some()) => rollouts(rows),
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
    let mut out = format!(
        "{:<16} {:<14} {:<11} {:<16} {:<20} {:<12} workloads\n",
        "device", "set", "phase", "rollback", "why not updating", "alarm"
    );
    for row in rows {
        let workloads: Vec<String> = row
            .get("slots")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .map(|slot| {
                format!(
                    "{} {} {}",
                    text(slot, "component"),
                    text(slot, "version"),
                    text(slot, "health")
                )
            })
            .collect();
        let _ = writeln!(
            out,
            "{:<16} {:<14} {:<11} {:<16} {:<20} {:<12} {}",
            text(row, "device"),
            text(row, "set"),
            text(row, "phase"),
            text(row, "rollback"),
            text(row, "refusal"),
            alarm(row),
            workloads.join(", ")
        );
    }
    out
}

/// How often a superseded key of the device was used again; the whole alarm is in `redan device show`.
fn alarm(row: &Value) -> String {
    match row.pointer("/clone_alarm/count") {
        Some(count) => format!("clone ({count})"),
        None => "–".to_owned(),
    }
}

fn rollouts(rows: &[Value]) -> String {
    let mut out = format!("{:<5} {:<16} {:<10} {:<6} why\n", "id", "set", "state", "wave");
    for row in rows {
        let _ = writeln!(
            out,
            "{:<5} {:<16} {:<10} {:<6} {}",
            text(row, "id"),
            text(row, "set"),
            text(row, "state"),
            text(row, "wave"),
            text(row, "halted_because")
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_clone_alarm_is_in_the_list_of_devices() {
        let quiet = json!({"device": "press-1", "clone_alarm": null, "slots": []});
        let alarmed = json!({"device": "press-2", "clone_alarm": {"count": 3}, "slots": []});
        let list = render(&json!([quiet, alarmed]));
        let lines: Vec<&str> = list.lines().collect();
        assert!(lines[0].contains("alarm"), "{list}");
        assert!(!lines[1].contains("clone"), "{list}");
        assert!(lines[2].contains("clone (3)"), "{list}");
    }
}
