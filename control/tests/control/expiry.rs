//! What expires: missed in time, signed again in time, and what was signed by others never touched.

use crate::program::{registered, registered_at};
use crate::site::{Site, now};
use redan_control::checkin::tick;
use redan_control::expiry;
use redan_control::fleet::Fleet;
use redan_control::release::timestamp_version;
use redan_protocol::{FleetId, Seconds, UnixSeconds};
use redan_trust::{Answer, Refresh, Step, Trusted, TufError};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

async fn opened(folder: &Path, now: UnixSeconds) -> Fleet {
    let kept = folder.join("state/fleets/plant.example");
    let (fleet, _) = Fleet::open(&kept, FleetId::parse("plant.example").unwrap(), now)
        .await
        .unwrap();
    fleet
}

/// What a device says to the files that are served, at a time.
async fn believed(fleet: &Fleet, at: UnixSeconds) -> Result<(), TufError> {
    let state = fleet.state.lock().await;
    let trusted = Trusted {
        root: fleet.release_root.clone().into_bytes(),
        ..Trusted::default()
    };
    let mut refresh = Refresh::new(trusted, at)?;
    let mut answer = None;
    loop {
        match refresh.step(answer.take())? {
            Step::Fetch { path, .. } => {
                let file = state.release.get(&path).cloned();
                answer = Some(file.map_or(Answer::Absent, Answer::Bytes));
            }
            Step::Store { .. } | Step::Remove { .. } => answer = Some(Answer::Stored),
            Step::Done => return refresh.finish().map(drop),
        }
    }
}

#[tokio::test]
async fn the_timestamp_is_signed_again_long_before_it_expires_and_after_a_long_rest() {
    let (folder, _) = registered().await;
    let start = now();
    let fleet = opened(folder.path(), start).await;
    let at = |hours: u64| start.after(Seconds::new(hours * HOUR));
    let version = async || timestamp_version(&fleet.state.lock().await.release);
    assert_eq!(version().await, 1);
    tick(&fleet, at(11)).await.unwrap();
    assert_eq!(version().await, 1, "it is young");
    tick(&fleet, at(13)).await.unwrap();
    assert_eq!(version().await, 2);
    // Without the second one devices would be refused from here on.
    for hours in [24, 49, 60] {
        believed(&fleet, at(hours)).await.unwrap();
    }
    assert!(
        matches!(believed(&fleet, at(62)).await, Err(TufError::Expired { role, .. }) if role == "timestamp")
    );
    // The server was off for days: its first tick makes one that counts.
    tick(&fleet, at(120)).await.unwrap();
    assert_eq!(version().await, 3);
    believed(&fleet, at(121)).await.unwrap();
    // Kept, not only served.
    drop(fleet);
    let again = opened(folder.path(), at(121)).await;
    assert_eq!(timestamp_version(&again.state.lock().await.release), 3);
}

#[tokio::test]
async fn every_role_and_certificate_is_missed_while_there_is_time_to_replace_it() {
    let (folder, _) = registered().await;
    let founded = now();
    let fleet = opened(folder.path(), founded).await;
    let state = fleet.state.lock().await;
    let everything = expiry::all(&fleet, &state);
    // The day from which on each is due, by its life and what is spared of it.
    for (of, due) in [
        ("certificate.server", 60),
        ("certificate.server-issuer", 183),
        ("certificate.device-issuer", 183),
        ("certificate.ca", 3468),
        ("release.root", 305),
        ("director.root", 305),
        ("release.targets", 305),
        ("release.policy", 305),
        ("release.plan", 60),
        ("release.direction", 60),
        ("release.snapshot", 60),
        ("release.component.acme.thermo", 150),
        ("release.timestamp", 1),
    ] {
        let found = everything.iter().find(|expiry| expiry.of == of);
        let found = found.unwrap_or_else(|| panic!("{of} is not in {everything:?}"));
        let on = |day: u64| found.is_due(UnixSeconds::new(founded.get() + day * DAY));
        assert!(on(due + 1), "{of} is due by day {}", due + 1);
        assert!(due == 1 || !on(due - 1), "{of} is not due by day {}", due - 1);
    }
    assert_eq!(everything.len(), 13, "{everything:?}");
    drop(state);
    // A fleet of which nobody has signed anything for 70 days, as the metrics show it.
    let old = UnixSeconds::new(now().get() - 70 * DAY);
    let (folder, _) = registered_at(old).await;
    let fleet = opened(folder.path(), now()).await;
    let state = fleet.state.lock().await;
    let due: Vec<String> = expiry::all(&fleet, &state)
        .into_iter()
        .filter(|expiry| expiry.is_due(now()))
        .map(|expiry| expiry.of)
        .collect();
    assert_eq!(
        due,
        [
            "certificate.server",
            "release.snapshot",
            "release.direction",
            "release.plan"
        ]
    );
}

fn files(folder: &Path) -> BTreeMap<String, PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), path))
        .collect()
}

#[tokio::test]
async fn every_file_that_was_signed_offline_is_served_byte_for_byte() {
    let mut site = Site::open().await;
    let bundle = site.enrolled("press-1").await;
    for restarted in [false, true] {
        if restarted {
            site = site.restart().await;
        }
        let mut device = site.connect(&bundle).await.unwrap();
        let mut operator = site.operator().await;
        let mut seen = 0;
        for repository in ["release", "director"] {
            for (name, path) in files(&site.founded().join("public").join(repository)) {
                let signed = std::fs::read(path).unwrap();
                let served = device.get(&format!("/tuf/{repository}/{name}")).await;
                assert_eq!(served.body, signed[..], "{repository}/{name}");
                if repository == "release" {
                    assert_eq!(
                        operator.get(&format!("/v1/release/{name}")).await.body,
                        signed[..],
                        "{name}"
                    );
                }
                seen += 1;
            }
        }
        // Root, targets, snapshot, direction, plan, policy, one component; and the director's root.
        assert_eq!(seen, 8);
    }
}
