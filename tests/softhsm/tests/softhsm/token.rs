//! What a key in a token does, and every way in which it does not.

use crate::room::{PIN, Room, with_tokens};
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::RvError;
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, ObjectClass};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;
use redan_token::{Fault, Key, Kind, Pin, TokenError, Uri};

/// `SoftHSM2` as another program sees it.
fn module() -> Pkcs11 {
    let module = Pkcs11::new(Room::module()).unwrap();
    // It may be started already: it is this process's.
    drop(module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)));
    module
}

fn session(module: &Pkcs11, token: &str) -> Session {
    let slots = module.get_slots_with_token().unwrap();
    let of = |slot: &cryptoki::slot::Slot| module.get_token_info(*slot).unwrap().label() == token;
    let session = module
        .open_rw_session(slots.into_iter().find(of).unwrap())
        .unwrap();
    drop(session.login(UserType::User, Some(&AuthPin::from(PIN))));
    session
}

/// A P-256 pair that somebody else made, with what they wanted of its private half.
fn made_elsewhere(session: &Session, object: &str, private: &[Attribute]) {
    let label = Attribute::Label(object.as_bytes().to_vec());
    let curve = vec![0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    let public = [Attribute::Token(true), Attribute::EcParams(curve), label.clone()];
    let mut template = vec![Attribute::Token(true), Attribute::Sign(true), label];
    template.extend_from_slice(private);
    session
        .generate_key_pair(&Mechanism::EccKeyPairGen, &public, &template)
        .unwrap();
}

#[test]
fn a_key_made_in_a_token_signs_and_the_token_says_it_never_leaves() {
    with_tokens(
        "token::a_key_made_in_a_token_signs_and_the_token_says_it_never_leaves",
        &["a"],
        |room| {
            for (kind, object, public, signature) in [
                (Kind::Ed25519, "metadata", 32, 64),
                (Kind::P256, "device", 65, 64),
            ] {
                let uri = room.uri("a", object);
                let made = Key::generate(&uri, kind, None).unwrap();
                assert_eq!(made.public().len(), public);
                assert_eq!(made.sign(b"message").unwrap().len(), signature);
                let found = Key::open(&uri, kind, None).unwrap();
                assert_eq!(found.public(), made.public());
                assert_eq!(format!("{found:?}"), format!("Key({object} in a)"));
                let session = session(&module(), "a");
                let template = [
                    Attribute::Class(ObjectClass::PRIVATE_KEY),
                    Attribute::Label(object.as_bytes().to_vec()),
                ];
                let objects = session.find_objects(&template).unwrap();
                assert_eq!(objects.len(), 1);
                let said = [
                    AttributeType::Sensitive,
                    AttributeType::Extractable,
                    AttributeType::AlwaysSensitive,
                    AttributeType::NeverExtractable,
                    AttributeType::Local,
                    AttributeType::Private,
                ];
                let expected = [
                    Attribute::Sensitive(true),
                    Attribute::Extractable(false),
                    Attribute::AlwaysSensitive(true),
                    Attribute::NeverExtractable(true),
                    Attribute::Local(true),
                    Attribute::Private(true),
                ];
                let said = session.get_attributes(objects[0], &said).unwrap();
                for attribute in expected {
                    assert!(said.contains(&attribute), "{attribute:?} is not in {said:?}");
                }
                // Who asks for it gets nothing.
                let value = session
                    .get_attributes(objects[0], &[AttributeType::Value])
                    .unwrap();
                assert_eq!(value, []);
            }
        },
    );
}

#[test]
fn a_key_that_can_be_taken_out_is_refused() {
    with_tokens("token::a_key_that_can_be_taken_out_is_refused", &["a"], |room| {
        let session = session(&module(), "a");
        let cases = [
            ("both", Attribute::Extractable(true), Attribute::Sensitive(false)),
            (
                "wrapped",
                Attribute::Extractable(true),
                Attribute::Sensitive(true),
            ),
            (
                "plain",
                Attribute::Extractable(false),
                Attribute::Sensitive(false),
            ),
        ];
        for (object, extractable, sensitive) in cases {
            made_elsewhere(&session, object, &[extractable, sensitive]);
            let refused = TokenError::Extractable {
                token: "a".into(),
                object: object.into(),
            };
            let found = Key::open(&room.uri("a", object), Kind::P256, None);
            assert_eq!(found.unwrap_err(), refused);
            assert_eq!(refused.code().name(), "token-key-extractable");
        }
        let fine = [Attribute::Extractable(false), Attribute::Sensitive(true)];
        made_elsewhere(&session, "fine", &fine);
        assert!(room.has("a", "fine", Kind::P256), "positive control");
    });
}

#[test]
fn a_wrong_pin_is_said_and_the_same_is_not_tried_again() {
    with_tokens(
        "token::a_wrong_pin_is_said_and_the_same_is_not_tried_again",
        &["a", "b"],
        |room| {
            let token = || "a".to_owned();
            let wrong = room.pin_file("wrong", "9999\n");
            let uri = room
                .text("a", "k")
                .replace(room.path("pin").to_str().unwrap(), wrong.to_str().unwrap());
            let uri = Uri::parse(&uri).unwrap();
            let open = |pin| Key::open(&uri, Kind::P256, pin).unwrap_err();
            let refused = open(None);
            assert_eq!(refused, TokenError::Pin { token: token() });
            assert_eq!(refused.code().name(), "token-pin");
            assert_eq!(open(None), TokenError::PinAgain { token: token() });
            // A person may type another one, and is refused in their turn.
            let typed = Some(Pin::new("8888").unwrap());
            assert_eq!(open(typed.clone()), TokenError::Pin { token: token() });
            assert_eq!(open(typed), TokenError::PinAgain { token: token() });
            let bare = room.without_pin("a", "k");
            let none = Key::open(&bare, Kind::P256, None).unwrap_err();
            assert_eq!(none, TokenError::NoPin { token: token() });
            // The right one is let in, typed or from its file; the other token was never asked.
            let right = Pin::new(PIN).unwrap();
            assert!(Key::generate(&bare, Kind::P256, Some(right)).is_ok());
            assert!(room.has("a", "k", Kind::P256));
        },
    );
}

#[test]
fn what_is_missing_or_there_twice_is_named() {
    with_tokens(
        "token::what_is_missing_or_there_twice_is_named",
        &["a", "twin"],
        |room| {
            let open = |uri: &Uri| Key::open(uri, Kind::P256, None).unwrap_err();
            let token = |name: &str| name.to_owned();
            let module = Room::module().display().to_string();

            let absent = open(&room.uri("gone", "k"));
            let expected = TokenError::NoToken {
                token: token("gone"),
                path: module.clone(),
            };
            assert_eq!((absent.code().name(), absent), ("token-missing", expected));

            let nowhere = room.text("a", "k").replace(&module, "/nowhere/lib.so");
            let refused = open(&Uri::parse(&nowhere).unwrap());
            assert!(
                matches!(&refused, TokenError::NoModule { path, .. } if path == "/nowhere/lib.so"),
                "{refused:?}"
            );
            // A library that is no module.
            let text = room.path("text.so");
            std::fs::write(&text, "text").unwrap();
            let refused =
                open(&Uri::parse(&room.text("a", "k").replace(&module, text.to_str().unwrap())).unwrap());
            assert!(matches!(refused, TokenError::NoModule { .. }), "{refused:?}");

            let missing = open(&room.uri("a", "k"));
            let expected = TokenError::NoKey {
                token: token("a"),
                what: "private key",
                object: "k".into(),
            };
            assert_eq!((missing.code().name(), missing), ("token-key-missing", expected));

            let key = Key::generate(&room.uri("a", "k"), Kind::P256, None).unwrap();
            let exists = Key::generate(&room.uri("a", "k"), Kind::Ed25519, None).unwrap_err();
            let expected = TokenError::Exists {
                token: token("a"),
                object: "k".into(),
            };
            assert_eq!((exists.code().name(), exists), ("token-key-exists", expected));
            let other = Key::open(&room.uri("a", "k"), Kind::Ed25519, None).unwrap_err();
            let expected = TokenError::Kind {
                object: "k".into(),
                wanted: "ed25519",
            };
            assert_eq!(other, expected);

            let session = session(&self::module(), "a");
            let hidden = [Attribute::Extractable(false), Attribute::Sensitive(true)];
            made_elsewhere(&session, "k", &hidden);
            let expected = TokenError::Keys {
                token: token("a"),
                object: "k".into(),
                found: 2,
            };
            assert_eq!(open(&room.uri("a", "k")), expected);
            // The id tells them apart.
            let public = [
                Attribute::Class(ObjectClass::PUBLIC_KEY),
                Attribute::Label(b"k".to_vec()),
            ];
            let id = session
                .find_objects(&public)
                .unwrap()
                .into_iter()
                .flat_map(|object| session.get_attributes(object, &[AttributeType::Id]).unwrap())
                .find_map(|attribute| match attribute {
                    Attribute::Id(id) if !id.is_empty() => Some(id),
                    _ => None,
                })
                .unwrap();
            let id = id
                .iter()
                .fold(String::new(), |text, byte| format!("{text}%{byte:02x}"));
            let named = room
                .text("a", "k")
                .replace(";object=k", &format!(";object=k;id={id}"));
            let found = Key::open(&Uri::parse(&named).unwrap(), Kind::P256, None).unwrap();
            assert_eq!(found.public(), key.public());

            room.init_token("twin");
            drop((found, key, session));
            // A module counts its slots when it is started.
            self::module().finalize().unwrap();
            let expected = TokenError::Tokens {
                token: token("twin"),
                found: 2,
            };
            assert_eq!(open(&room.uri("twin", "k")), expected);
        },
    );
}

#[test]
fn halves_that_do_not_belong_together_sign_nothing() {
    with_tokens(
        "token::halves_that_do_not_belong_together_sign_nothing",
        &["a"],
        |room| {
            let session = session(&module(), "a");
            let hidden = [Attribute::Extractable(false), Attribute::Sensitive(true)];
            made_elsewhere(&session, "mixed", &hidden);
            made_elsewhere(&session, "other", &hidden);
            let of = |class, object: &str| {
                let label = Attribute::Label(object.as_bytes().to_vec());
                session.find_objects(&[Attribute::Class(class), label]).unwrap()[0]
            };
            // The public half of the second takes the place of the first one's.
            session
                .destroy_object(of(ObjectClass::PUBLIC_KEY, "mixed"))
                .unwrap();
            let label = [Attribute::Label(b"mixed".to_vec())];
            session
                .update_attributes(of(ObjectClass::PUBLIC_KEY, "other"), &label)
                .unwrap();
            let key = Key::open(&room.uri("a", "mixed"), Kind::P256, None).unwrap();
            let refused = TokenError::Mismatched {
                token: "a".into(),
                object: "mixed".into(),
            };
            assert_eq!(key.sign(b"message").unwrap_err(), refused);
            assert_eq!(refused.code().name(), "token-failed");
        },
    );
}

#[test]
fn a_module_that_does_not_start_is_said() {
    with_tokens("token::a_module_that_does_not_start_is_said", &["a"], |room| {
        std::fs::remove_file(room.path("softhsm2.conf")).unwrap();
        let refused = Key::open(&room.uri("a", "k"), Kind::P256, None).unwrap_err();
        let expected = TokenError::Module {
            path: Room::module().display().to_string(),
            fault: Fault::Returned(RvError::GeneralError),
        };
        assert_eq!((refused.code().name(), refused), ("token-missing", expected));
    });
}

#[test]
fn a_session_that_is_lost_is_opened_again_once() {
    with_tokens(
        "token::a_session_that_is_lost_is_opened_again_once",
        &["a"],
        |room| {
            let key = Key::generate(&room.uri("a", "k"), Kind::P256, None).unwrap();
            let typed = Pin::new(PIN).unwrap();
            let by_hand = Key::open(&room.without_pin("a", "k"), Kind::P256, Some(typed)).unwrap();
            // As when the token is pulled out and put in again.
            module().finalize().unwrap();
            assert!(key.sign(b"message").is_ok());
            assert!(by_hand.sign(b"message").is_ok());
            // And when it is not put in again, or another one of the same name is.
            module().finalize().unwrap();
            std::fs::rename(room.path("tokens"), room.path("pulled-out")).unwrap();
            std::fs::create_dir(room.path("tokens")).unwrap();
            let absent = TokenError::NoToken {
                token: "a".into(),
                path: Room::module().display().to_string(),
            };
            assert_eq!(key.sign(b"message").unwrap_err(), absent);
            module().finalize().unwrap();
            room.init_token("a");
            Key::generate(&room.uri("a", "k"), Kind::P256, None).unwrap();
            let other = TokenError::Mismatched {
                token: "a".into(),
                object: "k".into(),
            };
            assert_eq!(key.sign(b"message").unwrap_err(), other);
        },
    );
}

#[test]
fn a_mechanism_the_token_lacks_is_named() {
    with_tokens("token::a_mechanism_the_token_lacks_is_named", &["a"], |room| {
        // SoftHSM2 offers what its configuration lets it.
        let file = room.path("softhsm2.conf");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, format!("{text}slots.mechanisms = CKM_RSA_PKCS\n")).unwrap();
        for (kind, mechanism) in [
            (Kind::Ed25519, "CKM_EC_EDWARDS_KEY_PAIR_GEN"),
            (Kind::P256, "CKM_EC_KEY_PAIR_GEN"),
        ] {
            let refused = TokenError::Mechanism {
                token: "a".into(),
                mechanism,
            };
            let made = Key::generate(&room.uri("a", mechanism), kind, None);
            assert_eq!(made.unwrap_err(), refused);
            assert_eq!(refused.code().name(), "token-mechanism");
        }
    });
}

#[test]
fn a_key_that_is_destroyed_is_gone_and_its_siblings_stay() {
    with_tokens(
        "token::a_key_that_is_destroyed_is_gone_and_its_siblings_stay",
        &["a"],
        |room| {
            let (old, new) = (room.uri("a", "device.1"), room.uri("a", "device.2"));
            let gone = Key::generate(&old, Kind::P256, None).unwrap();
            Key::generate(&new, Kind::P256, None).unwrap();
            Key::destroy(&old).unwrap();
            assert!(!room.has("a", "device.1", Kind::P256));
            assert!(room.has("a", "device.2", Kind::P256));
            // Once more, after a power cut.
            Key::destroy(&old).unwrap();
            let refused = gone.sign(b"message").unwrap_err();
            let missing = TokenError::NoKey {
                token: "a".into(),
                what: "private key",
                object: "device.1".into(),
            };
            let stale = TokenError::Failed {
                token: "a".into(),
                doing: "signing",
                fault: Fault::Returned(RvError::FunctionFailed),
            };
            assert!([missing, stale].contains(&refused), "{refused:?}");
        },
    );
}
