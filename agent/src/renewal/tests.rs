use super::*;
use crate::clock::Clock;
use redan_identity::KeyFile;
use redan_protocol::Seconds;
use stage::{DAY, Does, Stage, days_ago, now, speaks};

mod change;
mod stage;

#[tokio::test]
async fn a_renewal_makes_a_new_key_and_both_take_the_place_of_the_old_ones() {
    let stage = Stage::open().await;
    let old = stage.own();
    let (link, renewed) = stage.renew().await;
    let renewed = renewed.unwrap();
    let (before, after) = (old.key.spki_sha256(), renewed.key.spki_sha256());
    assert_ne!(before, after);
    assert_eq!(
        stage.heard(),
        [(before, after.to_string()), (after, EST_CACERTS.to_owned())]
    );
    assert_eq!(speaks(&stage, &link).await, after);
    assert_eq!(stage.own().key.spki_sha256(), after);
    assert_eq!(stage.own().chain, renewed.chain);
    assert_eq!(stage.own().valid.1, now().after(Seconds::new(30 * DAY)));
    assert!(matches!(stage.next(), Next::Nothing));
}

#[tokio::test]
async fn an_answer_that_was_lost_is_asked_for_again_with_the_same_key() {
    let stage = Stage::open().await;
    let old = stage.own().key.spki_sha256();
    stage.will(Does::LosesTheAnswer);
    let (link, renewed) = stage.renew().await;
    assert_eq!(renewed.map(drop).unwrap_err().code(), Code::Unreachable);
    let first = stage.heard();
    assert_eq!(
        speaks(&stage, &link).await,
        old,
        "the old one speaks on meanwhile"
    );
    let Next::Key(key) = stage.next() else {
        panic!("no key")
    };
    let renewed = stage.renew().await.1.unwrap();
    assert_eq!(renewed.key.spki_sha256(), key.spki_sha256());
    assert_eq!(stage.heard()[0], first[0]);
}

#[tokio::test]
async fn once_the_new_key_may_have_been_heard_the_old_one_is_silent_also_after_a_restart() {
    let stage = Stage::open().await;
    let old = stage.own().key.spki_sha256();
    let next = KeyFile::generate().unwrap();
    // Made before: its first word is lost on the way back.
    stage.will(Does::LosesTheAnswer);
    stage.prepare_whole(&next);
    let (link, renewed) = stage.renew().await;
    assert_eq!(renewed.map(drop).unwrap_err().code(), Code::Unreachable);
    assert_eq!(stage.heard(), [(next.spki_sha256(), EST_CACERTS.to_owned())]);
    assert_eq!(speaks(&stage, &link).await, next.spki_sha256());
    let (link, ..) = stage.start();
    assert_eq!(speaks(&stage, &link).await, next.spki_sha256(), "after a restart");
    assert_eq!(stage.own().key.spki_sha256(), old, "not proven yet");
    let renewed = stage.renew().await.1.unwrap();
    assert_eq!(renewed.key.spki_sha256(), next.spki_sha256());
    assert_eq!(
        stage.heard(),
        [(next.spki_sha256(), EST_CACERTS.to_owned())],
        "no other request"
    );
    assert_eq!(stage.own().key.spki_sha256(), next.spki_sha256());
}

#[tokio::test]
async fn a_new_key_that_the_server_does_not_know_is_given_up_for_the_old_one() {
    for code in [Code::CertificateRevoked, Code::KeySuperseded] {
        let stage = Stage::open().await;
        let old = stage.own().key.spki_sha256();
        stage.prepare_whole(&KeyFile::generate().unwrap());
        stage.will(Does::Refuses(code));
        let (link, renewed) = stage.renew().await;
        assert_eq!(renewed.map(drop).unwrap_err().code(), code);
        assert!(matches!(stage.next(), Next::Nothing));
        assert_eq!(speaks(&stage, &link).await, old);
        assert_ne!(stage.renew().await.1.unwrap().key.spki_sha256(), old);
    }
}

#[tokio::test]
async fn a_certificate_that_expired_before_it_spoke_takes_its_place_and_is_renewed_in_its_turn() {
    let stage = Stage::open().await;
    let next = KeyFile::generate().unwrap();
    stage.prepare_whole(&next);
    stage.will(Does::Refuses(Code::CertificateExpired));
    assert_eq!(
        stage.renew().await.1.unwrap().key.spki_sha256(),
        next.spki_sha256()
    );
    assert_eq!(stage.own().key.spki_sha256(), next.spki_sha256());
}

#[tokio::test]
async fn an_answer_for_another_key_or_another_device_is_not_kept() {
    for does in [
        Does::IssuesFor(KeyFile::generate().unwrap()),
        Does::IssuesAs("press-2"),
    ] {
        let stage = Stage::open().await;
        let old = stage.own().key.spki_sha256();
        stage.will(does);
        let (link, renewed) = stage.renew().await;
        assert_eq!(renewed.map(drop).unwrap_err().code(), Code::VoucherInvalid);
        assert!(matches!(stage.next(), Next::Key(_)), "no certificate was kept");
        assert_eq!(speaks(&stage, &link).await, old);
        assert_eq!(stage.own().key.spki_sha256(), old);
    }
}

#[tokio::test]
async fn a_server_certificate_that_was_good_enough_is_refused_once_a_later_time_is_proven() {
    let stage = Stage::open().await;
    let (link, proven, own) = stage.start();
    proven.learn(own.since);
    // Issued 120 days ago: expired for a month. The device has proof of no later time, so it takes it.
    stage.serve_since(days_ago(120));
    link.open().await.unwrap();
    // A newer one, issued yesterday by an offline key: it is yesterday at least.
    stage.serve_since(days_ago(1));
    link.open().await.unwrap();
    assert!(proven.now() >= UnixSeconds::new(days_ago(1).get() - 300));
    // The same link, nothing was built anew.
    stage.serve_since(days_ago(120));
    assert_eq!(link.open().await.map(drop), Err(Code::CertificateExpired));
}

#[test]
fn proven_time_goes_on_with_the_monotonic_clock_and_never_back() {
    let proven = Proven::new(Clock::start());
    proven.learn(now());
    proven.learn(days_ago(1));
    assert!(proven.now() >= now());
    proven.learn(now().after(Seconds::new(DAY)));
    assert!(proven.now() >= now().after(Seconds::new(DAY)));
}

#[test]
fn a_certificate_is_due_from_half_of_its_life_to_a_tenth_later() {
    let valid = (now(), now().after(Seconds::new(30 * DAY)));
    assert_eq!(due(valid, 0), now().after(Seconds::new(15 * DAY)));
    let latest = due(valid, u16::MAX);
    assert!(
        latest > now().after(Seconds::new(18 * DAY - 60)) && latest < now().after(Seconds::new(18 * DAY))
    );
}

#[tokio::test]
async fn the_servers_clock_says_when_and_an_expired_certificate_does_not_wait_for_it() {
    let stage = Stage::open().await;
    let own = stage.own();
    let half = UnixSeconds::new(own.valid.0.get() + 15 * DAY);
    let mut renewal = Renewal::new(own.clone(), false);
    renewal.told(UnixSeconds::new(half.get() - 300));
    assert_eq!(renewal.next(), None);
    renewal.told(half.after(Seconds::new(3 * DAY + 300)));
    assert!(renewal.next().is_some());
    let mut renewal = Renewal::new(own.clone(), false);
    renewal.expired();
    assert!(renewal.next().is_some());
    assert!(
        Renewal::new(own, true).next().is_some(),
        "one that had begun goes on"
    );
}

#[tokio::test]
async fn failures_wait_longer_and_longer_and_a_success_ends_it() {
    let stage = Stage::open().await;
    let mut renewal = Renewal::new(stage.own(), true);
    let then = Instant::now();
    for failures in 1..40 {
        renewal.running = true;
        renewal.failed((Code::Unreachable, None), then, 0);
        assert_eq!(
            (renewal.failures, renewal.failed),
            (failures, Some(Code::Unreachable))
        );
        assert!(renewal.pending);
    }
    assert_eq!(renewal.next(), then.checked_add(RENEWED_FOR));
    renewal.succeeded(stage.own(), then);
    assert_eq!(
        (renewal.next(), renewal.failures, renewal.failed),
        (None, 0, None)
    );
    // A server that says it is due again at once is not followed at once.
    renewal.expired();
    assert_eq!(renewal.next(), then.checked_add(RENEWED_FOR));
    // One that says how long it needs is not asked before.
    renewal.failed((Code::IssuingPaced, Some(Duration::from_mins(2))), then, u8::MAX);
    assert!(renewal.next() > then.checked_add(Duration::from_mins(2)));
}
