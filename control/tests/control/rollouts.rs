//! Rollouts over the network: what is refused up front, and what devices are directed to as one goes on. How waves count is tested in
//! `control/core`, what devices do with a direction end to end.

use crate::release::{publish, store};
use crate::site::{Caller, Site};
use redan_protocol::report::{Phase, Report};
use redan_protocol::{Code, Digest, DirectionSequence, SetId};
use redan_publish::metadata::target;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const COMPONENT: &[u8] = b"the bytes of a component";

fn component_path() -> String {
    format!("components/acme/thermo/1.0.0/{}.wasm", Digest::of(COMPONENT))
}

/// Publishes the component and sets of it.
pub(crate) async fn published(site: &Site, sets: &[&str]) {
    store(site, COMPONENT).await;
    let record = json!({
        "fleet": site.fleet, "component": "acme/thermo", "counter": 1, "version": "1.0.0", "hardware": [],
        "world": "wasi:http/proxy@0.2", "ask": "", "requires": [], "conflicts": [], "state_schema": 1,
        "sbom": null, "provenance": null, "rebuild": null,
    });
    let entry = target(COMPONENT, Some(&json!({"match": record}))).unwrap();
    let entries = BTreeMap::from([(component_path(), entry)]);
    publish(site, "component.acme.thermo", &entries).await;
    let mut plans = BTreeMap::new();
    for set in sets {
        let document = json!({
            "schema": "redan.release-set/1", "fleet": site.fleet, "id": set, "replaces": null,
            "rollback_sets": [], "rings": [{"share": 1000, "opens_after": 0, "soak": 0}],
            "members": [{
                "component": "acme/thermo", "version": "1.0.0", "counter": 1, "digest": Digest::of(COMPONENT),
            }],
        });
        let bytes = document.to_string().into_bytes();
        store(site, &bytes).await;
        let none: Option<&Value> = None;
        plans.insert(format!("plans/{set}.json"), target(&bytes, none).unwrap());
    }
    publish(site, "plan", &plans).await;
}

pub(crate) fn start(set: &str, waves: &Value) -> Value {
    json!({
        "set": set, "waves": waves, "failure_threshold": 1, "soak_seconds": 0, "deadline_seconds": 3600,
    })
}

/// What the server directs a device to, and under which sequence number, after a check-in with this report.
pub(crate) async fn directed(device: &mut Caller, report: Report) -> Option<(Value, u64)> {
    device.check_in(report).await;
    let stamp = device.get("/tuf/director/timestamp.json").await.json();
    let version = &stamp["signed"]["meta"]["snapshot.json"]["version"];
    let file = format!("/tuf/director/{version}.targets.json");
    let targets = device.get(&file).await.json()["signed"]["targets"].take();
    let direction = &targets.get(component_path())?["custom"]["direction"];
    Some((direction["set"].clone(), direction["sequence"].as_u64().unwrap()))
}

/// What a device says that runs a set for good.
pub(crate) fn runs(set: &str, direction: u64) -> Report {
    Report {
        set: Some(SetId::parse(set).unwrap()),
        phase: Phase::Committed,
        direction: DirectionSequence::new(direction),
        ..Report::default()
    }
}

async fn steer(site: &Site, id: u64, verb: &str) -> crate::site::Answer {
    let path = format!("/v1/rollouts/{id}/{verb}");
    site.operator().await.post(&path, &json!({})).await
}

#[tokio::test]
async fn a_set_that_is_not_published_is_not_rolled_out() {
    let site = Site::open().await;
    site.device("press-1").await;
    let request = start("plant-1", &json!([{"name": "all", "permille": 1000}]));
    let mut operator = site.operator().await;
    let answer = operator.post("/v1/rollouts", &request).await;
    assert_eq!(answer.refusal(), (400, Code::PreflightRefused));
    assert_eq!(operator.get("/v1/rollouts").await.json(), json!([]));
    assert_eq!(
        operator.get("/v1/rollouts/1").await.refusal(),
        (404, Code::NotFound)
    );
    for verb in ["pause", "resume", "abort", "explode"] {
        let answer = operator.post(&format!("/v1/rollouts/1/{verb}"), &json!({})).await;
        assert_eq!(answer.refusal(), (404, Code::NotFound), "{verb}");
    }
}

#[tokio::test]
async fn a_request_with_an_unknown_member_is_refused_and_the_member_named() {
    let site = Site::open().await;
    let mut operator = site.operator().await;
    let answer = operator
        .post("/v1/rollouts", &json!({"set": "plant-1", "speed": 11}))
        .await;
    assert_eq!(answer.refusal(), (400, Code::BadRequest));
    assert!(String::from_utf8_lossy(&answer.body).contains("speed"));
}

#[tokio::test]
async fn a_wave_is_directed_when_it_is_its_turn_and_a_paused_rollout_opens_none() {
    let site = Site::open().await;
    let (mut first, mut second) = (site.device("press-1").await, site.device("press-2").await);
    published(&site, &["plant-1"]).await;
    assert_eq!(directed(&mut first, Report::default()).await, None);
    let waves = json!([{"name": "canary", "devices": ["press-1"]}, {"name": "all", "permille": 1000}]);
    let mut operator = site.operator().await;
    let started = operator
        .post("/v1/rollouts", &start("plant-1", &waves))
        .await
        .json();
    assert_eq!(
        (&started["id"], &started["state"]),
        (&json!(1), &json!("running"))
    );
    let (set, sequence) = directed(&mut first, Report::default()).await.unwrap();
    assert_eq!(set, "plant-1");
    assert_eq!(
        directed(&mut second, Report::default()).await,
        None,
        "not its turn"
    );

    assert_eq!(steer(&site, 1, "pause").await.json()["state"], "paused");
    assert_eq!(steer(&site, 1, "pause").await.refusal(), (409, Code::WrongState));
    directed(&mut first, runs("plant-1", sequence)).await;
    assert_eq!(directed(&mut second, Report::default()).await, None, "paused");
    // A restart forgets nothing of it.
    drop((first, second));
    let site = site.restart().await;
    let seen = site.operator().await.get("/v1/rollouts/1").await.json();
    assert_eq!((&seen["state"], &seen["wave"]), (&json!("paused"), &json!(0)));
    let outcome = &seen["waves"][0]["devices"][0]["outcome"];
    assert_eq!(outcome, "succeeded");
}

#[tokio::test]
async fn a_resumed_rollout_goes_on_and_an_aborted_one_keeps_only_what_has_succeeded() {
    let site = Site::open().await;
    let (mut first, mut second) = (site.device("press-1").await, site.device("press-2").await);
    published(&site, &["plant-1"]).await;
    let waves = json!([{"name": "canary", "devices": ["press-1"]}, {"name": "all", "permille": 1000}]);
    let mut operator = site.operator().await;
    operator
        .post("/v1/rollouts", &start("plant-1", &waves))
        .await
        .json();
    assert_eq!(steer(&site, 1, "resume").await.refusal(), (409, Code::WrongState));
    steer(&site, 1, "pause").await.json();
    steer(&site, 1, "resume").await.json();
    let (_, sequence) = directed(&mut first, Report::default()).await.unwrap();
    // The canary has held, so the second wave is open with this very report.
    directed(&mut first, runs("plant-1", sequence)).await;
    let (set, _) = directed(&mut second, Report::default()).await.unwrap();
    assert_eq!(set, "plant-1");

    assert_eq!(steer(&site, 1, "abort").await.json()["state"], "aborted");
    assert_eq!(directed(&mut second, Report::default()).await, None, "taken back");
    let (kept, _) = directed(&mut first, runs("plant-1", sequence)).await.unwrap();
    assert_eq!(kept, "plant-1");
    for verb in ["abort", "resume", "pause"] {
        assert_eq!(
            steer(&site, 1, verb).await.refusal(),
            (409, Code::WrongState),
            "{verb}"
        );
    }
    let audit = operator.get("/v1/audit").await.json();
    let audit = audit.as_array().unwrap();
    let rollouts = audit.iter().map(|entry| entry["action"].as_str().unwrap());
    let rollouts: Vec<&str> = rollouts.filter(|action| action.starts_with("rollout-")).collect();
    let wanted =
        ["started", "paused", "resumed", "advanced", "aborted"].map(|what| format!("rollout-{what}"));
    assert_eq!(rollouts, wanted);
}

#[tokio::test]
async fn one_rollout_runs_at_a_time() {
    let site = Site::open().await;
    site.device("press-1").await;
    published(&site, &["plant-1", "plant-2"]).await;
    let waves = json!([{"name": "all", "permille": 1000}]);
    let mut operator = site.operator().await;
    let first = start("plant-1", &waves);
    let second = start("plant-2", &waves);
    operator.post("/v1/rollouts", &first).await.json();
    let answer = operator.post("/v1/rollouts", &second).await;
    assert_eq!(answer.refusal(), (409, Code::Conflict));
    // A paused one lets another go first, and then waits for its end.
    steer(&site, 1, "pause").await.json();
    operator.post("/v1/rollouts", &second).await.json();
    assert_eq!(steer(&site, 1, "resume").await.refusal(), (409, Code::Conflict));
    assert_eq!(operator.get("/v1/rollouts/1").await.json()["state"], "paused");
    steer(&site, 2, "abort").await.json();
    assert_eq!(steer(&site, 1, "resume").await.json()["state"], "running");
}

#[tokio::test]
async fn a_rollout_of_more_waves_than_the_limit_is_refused() {
    let site = Site::open().await;
    site.device("press-1").await;
    published(&site, &["plant-1"]).await;
    let waves = |count: usize| {
        let wave = |n: usize| json!({"name": format!("wave {n}"), "permille": 1000});
        (0..count).map(wave).collect::<Value>()
    };
    let mut operator = site.operator().await;
    for count in [0, 17] {
        let answer = operator
            .post("/v1/rollouts", &start("plant-1", &waves(count)))
            .await;
        assert_eq!(answer.refusal(), (400, Code::PreflightRefused), "{count} waves");
    }
    operator
        .post("/v1/rollouts", &start("plant-1", &waves(16)))
        .await
        .json();
}

#[tokio::test]
async fn a_rollout_for_nobody_or_for_a_device_that_is_not_enrolled_is_refused() {
    let site = Site::open().await;
    site.admit("press-1", &redan_identity::KeyFile::generate().unwrap())
        .await;
    let gone = site.device("press-2").await;
    published(&site, &["plant-1"]).await;
    let mut operator = site.operator().await;
    operator
        .post("/v1/devices/press-2/revoke", &json!({}))
        .await
        .json();
    drop(gone);
    for wave in [
        json!({"name": "all", "permille": 1000}),
        json!({"name": "admitted only", "devices": ["press-1"]}),
        json!({"name": "revoked", "devices": ["press-2"]}),
        json!({"name": "unknown", "devices": ["press-3"]}),
        json!({"name": "labels", "labels": {"hall": "2"}}),
    ] {
        let answer = operator
            .post("/v1/rollouts", &start("plant-1", &json!([wave])))
            .await;
        assert_eq!(answer.refusal(), (400, Code::PreflightRefused), "{wave}");
    }
    let over = json!([{"name": "all", "permille": 1001}]);
    let answer = operator.post("/v1/rollouts", &start("plant-1", &over)).await;
    assert_eq!(answer.refusal(), (400, Code::BadRequest));
}

/// A direction's sequence and what it unblocks.
async fn unblocked(device: &mut Caller, report: Report) -> (u64, Value) {
    let (_, sequence) = directed(device, report).await.unwrap();
    let stamp = device.get("/tuf/director/timestamp.json").await.json();
    let version = &stamp["signed"]["meta"]["snapshot.json"]["version"];
    let file = format!("/tuf/director/{version}.targets.json");
    let targets = device.get(&file).await.json()["signed"]["targets"].take();
    let direction = &targets[component_path()]["custom"]["direction"];
    (sequence, direction["unblocked"].clone())
}

#[tokio::test]
async fn a_newer_rollout_of_the_same_set_unblocks_what_failed_and_an_operator_alone_can_say_so() {
    let site = Site::open().await;
    let mut device = site.device("press-1").await;
    published(&site, &["plant-1"]).await;
    let mut operator = site.operator().await;
    let digest = Digest::of(COMPONENT);
    let mut request = start("plant-1", &json!([{"name": "all", "permille": 1000}]));
    operator.post("/v1/rollouts", &request).await.json();
    let (before, none) = unblocked(&mut device, Report::default()).await;
    assert_eq!(none, json!([]));
    let failed = Report {
        phase: Phase::Reverted,
        rollback: Some(Code::Unhealthy),
        direction: DirectionSequence::new(before),
        ..Report::default()
    };
    assert_eq!(directed(&mut device, failed.clone()).await, None, "halted");

    request["unblock"] = json!([digest]);
    operator.post("/v1/rollouts", &request).await.json();
    // What the device reports of the direction before does not count against this one.
    let (after, listed) = unblocked(&mut device, failed).await;
    assert!(after > before, "{after} after {before}");
    assert_eq!(listed, json!([digest]));
    let audit = operator.get("/v1/audit").await.json();
    let subject = format!("rollout 2 plant-1 unblocks {digest}");
    let told = audit.as_array().unwrap().iter();
    assert_eq!(told.filter(|entry| entry["subject"] == subject).count(), 1);
    // A restart forgets nothing of it.
    drop((device, operator));
    let site = site.restart().await;
    let seen = site.operator().await.get("/v1/rollouts/2").await.json();
    assert_eq!(seen["unblocked"], json!([digest]));
}

#[tokio::test]
async fn what_is_unblocked_is_a_member_of_the_set_and_not_more_than_the_limit() {
    let site = Site::open().await;
    site.device("press-1").await;
    published(&site, &["plant-1"]).await;
    let mut operator = site.operator().await;
    let other = [Digest::of(b"something else")];
    let many: Vec<Digest> = (0..65_u8).map(|n| Digest::of(&[n])).collect();
    let cases: [(&[Digest], String); 2] = [
        (&other, format!("{} is no member", other[0])),
        (&many, "at most 64 digests".to_owned()),
    ];
    for (unblock, said) in cases {
        let mut request = start("plant-1", &json!([{"name": "all", "permille": 1000}]));
        request["unblock"] = json!(unblock);
        let answer = operator.post("/v1/rollouts", &request).await;
        assert_eq!(answer.refusal(), (400, Code::PreflightRefused), "{said}");
        assert!(String::from_utf8_lossy(&answer.body).contains(&said), "{said}");
    }
}
