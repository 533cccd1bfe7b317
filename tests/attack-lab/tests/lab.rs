//! The attack lab as tests: every row that has a program is refused, every test a row names exists, and the public table is
//! not stale.
#![forbid(unsafe_code)]

use anyhow::Result;
use redan_attack_lab::registry::{self, Status};
use redan_attack_lab::table;
use redan_kit::{Programs, Stage};

#[test]
fn the_public_table_is_generated_from_the_registry() -> Result<()> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/attacks.md");
    let table = table::page(&registry::rows()?);
    if std::env::var_os("REDAN_BLESS").is_some() {
        std::fs::write(path, &table)?;
    }
    assert_eq!(
        std::fs::read_to_string(path)?,
        table,
        "docs/attacks.md is stale: run with REDAN_BLESS=1"
    );
    Ok(())
}

#[test]
fn every_row_names_tests_that_there_are_and_codes_of_the_product() -> Result<()> {
    registry::rows().map(drop)
}

#[test]
fn every_attack_that_has_a_program_is_refused_on_a_running_fleet() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut stage = Stage::new(Programs::find()?, folder.path())?;
    stage.play_first_release(&["press-1", "press-2"])?;
    let outcomes = registry::play(&stage)?;
    assert_eq!(outcomes.len(), registry::PLAYED.len());
    for outcome in outcomes {
        assert_eq!(outcome.status, Status::Refused, "{outcome:?}");
    }
    stage.stop()
}
