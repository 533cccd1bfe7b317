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
use redan_protocol::{Code, Seconds};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

const POLICY: &str = "policy/fleet.toml";
const REENROLL: &str = "/.well-known/est/simplereenroll";
/// How long ago the certificates of these tests expired, seconds.
const AGO: u64 = 60;

/// A leaf of this very key, by the fleet's own issuer and right in every line, that expired a minute ago.
pub(crate) fn expired(site: &Site, bundle: &Path, kind: &str, id: &str) -> PathBuf {
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
    params.not_after = date(now().get() - AGO).into();
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
