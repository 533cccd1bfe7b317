//! The public table, `docs/theft.md`.

use super::Row;
use super::tries::Try;
use std::fmt::Write as _;

const HEAD: &str = "# What the theft of each key gives

Generated from `tests/attack-lab/theft.toml`. A test plays every cell with exactly those keys and fails when what is seen is
not what is written here, word for word, or when this page is stale (`cargo test -p redan-attack-lab`).

The fleet is a production fleet: two of three must sign as root, targets, component, plan, policy
and direction; one of three as snapshot.
**Whoever holds a key here also has the delivery**: the thief chooses what a device is served, out of everything that was ever
published and all that the stolen keys can sign; whatever points at a forged file is signed by its rightful signers, as if they had
been deceived; and the server states fresh what is served. So every cell is an upper bound.

A cell names the codes that refuse ([codes](../protocol/src/code.rs)); in each, the same is done by the rightful signers and adopted.
What a thief does get is in **bold**, and when a freeze ends: until then a device sees nothing new, from then on it refuses with
`metadata-expired`, says so, and keeps what it runs.
";

const COLUMNS: &str = "
| column | what is tried |
|---|---|
| new code | a release, a delegation, a root, everything at once; a direction to unreleased bytes; other bytes under a released name or digest; a stick with a set of it |
| roll back | old files; an old snapshot or plan listed anew; sets below the floor or the committed counters and an old direction, served or on a stick; a lower floor |
| other fleet | this fleet's files, and every role of the other one, served to a device of another fleet |
| ring | a direction before the ring opens, served or on a stick; a lie about time; a plan with a wider ring |
| grant | a set that policy does not admit, served or on a stick; another ask in the direction; a wider policy; a wider ask |
| choose | the next signed set, and the set before, which the operators did not choose, served or on a stick |
";

/// The page.
pub fn page(rows: &[Row]) -> String {
    let mut text = String::from(HEAD);
    text += "\n| id | key | lives | gives |\n|---|---|---|---|\n";
    for row in rows {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} |",
            row.id, row.key, row.lives, row.gives
        );
    }
    text += COLUMNS;
    text += "\n| id | new code | roll back | other fleet | ring | grant | choose |\n|---|---|---|---|---|---|---|\n";
    let cells = |row: &Row| {
        let cells = row.cells().into_iter();
        let cells = cells.filter(|(column, _)| *column != Try::Freeze);
        cells.map(|(_, cell)| cell.to_owned()).collect::<Vec<_>>()
    };
    for (ids, cells) in grouped(rows, cells) {
        let _ = writeln!(text, "| {ids} | {} |", cells.join(" | "));
    }
    text += "\n| id | a freeze holds back |\n|---|---|\n";
    for (ids, freeze) in grouped(rows, |row| row.freeze.clone()) {
        let _ = writeln!(text, "| {ids} | {freeze} |");
    }
    text += "\nPlayed against real `redan-control` and `redan-device` as well:\n\n| id | tried | seen |\n|---|---|---|\n";
    for row in rows {
        for seen in &row.live {
            let (tried, seen) = seen.split_once(": ").unwrap_or((seen, ""));
            let _ = writeln!(text, "| {} | {tried} | {seen} |", row.id);
        }
    }
    text
}

/// Rows that say the same, together, in the order of the first of them.
fn grouped<T: PartialEq>(rows: &[Row], of: impl Fn(&Row) -> T) -> Vec<(String, T)> {
    let mut groups: Vec<(String, T)> = Vec::new();
    for row in rows {
        let said = of(row);
        match groups.iter_mut().find(|(_, known)| *known == said) {
            Some((ids, _)) => {
                ids.push_str(", ");
                ids.push_str(&row.id);
            }
            None => groups.push((row.id.clone(), said)),
        }
    }
    groups
}
