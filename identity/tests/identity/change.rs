//! A fleet whose certificate authority changes, in real handshakes: both sides believe what is listed and nothing else (decision 0014).

use crate::forge::{self, Forge};
use crate::stage::{Fleet, ask, fleet, now};
use redan_identity::anchors::FORMER_MAX;
use redan_identity::client::ClientError;
use redan_identity::profile::Purpose;
use redan_identity::tls::{
    Fleets, Floor, KeyExchange, Peer, ServerChain, device_client, enrolment_client, fleet_server_of,
};
use redan_identity::{Anchors, FleetAnchor, IdentityError, IssuerKind, KeyProvider as _, pem};
use redan_protocol::{Authorities, Authority, AuthorityState, Code, Digest, UnixSeconds};
use rustls::ClientConfig;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use AuthorityState::{Active, Old, Prepared, Tainted};

const NEVER: UnixSeconds = UnixSeconds::new(0);
const NAME: &str = "plant.example";

/// What root custodians list.
fn listed(entries: &[(&Fleet, AuthorityState)]) -> Anchors {
    let one = |(fleet, state): &(&Fleet, AuthorityState)| {
        let certificate = fleet.anchor.root().to_vec();
        let state = *state;
        (Digest::of(&certificate), Authority { state, certificate })
    };
    let listed: BTreeMap<_, _> = entries.iter().map(one).collect();
    let listed = Authorities::try_from(listed).unwrap();
    Anchors::of(entries[0].0.anchor.fleet(), &listed).unwrap()
}

fn own_chain(fleet: &Fleet) -> ServerChain {
    ServerChain {
        chain: fleet.server_chain.clone(),
        key: fleet.server_key.share(),
    }
}

/// A server that believes these and has a certificate under each of those, the first for whoever believes several.
fn serving(anchors: &Anchors, under: &[&Fleet]) -> Arc<Fleets> {
    let chains: Vec<ServerChain> = under.iter().map(|fleet| own_chain(fleet)).collect();
    let faces = fleet_server_of(KeyExchange::Any, anchors, &chains, now()).unwrap();
    let fleets = Fleets::default();
    fleets.put(anchors, &faces);
    Arc::new(fleets)
}

/// A device with a leaf of one authority that believes others.
fn device(of: &Fleet, believes: &Anchors) -> Arc<ClientConfig> {
    let (key, chain) = of.device("press-7");
    device_client(believes, chain, &key, NEVER).unwrap()
}

/// Whose leaf the server saw; and whether the device was answered.
async fn meet(server: &Arc<Fleets>, device: Arc<ClientConfig>) -> Result<Digest, (Code, ClientError)> {
    let (seen, answer) = ask(server, device, &format!("control.{NAME}")).await;
    match (seen, answer) {
        (Ok((Peer::Known(identity), _)), Ok(204)) => Ok(identity.authority()),
        (Err(code), Err(error)) => Err((code, error)),
        // One side believed what the other did not.
        (seen, answer) => {
            assert_eq!((seen.is_ok(), answer), (false, Ok(204)));
            Err((Code::Internal, ClientError::Request))
        }
    }
}

#[tokio::test]
async fn through_all_four_steps_every_device_that_knows_a_listed_authority_is_served() {
    let (old, new) = (fleet(NAME), fleet(NAME));
    let only_old = listed(&[(&old, Active)]);
    let prepared = listed(&[(&old, Active), (&new, Prepared)]);
    let activated = listed(&[(&new, Active), (&old, Old)]);
    let tainted = listed(&[(&new, Active), (&old, Tainted)]);
    let revoked = listed(&[(&new, Active)]);
    let before = serving(&prepared, &[&old]);
    let after = serving(&activated, &[&new, &old]);
    let late = serving(&tainted, &[&new, &old]);
    for server in [&before, &after, &late] {
        // Whoever has not heard of the change, who has, and who enrolled after it with nothing but the new authority.
        for (leaf, believes) in [
            (&old, &only_old),
            (&old, &prepared),
            (&old, &activated),
            (&old, &tainted),
            (&new, &activated),
            (&new, &tainted),
        ] {
            let seen = meet(server, device(leaf, believes)).await;
            assert_eq!(seen, Ok(leaf.anchor.sha256()));
        }
    }
    // One that believes the new one alone is served as soon as there is a certificate for it.
    for server in [&after, &late] {
        let seen = meet(server, device(&new, &revoked)).await;
        assert_eq!(seen, Ok(new.anchor.sha256()));
    }
    let gone = serving(&revoked, &[&new]);
    assert_eq!(meet(&gone, device(&new, &tainted)).await, Ok(new.anchor.sha256()));
}

#[tokio::test]
async fn after_revoke_a_stolen_old_key_makes_neither_a_server_nor_a_device() {
    let (old, new) = (fleet(NAME), fleet(NAME));
    let revoked = listed(&[(&new, Active)]);
    // The thief serves with a certificate of the old authority, and a device that knows better comes by.
    let thief = serving(&listed(&[(&old, Active), (&new, Prepared)]), &[&old]);
    let (_, refused) = meet(&thief, device(&new, &revoked)).await.unwrap_err();
    assert_eq!(refused, ClientError::Refused(Code::ForeignCertificate));
    assert_eq!(refused.code(), Code::ForeignServer);
    // And makes itself a device: refused with a code that says why, to both.
    let honest = serving(&revoked.clone().with_former([old.anchor.clone()]), &[&new]);
    let refused = meet(&honest, device(&old, &revoked)).await;
    let rejected = ClientError::Rejected(Code::AuthorityRevoked);
    assert_eq!(refused, Err((Code::AuthorityRevoked, rejected)));
    // A server that does not remember the old one says that it is foreign; another fleet's is that anyway.
    let rejected = ClientError::Rejected(Code::ForeignCertificate);
    let forgetful = serving(&revoked, &[&new]);
    let refused = meet(&forgetful, device(&old, &revoked)).await;
    assert_eq!(refused, Err((Code::ForeignCertificate, rejected)));
    let stranger = fleet(NAME);
    let refused = meet(&honest, device(&stranger, &revoked)).await;
    assert_eq!(refused, Err((Code::ForeignCertificate, rejected)));
}

#[tokio::test]
async fn a_device_whose_authority_was_revoked_still_reaches_enrolment_with_its_key_alone() {
    let (old, new) = (fleet(NAME), fleet(NAME));
    let revoked = listed(&[(&new, Active)]).with_former([old.anchor.clone()]);
    let server = serving(&revoked, &[&new]);
    let (key, _) = old.device("press-7");
    let client = enrolment_client(listed(&[(&new, Active)]), &key, NEVER).unwrap();
    let (seen, answer) = ask(&server, client, &format!("enrol.{NAME}")).await;
    let spki = key.spki_sha256();
    assert_eq!(seen.unwrap().0, Peer::Enrolling { spki });
    assert_eq!(answer, Ok(204));
}

#[tokio::test]
async fn a_tainted_authority_moves_no_clock_and_any_other_does() {
    for (state, moves) in [(Old, true), (Tainted, false)] {
        let (old, new) = (fleet(NAME), fleet(NAME));
        let anchors = listed(&[(&new, Active), (&old, state)]);
        let learned = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&learned);
        let floor = Floor::learning(|| NEVER, move |time| seen.store(time.get(), Ordering::SeqCst));
        let (key, chain) = old.device("press-7");
        let client = device_client(&anchors, chain, &key, floor).unwrap();
        // It has no other certificate to show.
        let server = serving(&anchors, &[&old]);
        assert_eq!(meet(&server, client).await, Ok(old.anchor.sha256()));
        assert_eq!(learned.load(Ordering::SeqCst) > 0, moves, "{state}");
    }
}

#[test]
fn a_chain_is_judged_by_the_authority_that_signed_it_and_by_no_other() {
    let (old, new, stranger) = (fleet(NAME), fleet(NAME), fleet(NAME));
    let both = listed(&[(&new, Active), (&old, Old)]);
    let check = |of: &Fleet| {
        let (_, chain) = of.device("press-7");
        both.check(&chain, Purpose::Client, now())
    };
    assert_eq!(check(&old).unwrap().authority(), old.anchor.sha256());
    assert_eq!(check(&new).unwrap().authority(), new.anchor.sha256());
    let foreign = IdentityError::Foreign {
        fleet: old.anchor.fleet().clone(),
    };
    assert_eq!(check(&stranger), Err(foreign));
    // The leaf of one under the issuer of the other is under neither.
    let ((_, a), (_, b)) = (old.device("press-7"), new.device("press-7"));
    for mixed in [[a[0].clone(), b[1].clone()], [b[0].clone(), a[1].clone()]] {
        both.check(&mixed, Purpose::Client, now()).unwrap_err();
    }
    // What is wrong with a chain is said of its own authority: a server's chain is no client's.
    let wrong = both.check(&old.server_chain, Purpose::Client, now());
    let alone = Anchors::from(&old.anchor).check(&old.server_chain, Purpose::Client, now());
    assert_eq!(wrong, alone);
}

#[test]
fn only_the_last_revoked_authorities_are_named() {
    let active = fleet(NAME);
    let gone: Vec<Fleet> = (0..=FORMER_MAX).map(|_| fleet(NAME)).collect();
    let anchors = gone.iter().map(|fleet| fleet.anchor.clone());
    // One that is listed is not revoked, whatever an older root said.
    let anchors =
        listed(&[(&active, Active)]).with_former([active.anchor.clone()].into_iter().chain(anchors));
    let code = |of: &Fleet| {
        let (_, chain) = of.device("press-7");
        anchors
            .check(&chain, Purpose::Client, now())
            .map_err(|error| error.code())
            .map(drop)
    };
    assert_eq!(code(&active), Ok(()));
    assert_eq!(code(&gone[0]), Err(Code::ForeignCertificate));
    for fleet in &gone[1..] {
        assert_eq!(code(fleet), Err(Code::AuthorityRevoked));
    }
}

#[test]
fn two_authorities_of_one_key_or_of_another_fleet_are_no_list() {
    let forge = Forge::new(IssuerKind::Server);
    let root = |forge: &Forge| FleetAnchor::new(forge::fleet(), forge.signed().root).unwrap();
    let (ours, twin) = (root(&forge), root(&forge));
    assert_ne!(ours.sha256(), twin.sha256());
    let list = |other: &FleetAnchor| {
        let one = |anchor: &FleetAnchor, state| {
            let certificate = anchor.root().to_vec();
            (anchor.sha256(), Authority { state, certificate })
        };
        let listed = BTreeMap::from([one(&ours, Active), one(other, Prepared)]);
        Anchors::of(ours.fleet(), &listed.try_into().unwrap()).map(drop)
    };
    assert_eq!(list(&twin), Err(IdentityError::SameKey));
    assert!(matches!(
        list(&fleet("other.example").anchor),
        Err(IdentityError::Root(_))
    ));
    assert_eq!(list(&root(&Forge::new(IssuerKind::Server))), Ok(()));
}

#[test]
fn a_voucher_carries_who_may_issue_from_now_on_and_neither_who_did_nor_who_is_tainted() {
    let [active, next, old, tainted, fifth] = [(); 5].map(|()| fleet(NAME));
    let anchors = listed(&[
        (&active, Active),
        (&next, Prepared),
        (&old, Old),
        (&tainted, Tainted),
    ]);
    let pem_of = |fleets: &[&Fleet]| {
        let roots: Vec<_> = fleets.iter().map(|fleet| fleet.anchor.root().clone()).collect();
        pem::write_chain(&roots)
    };
    assert_eq!(anchors.carry(), pem_of(&[&active, &next]));
    let read = Anchors::carried(active.anchor.fleet(), &anchors.carry()).unwrap();
    assert!(read.same_as(&listed(&[(&active, Active), (&next, Prepared)])));
    let refused = |text: &str| {
        Anchors::carried(active.anchor.fleet(), text)
            .map(drop)
            .unwrap_err()
    };
    let malformed = |what| IdentityError::Malformed { what };
    let many = pem_of(&[&active, &next, &old, &tainted, &fifth]);
    assert_eq!(
        refused(&many),
        malformed("the authorities of a voucher"),
        "one more than a fleet has"
    );
    assert!(Anchors::carried(active.anchor.fleet(), &pem_of(&[&active, &next, &old, &tainted])).is_ok());
    assert_eq!(refused(&pem_of(&[&active, &active])), IdentityError::SameKey);
    assert_eq!(refused(""), malformed("a certificate in PEM"));
    let other = fleet("other.example");
    for foreign in [pem_of(&[&other]), pem_of(&[&active, &other])] {
        assert!(
            matches!(refused(&foreign), IdentityError::Root(_)),
            "of another fleet"
        );
    }
}
