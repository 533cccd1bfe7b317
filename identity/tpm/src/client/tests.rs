//! TPMs that lie, stammer or are silent: each on a socket of its own, and each answers only after it has read its question.

use super::*;
use proptest::prelude::*;
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread::JoinHandle;

/// More than any test takes: what is refused, is refused for what it is.
const LONG: Duration = Duration::from_mins(5);
const SHORTLY: Duration = Duration::from_millis(50);
const AT_ONCE: Duration = Duration::from_micros(1);

/// What a hostile TPM does with each command.
type Play = Box<dyn FnMut(&mut UnixStream, &[u8]) + Send>;

struct Hostile {
    _folder: tempfile::TempDir,
    address: Address,
    played: JoinHandle<u32>,
}

/// One connection: reads a command whole, plays, until the other side has gone.
fn hostile(mut play: Play) -> Hostile {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tpm.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let played = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut commands = 0;
        loop {
            let mut head = [0; 10];
            if stream.read_exact(&mut head).is_err() {
                return commands;
            }
            let size = usize::try_from(u32::from_be_bytes([head[2], head[3], head[4], head[5]])).unwrap();
            let mut command = head.to_vec();
            command.resize(size, 0);
            stream.read_exact(&mut command[10..]).unwrap();
            commands += 1;
            play(&mut stream, &command);
        }
    });
    Hostile {
        address: Address::parse(&format!("tpm:{}", path.display())).unwrap(),
        _folder: folder,
        played,
    }
}

/// Answers with these bytes, and hangs up if told so.
fn answering(bytes: &[u8], hang_up: bool) -> Hostile {
    let bytes = bytes.to_vec();
    hostile(Box::new(move |stream, _| {
        stream.write_all(&bytes).ok();
        if hang_up {
            stream.shutdown(std::net::Shutdown::Both).ok();
        }
    }))
}

fn asked(tpm: &Hostile, within: Duration) -> TpmError {
    let mut client = Client::open_with(&tpm.address, within, AT_ONCE).unwrap();
    client.nv_read_counter(FIRST_INDEX).unwrap_err()
}

const FIRST_INDEX: u32 = 0x0180_0000;

fn nonsense(tpm: &Hostile, what: &'static str) -> TpmError {
    TpmError::Nonsense {
        path: tpm.address.path().display().to_string(),
        command: "TPM2_NV_Read",
        what,
    }
}

/// A refusal.
fn code(code: u32) -> Vec<u8> {
    [&b"\x80\x01\0\0\0\x0a"[..], &code.to_be_bytes()].concat()
}

/// An answer that is right in form, with these parameters.
fn good(parameters: &[u8]) -> Vec<u8> {
    let size = u32::try_from(parameters.len() + 19).unwrap().to_be_bytes();
    let inner = u32::try_from(parameters.len()).unwrap().to_be_bytes();
    [
        &b"\x80\x02"[..],
        &size,
        &[0; 4],
        &inner,
        parameters,
        b"\0\0\x01\0\0",
    ]
    .concat()
}

#[test]
fn garbage_a_wrong_tag_and_lengths_that_lie_are_refused_and_said() {
    for (bytes, what) in [
        (b"HTTP/1.1 200 OK\r\n".to_vec(), "its length is not what it says"),
        (vec![0; 64], "its length is not what it says"),
        (vec![0xff; 64], "its length is not what it says"),
        (
            b"\x80\x02\0\0\0\x09\0\0\0\0".to_vec(),
            "its length is not what it says",
        ),
        (
            b"\x80\x02\0\0\x10\x01\0\0\0\0".to_vec(),
            "its length is not what it says",
        ),
        (b"\x80\x01\0\0\0\x0a\0\0\0\0".to_vec(), "its tag is another one's"),
        (
            b"\x00\xc4\0\0\0\x0a\0\0\0\x1e".to_vec(),
            "it is no answer of a TPM 2.0",
        ),
        (b"\x80\x02\0\0\0\x0a\0\0\0\0".to_vec(), "it ends too early"),
        (good(b"\0\x04aaaa"), "it ends too early"),
        (good(b"\0\x09aaaaaaaaa"), "it goes on after its end"),
        (good(b"\0\x08aaaaaaaab"), "it goes on after its end"),
        (good(b"\xff\xffaaaaaaaa"), "it ends too early"),
    ] {
        let tpm = answering(&bytes, false);
        assert_eq!(asked(&tpm, LONG), nonsense(&tpm, what), "{bytes:02x?}");
    }
}

#[test]
fn an_answer_of_the_right_form_is_taken() {
    let tpm = answering(&good(b"\0\x08\0\0\0\0\0\0\x01\x02"), false);
    let mut client = Client::open_with(&tpm.address, LONG, AT_ONCE).unwrap();
    assert_eq!(client.nv_read_counter(FIRST_INDEX), Ok(0x102), "positive control");
}

#[test]
fn an_answer_that_breaks_off_is_no_answer() {
    let whole = good(b"\0\x08aaaaaaaa");
    for length in 0..whole.len() {
        let tpm = answering(&whole[..length], true);
        let error = asked(&tpm, LONG);
        assert!(matches!(error, TpmError::Missing { .. }), "{length}: {error:?}");
    }
}

#[test]
fn a_tpm_that_never_answers_is_given_up() {
    // Nothing at all, a part of a header, a header and no more.
    for part in [&b""[..], b"\x80\x02\0", b"\x80\x02\0\0\0\x20\0\0\0\0"] {
        let tpm = answering(part, false);
        let silent = TpmError::Silent {
            path: tpm.address.path().display().to_string(),
            command: "TPM2_NV_Read",
        };
        assert_eq!(asked(&tpm, SHORTLY), silent);
        assert_eq!(tpm.played.join().unwrap(), 1, "asked once");
    }
    // Nor one that does not even accept; the queue of a socket is not waited for.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tpm.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    let address = Address::parse(&format!("tpm:{}", path.display())).unwrap();
    let mut client = Client::open_with(&address, SHORTLY, AT_ONCE).unwrap();
    let error = client.nv_increment(FIRST_INDEX).unwrap_err();
    assert!(matches!(error, TpmError::Silent { .. }), "{error:?}");
}

#[test]
fn a_tpm_that_is_always_busy_is_given_up() {
    for answer in [0x922, 0x908, 0x90a, 0x920, 0x902] {
        let tpm = answering(&code(answer), false);
        let busy = TpmError::Busy {
            path: tpm.address.path().display().to_string(),
            command: "TPM2_NV_Read",
            answer: ResponseCode(answer),
        };
        assert_eq!(asked(&tpm, LONG), busy);
        assert_eq!(tpm.played.join().unwrap(), TRIES_MAX, "{answer:#x}");
    }
}

#[test]
fn a_tpm_that_was_busy_is_asked_again() {
    let mut answers = vec![good(b"\0\x08\0\0\0\0\0\0\0\x07"), code(0x908), code(0x922)];
    let tpm = hostile(Box::new(move |stream, _| {
        stream.write_all(&answers.pop().unwrap()).unwrap();
    }));
    let mut client = Client::open_with(&tpm.address, LONG, AT_ONCE).unwrap();
    assert_eq!(client.nv_read_counter(FIRST_INDEX), Ok(7));
}

#[test]
fn a_refusal_says_what_it_means() {
    let path = |tpm: &Hostile| tpm.address.path().display().to_string();
    let tpm = answering(&code(0x921), false);
    let locked = asked(&tpm, LONG);
    assert_eq!(
        (locked.code().name(), locked),
        ("tpm-locked", TpmError::Locked { path: path(&tpm) })
    );
    for answer in [0x9a2, 0x98e] {
        let tpm = answering(&code(answer), false);
        let owner = TpmError::Owner {
            path: path(&tpm),
            command: "TPM2_NV_Read",
        };
        assert_eq!(asked(&tpm, LONG), owner);
        assert_eq!(owner.code().name(), "tpm-locked");
    }
    let tpm = answering(&code(0x100), false);
    let refused = asked(&tpm, LONG);
    let expected = TpmError::Refused {
        path: path(&tpm),
        command: "TPM2_NV_Read",
        answer: ResponseCode(0x100),
    };
    assert_eq!((refused.code().name(), refused), ("tpm-failed", expected));
}

#[test]
fn a_counter_that_is_somebody_elses_is_not_used() {
    // TPMS_NV_PUBLIC of an ordinary index of eight bytes, and its name.
    let index = crate::Counter::of(&Address::parse("tpm:/t").unwrap(), "press-1");
    let tpm = hostile(Box::new(|stream, command| {
        let public = [
            &command[10..14],
            &[0, 0x0b],
            &0x2204_0004_u32.to_be_bytes(),
            &[0, 0],
            &[0, 8],
        ]
        .concat();
        let answer = [&[0, 14][..], &public, &[0, 0]].concat();
        let size = u32::try_from(answer.len() + 10).unwrap().to_be_bytes();
        stream
            .write_all(&[&b"\x80\x01"[..], &size, &[0; 4], &answer].concat())
            .unwrap();
    }));
    let counter = crate::Counter::of(&tpm.address, "press-1");
    let taken = counter.read().unwrap_err();
    assert!(matches!(taken, TpmError::Taken { .. }), "{taken:?} {index:?}");
}

#[test]
fn a_signature_of_another_key_is_not_given_away() {
    // A TPM that does all it is asked, and signs with whatever it likes.
    let signature = [&[0, 0x18, 0, 0x0b, 0, 32][..], &[1; 32], &[0, 32], &[1; 32]].concat();
    let key = {
        use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        pair.public_key().as_ref().to_vec()
    };
    let mut public = template::signing();
    public.truncate(public.len() - 4);
    for coordinate in key[1..].chunks(32) {
        public.extend([0, 32]);
        public.extend(coordinate);
    }
    let name = [&[0, 34, 0, 0x0b][..], Digest::of(&public).as_bytes()].concat();
    let tpm = hostile(Box::new(move |stream, command| {
        let with_handle = |parameters: &[u8]| {
            let mut answer = good(parameters);
            answer.splice(10..10, *b"\x80\0\0\0");
            let size = u32::try_from(answer.len()).unwrap().to_be_bytes();
            answer.splice(2..6, size);
            answer
        };
        let answer = match command[9] {
            0x31 => with_handle(&[0; 16]),
            0x57 => with_handle(&name),
            0x5d => good(&signature),
            _ => b"\x80\x01\0\0\0\x0a\0\0\0\0".to_vec(),
        };
        stream.write_all(&answer).unwrap();
    }));
    let blob = Blob {
        address: tpm.address.clone(),
        public,
        private: vec![1],
    };
    let error = crate::Key::open(blob).unwrap().sign(b"message").unwrap_err();
    let path = tpm.address.path().display().to_string();
    assert_eq!(error, TpmError::Mismatched { path });
    assert_eq!(
        tpm.played.join().unwrap(),
        5,
        "primary, load, sign, and both handles are flushed"
    );
}

/// Every answer there is, read by the command that it would answer.
fn reads(command: u8, answer: &[u8]) -> bool {
    let public = template::signing();
    let digest = Digest::of(&public);
    let read = match command % 9 {
        0 => create_primary().read(answer).and_then(created_primary).map(drop),
        1 => create(0, &[], &[])
            .read(answer)
            .and_then(created)
            .and_then(|made| {
                let point = template::point(&made.public).map(drop);
                point.or_else(|_| template::is_sealed(&made.public))
            }),
        2 => load(0, &[], &public)
            .read(answer)
            .and_then(|answer| loaded(answer, digest))
            .map(drop),
        3 => sign(0, digest).read(answer).and_then(signed).map(drop),
        4 => unseal(0).read(answer).and_then(data).map(drop),
        5 => nv_read_public(0).read(answer).and_then(nv_public).map(drop),
        6 => nv_read(0).read(answer).and_then(counted).map(drop),
        7 => nv_increment(0).read(answer).and_then(nothing),
        _ => flush_context(0).read(answer).and_then(nothing),
    };
    read.is_ok()
}

proptest! {
    /// Whatever comes back, to whatever was asked: read or refused, and nothing else.
    #[test]
    fn any_answer_is_read_or_refused(command in any::<u8>(), answer in proptest::collection::vec(any::<u8>(), 0..200)) {
        reads(command, &answer);
    }

    /// The same of answers that are right but for a few bytes.
    #[test]
    fn an_answer_with_changed_bytes_is_read_or_refused(
        command in any::<u8>(),
        parameters in proptest::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(8), Just(32), any::<u8>()], 0..120),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut answer = good(&parameters);
        for (at, byte) in changes {
            let at = at.index(answer.len());
            answer[at] = byte;
        }
        reads(command, &answer);
        answer.truncate(cut.index(answer.len() + 1));
        reads(command, &answer);
    }
}
