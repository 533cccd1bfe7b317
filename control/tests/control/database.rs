//! A database that does not take what is asked: nothing is done, and everybody is told to come again.

use crate::site::{Answer, Site};
use redan_identity::KeyFile;
use redan_protocol::Code;
use serde_json::json;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};

#[track_caller]
fn told_to_come_again(answer: &Answer) {
    assert_eq!(answer.refusal(), (503, Code::StoreFailed));
    let after: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!(after > 0);
}

#[tokio::test]
async fn a_database_that_takes_nothing_is_503_on_every_write_and_changes_nothing() {
    let site = Site::open().await;
    let mut device = site.device("press-1").await;
    let mut operator = site.operator().await;
    let before = operator.get("/v1/devices").await.json();
    let audit = operator.get("/v1/audit").await.json();
    let key = KeyFile::generate().unwrap();
    let admit = json!({"device": "press-2", "spki": key.spki_sha256()});
    // As a full disk answers, or one that went read-only: the write itself fails.
    for table in ["audit", "documents"] {
        for fault in ["disk full", "read-only"] {
            let sql = format!(
                "CREATE TRIGGER fault BEFORE INSERT ON {table} BEGIN SELECT RAISE(FAIL, '{fault}'); END"
            );
            site.statement(Box::leak(sql.into_boxed_str())).await;
            told_to_come_again(&operator.post("/v1/devices/admit", &admit).await);
            told_to_come_again(&operator.post("/v1/devices/press-1/revoke", &json!({})).await);
            let bytes = b"an artifact".to_vec();
            let path = format!("/v1/artifacts/{}", redan_protocol::Digest::of(&bytes));
            if table == "audit" {
                told_to_come_again(&operator.ask("PUT", &path, bytes).await);
            } else {
                let body =
                    json!({"nonce": "00".repeat(16), "report": redan_protocol::report::Report::default()});
                told_to_come_again(&device.post("/v1/checkin", &body).await);
            }
            site.statement("DROP TRIGGER fault").await;
            assert_eq!(
                operator.get("/v1/devices").await.json(),
                before,
                "{table} {fault}"
            );
            assert_eq!(operator.get("/v1/audit").await.json(), audit, "{table} {fault}");
            // What needs no write goes on.
            assert_eq!(device.get("/tuf/release/timestamp.json").await.status, 200);
        }
    }
    operator.post("/v1/devices/admit", &admit).await.json();
}

#[tokio::test]
async fn a_database_that_another_process_has_locked_is_503_until_it_lets_go() {
    let site = Site::open().await;
    let mut operator = site.operator().await;
    let key = KeyFile::generate().unwrap();
    let admit = json!({"device": "press-1", "spki": key.spki_sha256()});
    let options = SqliteConnectOptions::new().filename(site.kept().join("fleet.sqlite"));
    let mut other = options.connect().await.unwrap();
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    told_to_come_again(&operator.post("/v1/devices/admit", &admit).await);
    assert_eq!(operator.get("/v1/devices").await.json(), json!([]));
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    other.close().await.unwrap();
    operator.post("/v1/devices/admit", &admit).await.json();
    let audit = operator.get("/v1/audit").await.json();
    let entries = audit.as_array().unwrap().iter();
    let admitted = entries
        .filter(|entry| entry["action"] == "device-admitted")
        .count();
    assert_eq!(admitted, 1, "{audit}");
}
