//! Whole devices whose clock is wrong. Their clock is the machine's; the world around them, from the ceremony to the server, is at
//! another time (`libfaketime`).

use anyhow::{Context, Result, ensure};
use redan_kit::stage::{JOB, Release, SERVICE, World};
use redan_kit::traffic::get;
use redan_kit::{Programs, Stage};
use std::time::Duration;

const SOON: Duration = Duration::from_mins(1);
const DEVICE: &str = "press-1";
const YEAR: i32 = 365;

/// A world so many days away; `None`, and a word, where it cannot be had and nobody insists (continuous integration does).
fn world(days: i32) -> Result<Option<World>> {
    let world = World::away(days);
    if world.is_none() {
        ensure!(
            std::env::var_os("REDAN_SERVICES").is_none(),
            "libfaketime is not installed"
        );
        eprintln!("left out: libfaketime is not installed (Debian package faketime)");
    }
    Ok(world)
}

/// Brings the second release, and waits until the device runs it and nothing else is wrong with it.
fn next_release(stage: &Stage) -> Result<()> {
    // Signed anew like everything below, as it is in a fleet whose metadata has expired.
    stage.publish_policy(&stage.programs.repository.join("policies/fleet/demo.toml"))?;
    stage.publish(Release {
        component: SERVICE,
        version: "1.1.0",
        counter: 2,
    })?;
    stage.publish_set("plant-2", &[(SERVICE, "1.1.0"), (JOB, "1.0.0")])?;
    let rollout = stage.start_rollout("plant-2", &["all=1000permille"])?;
    stage.await_rollout(&rollout, &["complete"], SOON)?;
    let service = stage.device(DEVICE)?.service;
    let answer = get(service, "/thermo/")?;
    ensure!(answer.status == 200, "{answer:?}");
    Ok(())
}

/// Founds a fleet, brings the first release, lets the world jump, and brings the next one.
fn follows(days: i32, jump: i32) -> Result<()> {
    let Some(before) = world(days)? else {
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let mut stage = Stage::new(Programs::find()?, folder.path())?;
    stage.world = before;
    stage.play_first_release(&[DEVICE])?;
    stage.jump(world(days + jump)?.context("a moment ago there was one")?)?;
    next_release(&stage)?;
    stage.stop()
}

#[test]
fn a_device_whose_clock_is_ten_years_ahead_follows_its_fleet_also_across_a_jump() -> Result<()> {
    follows(-10 * YEAR, 20)
}

#[test]
fn a_device_whose_clock_is_twenty_years_behind_follows_its_fleet_also_across_a_jump() -> Result<()> {
    follows(20 * YEAR, 20)
}

/// Its certificate ended five months ago, within the grace of the policy, and all metadata that it has has expired. Nobody at the
/// device does anything. Nobody signed anything meanwhile either: signing again is all it takes.
#[test]
fn a_device_that_was_away_for_179_days_comes_back_by_itself() -> Result<()> {
    let Some(now) = world(179)? else {
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let mut stage = Stage::new(Programs::find()?, folder.path())?;
    stage.play_first_release(&[DEVICE])?;
    let key = stage.device(DEVICE)?.state.join("identity/key.pem");
    let old = std::fs::read(&key)?;
    stage.device_mut(DEVICE)?.stop()?;
    stage.jump(now)?;
    stage.start_device(DEVICE)?;
    next_release(&stage)?;
    ensure!(std::fs::read(&key)? != old, "it speaks with the old key");
    stage.stop()
}

/// The world is half a year on and nobody has signed anything since; the device's own clock says something else altogether. What it is
/// served has expired by the time it can prove, whatever its clock says; it runs on, says so, and follows what is signed next.
fn refuses(days: i32) -> Result<()> {
    let Some(before) = world(days)? else {
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let mut stage = Stage::new(Programs::find()?, folder.path())?;
    stage.world = before;
    stage.play_first_release(&[DEVICE])?;
    stage.jump(world(days + 179)?.context("a moment ago there was one")?)?;
    stage.await_devices("expired metadata to be refused", SOON, |views| {
        let refusal = views.first().and_then(|view| view.refusal.as_deref());
        refusal == Some("metadata-expired")
    })?;
    let service = stage.device(DEVICE)?.service;
    let answer = get(service, "/thermo/")?;
    ensure!(answer.status == 200, "{answer:?}");
    next_release(&stage)?;
    stage.stop()
}

#[test]
fn expired_metadata_is_refused_by_a_device_whose_clock_is_twenty_years_behind() -> Result<()> {
    refuses(20 * YEAR)
}

#[test]
fn expired_metadata_is_refused_by_a_device_whose_clock_is_ten_years_ahead() -> Result<()> {
    refuses(-10 * YEAR)
}
