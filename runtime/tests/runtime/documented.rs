//! `docs/runtime.md` names every limit, and tests that exist.

use crate::{grants, guests};
use redan_policy::grant::World;
use std::path::Path;

fn page() -> String {
    std::fs::read_to_string(guests::repository().join("docs/runtime.md")).unwrap()
}

/// Everything in backticks in the last column of the tables of limits.
fn named_tests(page: &str) -> Vec<&str> {
    let limits = page
        .split("\n## ")
        .filter(|section| section.starts_with("Limits of"));
    let rows = limits.flat_map(str::lines).filter(|line| line.starts_with('|'));
    let last = rows.filter_map(|row| row.trim_end_matches('|').rsplit('|').next());
    last.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect()
}

fn sources(folder: &Path, text: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_limit_of_a_call_is_documented() {
    let page = page();
    let limits = format!("{:?}", grants::bare("acme/any", World::Command).limits);
    let fields = limits.trim_start_matches("Limits { ").split(", ");
    let names: Vec<_> = fields.map(|field| field.split(':').next().unwrap()).collect();
    assert_eq!(names.len(), 18);
    for name in names {
        assert!(
            page.contains(&format!("| `{name}` |")),
            "{name} is not in docs/runtime.md"
        );
    }
}

#[test]
fn every_test_the_page_names_exists() {
    let (page, mut text) = (page(), String::new());
    sources(&guests::repository().join("runtime"), &mut text);
    let named = named_tests(&page);
    assert!(named.len() > 30, "only {} tests are named", named.len());
    for name in named {
        assert!(text.contains(&format!("fn {name}()")), "{name} does not exist");
    }
}
