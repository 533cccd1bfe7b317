//! Two people for a rollout beyond its canary (attacks O01, O02).

use crate::rollouts::{directed, published, runs, start};
use crate::site::{Site, config};
use redan_control::config::FleetSettings;
use redan_protocol::report::Report;
use redan_protocol::{Code, Role};
use serde_json::{Value, json};

async fn two_people(site: Site) -> Site {
    let mut config = config(site.folder.path());
    let settings = FleetSettings {
        second_approver: true,
        ..FleetSettings::default()
    };
    config.fleets.insert(site.fleet.clone(), settings);
    site.restart_with(config).await
}

fn canary_first() -> Value {
    json!([{"name": "canary", "devices": ["press-1"]}, {"name": "all", "permille": 1000}])
}

/// The attacker holds one operator's certificate, of the highest role there is.
#[tokio::test]
async fn one_person_alone_reaches_the_canary_and_nobody_else() {
    let site = two_people(Site::open().await).await;
    let (mut first, mut second) = (site.device("press-1").await, site.device("press-2").await);
    published(&site, &["plant-1"]).await;
    let mut admin = site.operator().await;
    // Everybody in the first wave, or many first waves of few.
    for waves in [
        json!([{"name": "all", "permille": 1000}]),
        json!([{"name": "both", "devices": ["press-1", "press-2"]}]),
    ] {
        let answer = admin.post("/v1/rollouts", &start("plant-1", &waves)).await;
        assert_eq!(answer.refusal(), (400, Code::PreflightRefused), "{waves}");
    }
    let started = admin
        .post("/v1/rollouts", &start("plant-1", &canary_first()))
        .await
        .json();
    assert_eq!(started["approval"], json!({"asked": {"starter": "admin"}}));
    let own = admin.post("/v1/rollouts/1/approve", &json!({})).await;
    assert_eq!(own.refusal(), (403, Code::OwnRollout));
    let (_, sequence) = directed(&mut first, Report::default()).await.unwrap();
    directed(&mut first, runs("plant-1", sequence)).await;
    assert_eq!(
        directed(&mut second, Report::default()).await,
        None,
        "nobody has agreed"
    );
    // Nor by stopping and going on, nor by another rollout of the same set with another canary.
    for verb in ["pause", "resume"] {
        admin
            .post(&format!("/v1/rollouts/1/{verb}"), &json!({}))
            .await
            .json();
    }
    assert_eq!(directed(&mut second, Report::default()).await, None);
    admin.post("/v1/rollouts/1/abort", &json!({})).await.json();
    let other = json!([{"name": "canary", "devices": ["press-2"]}]);
    let answer = admin.post("/v1/rollouts", &start("plant-1", &other)).await;
    assert_eq!(answer.refusal(), (400, Code::PreflightRefused));
    assert_eq!(directed(&mut second, Report::default()).await, None);
    let ended = admin.post("/v1/rollouts/1/approve", &json!({})).await;
    assert_eq!(ended.refusal(), (409, Code::WrongState));
}

#[tokio::test]
async fn a_second_person_opens_what_is_beyond_the_canary() {
    let site = two_people(Site::open().await).await;
    let (one, two) = (site.enrolled("press-1").await, site.enrolled("press-2").await);
    published(&site, &["plant-1"]).await;
    let mut admin = site.operator().await;
    admin
        .post("/v1/rollouts", &start("plant-1", &canary_first()))
        .await
        .json();
    let bundle = site.appointed("bob", Role::Approver).await;
    // The agreement, and that it is still needed, outlive a restart.
    drop(admin);
    let site = two_people(site).await;
    let mut first = site.connect(&one).await.unwrap();
    let mut second = site.connect(&two).await.unwrap();
    let (_, sequence) = directed(&mut first, Report::default()).await.unwrap();
    directed(&mut first, runs("plant-1", sequence)).await;
    assert_eq!(directed(&mut second, Report::default()).await, None);
    let mut bob = site.connect(&bundle).await.unwrap();
    let agreed = bob.post("/v1/rollouts/1/approve", &json!({})).await.json();
    assert_eq!(
        agreed["approval"],
        json!({"given": {"starter": "admin", "by": "bob"}})
    );
    directed(&mut first, runs("plant-1", sequence)).await;
    assert_eq!(
        directed(&mut second, Report::default()).await.unwrap().0,
        "plant-1"
    );
    let log = bob.get("/v1/audit").await.json();
    let entry = log
        .as_array()
        .unwrap()
        .iter()
        .find(|entry| entry["action"] == "rollout-approved");
    assert_eq!(entry.unwrap()["actor"], "spiffe://plant.example/operator/bob");
    let twice = bob.post("/v1/rollouts/1/approve", &json!({})).await;
    assert_eq!(twice.refusal(), (409, Code::WrongState));
}

#[tokio::test]
async fn a_rollout_may_ask_for_a_second_person_where_the_fleet_does_not() {
    let site = Site::open().await;
    site.device("press-1").await;
    site.device("press-2").await;
    published(&site, &["plant-1"]).await;
    let mut admin = site.operator().await;
    let mut asking = start("plant-1", &canary_first());
    asking["approve"] = json!(true);
    let started = admin.post("/v1/rollouts", &asking).await.json();
    assert_eq!(started["approval"], json!({"asked": {"starter": "admin"}}));
    let own = admin.post("/v1/rollouts/1/approve", &json!({})).await;
    assert_eq!(own.refusal(), (403, Code::OwnRollout));
    admin.post("/v1/rollouts/1/abort", &json!({})).await.json();
    let plain = admin
        .post("/v1/rollouts", &start("plant-1", &canary_first()))
        .await
        .json();
    assert_eq!(plain["approval"], "not-asked");
    let unasked = admin.post("/v1/rollouts/2/approve", &json!({})).await;
    assert_eq!(unasked.refusal(), (409, Code::WrongState));
}
