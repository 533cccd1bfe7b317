//! The attack lab as tests: every row that has a program is refused, every test a row names exists, and the public table is
//! not stale.
#![forbid(unsafe_code)]

use anyhow::Result;
use redan_attack_lab::registry::{self, Status};
use redan_attack_lab::{mirror, revoked, table, theft};
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

#[test]
fn a_lying_address_of_the_server_holds_a_running_device_back_from_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut stage = Stage::new(Programs::find()?, folder.path())?;
    mirror::one_address_of_two_lies(&mut stage)
}

#[test]
fn a_revoked_server_is_left_by_a_running_device_and_no_bad_list_takes_the_place_of_the_good_one() -> Result<()>
{
    let folder = tempfile::tempdir()?;
    let mut stage = Stage::new(Programs::find()?, folder.path())?;
    revoked::lists_of_servers(&mut stage)?;
    stage.stop()
}

#[test]
fn the_theft_of_tls_and_online_keys_gives_a_running_fleet_exactly_what_the_table_says() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut stage = Stage::new(Programs::find()?, folder.path())?;
    stage.play_first_release(&["press-1"])?;
    let mut wrong = Vec::new();
    for row in theft::rows()? {
        wrong.extend(row.play_live(&stage).err().map(|error| format!("{error:#}")));
    }
    assert_eq!(wrong, Vec::<String>::new());
    stage.stop()
}

#[test]
fn the_theft_of_each_key_gives_exactly_what_the_table_says() -> Result<()> {
    let scene = theft::tries::Scene::new()?;
    let mut wrong = Vec::new();
    for row in theft::rows()? {
        wrong.extend(row.play(&scene).err().map(|error| format!("{error:#}")));
    }
    assert_eq!(wrong, Vec::<String>::new());
    Ok(())
}

#[test]
fn the_public_table_of_thefts_is_generated_from_what_is_played() -> Result<()> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/theft.md");
    let page = theft::page::page(&theft::rows()?);
    if std::env::var_os("REDAN_BLESS").is_some() {
        std::fs::write(path, &page)?;
    }
    assert_eq!(
        std::fs::read_to_string(path)?,
        page,
        "docs/theft.md is stale: run with REDAN_BLESS=1"
    );
    Ok(())
}
