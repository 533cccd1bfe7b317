//! Who reaches what: identity comes from the connection and from nowhere else.

use crate::probe::probes;
use crate::raw::{Seen, seen};
use crate::site::Site;
use redan_control::table::Who;
use redan_protocol::wire::control_host;
use redan_protocol::{Code, Role};
use serde_json::json;
use std::path::PathBuf;
use tokio_rustls::rustls::AlertDescription;

#[tokio::test]
async fn without_a_certificate_of_this_fleet_every_route_is_refused_alike() {
    let (ours, theirs) = (Site::open().await, Site::of("other.example").await);
    let known = ours.enrolled("press-1").await;
    let device = theirs.enrolled("press-1").await;
    let operator = theirs.founded().join("operators/admin.pem");
    // Self-signed, as on the enrolment name.
    let key = redan_identity::KeyFile::generate().unwrap();
    let by_itself = ours.founded().join("self-signed.pem");
    std::fs::write(&by_itself, crate::raw::self_signed(&key)).unwrap();
    let nothing = ("GET".to_owned(), "/no/such/route".to_owned());
    for (who, alert) in [
        (None, AlertDescription::CertificateRequired),
        (Some(&device), AlertDescription::UnknownCA),
        (Some(&operator), AlertDescription::UnknownCA),
        (Some(&by_itself), AlertDescription::CertificateUnknown),
    ] {
        let routes = probes().map(|(_, probe)| (probe.method.to_string(), probe.path));
        for (method, path) in routes.chain([nothing.clone()]) {
            let seen = seen(&ours, who.map(PathBuf::as_path), &method, &path).await;
            assert_eq!(seen, Seen::Alert(alert), "{who:?} {method} {path}");
        }
    }
    let (method, path) = ("GET", "/tuf/release/timestamp.json");
    let answered = seen(&ours, Some(&known), method, path).await;
    assert!(
        matches!(&answered, Seen::Bytes(bytes) if bytes.starts_with(b"HTTP/1.1 200 OK")),
        "positive control: {answered:?}"
    );
}

/// What proxies, meshes and attackers put in front of a request to say whom it is from.
const CLAIMS: &[(&str, &str)] = &[
    ("x-client-cert", "-----BEGIN CERTIFICATE-----"),
    ("x-client-cn", "admin"),
    ("x-client-verify", "SUCCESS"),
    (
        "x-forwarded-client-cert",
        "URI=spiffe://plant.example/operator/admin",
    ),
    ("x-forwarded-for", "127.0.0.1"),
    ("x-forwarded-user", "admin"),
    ("x-spiffe-id", "spiffe://plant.example/operator/admin"),
    ("x-ssl-client-s-dn", "CN=admin"),
    ("ssl-client-cert", "x"),
    ("x-amzn-mtls-clientcert-subject", "CN=admin"),
    ("x-real-ip", "127.0.0.1"),
    ("x-remote-user", "admin"),
    ("x-device-id", "press-2"),
    ("x-operator", "admin"),
    ("x-redan-device", "press-2"),
    ("remote-user", "admin"),
    ("forwarded", "for=admin"),
    ("via", "1.1 proxy"),
    ("authorization", "Basic YWRtaW46YWRtaW4="),
    ("proxy-authorization", "Basic YWRtaW46YWRtaW4="),
    ("cookie", "session=admin"),
];

/// Every route of the table with every claim: refused whoever asks, and the connection's own identity is written down.
#[tokio::test]
async fn a_claim_of_an_identity_is_refused_on_every_route_and_written_down() {
    let site = Site::open().await;
    let device = site.device("press-1").await;
    let nobody = site
        .enrolling(&redan_identity::KeyFile::generate().unwrap())
        .await;
    let operator = site.operator().await;
    let claimed = (400, Some(Code::IdentityClaimed));
    let mut callers = [
        (Who::Device, device),
        (Who::Anybody, nobody),
        (Who::Operator(Role::Admin), operator),
    ];
    for (who, caller) in &mut callers {
        for (route, probe) in probes() {
            // A route of others does not exist for them; that it is refused with a claim shows nothing of it.
            let own = *who == route.who || matches!((*who, route.who), (Who::Operator(_), Who::Operator(_)));
            for claim in CLAIMS {
                let token = claim.0 == "authorization" && probe.path.ends_with("simpleenroll");
                if token && *who == Who::Anybody {
                    continue;
                }
                let headers = [("content-type", "application/json"), *claim];
                let answer = caller
                    .ask_with(probe.method.as_str(), &probe.path, &headers, probe.body)
                    .await;
                assert_eq!(
                    answer.unwrap().said(),
                    claimed,
                    "{who:?} {} {} {claim:?}",
                    probe.method,
                    probe.path
                );
            }
            let plain = caller
                .ask(probe.method.as_str(), &probe.path, probe.body)
                .await
                .said();
            assert!(
                !own || plain == probe.answer,
                "without a claim, as ever: {} {plain:?}",
                probe.path
            );
        }
    }
    // Once for each of them within an hour, however often: the log cannot be flooded.
    let log = site.operator().await.get("/v1/audit").await.json();
    let said = log
        .as_array()
        .unwrap()
        .iter()
        .filter(|entry| entry["action"] == "identity-claimed");
    let who: Vec<&str> = said.map(|entry| entry["actor"].as_str().unwrap()).collect();
    assert_eq!(
        who,
        [
            "spiffe://plant.example/device/press-1",
            "a key that enrols",
            "spiffe://plant.example/operator/admin"
        ]
    );
}

#[tokio::test]
async fn headers_paths_and_bodies_make_nobody_somebody_else() {
    let site = Site::open().await;
    let mut one = site.device("press-1").await;
    let _two = site.device("press-2").await;
    let reply = one.check_in(redan_protocol::report::Report::default()).await;
    let device = reply.statement["signed"]["device"].as_str().unwrap();
    assert_eq!(device, "spiffe://plant.example/device/press-1");
    // The director's files are the caller's own: there is no path, query or member that names another device.
    let own = json!("spiffe://plant.example/device/press-1");
    for path in [
        "/tuf/director/1.targets.json",
        "/tuf/director/1.targets.json?device=press-2",
    ] {
        let targets = one.get(path).await.json();
        assert_eq!(targets["signed"]["device"], own, "{path}");
    }
    for path in [
        "/tuf/director/press-2/timestamp.json",
        "/devices/press-2/tuf/director/timestamp.json",
    ] {
        assert_eq!(one.get(path).await.refusal(), (404, Code::NotFound), "{path}");
    }
    let named = json!({"nonce": "00".repeat(16), "report": {}, "device": "press-2"});
    assert_eq!(
        one.post("/v1/checkin", &named).await.refusal(),
        (400, Code::BadRequest)
    );
}

#[tokio::test]
async fn a_certificate_of_another_fleet_ends_in_the_handshake() {
    let (ours, theirs) = (Site::open().await, Site::of("other.example").await);
    let stranger = theirs.enrolled("press-1").await;
    // TLS 1.3: the client learns of the refusal with its first request.
    let refused = match ours.connect(&stranger).await {
        Err(error) => error,
        Ok(mut caller) => caller
            .ask_with("GET", "/tuf/release/timestamp.json", &[], "")
            .await
            .err()
            .unwrap(),
    };
    assert_ne!(refused.code(), Code::Internal);
    assert!(theirs.connect(&stranger).await.is_ok(), "positive control");
}

#[tokio::test]
async fn the_authority_must_be_the_name_the_handshake_was_for() {
    let site = Site::open().await;
    let mut device = site.device("press-1").await;
    for host in ["enrol.plant.example", "control.other.example", "localhost", ""] {
        let answer = device
            .ask_with("GET", "/tuf/release/timestamp.json", &[("host", host)], "")
            .await;
        // A second Host header is a bad request to the HTTP library; another name is a misdirected one to us.
        match answer {
            Ok(answer) => assert!([400, 421].contains(&answer.status), "{host}: {}", answer.status),
            Err(error) => assert_ne!(error.code(), Code::Internal, "{host}"),
        }
        device = site.device(&format!("press-{}", host.len())).await;
    }
    let own = control_host(&site.fleet);
    assert_eq!(own, "control.plant.example");
}

#[tokio::test]
async fn a_wrong_method_and_an_unknown_path_are_told_apart() {
    let site = Site::open().await;
    let mut device = site.device("press-1").await;
    assert_eq!(
        device.ask("PUT", "/v1/checkin", "{}").await.refusal(),
        (405, Code::WrongMethod)
    );
    assert_eq!(
        device.ask("DELETE", "/artifacts/x", "").await.refusal(),
        (405, Code::WrongMethod)
    );
    for path in [
        "/",
        "/artifacts/..%2f..%2fonline%2fserver.pem",
        "/tuf/release/../../online/server.pem",
        "/artifacts/",
    ] {
        assert_eq!(device.get(path).await.refusal(), (404, Code::NotFound), "{path}");
    }
}
