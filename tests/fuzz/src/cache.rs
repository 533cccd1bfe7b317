//! Native code that a device keeps between two starts. Whoever can write to its disk writes what they like.

use crate::Target;
use redan_agent::fuzzing::{cached, mac};
use redan_protocol::{Code, Digest};

/// The keys of two devices.
const OURS: [u8; 32] = [7; 32];
const THEIRS: [u8; 32] = [8; 32];
/// Magic, two digests, a length; and the MAC after it.
const HEADER: usize = 8 + 32 + 32 + 8;
const TAG: usize = 32;

fn component() -> Digest {
    Digest::of(b"component")
}

fn engine() -> Digest {
    Digest::of(b"engine")
}

pub(crate) const CACHE: Target = Target {
    name: "cache",
    seeds: || {
        [b"".as_slice(), b"native code", &[0xff; 300]]
            .into_iter()
            .flat_map(|native| {
                let header = header(component(), engine(), native);
                let entry = [&header, mac(&OURS, &header, native).as_slice(), native].concat();
                [b"0", b"1"].map(|mode| [mode.as_slice(), &entry].concat())
            })
            .collect()
    },
    run: entry,
    mutations: 20_000,
};

/// The one header there is for this native code, written from the format's description.
fn header(component: Digest, engine: Digest, native: &[u8]) -> Vec<u8> {
    let length = u64::try_from(native.len()).unwrap().to_le_bytes();
    [
        b"RDNATIV1".as_slice(),
        component.as_bytes(),
        engine.as_bytes(),
        &length,
    ]
    .concat()
}

/// `0`: an entry as it lies on the disk. `1`: one whose MAC is right whatever it says, so that nothing hides behind the MAC. It is taken exactly
/// when the MAC is right and the header is the one of the component and the engine that were asked for; and what is taken are its own bytes.
fn entry(input: &[u8]) -> bool {
    let Some((mode, rest)) = input.split_first() else {
        return false;
    };
    let mut entry = rest.to_vec();
    let parts = rest.split_at_checked(HEADER).and_then(|(said, rest)| {
        let (tag, native) = rest.split_at_checked(TAG)?;
        Some((said, tag, native))
    });
    if let (b'1', Some((said, _, native))) = (mode, parts) {
        entry = [said, mac(&OURS, said, native).as_slice(), native].concat();
    } else if *mode != b'0' {
        return false;
    }
    let expected = |device: &[u8; 32], component, engine| {
        let (said, _, native) = parts?;
        let right = mac(device, said, native);
        let authentic = said == header(component, engine, native)
            && entry.get(HEADER..HEADER + TAG) == Some(right.as_slice());
        authentic.then(|| native.to_vec())
    };
    for device in [OURS, THEIRS] {
        for component in [component(), Digest::of(b"another component")] {
            for engine in [engine(), Digest::of(b"another engine")] {
                assert_eq!(
                    cached(&device, component, engine, entry.clone()),
                    expected(&device, component, engine).ok_or(Code::CachePoisoned)
                );
            }
        }
    }
    expected(&OURS, component(), engine()).is_some()
}
