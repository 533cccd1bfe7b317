//! What one certificate of an operator can do, and no more: a stolen one on every route that writes (attack O01), and the script of an
//! insider of the highest role (O02).

use crate::probe::{FOUND, Said, ZEROS, filled};
use crate::release::{present, upload};
use crate::rollouts::{directed, published, start};
use crate::site::{Caller, Site, config, now};
use redan_control::config::FleetSettings;
use redan_control::table::{Op, ROUTES, Route, Who};
use redan_identity::KeyFile;
use redan_identity::client::ClientError;
use redan_protocol::report::Report;
use redan_protocol::{Code, Digest, Role};
use redan_publish::SigningKey;
use redan_publish::metadata::sign;
use serde_json::{Value, json};

const FORBIDDEN: Said = (403, Some(Code::NotAuthorised));
const JUNK: &[u8] = b"a component that nobody signed";

/// A fleet that wants two people, with three devices and a signed set to roll out.
async fn fleet() -> (Site, Vec<Caller>) {
    let site = Site::open().await;
    let mut bundles = Vec::new();
    for id in ["press-1", "press-2", "press-3"] {
        bundles.push(site.enrolled(id).await);
    }
    published(&site, &["plant-1"]).await;
    let mut config = config(site.folder.path());
    let settings = FleetSettings {
        second_approver: true,
        ..FleetSettings::default()
    };
    config.fleets.insert(site.fleet.clone(), settings);
    let site = site.restart_with(config).await;
    let mut devices = Vec::new();
    for bundle in &bundles {
        devices.push(site.connect(bundle).await.unwrap());
    }
    (site, devices)
}

/// Metadata by whoever holds a key of their own: the next targets of a role, with everything in them that they like.
fn forged(site: &Site, role: &str) -> Value {
    let own = SigningKey::generate("mallory").unwrap();
    let mut signed = present(site, &format!("1.{role}.json"))["signed"].take();
    signed["version"] = json!(9);
    let forged = sign(&signed, &[&own]).unwrap();
    let mut listing = present(site, "1.snapshot.json")["signed"].take();
    listing["version"] = json!(9);
    listing["meta"][format!("{role}.json")] = json!({
        "version": 9, "length": forged.len(), "hashes": {"sha256": Digest::of(&forged)},
    });
    let listing = sign(&listing, &[&own]).unwrap();
    upload(&[(&format!("9.{role}.json"), forged), ("9.snapshot.json", listing)])
}

fn canary_first() -> Value {
    json!([{"name": "canary", "devices": ["press-1"]}, {"name": "all", "permille": 1000}])
}

/// The worst that a thief would ask of a route, how it is answered, and what the audit log says of it. A route that writes and has no
/// case here does not compile, or has no answer.
async fn worst(
    site: &Site,
    thief: &mut Caller,
    route: &Route,
) -> (String, Vec<u8>, Said, Option<&'static str>) {
    let text = |body: Value| body.to_string().into_bytes();
    let none = || json!({}).to_string().into_bytes();
    let key = KeyFile::generate().unwrap().spki_sha256();
    let (part, body, answer, told) = match route.op {
        Op::Admit => (
            String::new(),
            text(json!({"device": "evil-1", "spki": key})),
            FOUND,
            Some("device-admitted"),
        ),
        Op::Revoke => ("press-3".into(), none(), FOUND, Some("device-revoked")),
        Op::MakeToken => {
            let body = json!({"uses": 1000, "expires_in_seconds": 86_400});
            (String::new(), text(body), FOUND, Some("token-made"))
        }
        Op::RevokeToken => {
            let tokens = thief.get("/v1/tokens").await.json();
            let token = tokens[0]["token"].as_str().unwrap().to_owned();
            (token, none(), FOUND, Some("token-revoked"))
        }
        Op::Crl => (String::new(), none(), FOUND, Some("crl-made")),
        Op::Publish => {
            let refused = (400, Some(Code::ThresholdNotMet));
            (String::new(), text(forged(site, "policy")), refused, None)
        }
        Op::PutArtifact => (
            Digest::of(JUNK).to_string(),
            JUNK.to_vec(),
            FOUND,
            Some("artifact-stored"),
        ),
        Op::Start => (
            String::new(),
            text(start("plant-1", &canary_first())),
            FOUND,
            Some("rollout-started"),
        ),
        Op::Pause => ("1".into(), none(), FOUND, Some("rollout-paused")),
        Op::Resume => ("1".into(), none(), FOUND, Some("rollout-resumed")),
        Op::Abort => ("1".into(), none(), FOUND, Some("rollout-aborted")),
        Op::Approve => ("1".into(), none(), FORBIDDEN, None),
        Op::AddOperator => (
            String::new(),
            text(json!({"name": "eve", "role": "admin"})),
            FORBIDDEN,
            None,
        ),
        Op::SetRole => ("mallory".into(), text(json!({"role": "admin"})), FORBIDDEN, None),
        Op::RemoveOperator => ("admin".into(), none(), FORBIDDEN, None),
        // Nothing is written by them, or they are not an operator's.
        Op::CaCerts
        | Op::Enroll
        | Op::Reenroll
        | Op::CheckIn
        | Op::ReleaseFile
        | Op::DirectorFile
        | Op::Artifact
        | Op::Fleet
        | Op::Devices
        | Op::Device
        | Op::Rollouts
        | Op::Rollout
        | Op::Audit
        | Op::AuditFrom
        | Op::Metrics
        | Op::Operators
        | Op::Tokens => (ZEROS.into(), Vec::new(), (0, None), None),
    };
    (filled(route.path, &part), body, answer, told)
}

/// Who did what, by the audit log, from an entry on.
async fn told(site: &Site, actor: &str, from: usize) -> Vec<String> {
    let log = site.operator().await.get("/v1/audit").await.json();
    let entries = log.as_array().unwrap().iter().skip(from);
    let own = entries.filter(|entry| entry["actor"] == format!("spiffe://plant.example/operator/{actor}"));
    own.map(|entry| entry["action"].as_str().unwrap().to_owned())
        .collect()
}

/// The attacker holds the key and certificate of one operator, and asks for the worst on every route that writes, from the server's own
/// table.
#[tokio::test]
async fn a_stolen_certificate_does_what_its_role_may_and_every_bit_of_it_is_written_down() {
    let (site, mut devices) = fleet().await;
    let bundle = site.appointed("mallory", Role::Operator).await;
    let mut thief = site.connect(&bundle).await.unwrap();
    let stamp = |site: &Site| {
        let site = site.door.clone();
        async move {
            site.operator()
                .await
                .get("/v1/release/timestamp.json")
                .await
                .json()
        }
    };
    let before = stamp(&site).await;
    let mut wanted = Vec::new();
    let mut asked = 0;
    for route in ROUTES {
        if !matches!(route.who, Who::Operator(_)) || route.method == http::Method::GET {
            continue;
        }
        let (path, body, answer, action) = worst(&site, &mut thief, route).await;
        let said = thief.ask(route.method.as_str(), &path, body).await.said();
        assert_eq!(said, answer, "{} {path}", route.method);
        wanted.extend(action.map(str::to_owned));
        asked += 1;
        // Whatever was asked: beyond the canary nobody is directed to anything.
        assert_eq!(directed(&mut devices[1], Report::default()).await, None, "{path}");
    }
    assert_eq!(asked, 15, "all of them");
    assert_eq!(told(&site, "mallory", 0).await, wanted);
    assert_eq!(stamp(&site).await, before, "nothing was published");
    let operators = site.operator().await.get("/v1/operators").await.json();
    assert_eq!(operators.as_array().unwrap().len(), 2, "{operators}");
    // When it is noticed: one word, and the certificate opens nothing.
    let mut admin = site.operator().await;
    admin
        .post("/v1/operators/mallory/remove", &json!({}))
        .await
        .json();
    let mut again = site.connect(&bundle).await.unwrap();
    assert_eq!(
        again.get("/v1/devices").await.refusal(),
        (403, Code::NotAuthorised)
    );
}

/// The attacker is an admin, of the highest role there is, with a certificate of their own.
#[tokio::test]
async fn an_insider_reaches_the_canary_with_what_others_signed_and_is_stopped_by_a_word() {
    let (site, mut devices) = fleet().await;
    let mut insider = site
        .connect(&site.appointed("mallory", Role::Admin).await)
        .await
        .unwrap();
    let honest = site.appointed("ada", Role::Operator).await;
    // A grant without bounds: the policy is not theirs to sign, nor is a component that asks for more.
    for role in ["policy", "component.acme.thermo", "plan"] {
        let answer = insider.post("/v1/release", &forged(&site, role)).await;
        assert_eq!(answer.refusal(), (400, Code::ThresholdNotMet), "{role}");
    }
    // To everybody at once; then by stopping and going on, by agreeing with themselves, and by a second person of their own making.
    let all = json!([{"name": "all", "permille": 1000}]);
    let answer = insider.post("/v1/rollouts", &start("plant-1", &all)).await;
    assert_eq!(answer.refusal(), (400, Code::PreflightRefused));
    insider
        .post("/v1/rollouts", &start("plant-1", &canary_first()))
        .await
        .json();
    for verb in ["pause", "resume"] {
        insider
            .post(&format!("/v1/rollouts/1/{verb}"), &json!({}))
            .await
            .json();
    }
    let own = insider.post("/v1/rollouts/1/approve", &json!({})).await;
    assert_eq!(own.refusal(), (403, Code::OwnRollout));
    let role = insider
        .post("/v1/operators/mallory/role", &json!({"role": "approver"}))
        .await;
    assert_eq!(role.refusal(), (403, Code::OwnAccount));
    let puppet = json!({"name": "puppet", "role": "approver"});
    insider.post("/v1/operators", &puppet).await.json();
    // The name is there; the certificate is the custodians' to make.
    let own = KeyFile::generate().unwrap();
    let by_itself = site.founded().join("puppet.pem");
    std::fs::write(&by_itself, crate::raw::self_signed(&own)).unwrap();
    let seen = crate::raw::seen(&site, Some(&by_itself), "POST", "/v1/rollouts/1/approve").await;
    assert!(matches!(seen, crate::raw::Seen::Alert(_)), "{seen:?}");
    let (first, rest) = devices.split_first_mut().unwrap();
    assert_eq!(directed(first, Report::default()).await.unwrap().0, "plant-1");
    for other in rest.iter_mut() {
        assert_eq!(directed(other, Report::default()).await, None);
    }
    // Somebody of a lower role ends it: when that is answered, no check-in directs anybody to it any more, not the canary either.
    let mut ada = site.connect(&honest).await.unwrap();
    ada.post("/v1/rollouts/1/abort", &json!({})).await.json();
    for device in &mut devices {
        assert_eq!(directed(device, Report::default()).await, None);
    }
    let again = insider.post("/v1/rollouts/1/resume", &json!({})).await;
    assert_eq!(again.refusal(), (409, Code::WrongState));
    let acts = told(&site, "mallory", 0).await;
    let acts: Vec<&str> = acts.iter().map(String::as_str).collect();
    assert_eq!(
        acts,
        [
            "rollout-started",
            "rollout-paused",
            "rollout-resumed",
            "operator-added"
        ]
    );
    // The positive control of the second person: one whom custodians certified opens it.
    insider
        .post("/v1/rollouts", &start("plant-1", &canary_first()))
        .await
        .json();
    let puppet = site.certified("puppet", now());
    let mut second = site.connect(&puppet).await.unwrap();
    second.post("/v1/rollouts/2/approve", &json!({})).await.json();
}

/// Holds: an operator's certificate of a viewer, and one whom custodians took back from the fleet altogether.
#[tokio::test]
async fn whoever_may_only_look_writes_nothing_on_any_route() {
    let (site, _) = fleet().await;
    let mut admin = site.operator().await;
    admin
        .post("/v1/rollouts", &start("plant-1", &canary_first()))
        .await
        .json();
    admin
        .post("/v1/tokens", &json!({"uses": 1, "expires_in_seconds": 60}))
        .await
        .json();
    let mut viewer = site
        .connect(&site.appointed("vic", Role::Viewer).await)
        .await
        .unwrap();
    let before = admin.get("/v1/audit").await.json();
    for route in ROUTES {
        if !matches!(route.who, Who::Operator(_)) || route.method == http::Method::GET {
            continue;
        }
        let (path, body, _, _) = worst(&site, &mut admin, route).await;
        let said = viewer
            .ask_with(
                route.method.as_str(),
                &path,
                &[("content-type", "application/json")],
                body,
            )
            .await;
        let said: Result<Said, ClientError> = said.map(|answer| answer.said());
        assert_eq!(said, Ok(FORBIDDEN), "{} {path}", route.method);
    }
    assert_eq!(admin.get("/v1/audit").await.json(), before);
}

/// Holds: an operator's certificate, and names and words made for a database.
#[tokio::test]
async fn names_and_words_made_for_a_database_are_no_names_or_only_words() {
    let site = Site::open().await;
    site.enrolled("press-1").await;
    let count = "UPDATE documents SET id = id";
    let before = site.statement(count).await;
    let mut operator = site.operator().await;
    let long = "z".repeat(64);
    let hostile = [
        "press-1'--",
        "press-1' OR '1'='1",
        "x'; DROP TABLE documents; --",
        "x\"; DELETE FROM audit; --",
        "press-1\0",
        "%27%20OR%201=1",
        "press_1",
        "press%",
        "Press-1",
        "\u{2019} OR 1=1",
        "$(reboot)",
        "{{7*7}}",
        long.as_str(),
    ];
    for name in hostile {
        for body in [
            json!({"device": name, "spki": KeyFile::generate().unwrap().spki_sha256()}),
            json!({"device": "press-9", "spki": name}),
        ] {
            let answer = operator.post("/v1/devices/admit", &body).await;
            assert_eq!(answer.refusal(), (400, Code::BadRequest), "{name:?}");
        }
        let waves = json!([{"name": "canary", "devices": [name]}]);
        let started = operator.post("/v1/rollouts", &start("plant-1", &waves)).await;
        assert_eq!(started.refusal(), (400, Code::BadRequest), "{name:?}");
        let added = operator
            .post("/v1/operators", &json!({"name": name, "role": "viewer"}))
            .await;
        assert_eq!(added.refusal(), (400, Code::BadRequest), "{name:?}");
        // In a path, as far as our own client writes it at all.
        for path in ["/v1/devices/", "/v1/rollouts/", "/v1/release/", "/v1/artifacts/"] {
            let asked = operator.ask_with("GET", &format!("{path}{name}"), &[], "").await;
            let code = asked.map_or_else(|error| error.code(), |answer| answer.refusal().1);
            assert!(
                [Code::NotFound, Code::Internal].contains(&code),
                "{path}{name}: {code}"
            );
        }
    }
    assert_eq!(site.statement(count).await, before, "not a row more or less");
    // Where words are free, they come back to the letter.
    let words: Vec<&str> = hostile
        .iter()
        .copied()
        .filter(|word| !word.contains('\0'))
        .collect();
    for (at, word) in words.iter().enumerate() {
        let key = KeyFile::generate().unwrap();
        let request = json!({"device": format!("press-{}", at + 10), "spki": key.spki_sha256(), "labels": {"hall": word}});
        assert_eq!(
            operator.post("/v1/devices/admit", &request).await.status,
            200,
            "{word}"
        );
        let shown = operator
            .get(&format!("/v1/devices/press-{}", at + 10))
            .await
            .json();
        assert_eq!(shown["labels"]["hall"], *word);
    }
    let rows = u64::try_from(words.len()).unwrap();
    assert_eq!(site.statement(count).await, before + rows);
    let site = site.restart().await;
    let devices = site.operator().await.get("/v1/devices").await.json();
    assert_eq!(devices.as_array().unwrap().len(), 1 + words.len());
}

/// The attacker has an address and makes keys.
#[tokio::test]
async fn a_flood_of_keys_nobody_admitted_costs_no_signature_and_devices_go_on() {
    let site = Site::open().await;
    let mut device = site.device("press-1").await;
    let log = |site: &Site| {
        let site = site.door.clone();
        async move {
            let log = site.operator().await.get("/v1/audit").await.json();
            log.as_array().unwrap().len()
        }
    };
    let before = log(&site).await;
    let headers = [("content-type", redan_identity::est::PKCS10)];
    for _ in 0..40 {
        let key = KeyFile::generate().unwrap();
        let mut stranger = site.enrolling(&key).await;
        let request = redan_identity::est::csr(&key).unwrap();
        for _ in 0..3 {
            let path = "/.well-known/est/simpleenroll";
            let answer = stranger
                .ask_with("POST", path, &headers, request.clone())
                .await
                .unwrap();
            assert_eq!(answer.refusal(), (403, Code::NotAdmitted));
        }
        device.check_in(Report::default()).await;
    }
    assert_eq!(
        log(&site).await,
        before,
        "nothing was issued, and nothing else written"
    );
}
