//! What does a whole decision cost, beside one signature? `decide` over a verified pair of repositories, all nine rules,
//! with the policies of the demonstration parsed and intersected; the reference is one Ed25519 verification.

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use redan_benches::decision::{Decision, Said, facts};
use redan_benches::fleet::Keys;
use redan_benches::{Asking, compare, each};
use redan_trust::{TrustState, decide};
use std::hint::black_box;

pub(crate) fn bench(asking: &mut Asking) {
    let (release, director) = (Keys::generate().unwrap(), Keys::generate().unwrap());
    let decision = Decision::on(&Said::honest().unwrap(), &release, &director).unwrap();
    let (offered, state, facts) = (
        decision.offered().unwrap(),
        TrustState::default(),
        facts().unwrap(),
    );

    let message = black_box([7_u8; 512]);
    let pair = Ed25519KeyPair::generate().unwrap();
    let signature = pair.sign(&message);
    let public = pair.public_key().as_ref().to_vec();

    compare(
        asking,
        "decide",
        &mut |times| {
            each(times, || {
                let plan = decide(black_box(&state), black_box(&offered), black_box(&facts)).unwrap();
                assert!(black_box(plan).is_some());
            })
        },
        ("one Ed25519 verification", &mut |times| {
            each(times, || {
                let public = UnparsedPublicKey::new(&ED25519, black_box(&public));
                public.verify(black_box(&message), signature.as_ref()).unwrap();
            })
        }),
    );
}
