//! What custodians assemble, taken by a server and by devices.

use crate::site::{Caller, Site, now};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use redan_ceremony::assemble::assemble;
use redan_ceremony::change::Change;
use redan_ceremony::present::{Present, RepositoryName};
use redan_ceremony::sign::sign;
use redan_protocol::report::Report;
use redan_protocol::{Code, ComponentName};
use redan_publish::{PublicKey, Signers, SigningKey};
use redan_trust::metadata::Metadata as _;
use redan_trust::{Answer, Refresh, Repository, Step, Trusted, TufError};
use serde_json::{Value, json};
use std::path::Path;

/// Requests a change, has the one holder of this development fleet sign it, and assembles it. Gives its file name.
fn custodians(site: &Site, name: RepositoryName, change: &Change, holder: &str) -> String {
    decide(&site.founded(), name, change, holder)
}

/// The same in the folder a fleet was founded in.
pub(crate) fn decide(founded: &Path, name: RepositoryName, change: &Change, holder: &str) -> String {
    let public = founded.join("public");
    let present = Present::read(&public, name).unwrap();
    let request = change.request(&present, None, now()).unwrap();
    let checked = request.check(&present, now()).unwrap();
    let key = SigningKey::load(&founded.join(format!("offline/{holder}-1.key.json"))).unwrap();
    let digest = checked.sha256.to_string();
    let signature = sign(&request, &checked, &key, &digest[..8]).unwrap();
    let carried = tempfile::tempdir().unwrap();
    let file = carried.path().join("signature.json");
    signature.write(&file).unwrap();
    let assembled = assemble(&request, &checked, &[file], &present, now()).unwrap();
    std::fs::write(present.folder.join(&assembled.name), &assembled.bytes).unwrap();
    assembled.name
}

fn upload(site: &Site, names: &[&str]) -> Value {
    let folder = site.founded().join("public/release");
    let encoded = |name: &&str| {
        let bytes = std::fs::read(folder.join(name)).unwrap();
        ((*name).to_owned(), json!(STANDARD.encode(bytes)))
    };
    let files: serde_json::Map<String, Value> = names.iter().map(encoded).collect();
    json!({"files": files})
}

pub(crate) fn enrolled(site: &Site, name: &str) -> Trusted {
    Trusted {
        root: std::fs::read(site.founded().join("public").join(name).join("1.root.json")).unwrap(),
        ..Trusted::default()
    }
}

/// One refresh as a device makes it, remembering what it stores.
pub(crate) async fn refresh(
    device: &mut Caller,
    name: &str,
    trusted: &mut Trusted,
) -> Result<Repository, TufError> {
    let mut refresh = Refresh::new(trusted.clone(), now())?;
    let mut answer = None;
    loop {
        match refresh.step(answer.take())? {
            Step::Fetch { path, .. } => {
                let got = device.get(&format!("/tuf/{name}/{path}")).await;
                answer = Some(match got.status {
                    200 => Answer::Bytes(got.body.to_vec()),
                    404 => Answer::Absent,
                    _ => Answer::Failed,
                });
            }
            Step::Store { role, bytes } => {
                match role.as_str() {
                    "root" => trusted.root = bytes,
                    "timestamp" => trusted.timestamp = Some(bytes),
                    "snapshot" => trusted.snapshot = Some(bytes),
                    _ => drop(trusted.targets.insert(role, bytes)),
                }
                answer = Some(Answer::Stored);
            }
            Step::Remove { role } => {
                match role.as_str() {
                    "timestamp" => trusted.timestamp = None,
                    _ => trusted.snapshot = None,
                }
                answer = Some(Answer::Stored);
            }
            Step::Done => return refresh.finish(),
        }
    }
}

#[tokio::test]
async fn a_new_root_and_a_delegation_are_taken_while_running_and_adopted_by_devices() {
    use RepositoryName::Release;
    let site = Site::open().await;
    let mut device = site.device("press-1").await;
    let mut trusted = enrolled(&site, "release");
    refresh(&mut device, "release", &mut trusted).await.unwrap();

    let rotate = Change::Rotate { role: "root".into() };
    let root = custodians(&site, Release, &rotate, "release.root");
    let pump = SigningKey::generate("component.acme.pump-1").unwrap();
    let signers = Signers {
        keys: vec![pump.public()],
        threshold: 1,
    };
    let delegate = Change::Delegate {
        delegation: redan_ceremony::delegate::component(&ComponentName::parse("acme/pump").unwrap(), signers),
    };
    let targets = custodians(&site, Release, &delegate, "release.targets");
    let snapshot = custodians(&site, Release, &Change::Snapshot, "release.snapshot");
    assert_eq!(
        [&root, &targets, &snapshot],
        ["2.root.json", "2.targets.json", "2.snapshot.json"]
    );
    let mut operator = site.operator().await;
    // Without the snapshot nobody would see the new targets file.
    let early = operator.post("/v1/release", &upload(&site, &[&targets])).await;
    assert_eq!(early.refusal(), (409, Code::Conflict));
    operator
        .post("/v1/release", &upload(&site, &[&root, &targets, &snapshot]))
        .await
        .json();
    let repository = refresh(&mut device, "release", &mut trusted).await.unwrap();
    assert_eq!(
        (repository.root().version(), repository.targets().version()),
        (2, 2)
    );

    // A root by itself needs no new snapshot.
    let root = custodians(&site, Release, &rotate, "release.root");
    operator
        .post("/v1/release", &upload(&site, &[&root]))
        .await
        .json();
    let repository = refresh(&mut device, "release", &mut trusted).await.unwrap();
    assert_eq!(
        (repository.root().version(), repository.snapshot_version()),
        (3, 2)
    );
}

#[tokio::test]
async fn after_stolen_online_keys_were_replaced_devices_go_on_with_the_new_ones() {
    for (repository, roles) in [
        (RepositoryName::Release, &["timestamp"][..]),
        (RepositoryName::Director, &["targets", "snapshot", "timestamp"]),
    ] {
        let name = repository.folder();
        let site = Site::open().await;
        let bundle = site.enrolled("press-1").await;
        let mut trusted = enrolled(&site, name);
        let mut device = site.connect(&bundle).await.unwrap();
        device.check_in(Report::default()).await;
        refresh(&mut device, name, &mut trusted).await.unwrap();

        let made: Vec<(String, SigningKey)> = roles
            .iter()
            .map(|role| ((*role).to_owned(), SigningKey::generate(role).unwrap()))
            .collect();
        let keys: Vec<(String, PublicKey)> = made
            .iter()
            .map(|(role, key)| (role.clone(), key.public()))
            .collect();
        let holder = format!("{name}.root");
        custodians(&site, repository, &Change::RevokeOnline { keys }, &holder);
        // By hand, on the server's own host.
        let (kept, public) = (site.kept(), site.founded().join("public"));
        let root = format!("{name}/2.root.json");
        std::fs::copy(public.join(&root), kept.join("public").join(&root)).unwrap();
        for (role, key) in &made {
            replace(&kept.join(format!("online/{name}.{role}.key.json")), key);
        }
        let site = site.restart().await;

        let mut device = site.connect(&bundle).await.unwrap();
        device.check_in(Report::default()).await;
        let after = refresh(&mut device, name, &mut trusted).await.unwrap();
        assert_eq!(after.root().version(), 2, "{name}");
    }
}

fn replace(path: &Path, key: &SigningKey) {
    std::fs::remove_file(path).unwrap();
    key.save(path).unwrap();
}
