//! Marks, and finding them: raw, in part, in common encodings, and in compressed streams.

use base64::Engine as _;
use redan_protocol::Digest;
use std::collections::{HashMap, HashSet};
use std::fmt::{self, Write as _};
use std::io::Read as _;

/// Random bits of a mark: 32 characters of 5 bits.
const MARK_LEN: usize = 32;
/// Letters that survive in host names, header names and paths (RFC 4648 §6, in lower case).
const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// Bytes a needle is looked up by.
const KEY_LEN: usize = 8;
/// Most bytes of one compressed stream that are looked at.
const INFLATED_MAX: usize = 4 << 20;
/// Compressed within compressed.
const DEPTH_MAX: usize = 3;

/// All marks of one run, by what they were put into.
#[derive(Default)]
pub(crate) struct Marks {
    texts: Vec<(String, String)>,
    needles: Vec<Needle>,
    by_key: HashMap<[u8; KEY_LEN], Vec<usize>>,
    /// First two bytes of every needle: most of a memory is passed by at once.
    starts: HashSet<[u8; 2]>,
}

struct Needle {
    mark: usize,
    how: &'static str,
    bytes: Vec<u8>,
}

/// Where a mark was found.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Found {
    /// What the mark had been put into.
    pub(crate) what: String,
    how: &'static str,
    at: usize,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, byte {})", self.what, self.how, self.at)
    }
}

impl Marks {
    /// A new mark, of letters and digits.
    pub(crate) fn make(&mut self, what: &str) -> std::io::Result<String> {
        let mut random = [0; MARK_LEN];
        std::fs::File::open("/dev/urandom")?.read_exact(&mut random)?;
        let letters = random.map(|byte| char::from(LETTERS[usize::from(byte % 32)]));
        let text: String = letters.iter().collect();
        self.add(what, &text);
        Ok(text)
    }

    fn add(&mut self, what: &str, text: &str) {
        let mark = self.texts.len();
        self.texts.push((what.to_owned(), text.to_owned()));
        for (how, bytes) in encodings(text) {
            let key = bytes.first_chunk::<KEY_LEN>().copied().expect("a long needle");
            self.starts.insert([key[0], key[1]]);
            self.by_key.entry(key).or_default().push(self.needles.len());
            self.needles.push(Needle { mark, how, bytes });
        }
    }

    /// The marks and what they were put into.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.texts
            .iter()
            .map(|(what, text)| (what.as_str(), text.as_str()))
    }

    /// Every mark in these bytes, each once for each of its encodings.
    pub(crate) fn find(&self, bytes: &[u8]) -> Vec<Found> {
        let mut found = Vec::new();
        self.look(bytes, 0, &mut found);
        found.sort();
        found.dedup_by(|a, b| (&a.what, a.how) == (&b.what, b.how));
        found
    }

    fn look(&self, bytes: &[u8], depth: usize, found: &mut Vec<Found>) {
        let mut starts = vec![false; 1 << 16];
        for [first, second] in &self.starts {
            starts[usize::from(*first) << 8 | usize::from(*second)] = true;
        }
        for (at, key) in bytes.windows(KEY_LEN).enumerate() {
            if !starts[usize::from(key[0]) << 8 | usize::from(key[1])] {
                continue;
            }
            let Some(candidates) = self.by_key.get(key) else {
                continue;
            };
            for needle in candidates.iter().map(|index| &self.needles[*index]) {
                if bytes[at..].starts_with(&needle.bytes) {
                    let what = self.texts[needle.mark].0.clone();
                    found.push(Found {
                        what,
                        how: needle.how,
                        at,
                    });
                }
            }
        }
        if depth < DEPTH_MAX {
            for inflated in streams(bytes) {
                self.look(&inflated, depth + 1, found);
            }
        }
    }
}

/// Every spelling of a mark, and of either half of it: half a mark is a leak as well. And its digest, which is one of what can be guessed.
pub(crate) fn encodings(mark: &str) -> Vec<(&'static str, Vec<u8>)> {
    let (first, second) = mark.split_at(mark.len() / 2);
    let mut all = Vec::new();
    for half in [first, second] {
        let bytes = half.as_bytes();
        let each = |write: &dyn Fn(&mut String, u8)| {
            let mut text = String::new();
            for byte in bytes {
                write(&mut text, *byte);
            }
            text.into_bytes()
        };
        let list = |between: &str| {
            let numbers: Vec<_> = bytes.iter().map(u8::to_string).collect();
            numbers.join(between).into_bytes()
        };
        all.extend([
            ("raw", bytes.to_vec()),
            ("upper case", half.to_uppercase().into_bytes()),
            ("reversed", bytes.iter().rev().copied().collect()),
            ("hex", hex(bytes)),
            ("hex, upper case", hex(bytes).to_ascii_uppercase()),
            (
                "percent",
                each(&|text, byte| write!(text, "%{byte:02x}").expect("a string")),
            ),
            (
                "percent, upper case",
                each(&|text, byte| write!(text, "%{byte:02X}").expect("a string")),
            ),
            (
                "JSON escapes",
                each(&|text, byte| write!(text, "\\u{byte:04x}").expect("a string")),
            ),
            (
                "JSON escapes, upper case",
                each(&|text, byte| write!(text, "\\u{byte:04X}").expect("a string")),
            ),
            (
                "C escapes",
                each(&|text, byte| write!(text, "\\x{byte:02x}").expect("a string")),
            ),
            ("UTF-16 LE", bytes.iter().flat_map(|byte| [*byte, 0]).collect()),
            ("UTF-16 BE", bytes.iter().flat_map(|byte| [0, *byte]).collect()),
            ("list of numbers", list(",")),
            ("list of numbers, spaced", list(", ")),
        ]);
        for before in 0..3 {
            let shifted = [vec![0; before], bytes.to_vec()].concat();
            // What neither the bytes before nor those after decide.
            let (from, to) = ((before * 8).div_ceil(6), shifted.len() * 8 / 6);
            let text = base64::engine::general_purpose::STANDARD_NO_PAD.encode(&shifted);
            all.push(("base64", text.as_bytes()[from..to].to_vec()));
            let text = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&shifted);
            all.push(("base64, URL", text.as_bytes()[from..to].to_vec()));
        }
    }
    let digest = Digest::of(mark.as_bytes());
    all.push(("SHA-256", digest.as_bytes().to_vec()));
    all.push(("SHA-256, hex", hex(digest.as_bytes())));
    all
}

fn hex(bytes: &[u8]) -> Vec<u8> {
    let mut text = String::new();
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a string");
    }
    text.into_bytes()
}

/// Whatever gzip (RFC 1952) and zlib (RFC 1950) streams begin anywhere in these bytes, inflated as far as they go.
fn streams(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for (at, pair) in bytes.windows(2).enumerate() {
        let rest = &bytes[at..];
        let inflated = match pair {
            // No optional fields: what a program writes to a socket.
            [0x1f, 0x8b] if rest.get(2..4) == Some(&[8, 0]) => inflate(&rest[10.min(rest.len())..]),
            [0x78, 0x01 | 0x5e | 0x9c | 0xda] => inflate(&rest[2..]),
            _ => continue,
        };
        // Two bytes that only look like a header give a few bytes of nothing.
        if inflated.len() >= KEY_LEN {
            all.push(inflated);
        }
    }
    all
}

fn inflate(bytes: &[u8]) -> Vec<u8> {
    match miniz_oxide::inflate::decompress_to_vec_with_limit(bytes, INFLATED_MAX) {
        Ok(whole) => whole,
        Err(part) => part.output,
    }
}

/// A gzip stream of these bytes.
pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut all = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    all.extend(miniz_oxide::deflate::compress_to_vec(bytes, 6));
    // Checksum and length, which nobody here asks for.
    all.extend([0; 8]);
    all
}

/// A zlib stream of these bytes.
pub(crate) fn zlib(bytes: &[u8]) -> Vec<u8> {
    miniz_oxide::deflate::compress_to_vec_zlib(bytes, 6)
}

/// The search itself: it finds a mark in every encoding, at every alignment, in the middle of anything.
#[test]
fn a_mark_is_found_in_every_encoding_and_nothing_else_is() -> anyhow::Result<()> {
    let mut marks = Marks::default();
    let text = marks.make("a leak")?;
    let mut around = vec![0; 3_000];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut around)?;
    anyhow::ensure!(marks.find(&around).is_empty());
    let spellings = encodings(&text);
    anyhow::ensure!(spellings.len() == 2 * (14 + 6) + 2);
    for (how, bytes) in spellings {
        for at in [0, 1, 2, 3, 1_500, around.len()] {
            let mut planted = around.clone();
            planted.splice(at..at, bytes.iter().copied());
            let found = marks.find(&planted);
            anyhow::ensure!(
                found.iter().any(|found| found.how == how),
                "{how} at {at}: {found:?}"
            );
            let packed = [&b"before"[..], &gzip(&zlib(&planted)), b"after"].concat();
            let found = marks.find(&packed);
            anyhow::ensure!(
                found.iter().any(|found| found.how == how),
                "{how}, compressed: {found:?}"
            );
        }
    }
    // Base64 of a text around it, whatever its alignment.
    for before in 0..3 {
        let whole = format!("{}{text}and more", "x".repeat(before));
        let whole = base64::engine::general_purpose::STANDARD.encode(whole);
        anyhow::ensure!(!marks.find(whole.as_bytes()).is_empty(), "base64 after {before}");
    }
    Ok(())
}
