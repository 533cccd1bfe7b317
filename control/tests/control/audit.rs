//! The audit log: complete, chained, and telling when it was touched.

use crate::site::Site;
use redan_protocol::Code;
use redan_protocol::audit::{AuditEntry, AuditFault, verify_chain};
use serde_json::json;

async fn log(site: &Site) -> Vec<AuditEntry> {
    serde_json::from_value(site.operator().await.get("/v1/audit").await.json()).unwrap()
}

#[tokio::test]
async fn every_write_names_who_and_what_and_the_chain_holds() {
    let site = Site::open().await;
    let device = site.device("press-1").await;
    let mut operator = site.operator().await;
    assert_eq!(
        operator
            .post("/v1/devices/press-1/revoke", &json!({}))
            .await
            .status,
        200
    );
    drop(device);
    let entries = log(&site).await;
    let said: Vec<(String, String)> = entries
        .iter()
        .map(|entry| {
            (
                entry.actor.clone(),
                serde_json::to_value(entry.action)
                    .unwrap()
                    .as_str()
                    .unwrap()
                    .to_owned(),
            )
        })
        .collect();
    let admin = "spiffe://plant.example/operator/admin";
    let press = "spiffe://plant.example/device/press-1";
    for wanted in [
        ("local", "fleet-added"),
        (admin, "device-admitted"),
        (press, "device-enrolled"),
        (admin, "device-revoked"),
    ] {
        let found = said
            .iter()
            .any(|(actor, action)| (actor.as_str(), action.as_str()) == wanted);
        assert!(found, "{wanted:?} is not in {said:?}");
    }
    assert_eq!(verify_chain(&entries).unwrap(), entries.last().unwrap().hash);
    // A restart goes on with the same chain.
    let site = site.restart().await;
    site.device("press-2").await;
    let later = log(&site).await;
    assert_eq!(later[..entries.len()], entries);
    assert!(verify_chain(&later).is_ok());
}

#[tokio::test]
async fn an_edited_row_is_found() {
    let site = Site::open().await;
    site.device("press-1").await;
    assert!(verify_chain(&log(&site).await).is_ok(), "positive control");
    let edited = site
        .statement("UPDATE audit SET body = replace(body, 'press-1', 'press-9') WHERE entry = 2")
        .await;
    assert_eq!(edited, 1);
    assert_eq!(verify_chain(&log(&site).await), Err(AuditFault::Hash { at: 2 }));
}

#[tokio::test]
async fn a_removed_row_is_found() {
    let site = Site::open().await;
    site.device("press-1").await;
    let removed = site.statement("DELETE FROM audit WHERE entry = 1").await;
    assert_eq!(removed, 1);
    assert_eq!(verify_chain(&log(&site).await), Err(AuditFault::Order { at: 1 }));
}

/// Holds: the server's database.
#[tokio::test]
async fn reordered_inserted_and_doubled_rows_are_found() {
    let edits: [(&[&'static str], AuditFault); 3] = [
        // The second and the third change places.
        (
            &[
                "UPDATE audit SET entry = -1 WHERE entry = 1",
                "UPDATE audit SET entry = 1 WHERE entry = 2",
                "UPDATE audit SET entry = 2 WHERE entry = -1",
            ],
            AuditFault::Order { at: 1 },
        ),
        // One of their own between the second and the third.
        (
            &[
                "UPDATE audit SET entry = entry + 1000 WHERE entry >= 2",
                "UPDATE audit SET entry = entry - 999 WHERE entry >= 1002",
                "INSERT INTO audit (entry, body) SELECT 2, replace(body, 'press-1', 'press-9') FROM audit WHERE entry = 1",
            ],
            AuditFault::Order { at: 2 },
        ),
        // The last one once more: two histories that end alike.
        (
            &["INSERT INTO audit (entry, body) SELECT max(entry) + 1, body FROM audit"],
            AuditFault::Order { at: 4 },
        ),
    ];
    for (statements, fault) in edits {
        let site = Site::open().await;
        site.device("press-1").await;
        let count = log(&site).await.len();
        assert_eq!(count, 4, "positive control");
        for statement in statements {
            assert!(site.statement(statement).await > 0);
        }
        assert_eq!(verify_chain(&log(&site).await), Err(fault), "{statements:?}");
    }
}

#[tokio::test]
async fn what_the_audit_cannot_hold_is_not_done() {
    let site = Site::open().await;
    let mut device = site.device("press-1").await;
    let mut operator = site.operator().await;
    site.statement("ALTER TABLE audit RENAME TO lost").await;
    let answer = operator.post("/v1/devices/press-1/revoke", &json!({})).await;
    assert_eq!(answer.refusal(), (503, Code::StoreFailed));
    assert_eq!(operator.get("/v1/devices/press-1").await.json()["revoked"], false);
    assert_eq!(
        device.get("/tuf/release/timestamp.json").await.status,
        200,
        "it is not half revoked"
    );
    site.statement("ALTER TABLE lost RENAME TO audit").await;
    operator
        .post("/v1/devices/press-1/revoke", &json!({}))
        .await
        .json();
    assert!(verify_chain(&log(&site).await).is_ok(), "without a gap");
}
