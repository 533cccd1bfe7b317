//! The registry: every row of the attack table, what plays or tests it, and how it ended.

use crate::cargo::Ran;
use crate::named::{self, TestName};
use anyhow::{Context, Result, ensure};
use redan_kit::Stage;
use redan_protocol::Code;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The registry file.
const FILE: &str = include_str!("../registry.toml");

/// One row as the registry lists it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Stable id.
    pub id: String,
    /// What the attacker does.
    pub title: String,
    /// What must happen.
    pub expected: String,
    /// Name of the code that refuses it, where there is one.
    pub code: Option<String>,
    /// Tests that play it, each failing without the check.
    #[serde(default)]
    pub tests: Vec<TestName>,
    /// A test in which the same flow passes without the attack; it may be one of `tests`.
    pub control: Option<TestName>,
    /// The question of the benches that measures what no test may assert: how long something takes.
    pub bench: Option<String>,
    /// What programs and tests do not show yet. A row that has it counts as not covered.
    pub open: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Registry {
    attack: Vec<Row>,
}

/// How much of a row is shown to be refused.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Cover {
    /// By a program here, against real processes; the rest of its title by named tests, if there is a rest.
    Played,
    /// By named tests.
    Tested,
    /// By programs or tests, but not the whole of it.
    InPart,
    /// By nothing.
    Not,
}

impl Cover {
    /// As tables write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Played => "played",
            Self::Tested => "tested",
            Self::InPart => "in part",
            Self::Not => "not covered",
        }
    }
}

impl Row {
    /// Whether a program here plays it.
    fn played(&self) -> bool {
        PLAYED.iter().any(|(id, _)| *id == self.id)
    }

    /// How much of it is covered.
    pub fn cover(&self) -> Cover {
        match (self.played(), self.tests.is_empty(), &self.open) {
            (false, true, _) => Cover::Not,
            (_, _, Some(_)) => Cover::InPart,
            (true, _, None) => Cover::Played,
            (false, false, None) => Cover::Tested,
        }
    }

    /// Every test it names, the positive control among them.
    pub fn named(&self) -> impl Iterator<Item = &TestName> {
        self.tests.iter().chain(&self.control)
    }

    fn check(&self) -> Result<()> {
        let Self { id, code, .. } = self;
        ensure!(
            self.cover() != Cover::Tested || self.control.is_some(),
            "{id} has tests and no positive control"
        );
        ensure!(
            !self.tests.is_empty() || self.control.is_none(),
            "{id} has a positive control of nothing"
        );
        let unique: BTreeSet<&TestName> = self.tests.iter().collect();
        ensure!(unique.len() == self.tests.len(), "{id} names a test twice");
        if let Some(code) = code {
            ensure!(
                Code::ALL.iter().any(|known| known.name() == code),
                "{id}: {code} is no code of the product"
            );
            ensure!(self.cover() != Cover::Not, "{id} has a code that nothing shows");
        }
        Ok(())
    }
}

/// How a row ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub enum Status {
    /// Refused as expected, in all that the row says.
    #[serde(rename = "refused")]
    Refused,
    /// A program or a test did not see it refused.
    #[serde(rename = "accepted")]
    Accepted,
    /// Nothing here shows it, or not the whole of it.
    #[serde(rename = "not covered")]
    NotCovered,
}

/// One line of the table that `cargo xtask attacks` prints.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Stable id.
    pub id: String,
    /// What the attacker does.
    pub title: String,
    /// How it ended.
    pub status: Status,
    /// The code that refused it.
    pub code: Option<String>,
}

/// A program that plays one row on a running fleet and returns the name of the code that refused it.
/// An error means that the attack was not refused as expected, or could not be played.
pub type Attack = fn(&Stage) -> Result<String>;

/// The rows that have a program, in the order they are played.
pub const PLAYED: &[(&str, Attack)] = &[
    ("P03", crate::foreign::certificate_of_another_fleet),
    ("T02", crate::resigned::metadata_signed_with_the_servers_own_keys),
    ("T01", crate::tampered::bytes_replaced_in_the_store),
];

/// Reads the registry and holds it against [`PLAYED`], the product's codes and the tests there are.
pub fn rows() -> Result<Vec<Row>> {
    let rows = read(FILE).context("registry.toml")?;
    let missing = named::missing(rows.iter().flat_map(Row::named))?;
    ensure!(
        missing.is_empty(),
        "registry.toml names tests that there are not:\n  {}",
        missing.join("\n  ")
    );
    for bench in rows.iter().filter_map(|row| row.bench.as_ref()) {
        ensure!(
            is_asked(bench)?,
            "registry.toml names a bench that there is not: {bench}"
        );
    }
    Ok(rows)
}

/// Whether the benches ask this question.
fn is_asked(question: &str) -> Result<bool> {
    let benches = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../benches"))?;
    let quoted = format!("\"{question}\"");
    for file in benches {
        let path = file?.path();
        if path.extension().is_some_and(|ending| ending == "rs")
            && std::fs::read_to_string(path)?.contains(&quoted)
        {
            return Ok(true);
        }
    }
    Ok(false)
}

fn read(text: &str) -> Result<Vec<Row>> {
    let Registry { attack } = toml::from_str(text)?;
    let ids: BTreeSet<&str> = attack.iter().map(|row| row.id.as_str()).collect();
    ensure!(ids.len() == attack.len(), "an id is listed twice");
    for (id, _) in PLAYED {
        ensure!(ids.contains(id), "{id} is played but not listed");
    }
    attack.iter().try_for_each(Row::check)?;
    Ok(attack)
}

/// Every test that rows name.
pub fn tests(rows: &[Row]) -> BTreeSet<TestName> {
    rows.iter().flat_map(Row::named).cloned().collect()
}

/// Plays the rows that have a program. Says of each what its program has seen, nothing of its tests.
pub fn play(stage: &Stage) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    let rows = rows()?;
    for (id, attack) in PLAYED {
        let row = rows
            .iter()
            .find(|row| row.id == *id)
            .context("checked by rows()")?;
        let (status, code) = match attack(stage) {
            Ok(code) => (Status::Refused, Some(code)),
            Err(error) => {
                redan_kit::interrupt::check()?;
                eprintln!("{id}: {error:#}");
                (Status::Accepted, None)
            }
        };
        outcomes.push(Outcome {
            id: row.id.clone(),
            title: row.title.clone(),
            status,
            code,
        });
    }
    Ok(outcomes)
}

/// Every row, from what its program and its tests have seen. A failure is never hidden behind "not covered".
pub fn outcomes(rows: &[Row], played: &[Outcome], ran: &Ran) -> Vec<Outcome> {
    let outcome = |row: &Row| {
        let program = played.iter().find(|outcome| outcome.id == row.id);
        let failed = program.is_some_and(|outcome| outcome.status != Status::Refused)
            || row.named().any(|test| ran.get(test) == Some(&false));
        let all_ran = row.named().all(|test| ran.contains_key(test)) && program.is_some() == row.played();
        let status = match row.cover() {
            _ if failed => Status::Accepted,
            Cover::Played | Cover::Tested if all_ran => Status::Refused,
            _ => Status::NotCovered,
        };
        let code = program
            .and_then(|outcome| outcome.code.clone())
            .or(row.code.clone());
        Outcome {
            id: row.id.clone(),
            title: row.title.clone(),
            status,
            code: code.filter(|_| status == Status::Refused),
        }
    };
    rows.iter().map(outcome).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAYED_ROWS: &str = "
        [[attack]]\nid = 'P03'\ntitle = ''\nexpected = ''
        [[attack]]\nid = 'T01'\ntitle = ''\nexpected = ''
        [[attack]]\nid = 'T02'\ntitle = ''\nexpected = ''
        [[attack]]\nid = 'X'\ntitle = ''\nexpected = ''\n";

    fn x(more: &str) -> Result<Row> {
        read(&format!("{PLAYED_ROWS}{more}"))?.pop().context("four rows")
    }

    fn refusal(more: &str) -> String {
        x(more).unwrap_err().to_string()
    }

    #[test]
    fn a_row_is_what_its_lines_make_it() {
        let cases = [
            ("", Cover::Not),
            ("open = 'all'", Cover::Not),
            ("tests = ['a::b::c']\nopen = 'much'", Cover::InPart),
            ("tests = ['a::b::c']\ncontrol = 'a::b::c'", Cover::Tested),
        ];
        for (more, cover) in cases {
            assert_eq!(x(more).unwrap().cover(), cover, "{more}");
        }
    }

    #[test]
    fn rows_that_claim_too_much_are_refused() {
        assert_eq!(
            refusal("tests = ['a::b::c']"),
            "X has tests and no positive control"
        );
        assert_eq!(
            refusal("control = 'a::b::c'"),
            "X has a positive control of nothing"
        );
        assert_eq!(
            refusal("code = 'expired'"),
            "X: expired is no code of the product"
        );
        assert_eq!(refusal("code = 'revoked'"), "X has a code that nothing shows");
        let twice = "tests = ['a::b::c', 'a::b::c']\ncontrol = 'a::b::c'";
        assert_eq!(refusal(twice), "X names a test twice");
        assert_eq!(
            refusal("[[attack]]\nid = 'X'\ntitle = ''\nexpected = ''"),
            "an id is listed twice"
        );
        let unplayed = PLAYED_ROWS.replace("'P03'", "'P04'");
        assert_eq!(
            read(&unplayed).unwrap_err().to_string(),
            "P03 is played but not listed"
        );
        assert!(x("sleeps = true").is_err());
    }

    #[test]
    fn a_bench_that_a_row_names_is_looked_for() {
        assert!(is_asked("refusal of what another fleet has").unwrap());
        assert!(!is_asked("refusal of what nobody asked").unwrap());
    }

    #[test]
    fn only_a_whole_row_whose_every_test_passed_is_refused() {
        let test = |name: &str| TestName::try_from(name.to_owned()).unwrap();
        let status = |more: &str, ran: &[(&str, bool)]| {
            let ran = ran.iter().map(|(name, passed)| (test(name), *passed)).collect();
            let outcome = outcomes(&[x(more).unwrap()], &[], &ran).remove(0);
            (outcome.status, outcome.code)
        };
        let whole = "tests = ['a::b::c']\ncontrol = 'a::b::d'\ncode = 'revoked'";
        let code = Some("revoked".to_owned());
        assert_eq!(
            status(whole, &[("a::b::c", true), ("a::b::d", true)]),
            (Status::Refused, code)
        );
        assert_eq!(
            status(whole, &[("a::b::c", true), ("a::b::d", false)]),
            (Status::Accepted, None)
        );
        assert_eq!(status(whole, &[("a::b::c", true)]), (Status::NotCovered, None));
        let part = "tests = ['a::b::c']\nopen = 'much'";
        assert_eq!(status(part, &[("a::b::c", true)]), (Status::NotCovered, None));
        assert_eq!(status(part, &[("a::b::c", false)]), (Status::Accepted, None));
        assert_eq!(status("", &[]), (Status::NotCovered, None));
    }

    #[test]
    fn a_played_row_needs_its_program_and_its_tests() {
        let rows = read(PLAYED_ROWS).unwrap();
        let played = |status| Outcome {
            id: "P03".into(),
            title: String::new(),
            status,
            code: Some("foreign-certificate".into()),
        };
        let status = |played: &[Outcome]| outcomes(&rows, played, &Ran::new())[0].status;
        assert_eq!(status(&[played(Status::Refused)]), Status::Refused);
        assert_eq!(status(&[played(Status::Accepted)]), Status::Accepted);
        assert_eq!(status(&[]), Status::NotCovered);
    }
}
