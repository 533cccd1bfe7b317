use super::*;
use proptest::prelude::*;

const WHOLE: &str = "pkcs11:token=My%20token;serial=DECC0401648;object=release.root-4;id=%01%FF?module-path=/usr/lib/x.so&pin-source=file:/run/pin";

#[test]
fn a_pin_file_whose_path_begins_twice_is_written_as_the_same_file() {
    let twice = Uri::parse(&WHOLE.replace("file:/run", "file:////run")).unwrap();
    assert_eq!(twice.pin(), Some(Path::new("//run/pin")));
    assert_eq!(Uri::parse(&twice.to_string()), Ok(twice));
}

#[test]
fn a_whole_uri_is_read_and_written_the_same() {
    let uri = Uri::parse(WHOLE).unwrap();
    assert_eq!(uri.token(), "My token");
    assert_eq!(uri.serial(), Some("DECC0401648"));
    assert_eq!(uri.object(), "release.root-4");
    assert_eq!(uri.id(), Some(&[1, 255][..]));
    assert_eq!(uri.module(), Path::new("/usr/lib/x.so"));
    assert_eq!(uri.pin(), Some(Path::new("/run/pin")));
    assert_eq!(uri.to_string(), WHOLE);
    let with_slashes = WHOLE.replace("file:/run", "file:///run");
    assert_eq!(Uri::parse(&with_slashes).unwrap(), uri);
    assert_eq!(
        Uri::parse(&WHOLE.replace(";id=", ";type=private;id=")).unwrap(),
        uri
    );
}

#[test]
fn a_uri_that_names_no_single_key_is_refused() {
    let long = |part: &str, most: usize| {
        let value = "a".repeat(most + 1);
        match part {
            "token" => format!("pkcs11:token={value};object=o?module-path=/m"),
            "serial" => format!("pkcs11:token=t;serial={value};object=o?module-path=/m"),
            "object" => format!("pkcs11:token=t;object={value}?module-path=/m"),
            "id" => format!("pkcs11:token=t;object=o;id={value}?module-path=/m"),
            _ => format!("pkcs11:token=t;object=o?module-path=/{value}"),
        }
    };
    let part = "a part of it is empty or too long";
    let cases = [
        (long("token", TOKEN_LEN_MAX), part),
        (long("serial", SERIAL_LEN_MAX), part),
        (long("object", OBJECT_LEN_MAX), part),
        (long("id", ID_LEN_MAX), part),
        (long("uri", URI_LEN_MAX), "it is longer than 2048 bytes"),
        ("pkcs11:token=;object=o?module-path=/m".into(), part),
        ("/keys/a.key.json".into(), "it does not begin with pkcs11:"),
        ("PKCS11:token=t".into(), "it does not begin with pkcs11:"),
        ("pkcs11:".into(), "a part of it is not name=value"),
        ("pkcs11:object=o?module-path=/m".into(), "token= is missing"),
        ("pkcs11:token=t?module-path=/m".into(), "object= is missing"),
        ("pkcs11:token=t;object=o".into(), "module-path= is missing"),
        (
            "pkcs11:token=t;object=o?module-path=m.so".into(),
            "its files are named by absolute paths",
        ),
        (
            "pkcs11:token=t;object=o?module-path=/m&pin-source=file:pin".into(),
            "its files are named by absolute paths",
        ),
        (
            "pkcs11:token=t;object=o?module-path=/m&pin-source=|/bin/pin".into(),
            "a character in it must be written as % and two digits",
        ),
        (
            "pkcs11:token=t;object=o?module-path=/m&pin-source=/run/pin".into(),
            "pin-source is written file:/path",
        ),
        (
            "pkcs11:token=t;object=o?module-path=/m&pin-value=1234".into(),
            "a PIN is never part of it; name a file with pin-source",
        ),
        (
            "pkcs11:token=t;object=o?module-path=/m&module-name=m".into(),
            "only module-path and pin-source may follow the ?",
        ),
        (
            "pkcs11:token=t;object=o;slot-id=1?module-path=/m".into(),
            "only token, serial, object, id and type=private name a key",
        ),
        (
            "pkcs11:token=t;object=o;type=public?module-path=/m".into(),
            "only token, serial, object, id and type=private name a key",
        ),
        (
            "pkcs11:token=t;token=t;object=o?module-path=/m".into(),
            "a part of it is there twice",
        ),
        (
            "pkcs11:token=%ff;object=o?module-path=/m".into(),
            "a part of it is not UTF-8",
        ),
        (
            "pkcs11:token=%0a;object=o?module-path=/m".into(),
            "a part of it holds control characters",
        ),
        (
            "pkcs11:token=%4;object=o?module-path=/m".into(),
            "a % in it is not followed by two hexadecimal digits",
        ),
        (
            "pkcs11:token=a b;object=o?module-path=/m".into(),
            "a character in it must be written as % and two digits",
        ),
    ];
    for (text, why) in cases {
        assert_eq!(Uri::parse(&text).unwrap_err(), TokenError::Uri(why), "{text}");
    }
}

#[test]
fn a_sibling_is_another_key_of_the_same_token() {
    let uri = Uri::parse(WHOLE).unwrap();
    let sibling = uri.sibling("device.2").unwrap();
    assert_eq!(
        sibling.to_string(),
        WHOLE
            .replace(";id=%01%FF", "")
            .replace("release.root-4", "device.2")
    );
    assert!(uri.sibling(&"a".repeat(OBJECT_LEN_MAX + 1)).is_err());
    assert!(uri.sibling("").is_err());
}

#[test]
fn a_file_is_not_taken_for_a_uri() {
    assert!(Uri::is(WHOLE) && Uri::is("PKCS11:x"));
    assert!(!Uri::is("./pkcs11:x") && !Uri::is("keys/a.key.json") && !Uri::is(""));
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,80}") {
        drop(Uri::parse(&text));
        drop(Uri::parse(&format!("pkcs11:{text}")));
    }

    #[test]
    fn what_is_written_reads_back(token in "[^\\p{C}]{1,10}", object in "[^\\p{C}]{1,20}", id in prop::collection::vec(any::<u8>(), 1..64)) {
        prop_assume!(token.len() <= TOKEN_LEN_MAX && object.len() <= OBJECT_LEN_MAX);
        let uri = Uri { token, serial: None, object, id: Some(id), module: "/m o.so".into(), pin: None };
        prop_assert_eq!(Uri::parse(&uri.to_string()).unwrap(), uri);
    }
}
