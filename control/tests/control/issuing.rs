//! How fast certificates are signed (attack E06): whoever wants too many waits, and nobody else does.

use crate::renewal::{STAMP, reenroll};
use crate::site::{Answer, Door, Site, config};
use crate::tokens::{enrolled, join, key, made, used};
use redan_control::config::{Config, FleetSettings};
use redan_control_core::PerMinute;
use redan_identity::{KeyFile, est};
use redan_protocol::Code;
use redan_protocol::wire::EST_ENROLL;
use serde_json::{Value, json};

/// So many enrolments and so many renewals in a minute.
fn paced(site: &Site, enrolments: u32, renewals: u32) -> Config {
    let mut config = config(site.folder.path());
    let settings = FleetSettings {
        enrolments_per_minute_max: PerMinute::new(enrolments.try_into().unwrap()),
        renewals_per_minute_max: PerMinute::new(renewals.try_into().unwrap()),
        ..FleetSettings::default()
    };
    config.fleets.insert(site.fleet.clone(), settings);
    config
}

/// Asks for a certificate by a voucher.
async fn enrol(door: &Door, key: &KeyFile) -> Answer {
    let mut caller = door.enrolling(key).await;
    let headers = [("content-type", est::PKCS10)];
    let request = est::csr(key).unwrap();
    caller
        .ask_with("POST", EST_ENROLL, &headers, request)
        .await
        .unwrap()
}

#[track_caller]
fn told_to_wait(answer: &Answer) {
    assert_eq!(answer.refusal(), (503, Code::IssuingPaced));
    let wait: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=61).contains(&wait), "{wait}");
}

async fn audited(site: &Site) -> Vec<Value> {
    let log = site.operator().await.get("/v1/audit").await.json();
    let log = log.as_array().unwrap().clone();
    log.into_iter()
        .filter(|entry| entry["action"] == "issuing-paced")
        .collect()
}

/// Holds: a join token's secret, with uses left.
#[tokio::test]
async fn a_flood_from_one_token_stops_no_other_enrolment_and_no_renewal() {
    let site = Site::open().await;
    let device = site.enrolled("press-1").await;
    let config = paced(&site, 4, 4);
    let site = site.restart_with(config).await;
    let token = made(&site, json!({"uses": 1000, "prefix": "flood-"})).await;
    // Half of the share is one token's; however slow this machine is, a flood is faster than what flows in.
    let mut in_vain = None;
    for n in 0..50 {
        let own = key();
        let answer = join(&site, &token, &format!("flood-{n}"), &own).await;
        if answer.status != 200 {
            told_to_wait(&answer);
            in_vain = Some((format!("flood-{n}"), own));
            break;
        }
    }
    let (name, waiting) = in_vain.expect("a flood has no end");
    let uses = used(&site).await;
    for n in 0..5 {
        let answer = join(&site, &token, &format!("flood-more-{n}"), &key()).await;
        if answer.status != 200 {
            told_to_wait(&answer);
        }
    }
    // The other half is everybody else's, and renewals are none of it.
    let other = key();
    site.admit("press-2", &other).await;
    assert_eq!(enrol(&site, &other).await.status, 200);
    let mut renewing = site.connect(&device).await.unwrap();
    assert_eq!(reenroll(&mut renewing).await.status, 200);
    assert_eq!(renewing.get(STAMP).await.status, 200);
    // One entry, however often it was refused; the metric counts.
    let told = audited(&site).await;
    let subjects: Vec<&Value> = told.iter().map(|entry| &entry["subject"]).collect();
    assert_eq!(subjects, [&json!(format!("token {}", token.token))]);
    let metrics = site.operator().await.get("/metrics").await.body;
    let metrics = String::from_utf8_lossy(&metrics).into_owned();
    let refused = metrics
        .lines()
        .find_map(|line| line.strip_prefix("redan_issuing_paced "));
    assert!(refused.unwrap().parse::<u64>().unwrap() >= 1, "{metrics}");
    // Who waited has lost nothing, neither the name nor a use: when there is room it enrols with the same key.
    let config = paced(&site, 4, 4);
    let site = site.restart_with(config).await;
    let answer = join(&site, &token, &name, &waiting).await;
    enrolled(&site, &answer, &name, &waiting);
    assert!(used(&site).await.as_u64() > uses.as_u64());
}

/// Holds: a device's key, and tries with one new key after the other.
#[tokio::test]
async fn renewals_have_a_limit_that_enrolments_do_not_feel() {
    let site = Site::open().await;
    let bundles = [site.enrolled("press-1").await, site.enrolled("press-2").await];
    let config = paced(&site, 4, 1);
    let site = site.restart_with(config).await;
    let mut refused = false;
    for bundle in &bundles {
        let mut caller = site.connect(bundle).await.unwrap();
        for _ in 0..4 {
            let answer = reenroll(&mut caller).await;
            if answer.status != 200 {
                told_to_wait(&answer);
                refused = true;
            }
        }
        assert_eq!(caller.get(STAMP).await.status, 200, "nothing else is refused");
    }
    assert!(refused);
    let other = key();
    site.admit("press-3", &other).await;
    assert_eq!(enrol(&site, &other).await.status, 200);
}

/// Holds: an operator's certificate, and has devices' certificates made without devices.
#[tokio::test]
async fn certificates_in_vouchers_are_counted_too_and_a_refused_one_admits_nothing() {
    let site = Site::open().await;
    let config = paced(&site, 1, 1);
    let site = site.restart_with(config).await;
    let mut operator = site.operator().await;
    for n in 0..50 {
        let own = key();
        let name = format!("press-{n}");
        let request = json!({"device": name, "spki": own.spki_sha256(), "csr": est::csr(&own).unwrap()});
        let answer = operator.post("/v1/devices/admit", &request).await;
        if answer.status != 200 {
            told_to_wait(&answer);
            let path = format!("/v1/devices/{name}");
            assert_eq!(operator.get(&path).await.refusal(), (404, Code::NotFound));
            return;
        }
    }
    panic!("fifty certificates in a minute, of which one was allowed");
}
