//! Small damage to valid inputs, the same each time: a failure is found again by its number.

/// Words that parsers of ours treat in a way of their own.
const WORDS: &[&[u8]] = &[
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"null",
    b"-1",
    b"0",
    b"1e9",
    b"9007199254740993",
    b"18446744073709551615",
    b"18446744073709551616",
    b"..",
    b"/",
    b"%2f",
    b"*",
    b"\0",
    b"\n",
    b"\r\n",
    b"\xff",
    b"\xc3\x28",
    b"\xef\xbb\xbf",
    b"\\u0000",
    b"\x30\x82",
    b"\x06\x03\x55\x1d",
    b"\0asm",
    b"spiffe://",
    b"@",
    b"#",
    b"[::1]",
    b"true",
];

/// xorshift64*: an order of numbers, nothing secret.
#[derive(Clone, Debug)]
pub struct Numbers(u64);

impl Numbers {
    /// An order of its own for each seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`; 0 when `end` is.
    pub fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).unwrap_or(u64::MAX);
        usize::try_from(self.any().checked_rem(end).unwrap_or_default()).unwrap_or_default()
    }
}

/// One to four damages to an input. `other` lends pieces.
pub fn mutate(input: &[u8], other: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=numbers.below(4) {
        damage(&mut bytes, other, numbers);
    }
    bytes
}

fn damage(bytes: &mut Vec<u8>, other: &[u8], numbers: &mut Numbers) {
    let at = numbers.below(bytes.len() + 1);
    let end = (at + 1 + numbers.below(24)).min(bytes.len());
    match numbers.below(8) {
        0 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << numbers.below(8);
            }
        }
        1 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = u8::try_from(numbers.below(256)).unwrap_or_default();
            }
        }
        2 => bytes.truncate(at),
        3 => drop(bytes.drain(at.min(end)..end)),
        4 => {
            let piece: Vec<u8> = bytes.get(at.min(end)..end).unwrap_or_default().to_vec();
            drop(bytes.splice(at..at, piece));
        }
        5 => {
            let from = numbers.below(other.len() + 1);
            let to = (from + numbers.below(64)).min(other.len());
            let piece = other.get(from..to).unwrap_or_default().to_vec();
            drop(bytes.splice(at..at, piece));
        }
        6 => {
            let word = WORDS.get(numbers.below(WORDS.len())).copied().unwrap_or_default();
            drop(bytes.splice(at..at, word.iter().copied()));
        }
        _ => {
            let word = WORDS.get(numbers.below(WORDS.len())).copied().unwrap_or_default();
            drop(bytes.splice(at.min(end)..end, word.iter().copied()));
        }
    }
}
