//! The JSON Schema for editors names the keys the parser knows, no more and no fewer.

use redan_policy::{PolicyError, parse_ask};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

/// The keys the parser says it expects in a table, asked with a key that exists nowhere.
fn parsed(section: &[String], tables: &[bool]) -> BTreeSet<String> {
    let head = "schema = \"redan.policy/1\"\nkind = \"ask\"\n";
    // In a table of an array, deeper tables are reached by dotted keys.
    let (outer, inner) = section.split_at(tables.iter().rposition(|array| *array).map_or(0, |at| at + 1));
    let header = if outer.is_empty() {
        String::new()
    } else {
        format!("[[{}]]", outer.join("."))
    };
    let key = [inner, &["nowhere".to_owned()]].concat().join(".");
    let body = format!("{head}{header}\n{key} = 1\n");
    let Err(PolicyError::Syntax { what, .. }) = parse_ask("a", &body) else {
        panic!("{body} was taken");
    };
    assert!(what.starts_with("unknown field `nowhere`"), "{body}: {what}");
    what.split('`').skip(3).step_by(2).map(str::to_owned).collect()
}

fn compare(schema: &Value, section: &[String], tables: &[bool]) {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        return;
    };
    let described: BTreeSet<String> = properties.keys().cloned().collect();
    assert_eq!(described, parsed(section, tables), "[{}]", section.join("."));
    for (name, inner) in properties {
        let array = inner.get("items").is_some();
        let inner = inner.get("items").unwrap_or(inner);
        let step = |steps: &[String]| [steps, std::slice::from_ref(name)].concat();
        compare(inner, &step(section), &[tables, &[array]].concat());
    }
}

#[test]
fn the_json_schema_and_the_parser_know_the_same_keys() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies/redan.policy.1.schema.json");
    let schema: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    compare(&schema, &[], &[]);
}
