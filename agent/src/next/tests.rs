use super::*;
use crate::disk::faulty::{Cut, FaultyDisk};
use crate::held::Tokens;
use redan_identity::{FleetCa, IdentityError, Issuer, IssuerKind, KeyProvider, TokenError, TokenUri};
use redan_protocol::{DeviceId, Digest, FleetId, SpiffeId, UnixSeconds};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;

const IDENTITY: &str = "identity";
const NOW: UnixSeconds = UnixSeconds::new(1_800_000_000);

fn identity() -> &'static Path {
    Path::new(IDENTITY)
}

fn issuer() -> Issuer {
    let ca = FleetCa::found(FleetId::parse("plant.example").unwrap(), NOW).unwrap();
    ca.issuer(IssuerKind::Device, NOW).unwrap()
}

fn issued(issuer: &Issuer, key: &dyn KeyProvider) -> Vec<CertificateDer<'static>> {
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
    let key = read_key(disk, &Tokens, &identity().join("key.pem"))
        .unwrap()
        .unwrap();
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
    let (key, chain) = match settle(disk, &Tokens, identity())? {
        Next::Whole(key, chain) => (key, chain),
        part => {
            let key = match part {
                Next::Key(key) => key,
                _ => make_key(disk, &Tokens, identity())?,
            };
            came.made = Some(key.spki_sha256());
            let chain = issued(issuer, &key);
            keep_chain(disk, identity(), &chain)?;
            (key, chain)
        }
    };
    came.whole = true;
    take_place(disk, &Tokens, identity(), &key, &chain)?;
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
                let found = settle(&disk, &Tokens, identity()).unwrap();
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
                    matches!(settle(&disk, &Tokens, identity()).unwrap(), Next::Nothing),
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
        let key = make_key(&disk, &Tokens, identity()).unwrap();
        keep_chain(&disk, identity(), &issued(&issuer, &key)).unwrap();
        disk.power_cycle(false)
    };
    let disk = whole();
    forget(&disk, &Tokens, identity()).unwrap();
    for at in 0..disk.calls() {
        for cut in [Cut::Before, Cut::After, Cut::Torn] {
            for lucky in [false, true] {
                let disk = whole().with_fault(at, cut);
                forget(&disk, &Tokens, identity()).unwrap_err();
                let disk = disk.power_cycle(lucky);
                settle(&disk, &Tokens, identity()).unwrap();
                assert_eq!(present(&disk), old.spki_sha256());
                forget(&disk, &Tokens, identity()).unwrap();
                assert!(matches!(
                    settle(&disk, &Tokens, identity()).unwrap(),
                    Next::Nothing
                ));
                nothing_is_left(&disk);
            }
        }
    }
}

#[test]
fn what_rotted_beside_the_present_pair_is_made_again_and_never_put_in_its_place() {
    let (issuer, old) = (issuer(), KeyFile::generate().unwrap());
    let disk = enrolled(&issuer, &old);
    let key = make_key(&disk, &Tokens, identity()).unwrap();
    // The certificate of another key.
    keep_chain(&disk, identity(), &issued(&issuer, &KeyFile::generate().unwrap())).unwrap();
    let Next::Key(found) = settle(&disk, &Tokens, identity()).unwrap() else {
        panic!("a chain of another key was taken");
    };
    assert_eq!(found.spki_sha256(), key.spki_sha256());
    put(&disk, &key_path(identity()), b"rot").unwrap();
    assert!(matches!(
        settle(&disk, &Tokens, identity()).unwrap(),
        Next::Nothing
    ));
    nothing_is_left(&disk);
    assert_eq!(present(&disk), old.spki_sha256());
}

/// A token: whatever power does, what it was told is done or not done. Its power goes with the disk's.
#[derive(Default)]
struct Token {
    keys: RefCell<BTreeMap<String, KeyFile>>,
    /// Calls until the power goes; whether the last one is still done.
    cut: Cell<Option<(usize, bool)>>,
    calls: Cell<usize>,
    pulled_out: Cell<bool>,
}

impl Token {
    fn call<T>(&self, does: impl FnOnce(&mut BTreeMap<String, KeyFile>) -> T) -> Result<T, IdentityError> {
        let token = || "t".to_owned();
        if self.pulled_out.get() {
            let path = "/m".to_owned();
            return Err(TokenError::NoToken { token: token(), path }.into());
        }
        let at = self.calls.replace(self.calls.get() + 1);
        let off = self.cut.get().is_some_and(|(cut, _)| at >= cut);
        if off && self.cut.get() != Some((at, true)) {
            return Err(TokenError::NoPin { token: token() }.into());
        }
        let done = does(&mut self.keys.borrow_mut());
        if off {
            return Err(TokenError::NoPin { token: token() }.into());
        }
        Ok(done)
    }

    fn labels(&self) -> Vec<String> {
        self.keys.borrow().keys().cloned().collect()
    }
}

impl Vault for Token {
    fn open(&self, uri: &TokenUri) -> Result<Arc<dyn KeyProvider>, IdentityError> {
        let found = self.call(|keys| keys.get(uri.object()).map(KeyProvider::share))?;
        found.ok_or_else(|| {
            let missing = TokenError::NoKey {
                token: "t".into(),
                what: "private key",
                object: uri.object().into(),
            };
            missing.into()
        })
    }

    fn make(&self, uri: &TokenUri) -> Result<Arc<dyn KeyProvider>, IdentityError> {
        self.call(|keys| {
            let key = KeyFile::generate().unwrap();
            let shared = key.share();
            assert!(keys.insert(uri.object().to_owned(), key).is_none());
            shared
        })
    }

    fn destroy(&self, uri: &TokenUri) -> Result<(), IdentityError> {
        self.call(|keys| drop(keys.remove(uri.object())))
    }
}

fn first() -> TokenUri {
    TokenUri::parse("pkcs11:token=t;object=device?module-path=/m").unwrap()
}

/// A token with a device's key, and the disk of that device.
fn enrolled_in_token(issuer: &Issuer) -> (FaultyDisk, Token) {
    let (disk, token) = (FaultyDisk::default(), Token::default());
    let key = DeviceKey::make(&token, &first()).unwrap();
    put(&disk, &identity().join("key.pem"), key.text().as_bytes()).unwrap();
    let chain = pem::write_chain(&issued(issuer, &key));
    put(&disk, &identity().join("chain.pem"), chain.as_bytes()).unwrap();
    token.calls.set(0);
    (disk.power_cycle(false), token)
}

fn renew_in_token(disk: &FaultyDisk, token: &Token, issuer: &Issuer) -> Result<(), AgentError> {
    let (key, chain) = match settle(disk, token, identity())? {
        Next::Whole(key, chain) => (key, chain),
        part => {
            let key = match part {
                Next::Key(key) => key,
                _ => make_key(disk, token, identity())?,
            };
            let chain = issued(issuer, &key);
            keep_chain(disk, identity(), &chain)?;
            (key, chain)
        }
    };
    take_place(disk, token, identity(), &key, &chain)
}

/// The label of the present key, which is in the token and is the chain's.
fn present_in_token(disk: &FaultyDisk, token: &Token) -> String {
    let text = read(disk, &identity().join("key.pem")).unwrap().unwrap();
    let uri = token_of(&text).unwrap().unwrap();
    let key = DeviceKey::read(token, &text).expect("the present key was destroyed");
    let chain = read(disk, &identity().join("chain.pem")).unwrap().unwrap();
    let chain = pem::read_chain(&chain).unwrap();
    assert_eq!(presented_spki(&chain[0]).unwrap(), key.spki_sha256());
    uri.object().to_owned()
}

/// Goes on after a power cut: the device is whole, renews, and its token holds the one key that its file names.
fn goes_on(disk: FaultyDisk, token: &Token, issuer: &Issuer, lucky: bool, place: &str) {
    let disk = disk.power_cycle(lucky);
    token.cut.set(None);
    settle(&disk, token, identity()).unwrap();
    let held = present_in_token(&disk, token);
    assert!(token.labels().contains(&held), "{place}");
    renew_in_token(&disk, token, issuer).unwrap();
    let disk = disk.power_cycle(false);
    assert!(
        matches!(settle(&disk, token, identity()).unwrap(), Next::Nothing),
        "{place}"
    );
    let last = present_in_token(&disk, token);
    assert_ne!(last, "device", "{place}");
    assert_eq!(token.labels(), [last], "{place}");
    assert!(
        read(&disk, &replaced_path(identity())).unwrap().is_none(),
        "{place}"
    );
}

#[test]
fn a_power_cut_at_any_call_leaves_no_key_in_the_token_that_no_file_names() {
    let issuer = issuer();
    let (disk, token) = enrolled_in_token(&issuer);
    renew_in_token(&disk, &token, &issuer).unwrap();
    let (disk_calls, token_calls) = (disk.calls(), token.calls.get());
    assert!(disk_calls > 16 && token_calls > 1, "{disk_calls} {token_calls}");
    for at in 0..disk_calls {
        for cut in [Cut::Before, Cut::After, Cut::Torn] {
            for lucky in [false, true] {
                let (disk, token) = enrolled_in_token(&issuer);
                let disk = disk.with_fault(at, cut);
                renew_in_token(&disk, &token, &issuer).unwrap_err();
                goes_on(
                    disk,
                    &token,
                    &issuer,
                    lucky,
                    &format!("disk {at} {cut:?} {lucky}"),
                );
            }
        }
    }
    for at in 0..token_calls {
        for done in [false, true] {
            let (disk, token) = enrolled_in_token(&issuer);
            token.cut.set(Some((at, done)));
            // A key that could not be destroyed stops nothing.
            drop(renew_in_token(&disk, &token, &issuer));
            goes_on(disk, &token, &issuer, false, &format!("token {at} {done}"));
        }
    }
}

#[test]
fn a_next_key_in_a_token_that_is_given_up_is_destroyed_and_the_present_one_stays() {
    let issuer = issuer();
    let whole = || {
        let (disk, token) = enrolled_in_token(&issuer);
        let key = make_key(&disk, &token, identity()).unwrap();
        keep_chain(&disk, identity(), &issued(&issuer, &key)).unwrap();
        (disk.power_cycle(false), token)
    };
    let (disk, token) = whole();
    assert_eq!(token.labels().len(), 2);
    forget(&disk, &token, identity()).unwrap();
    for at in 0..disk.calls() {
        for cut in [Cut::Before, Cut::After, Cut::Torn] {
            let (disk, token) = whole();
            let disk = disk.with_fault(at, cut);
            forget(&disk, &token, identity()).unwrap_err();
            let disk = disk.power_cycle(false);
            settle(&disk, &token, identity()).unwrap();
            forget(&disk, &token, identity()).unwrap();
            assert!(matches!(
                settle(&disk, &token, identity()).unwrap(),
                Next::Nothing
            ));
            assert_eq!(present_in_token(&disk, &token), "device");
            assert_eq!(token.labels(), ["device"], "{at} {cut:?}");
        }
    }
}

#[test]
fn a_token_that_is_pulled_out_is_waited_for_and_no_other_key_is_made() {
    let issuer = issuer();
    let (disk, token) = enrolled_in_token(&issuer);
    let key = make_key(&disk, &token, identity()).unwrap();
    token.pulled_out.set(true);
    let missing = settle(&disk, &token, identity()).map(drop).unwrap_err();
    assert_eq!(missing.code(), redan_protocol::Code::TokenMissing);
    token.pulled_out.set(false);
    let Next::Key(found) = settle(&disk, &token, identity()).unwrap() else {
        panic!("the next key was given up");
    };
    assert_eq!(found.spki_sha256(), key.spki_sha256());
}

#[test]
fn a_key_whose_place_was_almost_taken_stays_when_the_next_one_is_given_up_after_all() {
    let issuer = issuer();
    let mut noted = 0;
    for at in 0..8 {
        let (disk, token) = enrolled_in_token(&issuer);
        let key = make_key(&disk, &token, identity()).unwrap();
        let chain = issued(&issuer, &key);
        keep_chain(&disk, identity(), &chain).unwrap();
        let disk = disk.power_cycle(false).with_fault(at, Cut::Before);
        take_place(&disk, &token, identity(), &key, &chain).unwrap_err();
        let disk = disk.power_cycle(true);
        let Next::Whole(..) = settle(&disk, &token, identity()).unwrap() else {
            continue;
        };
        noted += usize::from(read(&disk, &replaced_path(identity())).unwrap().is_some());
        forget(&disk, &token, identity()).unwrap();
        settle(&disk, &token, identity()).unwrap();
        assert_eq!(present_in_token(&disk, &token), "device", "{at}");
        assert_eq!(token.labels(), ["device"], "{at}");
        assert!(read(&disk, &replaced_path(identity())).unwrap().is_none(), "{at}");
    }
    assert!(noted > 0, "no cut left the note alone");
}
