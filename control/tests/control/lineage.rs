//! Certificates that have expired, and keys that were superseded: who may still do what.

use crate::release::publish_policy;
use crate::renewal::{STAMP, renew};
use crate::site::{Site, config, now};
use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, SerialNumber,
};
use redan_control::config::Config;
use redan_identity::client::ClientError;
use redan_identity::{KeyFile, est, pem, profile};
use redan_protocol::report::Report;
use redan_protocol::wire::{CheckIn, Nonce};
use redan_protocol::{Code, Seconds};
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};
use std::path::{Path, PathBuf};

const POLICY: &str = "policy/fleet.toml";
const REENROLL: &str = "/.well-known/est/simplereenroll";
/// How long ago the certificates of these tests expired, seconds.
const AGO: u64 = 60;

/// A leaf of this very key, by the fleet's own issuer and right in every line, that expired a minute ago.
pub(crate) fn expired(site: &Site, bundle: &Path, kind: &str, id: &str) -> PathBuf {
    ending(site, bundle, (kind, id), now().get() - AGO)
}

/// The same that ends at this second.
fn ending(site: &Site, bundle: &Path, (kind, id): (&str, &str), at: u64) -> PathBuf {
    let (key, _) = pem::load_bundle(bundle).unwrap();
    let by = match kind {
        "device" => site.founded().join("online/device-issuer.pem"),
        _ => site.founded().join("offline/operator-issuer.pem"),
    };
    let by = std::fs::read_to_string(by).unwrap();
    let issuer = pem::read_chain(&by).unwrap().remove(0);
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let uri = format!("spiffe://{}/{kind}/{id}", site.fleet);
    let host = format!("{id}.{kind}.{}", site.fleet);
    params.subject_alt_names = vec![
        SanType::URI(uri.as_str().try_into().unwrap()),
        SanType::DnsName(host.as_str().try_into().unwrap()),
    ];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(SerialNumber::from([0x55; 16].to_vec()));
    let from = profile::valid_between(&issuer).unwrap().0;
    let date = |seconds: u64| std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
    params.not_before = date(from.get()).into();
    params.not_after = date(at).into();
    let signer = KeyPair::from_pem(&KeyFile::from_pem(&by).unwrap().to_pem()).unwrap();
    let signer = Issuer::from_ca_cert_der(&issuer, signer).unwrap();
    let own = KeyPair::from_pem(&key.to_pem()).unwrap();
    let leaf = params.signed_by(&own, &signer).unwrap();
    let chain = [leaf.der().clone(), issuer];
    let path = bundle.with_extension("expired.pem");
    redan_identity::key::write_private(&path, pem::write_bundle(&key, &chain).as_bytes()).unwrap();
    path
}

/// The answer to a request for renewal that is refused.
async fn refused(site: &Site, bundle: &Path) -> (u16, Code) {
    let mut caller = site.connect(bundle).await.unwrap();
    let request = est::csr(&KeyFile::generate().unwrap()).unwrap();
    let headers = [("content-type", est::PKCS10)];
    caller
        .ask_with("POST", REENROLL, &headers, request)
        .await
        .unwrap()
        .refusal()
}

async fn seen(site: &Site) -> Value {
    site.operator().await.get("/v1/devices/press-1").await.json()
}

async fn alarms_in_the_audit(site: &Site) -> usize {
    let audit = site.operator().await.get("/v1/audit").await.json();
    let entries = audit.as_array().unwrap().iter();
    entries
        .filter(|entry| entry["action"] == "clone-suspected")
        .count()
}

#[tokio::test]
async fn an_expired_certificate_renews_and_does_nothing_else() {
    let site = Site::open().await;
    let bundle = expired(&site, &site.enrolled("press-1").await, "device", "press-1");
    let mut caller = site.connect(&bundle).await.unwrap();
    for (method, path) in [
        ("POST", "/v1/checkin"),
        ("GET", STAMP),
        ("GET", "/tuf/director/timestamp.json"),
        (
            "GET",
            "/artifacts/0000000000000000000000000000000000000000000000000000000000000000",
        ),
        ("GET", "/.well-known/est/cacerts"),
        ("POST", "/.well-known/est/simpleenroll"),
        ("GET", "/v1/devices"),
        ("GET", "/no/such/route"),
        ("GET", "/.well-known/est/simplereenroll/"),
    ] {
        let answer = caller.ask(method, path, "").await;
        assert_eq!(
            answer.refusal(),
            (403, Code::CertificateExpired),
            "{method} {path}"
        );
    }
    let renewed = renew(&site, &mut caller).await;
    let mut caller = site.connect(&renewed).await.unwrap();
    assert_eq!(caller.get(STAMP).await.status, 200);
}

#[tokio::test]
async fn a_certificate_that_expired_longer_ago_than_the_grace_does_not_renew_nor_enrol() {
    let site = Site::open().await;
    let enrolled = site.enrolled("press-1").await;
    let bundle = expired(&site, &enrolled, "device", "press-1");
    let grace = |seconds| Config {
        renewal_grace_seconds: Some(Seconds::new(seconds)),
        ..config(site.folder.path())
    };
    let (short, long) = (grace(AGO - 30), grace(AGO + 3600));
    let site = site.restart_with(short).await;
    assert_eq!(refused(&site, &bundle).await, (403, Code::RenewalTooLate));
    let site = site
        .restart_after(
            "UPDATE documents SET body = json_set(body, '$.voucher_expires', 1) WHERE kind = 'device'",
        )
        .await;
    let (key, _) = pem::load_bundle(&enrolled).unwrap();
    let headers = [("content-type", est::PKCS10)];
    let mut caller = site.enrolling(&key).await;
    let answer = caller.ask_with(
        "POST",
        "/.well-known/est/simpleenroll",
        &headers,
        est::csr(&key).unwrap(),
    );
    assert_eq!(answer.await.unwrap().refusal(), (403, Code::VoucherInvalid));
    let site = site.restart_with(long).await;
    renew(&site, &mut site.connect(&bundle).await.unwrap()).await;
}

#[tokio::test]
async fn the_grace_is_the_signed_policys_and_the_server_may_only_shorten_it() {
    let site = Site::open().await;
    let bundle = expired(&site, &site.enrolled("press-1").await, "device", "press-1");
    let policy = |serial: u64, grace: u64| {
        format!(
            "schema = \"redan.policy/1\"\nkind = \"fleet\"\nserial = {serial}\n[identity]\nrenewal_grace = \"{grace}s\"\n"
        )
    };
    publish_policy(&site, 2, &[(POLICY, policy(1, AGO - 30).as_bytes())]).await;
    assert_eq!(refused(&site, &bundle).await, (403, Code::RenewalTooLate));
    // The server's own setting adds nothing to it.
    let with = |seconds| Config {
        renewal_grace_seconds: Some(Seconds::new(seconds)),
        ..config(site.folder.path())
    };
    let (longer, shorter) = (with(AGO + 3600), with(AGO - 30));
    let site = site.restart_with(longer).await;
    assert_eq!(refused(&site, &bundle).await, (403, Code::RenewalTooLate));
    // It takes from it.
    publish_policy(&site, 3, &[(POLICY, policy(2, AGO + 3600).as_bytes())]).await;
    let site = site.restart_with(shorter).await;
    assert_eq!(refused(&site, &bundle).await, (403, Code::RenewalTooLate));
    // A policy that does not read is no policy that says nothing.
    let site = site.restart().await;
    publish_policy(&site, 4, &[(POLICY, b"renewal_grace = \"180d\"")]).await;
    assert_eq!(refused(&site, &bundle).await, (400, Code::PolicyInvalid));
    publish_policy(&site, 5, &[(POLICY, policy(3, AGO + 3600).as_bytes())]).await;
    renew(&site, &mut site.connect(&bundle).await.unwrap()).await;
}

#[tokio::test]
async fn an_expired_certificate_of_a_revoked_device_or_a_superseded_key_does_not_renew() {
    let site = Site::open().await;
    let first = site.enrolled("press-1").await;
    let bundle = expired(&site, &first, "device", "press-1");
    let next = renew(&site, &mut site.connect(&bundle).await.unwrap()).await;
    assert_eq!(site.connect(&next).await.unwrap().get(STAMP).await.status, 200);
    assert_eq!(refused(&site, &bundle).await, (403, Code::KeySuperseded));
    let next = expired(&site, &next, "device", "press-1");
    let mut operator = site.operator().await;
    operator
        .post("/v1/devices/press-1/revoke", &json!({}))
        .await
        .json();
    assert_eq!(refused(&site, &next).await, (403, Code::CertificateRevoked));
    assert_eq!(refused(&site, &bundle).await, (403, Code::CertificateRevoked));
}

#[tokio::test]
async fn an_operators_expired_certificate_opens_nothing() {
    let site = Site::open().await;
    let admin = site.founded().join("operators/admin.pem");
    let bundle = expired(&site, &admin, "operator", "admin");
    let outcome = async {
        let mut caller = site.connect(&bundle).await?;
        caller.ask_with("GET", "/v1/fleet", &[], "").await
    };
    let refused = outcome.await.map(|answer| answer.status).unwrap_err();
    assert_eq!(refused, ClientError::Rejected(Code::CertificateExpired));
}

/// Holds: an operator's connection, from before their certificate ended.
#[tokio::test]
async fn an_open_connection_does_not_outlive_an_operators_certificate() {
    let site = Site::open().await;
    let admin = site.founded().join("operators/admin.pem");
    let (mut caller, ends) = loop {
        let ends = now().get() + 4;
        let bundle = ending(&site, &admin, ("operator", "admin"), ends);
        // However slow this machine is: another one, until one is connected in its time.
        if let Ok(mut caller) = site.connect(&bundle).await
            && let Ok(answer) = caller.ask_with("GET", "/v1/fleet", &[], "").await
            && answer.status == 200
        {
            break (caller, ends);
        }
    };
    while now().get() <= ends {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(
        caller.get("/v1/fleet").await.refusal(),
        (403, Code::CertificateExpired)
    );
}

#[tokio::test]
async fn a_superseded_key_that_speaks_again_raises_the_clone_alarm() {
    let site = Site::open().await;
    let old = site.enrolled("press-1").await;
    let new = renew(&site, &mut site.connect(&old).await.unwrap()).await;
    // The device's own connection, from before its new key spoke: refused, and no alarm.
    let mut under_way = site.connect(&old).await.unwrap();
    let mut device = site.connect(&new).await.unwrap();
    assert_eq!(device.get(STAMP).await.status, 200);
    assert_eq!(under_way.get(STAMP).await.refusal(), (403, Code::KeySuperseded));
    assert_eq!(seen(&site).await["clone_alarm"], Value::Null);
    assert_eq!(alarms_in_the_audit(&site).await, 0);
    // Somebody else's.
    let (spki, _) = pem::load_bundle(&old).unwrap();
    for count in 1..=3 {
        let mut clone = site.connect(&old).await.unwrap();
        assert_eq!(clone.get(STAMP).await.refusal(), (403, Code::KeySuperseded));
        let alarm = seen(&site).await["clone_alarm"].clone();
        assert_eq!(
            (&alarm["count"], &alarm["spki"]),
            (&json!(count), &json!(spki.spki_sha256()))
        );
    }
    assert_eq!(
        alarms_in_the_audit(&site).await,
        1,
        "counted each time, told once an hour"
    );
    let metrics = site.operator().await.get("/metrics").await;
    let metrics = String::from_utf8(metrics.body.to_vec()).unwrap();
    for line in ["redan_devices_clone_suspected 1", "redan_clone_alarms 3"] {
        assert!(
            metrics.lines().any(|found| found == line),
            "{line} is not in {metrics}"
        );
    }
    // The device itself goes on, and the alarm outlives a restart.
    assert_eq!(device.get(STAMP).await.status, 200);
    let site = site.restart().await;
    assert_eq!(seen(&site).await["clone_alarm"]["count"], 3);
    let mut clone = site.connect(&old).await.unwrap();
    assert_eq!(clone.get(STAMP).await.refusal(), (403, Code::KeySuperseded));
    assert_eq!(seen(&site).await["clone_alarm"]["count"], 4);
}

#[tokio::test]
async fn an_alarm_is_told_again_for_another_key_and_ends_with_a_new_admission() {
    let site = Site::open().await;
    let first = site.enrolled("press-1").await;
    let second = renew(&site, &mut site.connect(&first).await.unwrap()).await;
    let mut caller = site.connect(&second).await.unwrap();
    let third = renew(&site, &mut caller).await;
    assert_eq!(site.connect(&third).await.unwrap().get(STAMP).await.status, 200);
    for old in [&first, &second] {
        let mut clone = site.connect(old).await.unwrap();
        assert_eq!(clone.get(STAMP).await.refusal(), (403, Code::KeySuperseded));
    }
    assert_eq!(alarms_in_the_audit(&site).await, 2);
    let mut operator = site.operator().await;
    operator
        .post("/v1/devices/press-1/revoke", &json!({}))
        .await
        .json();
    site.admit("press-1", &KeyFile::generate().unwrap()).await;
    assert_eq!(seen(&site).await["clone_alarm"], Value::Null);
}

fn numbered(sequence: u64) -> Report {
    Report {
        sequence,
        ..Report::default()
    }
}

async fn suspected(site: &Site) -> (Value, Value) {
    let alarm = seen(site).await["clone_alarm"].clone();
    (alarm["count"].clone(), alarm["why"].clone())
}

/// Holds: a copy of the device's disk, key and counters included. The device has 1,024 numbers reserved, which the copy goes on after.
#[tokio::test]
async fn a_copy_of_a_devices_disk_is_seen_at_the_first_report_of_whoever_speaks_second() {
    let site = Site::open().await;
    let bundle = site.enrolled("press-1").await;
    let mut device = site.connect(&bundle).await.unwrap();
    for number in [1, 2, 3, 1025] {
        device.check_in(numbered(number)).await;
        assert_eq!(seen(&site).await["clone_alarm"], Value::Null, "{number}");
    }
    // The copy has just said 1025. The device itself goes on, on a connection of its own as always.
    let mut device = site.connect(&bundle).await.unwrap();
    device.check_in(numbered(4)).await;
    let why = json!("report-number");
    assert_eq!(suspected(&site).await, (json!(1), why.clone()));
    // Both go on: each is answered, for a device that was restored must still be repaired, and each change of turns is counted.
    for (number, count) in [(1026, 1), (5, 2), (6, 2), (1027, 2), (7, 3)] {
        site.connect(&bundle)
            .await
            .unwrap()
            .check_in(numbered(number))
            .await;
        assert_eq!(suspected(&site).await, (json!(count), why.clone()), "{number}");
    }
    assert_eq!(alarms_in_the_audit(&site).await, 1, "told once an hour");
    let metrics = site.operator().await.get("/metrics").await.body;
    let metrics = String::from_utf8_lossy(&metrics).into_owned();
    assert!(
        metrics.contains("\nredan_devices_clone_suspected 1\n"),
        "{metrics}"
    );
    let site = site.restart().await;
    site.connect(&bundle).await.unwrap().check_in(numbered(2)).await;
    assert_eq!(suspected(&site).await.0, json!(4), "also over a restart");
}

/// Holds: the same; both count on from the same number.
#[tokio::test]
async fn a_number_that_comes_twice_is_an_alarm_unless_it_is_the_same_to_the_last_bit() {
    let site = Site::open().await;
    let bundle = site.enrolled("press-1").await;
    let mut one = site.connect(&bundle).await.unwrap();
    let body = |nonce: u8, report: Report| {
        let nonce = Nonce([nonce; 16]);
        let settled = None;
        serde_json::to_vec(&CheckIn {
            nonce,
            settled,
            report,
        })
        .unwrap()
    };
    let other = Report {
        refusal: Some(Code::NotFresh),
        ..numbered(9)
    };
    for (body, wanted) in [
        (body(1, numbered(9)), Value::Null),
        // A line that sends everything twice.
        (body(1, numbered(9)), Value::Null),
        (body(2, numbered(9)), json!(1)),
        (body(2, other), json!(2)),
    ] {
        assert_eq!(one.ask("POST", "/v1/checkin", body).await.status, 200);
        assert_eq!(suspected(&site).await.0, wanted);
    }
}

/// A device that gave a slow answer up, and asked again on another connection: the first one may still arrive.
#[tokio::test]
async fn a_report_that_was_overtaken_on_its_way_is_no_alarm() {
    let site = Site::open().await;
    let bundle = site.enrolled("press-1").await;
    let mut slow = site.connect(&bundle).await.unwrap();
    let mut quick = site.connect(&bundle).await.unwrap();
    quick.check_in(numbered(6)).await;
    slow.check_in(numbered(5)).await;
    assert_eq!(seen(&site).await["clone_alarm"], Value::Null);
    site.connect(&bundle).await.unwrap().check_in(numbered(4)).await;
    assert_eq!(suspected(&site).await.0, json!(1), "positive control");
}

/// A device as the database has it now.
async fn kept(site: &Site) -> Value {
    let options = SqliteConnectOptions::new().filename(site.kept().join("fleet.sqlite"));
    let mut database = options.connect().await.unwrap();
    let body: Vec<u8> =
        sqlx::query_scalar("SELECT body FROM documents WHERE kind = 'device' AND id = 'press-1'")
            .fetch_one(&mut database)
            .await
            .unwrap();
    database.close().await.unwrap();
    serde_json::from_slice(&body).unwrap()
}

/// Holds: a copy of the device's disk, and luck: the server was killed before it wrote down which numbers it had heard last.
#[tokio::test]
async fn a_kill_takes_when_a_device_was_seen_and_nothing_else_and_its_copy_is_noticed_a_report_later() {
    let site = Site::open().await;
    let bundle = site.enrolled("press-1").await;
    site.connect(&bundle).await.unwrap().check_in(numbered(1)).await;
    // On the disk before the answer was: a kill from here on leaves this, whatever else is said that is not new.
    let before = kept(&site).await;
    assert_eq!(before["report"]["sequence"], 1);
    site.statement("CREATE TABLE killed AS SELECT * FROM documents WHERE kind = 'device'")
        .await;
    for number in [2, 3, 4] {
        site.connect(&bundle)
            .await
            .unwrap()
            .check_in(numbered(number))
            .await;
    }
    let audit = site.operator().await.get("/v1/audit").await.json();
    let site = site.restart().await;
    let mut after = kept(&site).await;
    assert_eq!(after["report"]["sequence"], 4, "stopped in order");
    assert!(after["last_seen"].as_u64() >= before["last_seen"].as_u64());
    after["last_seen"] = before["last_seen"].clone();
    after["report"]["sequence"] = before["report"]["sequence"].clone();
    assert_eq!(after, before, "all that a group holds");
    // Killed instead of stopped.
    let site = site
        .restart_after("INSERT OR REPLACE INTO documents SELECT * FROM killed")
        .await;
    assert_eq!(
        site.operator().await.get("/v1/audit").await.json(),
        audit,
        "nothing else is lost"
    );
    assert_eq!(suspected(&site).await.0, Value::Null);
    // The copy says a number that the device has said: nobody knows any more, and it is answered.
    site.connect(&bundle).await.unwrap().check_in(numbered(2)).await;
    assert_eq!(suspected(&site).await.0, Value::Null);
    site.connect(&bundle).await.unwrap().check_in(numbered(5)).await;
    assert_eq!(suspected(&site).await.0, Value::Null);
    // A report later it is noticed.
    site.connect(&bundle).await.unwrap().check_in(numbered(3)).await;
    assert_eq!(suspected(&site).await, (json!(1), json!("report-number")));
}
