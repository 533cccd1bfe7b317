use super::*;
use crate::disk::faulty::{Cut, FaultyDisk};
use redan_identity::{FleetCa, Issuer, IssuerKind};
use redan_protocol::{DeviceId, Digest, FleetId, SpiffeId, UnixSeconds};

const IDENTITY: &str = "identity";
const NOW: UnixSeconds = UnixSeconds::new(1_800_000_000);

fn identity() -> &'static Path {
    Path::new(IDENTITY)
}

fn issuer() -> Issuer {
    let ca = FleetCa::found(FleetId::parse("plant.example").unwrap(), NOW).unwrap();
    ca.issuer(IssuerKind::Device, NOW).unwrap()
}

fn issued(issuer: &Issuer, key: &KeyFile) -> Vec<CertificateDer<'static>> {
    let fleet = FleetId::parse("plant.example").unwrap();
    let id = SpiffeId::Device(fleet, DeviceId::parse("press-1").unwrap());
    issuer.issue_for(&id, key, NOW).unwrap()
}

/// A disk with an enrolled device.
fn enrolled(issuer: &Issuer, key: &KeyFile) -> FaultyDisk {
    let disk = FaultyDisk::default();
    put(&disk, &identity().join("key.pem"), key.to_pem().as_bytes()).unwrap();
    let chain = pem::write_chain(&issued(issuer, key));
    put(&disk, &identity().join("chain.pem"), chain.as_bytes()).unwrap();
    disk.power_cycle(false)
}

/// Whose the present key and chain are; they must be one and the same's.
fn present(disk: &FaultyDisk) -> Digest {
    let key = read_key(disk, &identity().join("key.pem")).unwrap().unwrap();
    let chain = read(disk, &identity().join("chain.pem")).unwrap().unwrap();
    let chain = pem::read_chain(&chain).unwrap();
    assert_eq!(presented_spki(&chain[0]).unwrap(), key.spki_sha256());
    key.spki_sha256()
}

fn nothing_is_left(disk: &FaultyDisk) {
    assert!(read(disk, &key_path(identity())).unwrap().is_none());
    assert!(read(disk, &chain_path(identity())).unwrap().is_none());
}

/// How far a renewal came before the power went: the next key once it is made, and the steps that were said to be done.
#[derive(Default)]
struct Came {
    made: Option<Digest>,
    whole: bool,
    done: bool,
}

/// A renewal as the agent does it, from whatever is there.
fn renew(disk: &FaultyDisk, issuer: &Issuer, came: &mut Came) -> Result<(), AgentError> {
    let (key, chain) = match settle(disk, identity())? {
        Next::Whole(key, chain) => (key, chain),
        part => {
            let key = match part {
                Next::Key(key) => key,
                _ => make_key(disk, identity())?,
            };
            came.made = Some(key.spki_sha256());
            let chain = issued(issuer, &key);
            keep_chain(disk, identity(), &chain)?;
            (key, chain)
        }
    };
    came.whole = true;
    take_place(disk, identity(), &key, &chain)?;
    came.done = true;
    Ok(())
}

#[test]
fn a_power_cut_at_any_call_of_a_renewal_leaves_a_device_that_goes_on_where_it_was() {
    let (issuer, old) = (issuer(), KeyFile::generate().unwrap());
    let disk = enrolled(&issuer, &old);
    let mut came = Came::default();
    renew(&disk, &issuer, &mut came).unwrap();
    let calls = disk.calls();
    assert!(came.done && calls > 16, "{calls}");
    for at in 0..calls {
        for cut in [Cut::Before, Cut::After, Cut::Torn] {
            for lucky in [false, true] {
                let disk = enrolled(&issuer, &old).with_fault(at, cut);
                let mut came = Came::default();
                renew(&disk, &issuer, &mut came).unwrap_err();
                let disk = disk.power_cycle(lucky);
                let found = settle(&disk, identity()).unwrap();
                let place = format!("call {at}, {cut:?}, lucky {lucky}: {found:?}");
                let held = present(&disk);
                let next = match &found {
                    Next::Nothing => None,
                    Next::Key(key) | Next::Whole(key, _) => Some(key.spki_sha256()),
                };
                // A key the server may have heard of is never lost, nor one that it may have refused the old one for.
                assert!(
                    came.made.is_none() || next == came.made || Some(held) == came.made,
                    "{place}"
                );
                if came.whole {
                    assert!(
                        matches!(found, Next::Whole(..)) || Some(held) == came.made,
                        "{place}"
                    );
                }
                if next.is_some() {
                    assert_eq!(held, old.spki_sha256(), "{place}");
                } else {
                    nothing_is_left(&disk);
                }
                // It goes on to its end, with the key that was made first.
                let mut again = Came::default();
                renew(&disk, &issuer, &mut again).unwrap();
                let disk = disk.power_cycle(false);
                assert!(
                    matches!(settle(&disk, identity()).unwrap(), Next::Nothing),
                    "{place}"
                );
                nothing_is_left(&disk);
                let last = present(&disk);
                assert_ne!(last, old.spki_sha256(), "{place}");
                if next.is_some() {
                    assert_eq!(Some(last), next, "{place}");
                }
            }
        }
    }
}

#[test]
fn a_next_pair_that_is_given_up_leaves_the_present_one_whatever_the_power_does() {
    let (issuer, old) = (issuer(), KeyFile::generate().unwrap());
    let whole = || {
        let disk = enrolled(&issuer, &old);
        let key = make_key(&disk, identity()).unwrap();
        keep_chain(&disk, identity(), &issued(&issuer, &key)).unwrap();
        disk.power_cycle(false)
    };
    let disk = whole();
    forget(&disk, identity()).unwrap();
    for at in 0..disk.calls() {
        for cut in [Cut::Before, Cut::After, Cut::Torn] {
            for lucky in [false, true] {
                let disk = whole().with_fault(at, cut);
                forget(&disk, identity()).unwrap_err();
                let disk = disk.power_cycle(lucky);
                settle(&disk, identity()).unwrap();
                assert_eq!(present(&disk), old.spki_sha256());
                forget(&disk, identity()).unwrap();
                assert!(matches!(settle(&disk, identity()).unwrap(), Next::Nothing));
                nothing_is_left(&disk);
            }
        }
    }
}

#[test]
fn what_rotted_beside_the_present_pair_is_made_again_and_never_put_in_its_place() {
    let (issuer, old) = (issuer(), KeyFile::generate().unwrap());
    let disk = enrolled(&issuer, &old);
    let key = make_key(&disk, identity()).unwrap();
    // The certificate of another key.
    keep_chain(&disk, identity(), &issued(&issuer, &KeyFile::generate().unwrap())).unwrap();
    let Next::Key(found) = settle(&disk, identity()).unwrap() else {
        panic!("a chain of another key was taken");
    };
    assert_eq!(found.spki_sha256(), key.spki_sha256());
    put(&disk, &key_path(identity()), b"rot").unwrap();
    assert!(matches!(settle(&disk, identity()).unwrap(), Next::Nothing));
    nothing_is_left(&disk);
    assert_eq!(present(&disk), old.spki_sha256());
}
