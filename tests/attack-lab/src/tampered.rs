//! T01: the attacker owns the artifact store and replaces a component's bytes, same length, same name.

use crate::guinea::Guinea;
use anyhow::{Context, Result, ensure};
use redan_kit::Stage;
use redan_kit::stage::{FLEET, SERVICE};
use redan_protocol::{Code, Digest};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// For one update of one device on a busy machine.
const UPDATE_WITHIN: Duration = Duration::from_mins(1);
/// The set every stage publishes first.
const SET: &str = "plant-1";

/// A fresh device is directed to a signed set while one byte of its service's artifact is another: it refuses and keeps nothing
/// under the digest's name. Positive control: the byte is put back, and the same device adopts the same set.
pub fn bytes_replaced_in_the_store(stage: &Stage) -> Result<String> {
    let artifact = service_artifact(stage)?;
    let honest = std::fs::read(&artifact)?;
    let digest = Digest::of(&honest);

    let mut tampered = honest.clone();
    let middle = tampered.len() / 2;
    *tampered.get_mut(middle).context("an empty artifact")? ^= 1;
    replace(&artifact, &tampered)?;
    let mut guinea = Guinea::enrol(stage, "attacked-t01")?;
    let refused = guinea.start(stage.server()?).and_then(|()| {
        let rollout = stage.start_rollout(SET, &[&format!("attacked={}", guinea.id())])?;
        let code = guinea.await_refusal(UPDATE_WITHIN)?;
        stage.redan(&["rollout", "abort", &rollout])?;
        Ok(code)
    });
    let kept = guinea.state().join("blobs").join(digest.to_string()).exists();
    replace(&artifact, &honest)?;
    let code = refused?;
    ensure!(code == Code::DigestMismatch.name(), "the device reported {code}");
    ensure!(
        !kept,
        "the device stored the tampered bytes under the digest's name"
    );

    let rollout = stage.start_rollout(SET, &[&format!("restored={}", guinea.id())])?;
    guinea.await_set(SET, UPDATE_WITHIN).context("positive control")?;
    stage.await_rollout(&rollout, &["complete"], UPDATE_WITHIN)?;
    guinea.stop()?;
    Ok(code)
}

/// Where the store keeps the service of the first set: the artifact that has the bytes of the guest as published.
fn service_artifact(stage: &Stage) -> Result<PathBuf> {
    let (_, workload) = SERVICE.split_once('/').context("publisher/workload")?;
    let published = std::fs::read(stage.programs.guest(workload, "1.0.0")?)?;
    let name = Digest::of(&published).to_string();
    let artifact = stage
        .control_state()
        .join("fleets")
        .join(FLEET)
        .join("artifacts")
        .join(name);
    ensure!(
        artifact.exists(),
        "the store does not hold {}",
        artifact.display()
    );
    Ok(artifact)
}

/// Whole or not at all, as a store's owner would.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let beside = path.with_extension("attacker");
    std::fs::write(&beside, bytes)?;
    std::fs::rename(&beside, path)?;
    Ok(())
}
