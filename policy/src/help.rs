//! What to write instead: every error of a document ends with it.

/// What to do about what the reader of TOML says.
pub(crate) fn of_syntax(what: &str, suggestion: Option<&str>) -> String {
    if let Some(name) = suggestion {
        return format!("did you mean `{name}`?");
    }
    let help = if what.starts_with("unknown field") || what.starts_with("unknown variant") {
        "take it out, or write one of those"
    } else if what.starts_with("missing field") {
        "add it"
    } else if what.starts_with("duplicate key") {
        "write it once"
    } else if what.contains("version number") {
        "write a version such as \"1.0.0\""
    } else if what.starts_with("invalid type")
        || what.starts_with("invalid value")
        || what.starts_with("wanted")
    {
        "write a value of that kind; docs/policy.md shows one of each"
    } else if ["such as", "write ", " or "]
        .iter()
        .any(|known| what.contains(known))
    {
        "write it like that"
    } else {
        "write it as docs/policy.md shows; text stands in quotes, and a section in brackets"
    };
    help.to_owned()
}

/// What to do about a key, where the words that say what is wrong do not.
pub(crate) fn of_key(what: &str) -> &'static str {
    if what.starts_with("belongs to") && !what.contains(';') {
        "; move it there"
    } else if [
        "such as",
        "add ",
        "remove",
        "write ",
        "must be at least",
        "must be longer",
    ]
    .iter()
    .any(|known| what.contains(known))
    {
        ""
    } else {
        "; docs/policy.md shows how it is written"
    }
}

/// From "unknown field `a`, expected one of `b`, `c`", or "unknown variant": the expected name nearest to the unknown one.
pub(crate) fn suggestion(what: &str) -> Option<String> {
    let rest = what
        .strip_prefix("unknown field ")
        .or_else(|| what.strip_prefix("unknown variant "))?;
    let mut names = rest.split('`').skip(1).step_by(2);
    let unknown = names.next()?;
    names
        .map(|name| (distance(unknown, name), name))
        .min()
        .filter(|(distance, _)| *distance <= 3)
        .map(|(_, name)| name.to_owned())
}

/// Levenshtein's distance, one row at a time.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(row.first_mut().unwrap_or(&mut 0), i.saturating_add(1));
        for (j, y) in b.chars().enumerate() {
            let above = row.get(j.saturating_add(1)).copied().unwrap_or_default();
            let left = row.get(j).copied().unwrap_or_default();
            let cost = diagonal.saturating_add(usize::from(x != y));
            let best = cost.min(above.saturating_add(1)).min(left.saturating_add(1));
            diagonal = above;
            if let Some(cell) = row.get_mut(j.saturating_add(1)) {
                *cell = best;
            }
        }
    }
    row.last().copied().unwrap_or_default()
}
