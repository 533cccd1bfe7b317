//! What a TPM does, and what another one does not do for it.

use crate::room::Tpm;
use redan_tpm::{Address, Blob, Counter, Key, TpmError, seal, unseal};

fn path(tpm: &Tpm) -> String {
    tpm.address().path().display().to_string()
}

/// The blob as another machine's disk would have it: at the place of that machine's TPM.
fn moved(blob: &Blob, to: &Tpm) -> Blob {
    let text = blob.to_string();
    let halves = text.split_once('?').unwrap().1;
    Blob::parse(&format!("{}?{halves}", to.text())).unwrap()
}

#[test]
fn a_key_of_a_tpm_signs_and_is_of_no_use_to_another_tpm() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (tpm, other) = (Tpm::start(here.path()), Tpm::start(there.path()));
    let key = Key::generate(&tpm.address()).unwrap();
    assert_eq!((key.public().len(), key.public()[0]), (65, 4));
    // It comes back by its name, after the TPM lost its power too. Each signature is verified before it is given.
    drop(tpm);
    let tpm = Tpm::start(here.path());
    let again = Key::open(Blob::parse(&key.blob().to_string()).unwrap()).unwrap();
    assert_eq!(again.public(), key.public());
    for round in 0..20 {
        again.sign(format!("message {round}").as_bytes()).unwrap();
    }
    assert_ne!(Key::generate(&tpm.address()).unwrap().public(), key.public());

    // What the attacker holds: the disk, and another machine.
    let copied = Key::open(moved(key.blob(), &other)).unwrap();
    let refused = copied.sign(b"message").unwrap_err();
    assert_eq!(refused, TpmError::Foreign { path: path(&other) });
    assert_eq!(refused.code().name(), "tpm-foreign");
    Key::generate(&other.address())
        .unwrap()
        .sign(b"positive control")
        .unwrap();
    // The private half of one key under the public half of another.
    let mixed = {
        let (a, b) = (
            key.blob().to_string(),
            Key::generate(&tpm.address()).unwrap().blob().to_string(),
        );
        let (public, private) = (
            a.split_once("&private=").unwrap().0,
            b.split_once("&private=").unwrap().1,
        );
        Blob::parse(&format!("{public}&private={private}")).unwrap()
    };
    let refused = Key::open(mixed).unwrap().sign(b"message").unwrap_err();
    assert_eq!(refused, TpmError::Foreign { path: path(&tpm) });
}

#[test]
fn a_sealed_secret_opens_in_its_own_tpm_only_and_one_changed_bit_closes_it() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (tpm, other) = (Tpm::start(here.path()), Tpm::start(there.path()));
    let secret = [0x5a; 32];
    let blob = seal(&tpm.address(), &secret).unwrap();
    assert_eq!(unseal(&blob).unwrap().as_slice(), secret);
    assert!(
        !blob.to_string().contains(&"5a".repeat(8)),
        "it is not in the blob as it is"
    );
    let refused = unseal(&moved(&blob, &other)).unwrap_err();
    assert_eq!(refused, TpmError::Foreign { path: path(&other) });
    // A key is no secret, a secret no key.
    let key = Key::generate(&tpm.address()).unwrap();
    assert!(matches!(unseal(key.blob()), Err(TpmError::Name(_))));
    assert!(matches!(Key::open(blob.clone()), Err(TpmError::Name(_))));
    let text = blob.to_string();
    let end = text.len() - 1;
    for at in [end, end - 40, text.find("&private=").unwrap() + 20] {
        let mut changed = text.clone().into_bytes();
        changed[at] = if changed[at] == b'0' { b'1' } else { b'0' };
        let changed = Blob::parse(&String::from_utf8(changed).unwrap()).unwrap();
        let refused = unseal(&changed).unwrap_err();
        assert!(
            matches!(refused, TpmError::Foreign { .. } | TpmError::Refused { .. }),
            "{refused:?}"
        );
    }
}

#[test]
fn a_counter_only_grows_also_when_it_is_removed_and_made_anew() {
    let here = tempfile::tempdir().unwrap();
    let tpm = Tpm::start(here.path());
    let counter = Counter::of(&tpm.address(), "press-1");
    assert_eq!(counter.read().unwrap(), None);
    assert!(matches!(counter.increment(), Err(TpmError::Refused { .. })));
    let first = counter.make().unwrap();
    assert_eq!(counter.make().unwrap(), first, "making it twice counts once");
    assert_eq!(counter.read().unwrap(), Some(first));
    for more in 1..=5 {
        counter.increment().unwrap();
        assert_eq!(counter.read().unwrap(), Some(first + more));
    }
    drop(tpm);
    let tpm = Tpm::start(here.path());
    assert_eq!(counter.read().unwrap(), Some(first + 5), "over a restart");
    // Whoever owns the machine wants to have it start again.
    counter.remove().unwrap();
    assert_eq!(counter.read().unwrap(), None);
    counter.remove().unwrap();
    assert!(counter.make().unwrap() > first + 5);
    let another = Counter::of(&tpm.address(), "press-2");
    assert_eq!(another.read().unwrap(), None);
}

#[test]
fn a_tpm_that_is_not_there_is_named_and_what_is_no_tpm_is_not_talked_to() {
    let here = tempfile::tempdir().unwrap();
    let absent = here.path().join("gone").display().to_string();
    let missing = Key::generate(&Address::parse(&format!("tpm:{absent}")).unwrap()).unwrap_err();
    assert!(
        matches!(&missing, TpmError::Missing { path, .. } if *path == absent),
        "{missing:?}"
    );
    assert_eq!(missing.code().name(), "tpm-missing");
    let file = here.path().join("file");
    std::fs::write(&file, "text").unwrap();
    let path = file.display().to_string();
    let refused = Key::generate(&Address::parse(&format!("tpm:{path}")).unwrap()).unwrap_err();
    assert_eq!(refused, TpmError::NoDevice { path });
    // A device that is none of a TPM.
    let refused = Key::generate(&Address::parse("tpm:/dev/null").unwrap()).unwrap_err();
    assert!(matches!(refused, TpmError::Nonsense { .. }), "{refused:?}");
    // One that was switched off.
    let tpm = Tpm::start(here.path());
    let key = Key::generate(&tpm.address()).unwrap();
    drop(tpm);
    assert_eq!(key.sign(b"message").unwrap_err().code().name(), "tpm-missing");
}
