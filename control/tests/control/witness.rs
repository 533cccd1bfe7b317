//! What an operator notices who merely uses `redan`, of a server whose database was edited (attacks A01, A02).

use crate::site::Site;
use redan::access::Access;
use redan::error::CliError;
use redan::operate;
use redan_protocol::audit::{Action, AuditEntry, AuditFault};
use redan_protocol::wire::AUDIT_PAGE_MAX;
use redan_protocol::{Digest, UnixSeconds};
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection};
use std::path::PathBuf;

/// An operator's machine.
fn machine(site: &Site, name: &str) -> Access {
    Access {
        fleet_dir: Some(site.founded().join("public")),
        operator: Some(site.founded().join("operators/admin.pem")),
        server: Some(site.address.to_string()),
        state_dir: Some(site.folder.path().join(name)),
    }
}

/// Looks at the devices, as operators do all day.
async fn look(machine: &Access) -> Result<(), AuditFault> {
    fault(operate::get(machine, "/v1/devices").await)
}

#[track_caller]
fn fault(ran: Result<Value, CliError>) -> Result<(), AuditFault> {
    match ran {
        Ok(_) => Ok(()),
        Err(CliError::Audit(fault)) => Err(fault),
        Err(other) => panic!("{other}"),
    }
}

async fn database(site: &Site) -> SqliteConnection {
    let file = site.kept().join("fleet.sqlite");
    SqliteConnectOptions::new()
        .filename(file)
        .connect()
        .await
        .unwrap()
}

async fn log(database: &mut SqliteConnection) -> Vec<AuditEntry> {
    let rows: Vec<Vec<u8>> = sqlx::query_scalar("SELECT body FROM audit ORDER BY entry")
        .fetch_all(database)
        .await
        .unwrap();
    rows.iter()
        .map(|row| serde_json::from_slice(row).unwrap())
        .collect()
}

/// Puts a log of its own into the server's database.
async fn put(database: &mut SqliteConnection, log: &[AuditEntry]) {
    let mut writing = database.begin().await.unwrap();
    sqlx::query("DELETE FROM audit")
        .execute(&mut *writing)
        .await
        .unwrap();
    for entry in log {
        sqlx::query("INSERT INTO audit (entry, body) VALUES (?, ?)")
            .bind(i64::try_from(entry.index).unwrap())
            .bind(serde_json::to_vec(entry).unwrap())
            .execute(&mut *writing)
            .await
            .unwrap();
    }
    writing.commit().await.unwrap();
}

/// The log with another subject at one place, and a good chain.
fn forged(log: &[AuditEntry], at: usize) -> Vec<AuditEntry> {
    let mut forged: Vec<AuditEntry> = log[..at].to_vec();
    for (n, entry) in log.iter().enumerate().skip(at) {
        let subject = if n == at { "nothing to see" } else { &entry.subject };
        let next = AuditEntry::following(forged.last(), entry.time, &entry.actor, entry.action, subject);
        forged.push(next);
    }
    forged
}

/// Holds: the server's database, and every key of the server.
#[tokio::test]
async fn every_edit_of_the_log_is_noticed_by_an_operator_who_merely_looks_at_devices() {
    let site = Site::open().await;
    site.device("press-1").await;
    let own = machine(&site, "ada");
    assert_eq!(look(&own).await, Ok(()), "positive control");
    let mut database = database(&site).await;
    let whole = log(&mut database).await;
    let last = whole.len() - 1;
    assert_eq!(last, 3, "what was seen");
    let edited = {
        let mut log = whole.clone();
        log[1].subject.push('x');
        log
    };
    let removed: Vec<AuditEntry> = [&whole[..1], &whole[2..]].concat();
    let swapped = vec![
        whole[0].clone(),
        whole[2].clone(),
        whole[1].clone(),
        whole[3].clone(),
    ];
    for (why, shown, found) in [
        ("a row edited", edited, AuditFault::Hash { at: 1 }),
        ("a row removed", removed, AuditFault::Order { at: 1 }),
        (
            "the tail cut",
            whole[..last].to_vec(),
            AuditFault::Shortened { seen: 3, entries: 3 },
        ),
        (
            "all of it gone",
            Vec::new(),
            AuditFault::Shortened { seen: 3, entries: 0 },
        ),
        (
            "written anew from the first entry",
            forged(&whole, 0),
            AuditFault::Rewritten { at: 3 },
        ),
        (
            "the last entry written anew",
            forged(&whole, last),
            AuditFault::Rewritten { at: 3 },
        ),
    ] {
        put(&mut database, &shown).await;
        assert_eq!(look(&own).await, Err(found), "{why}");
        assert_eq!(look(&own).await, Err(found), "{why}: and not forgotten");
        // Whoever has seen nothing of it sees a good log, when it is one.
        let stranger = machine(&site, &why.replace(' ', "-"));
        let chained = !matches!(found, AuditFault::Hash { .. } | AuditFault::Order { .. });
        assert_eq!(look(&stranger).await.is_ok(), chained, "{why}");
        put(&mut database, &whole).await;
        assert_eq!(look(&own).await, Ok(()), "{why}: mended");
    }
    // Rows that only changed places in the table are in their order by index, and broken all the same when their index goes along.
    let mut out_of_order = swapped;
    for (index, entry) in (0..).zip(&mut out_of_order) {
        entry.index = index;
    }
    put(&mut database, &out_of_order).await;
    assert_eq!(look(&own).await, Err(AuditFault::Hash { at: 1 }));
}

/// Holds: an old copy of the server's database (attack A02).
#[tokio::test]
async fn an_old_copy_of_the_database_is_noticed_before_and_after_the_log_has_grown_over_it() {
    let site = Site::open().await;
    site.device("press-1").await;
    let own = machine(&site, "ada");
    look(&own).await.unwrap();
    let site = site.restart_after("DELETE FROM audit WHERE entry > 1").await;
    let own = machine(&site, "ada");
    assert_eq!(
        look(&own).await,
        Err(AuditFault::Shortened { seen: 3, entries: 2 })
    );
    // The server goes on from its copy; others use it, who have seen nothing.
    for id in ["press-7", "press-8"] {
        site.device(id).await;
    }
    assert_eq!(look(&own).await, Err(AuditFault::Rewritten { at: 3 }));
}

/// Holds: the server, which does what it is asked and does not write it down.
#[tokio::test]
async fn what_is_done_and_not_written_down_is_noticed_by_whoever_asked_for_it() {
    let site = Site::open().await;
    site.device("press-1").await;
    let own = machine(&site, "ada");
    let made = json!({"uses": 1, "expires_in_seconds": 60});
    operate::send(&own, "/v1/tokens", &made).await.unwrap();
    let hide =
        "CREATE TRIGGER hide AFTER INSERT ON audit BEGIN DELETE FROM audit WHERE entry = new.entry; END";
    site.statement(hide).await;
    let ran = operate::post(&own, "/v1/devices/press-1/revoke").await;
    assert_eq!(fault(ran), Err(AuditFault::Untold));
    // Something else in its place is no better.
    site.statement("DROP TRIGGER hide").await;
    let mut database = database(&site).await;
    let mut log = log(&mut database).await;
    let other = AuditEntry::following(
        log.last(),
        UnixSeconds::new(1),
        "server",
        Action::RolloutAdvanced,
        "rollout 1",
    );
    log.push(other);
    put(&mut database, &log).await;
    assert_eq!(
        look(&own).await,
        Ok(()),
        "a chain that goes on is all that reading shows"
    );
}

#[tokio::test]
async fn a_log_that_was_looked_into_is_accepted_by_its_hash_and_by_no_other() {
    let site = Site::open().await;
    site.device("press-1").await;
    let own = machine(&site, "ada");
    look(&own).await.unwrap();
    let site = site.restart_after("DELETE FROM audit WHERE entry > 1").await;
    let own = machine(&site, "ada");
    look(&own).await.unwrap_err();
    let error = operate::accept_audit(&own, Digest::of(b"no")).await.unwrap_err();
    assert_eq!(error.exit(), 2, "{error}");
    look(&own).await.unwrap_err();
    let listed = operate::list_audit(&own).await.unwrap();
    let newest = listed.as_array().unwrap().last().unwrap()["hash"]
        .as_str()
        .unwrap()
        .to_owned();
    let accepted = operate::accept_audit(&own, Digest::parse(&newest).unwrap())
        .await
        .unwrap();
    let before = PathBuf::from(accepted["kept_before"].as_str().unwrap());
    assert!(std::fs::read_to_string(before).unwrap().contains("\"index\":3"));
    look(&own).await.unwrap();
}

#[tokio::test]
async fn a_log_of_more_than_one_page_is_followed_and_an_old_edit_shows_a_day_later() {
    let site = Site::open().await;
    let mut database = database(&site).await;
    let mut long = log(&mut database).await;
    let page = usize::try_from(AUDIT_PAGE_MAX).unwrap();
    while long.len() < 2 * page + 7 {
        let next = AuditEntry::following(
            long.last(),
            UnixSeconds::new(1),
            "server",
            Action::RolloutAdvanced,
            "rollout 1",
        );
        long.push(next);
    }
    put(&mut database, &long).await;
    let answer = site.operator().await.get("/v1/audit/5").await.json();
    let answer = answer.as_array().unwrap().clone();
    assert_eq!((answer.len(), &answer[0]["index"]), (page, &json!(5)));
    let own = machine(&site, "ada");
    assert_eq!(look(&own).await, Ok(()));
    let kept = std::fs::read_dir(own.state_dir.as_ref().unwrap()).unwrap();
    let kept = kept.map(|entry| entry.unwrap().path());
    let kept = kept
        .into_iter()
        .find(|path| path.extension().is_some_and(|kind| kind == "json"))
        .unwrap();
    let text = std::fs::read_to_string(&kept).unwrap();
    assert!(text.contains(&format!("\"index\":{}", 2 * page + 6)), "{text}");
    // An old entry is looked at again once a day.
    let mut edited = long.clone();
    edited[5].subject.push('x');
    put(&mut database, &edited).await;
    assert_eq!(look(&own).await, Ok(()));
    let mut earlier: Value = serde_json::from_str(&text).unwrap();
    earlier["walked"] = json!(1);
    std::fs::write(&kept, earlier.to_string()).unwrap();
    assert_eq!(look(&own).await, Err(AuditFault::Hash { at: 5 }));
    // A new one at once.
    put(&mut database, &forged(&long, 2 * page + 6)).await;
    std::fs::write(&kept, &text).unwrap();
    let at = 2 * AUDIT_PAGE_MAX + 6;
    assert_eq!(look(&own).await, Err(AuditFault::Rewritten { at }));
}

/// Holds: the server, which shows each operator a log of their own.
#[tokio::test]
async fn two_operators_who_are_shown_two_logs_find_out_when_they_compare_heads() {
    let site = Site::open().await;
    site.device("press-1").await;
    let (ada, bob) = (machine(&site, "ada"), machine(&site, "bob"));
    let head = |verified: Result<Value, CliError>| verified.unwrap()["head"].as_str().unwrap().to_owned();
    let of_ada = head(operate::verify_audit(&ada, None).await);
    let same = operate::verify_audit(&bob, Some(&of_ada)).await;
    assert_eq!(head(same), of_ada, "positive control");
    let mut database = database(&site).await;
    let whole = log(&mut database).await;
    let other = forged(&whole, 2);
    put(&mut database, &other).await;
    let late = machine(&site, "carol");
    assert_eq!(look(&late).await, Ok(()), "who has seen nothing");
    assert_eq!(
        fault(operate::verify_audit(&late, Some(&of_ada)).await),
        Err(AuditFault::Order { at: 4 })
    );
    // And each alone who has.
    assert_eq!(look(&bob).await, Err(AuditFault::Rewritten { at: 3 }));
}
