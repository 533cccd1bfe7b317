//! The fleet's authority changes: what of a device's certificate is replaced, when, and by which way.

use super::stage::{DAY, Does, Stage, days_ago, fleet, now, speaks};
use super::*;
use redan_identity::tls::fleet_server;
use redan_identity::{Anchors, FleetAnchor, FleetCa, IssuerKind, KeyFile, pem};
use redan_protocol::{Authority, Seconds, SpiffeId};
use std::collections::BTreeMap;

/// What root custodians list, and this device has verified.
fn believed(entries: &[(&FleetAnchor, AuthorityState)]) -> Believed {
    let one = |(anchor, state): &(&FleetAnchor, AuthorityState)| {
        let certificate = anchor.root().to_vec();
        (
            anchor.sha256(),
            Authority {
                state: *state,
                certificate,
            },
        )
    };
    let listed: BTreeMap<_, _> = entries.iter().map(one).collect();
    Believed {
        anchors: Anchors::of(&fleet(), &listed.try_into().unwrap()).unwrap(),
        listed: true,
    }
}

/// Another authority takes over: the server has certificates of it and issues by it, and believes it alone.
fn changed(stage: &Stage) -> FleetAnchor {
    let ca = FleetCa::found(fleet(), days_ago(1)).unwrap();
    let anchor = ca.anchor().unwrap();
    *stage.devices.lock().unwrap() = ca.issuer(IssuerKind::Device, days_ago(1)).unwrap();
    let (servers, key) = (
        ca.issuer(IssuerKind::Server, days_ago(1)).unwrap(),
        KeyFile::generate().unwrap(),
    );
    let chain = servers
        .issue_for(&SpiffeId::Control(fleet()), &key, now())
        .unwrap();
    stage
        .fleets
        .put(&anchor, &fleet_server(&anchor, &chain, &key, now()).unwrap());
    anchor
}

#[tokio::test]
async fn a_certificate_is_replaced_at_once_when_its_authority_is_tainted_or_gone_and_not_before() {
    use AuthorityState::{Active, Old, Prepared, Tainted};
    let stage = Stage::open().await;
    let (old, new) = (
        &stage.anchor,
        FleetCa::found(fleet(), now()).unwrap().anchor().unwrap(),
    );
    for (list, pending, reissue) in [
        (&[(old, Active), (&new, Prepared)][..], false, false),
        (&[(old, Old), (&new, Active)], false, false),
        (&[(old, Tainted), (&new, Active)], true, false),
        (&[(&new, Active)], true, true),
    ] {
        let mut renewal = Renewal::new(stage.own(), false);
        // Though it has just failed, and would wait.
        renewal.failed((Code::Unreachable, None), Instant::now(), 0);
        (renewal.pending, renewal.failed) = (false, None);
        renewal.believe(believed(list));
        let due = renewal.next().is_some_and(|next| next <= Instant::now());
        assert_eq!(
            (due, renewal.pending, renewal.reissue),
            (pending, pending, reissue),
            "{list:?}"
        );
        // Also where the device starts with such a list.
        let again = Renewal::new(stage.own().under(believed(list)), false);
        assert_eq!((again.pending, again.reissue), (pending, reissue));
    }
    let mut renewal = Renewal::new(stage.own(), false);
    renewal.revoked();
    assert!(renewal.pending && renewal.reissue);
}

#[tokio::test]
async fn a_device_whose_authority_is_gone_gets_a_certificate_for_the_key_it_has() {
    let stage = Stage::open().await;
    let old = stage.own();
    let new = changed(&stage);
    let own = old.under(believed(&[(&new, AuthorityState::Active)]));
    assert_eq!(own.authority, None);
    let (link, proven, _) = stage.start();
    let anew = issue_anew(&link, &stage.identity_folder(), &own, &proven)
        .await
        .unwrap();
    let spki = old.key.spki_sha256();
    assert_eq!(stage.heard(), [(spki, spki.to_string())]);
    assert_eq!(anew.key.spki_sha256(), spki);
    assert_eq!(anew.authority, Some(new.sha256()));
    assert_eq!(anew.valid.1, now().after(Seconds::new(30 * DAY)));
    let kept = std::fs::read_to_string(stage.identity_folder().join("chain.pem")).unwrap();
    assert_eq!(pem::read_chain(&kept).unwrap(), anew.chain);
    assert_eq!(speaks(&stage, &link).await, spki);
}

#[tokio::test]
async fn a_next_key_that_may_have_spoken_is_asked_for_first_and_the_present_one_after_it() {
    for known in [true, false] {
        let stage = Stage::open().await;
        let old = stage.own();
        let next = KeyFile::generate().unwrap();
        stage.prepare_whole(&next);
        let new = changed(&stage);
        let own = old.under(believed(&[(&new, AuthorityState::Active)]));
        let proven = Proven::new(crate::clock::Clock::start());
        let link = Link::new(
            stage.address.clone(),
            &[],
            redan_protocol::wire::control_host(&fleet()),
            own.speaks(&proven).unwrap(),
        );
        if !known {
            stage.will(Does::Refuses(Code::NotAdmitted));
        }
        let anew = issue_anew(&link, &stage.identity_folder(), &own, &proven)
            .await
            .unwrap();
        let (first, second) = (next.spki_sha256(), old.key.spki_sha256());
        let mut heard = vec![(first, first.to_string())];
        if !known {
            heard.push((second, second.to_string()));
        }
        assert_eq!(stage.heard(), heard);
        let expected = if known { first } else { second };
        assert_eq!(anew.key.spki_sha256(), expected);
        assert_eq!(speaks(&stage, &link).await, expected);
    }
}

#[tokio::test]
async fn a_refusal_or_a_server_of_the_revoked_authority_gives_nothing_and_changes_nothing() {
    let stage = Stage::open().await;
    let old = stage.own();
    let before = std::fs::read(stage.identity_folder().join("chain.pem")).unwrap();
    let stranger = FleetCa::found(fleet(), now()).unwrap().anchor().unwrap();
    let own = old.under(believed(&[(&stranger, AuthorityState::Active)]));
    let (link, proven, _) = stage.start();
    // It serves under the old one still, as a thief would.
    let refused = issue_anew(&link, &stage.identity_folder(), &own, &proven).await;
    assert_eq!(refused.map(drop).unwrap_err().code(), Code::ForeignServer);
    let new = changed(&stage);
    let own = old.under(believed(&[(&new, AuthorityState::Active)]));
    for code in [Code::NotAdmitted, Code::VoucherInvalid] {
        stage.will(Does::Refuses(code));
        let refused = issue_anew(&link, &stage.identity_folder(), &own, &proven).await;
        assert_eq!(refused.map(drop).unwrap_err().code(), code);
    }
    // A certificate for another device, or by another authority than those that are listed.
    stage.will(Does::IssuesAs("press-2"));
    let refused = issue_anew(&link, &stage.identity_folder(), &own, &proven).await;
    assert_eq!(refused.map(drop).unwrap_err().code(), Code::VoucherInvalid);
    let issuer = FleetCa::found(fleet(), now()).unwrap();
    *stage.devices.lock().unwrap() = issuer.issuer(IssuerKind::Device, now()).unwrap();
    let refused = issue_anew(&link, &stage.identity_folder(), &own, &proven).await;
    assert_eq!(refused.map(drop).unwrap_err().code(), Code::ForeignCertificate);
    assert_eq!(
        std::fs::read(stage.identity_folder().join("chain.pem")).unwrap(),
        before
    );
}

#[tokio::test]
async fn a_connection_stands_as_long_as_the_authority_it_was_opened_under_is_listed() {
    use AuthorityState::{Active, Old, Tainted};
    let stage = Stage::open().await;
    let (old, new) = (
        &stage.anchor,
        FleetCa::found(fleet(), now()).unwrap().anchor().unwrap(),
    );
    let (link, ..) = stage.start();
    let mut standing = link.standing();
    let connection = link.open().await.unwrap();
    assert!(standing.holds(&connection));
    for list in [
        &[(old, Old), (&new, Active)][..],
        &[(old, Tainted), (&new, Active)],
    ] {
        link.trust(&believed(list).anchors);
        assert!(standing.holds(&connection), "{list:?}");
    }
    link.trust(&believed(&[(&new, Active)]).anchors);
    assert!(!standing.holds(&connection));
}
