//! Operators: what each role reaches, and what happens when one changes (attack O04).

use crate::probe::{NOTHING, Said, probes};
use crate::raw::Raw;
use crate::site::{Caller, Site, now};
use redan_control::fleet::Fleet;
use redan_control::operator::{Operator, parse};
use redan_control::table::Who;
use redan_identity::KeyFile;
use redan_protocol::{Code, OperatorName, Role, Seconds};
use serde_json::json;
use std::path::Path;

const FORBIDDEN: Said = (403, Some(Code::NotAuthorised));

async fn asked(caller: &mut Caller, method: &str, path: &str, body: &'static str) -> Said {
    caller.ask(method, path, body).await.said()
}

/// Callers of every kind, and what each is said on a route: made from the server's own table, every cell.
#[tokio::test]
async fn every_role_reaches_its_own_routes_and_no_others() {
    let site = Site::open().await;
    let device = site.device("press-1").await;
    let enrolling = site.enrolling(&KeyFile::generate().unwrap()).await;
    let mut callers = vec![
        ("a device".to_owned(), Who::Device, device),
        ("a key".to_owned(), Who::Anybody, enrolling),
    ];
    for role in Role::ALL {
        let bundle = site.appointed(&format!("the-{role}"), *role).await;
        callers.push((
            role.to_string(),
            Who::Operator(*role),
            site.connect(&bundle).await.unwrap(),
        ));
    }
    let mut cells = 0;
    for (name, who, caller) in &mut callers {
        for (route, probe) in probes() {
            let wanted = match (*who, route.who) {
                (Who::Operator(role), Who::Operator(needs)) if role < needs => FORBIDDEN,
                (Who::Operator(_), Who::Operator(_)) => probe.answer,
                (kind, other) if kind == other => probe.answer,
                // cacerts is a path of both.
                (Who::Anybody, Who::Device) | (Who::Device, Who::Anybody)
                    if probe.path.ends_with("cacerts") =>
                {
                    probe.answer
                }
                _ => NOTHING,
            };
            let said = asked(caller, probe.method.as_str(), &probe.path, probe.body).await;
            assert_eq!(said, wanted, "{name}: {} {}", probe.method, probe.path);
            cells += 1;
        }
        assert_eq!(
            asked(caller, "GET", "/no/such/route", "").await,
            NOTHING,
            "{name}"
        );
    }
    assert_eq!(cells, callers.len() * redan_control::table::ROUTES.len());
}

/// The attacker holds a certificate of the fleet's operator issuer, and the server's store does not know the name, or no longer.
#[tokio::test]
async fn a_name_that_the_store_does_not_know_is_refused_everywhere_alike() {
    let site = Site::open().await;
    let never = site.certified("mallory", now());
    let removed = site.appointed("bob", Role::Admin).await;
    let mut admin = site.operator().await;
    admin.post("/v1/operators/bob/remove", &json!({})).await.json();
    // Nor does a certificate that custodians make afterwards, unless somebody adds the name again.
    let since = site.certified("bob", now().after(Seconds::new(5)));
    for bundle in [never, removed, since] {
        let mut caller = site.connect(&bundle).await.unwrap();
        for (_, probe) in probes() {
            let said = asked(&mut caller, probe.method.as_str(), &probe.path, probe.body).await;
            assert_eq!(said, FORBIDDEN, "{bundle:?} {} {}", probe.method, probe.path);
        }
        assert_eq!(asked(&mut caller, "GET", "/no/such/route", "").await, FORBIDDEN);
    }
}

/// In the middle of a request: it has begun, and its body is awaited.
async fn busy(site: &Site, bundle: &Path) -> Raw {
    let mut raw = Raw::known(site, bundle).await;
    raw.send(
        "POST /v1/rollouts HTTP/1.1\r\nhost: control.plant.example\r\ncontent-length: 2\r\n\
         expect: 100-continue\r\n\r\n",
    )
    .await;
    assert_eq!(raw.status().await, "100");
    raw
}

#[tokio::test]
async fn a_removed_operator_is_cut_and_does_not_come_back_with_an_old_certificate() {
    let site = Site::open().await;
    let bundle = site.appointed("bob", Role::Operator).await;
    let mut open = busy(&site, &bundle).await;
    let mut admin = site.operator().await;
    admin.post("/v1/operators/bob/remove", &json!({})).await.json();
    assert_eq!(open.rest().await, "", "closed without another word");
    let refused = (403, Code::NotAuthorised);
    let mut again = site.connect(&bundle).await.unwrap();
    assert_eq!(again.get("/v1/devices").await.refusal(), refused);
    // The name comes back with a new certificate; the old one stays worthless, also after a restart.
    let request = json!({"name": "bob", "role": "viewer"});
    admin.post("/v1/operators", &request).await.json();
    assert_eq!(again.get("/v1/devices").await.refusal(), refused);
    let fresh = site.certified("bob", now().after(Seconds::new(5)));
    let site = site.restart().await;
    let mut old = site.connect(&bundle).await.unwrap();
    assert_eq!(old.get("/v1/devices").await.refusal(), refused);
    let mut new = site.connect(&fresh).await.unwrap();
    assert_eq!(new.get("/v1/devices").await.status, 200, "positive control");
}

#[tokio::test]
async fn a_changed_role_counts_from_the_next_request_and_closes_what_is_open() {
    let site = Site::open().await;
    let bundle = site.appointed("bob", Role::Operator).await;
    let mut open = busy(&site, &bundle).await;
    let mut admin = site.operator().await;
    let viewer = json!({"role": "viewer"});
    admin.post("/v1/operators/bob/role", &viewer).await.json();
    assert_eq!(open.rest().await, "");
    let mut bob = site.connect(&bundle).await.unwrap();
    assert_eq!(bob.get("/v1/devices").await.status, 200);
    assert_eq!(bob.get("/v1/fleet").await.json()["role"], "viewer");
    let answer = bob.post("/v1/devices/admit", &json!({})).await;
    assert_eq!(answer.refusal(), (403, Code::NotAuthorised));
}

/// The request was let in, and waits for its turn to write while its operator is removed.
#[tokio::test]
async fn what_an_operator_has_under_way_when_removed_is_not_done() {
    let (folder, _) = crate::program::registered().await;
    let kept = folder.path().join("state/fleets/plant.example");
    let id = redan_protocol::FleetId::parse("plant.example").unwrap();
    let (fleet, _) = Fleet::open(&kept, id, now()).await.unwrap();
    let [admin, bob] = ["admin", "bob"].map(|name| OperatorName::parse(name).unwrap());
    let ask = |name| Operator {
        fleet: &fleet,
        name,
        expires: now().after(Seconds::new(7 * 86_400)),
        needs: Role::Operator,
        now: now(),
    };
    let request = |device: &str| {
        let spki = KeyFile::generate().unwrap().spki_sha256();
        parse(json!({"device": device, "spki": spki}).to_string().as_bytes()).unwrap()
    };
    assert!(
        ask(&admin).admit(request("press-1"), "x:1").await.is_ok(),
        "positive control"
    );
    let refused = ask(&bob).admit(request("press-2"), "x:1").await.unwrap_err();
    assert_eq!(refused.code, Code::NotAuthorised);
    assert_eq!(fleet.state.lock().await.devices.len(), 1);
}

#[tokio::test]
async fn nobody_changes_their_own_role_so_there_is_always_an_admin() {
    let site = Site::open().await;
    let mut admin = site.operator().await;
    for (path, body) in [
        ("/v1/operators/admin/remove", json!({})),
        ("/v1/operators/admin/role", json!({"role": "viewer"})),
    ] {
        assert_eq!(
            admin.post(path, &body).await.refusal(),
            (403, Code::OwnAccount),
            "{path}"
        );
    }
    let listed = admin.get("/v1/operators").await.json();
    assert_eq!(
        (&listed[0]["operator"], &listed[0]["role"]),
        (&json!("admin"), &json!("admin"))
    );
    // Another admin does it.
    let second = site.appointed("second", Role::Admin).await;
    let mut second = site.connect(&second).await.unwrap();
    second.post("/v1/operators/admin/remove", &json!({})).await.json();
    // Twice is refused, and so is a name that is taken.
    let gone = second.post("/v1/operators/admin/remove", &json!({})).await;
    assert_eq!(gone.refusal(), (404, Code::NotFound));
    let taken = second
        .post("/v1/operators", &json!({"name": "second", "role": "viewer"}))
        .await;
    assert_eq!(taken.refusal(), (409, Code::Conflict));
}

#[tokio::test]
async fn every_change_of_operators_is_in_the_audit_log_with_who_did_it() {
    let site = Site::open().await;
    let second = site.appointed("second", Role::Viewer).await;
    let mut admin = site.operator().await;
    admin
        .post("/v1/operators/second/role", &json!({"role": "operator"}))
        .await
        .json();
    let mut operator = site.connect(&second).await.unwrap();
    let spki = KeyFile::generate().unwrap().spki_sha256();
    operator
        .post("/v1/devices/admit", &json!({"device": "press-1", "spki": spki}))
        .await
        .json();
    admin.post("/v1/operators/second/remove", &json!({})).await.json();
    let log = admin.get("/v1/audit").await.json();
    let said: Vec<[&str; 3]> = log
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| ["actor", "action", "subject"].map(|key| entry[key].as_str().unwrap()))
        .collect();
    let by = "spiffe://plant.example/operator/admin";
    let device = format!("press-1 {spki}");
    assert_eq!(
        said,
        [
            ["local", "fleet-added", "plant.example"],
            ["local", "operator-added", "admin admin"],
            [by, "operator-added", "second viewer"],
            [by, "operator-role-changed", "second operator"],
            [
                "spiffe://plant.example/operator/second",
                "device-admitted",
                &device
            ],
            [by, "operator-removed", "second"],
        ]
    );
}
