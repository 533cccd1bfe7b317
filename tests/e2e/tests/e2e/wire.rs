//! Somebody who reads every byte between a device and its server (attacks U04, A04).
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

use anyhow::{Context as _, Result, ensure};
use redan_kit::stage::{FLEET, await_that};
use redan_kit::{Programs, Stage};
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SOON: Duration = Duration::from_mins(1);
const DEVICE: &str = "press-1";
/// A check-in and its answer, bytes, and what HTTP adds in front at most.
const CHECK_IN: std::ops::Range<usize> = 2048..2048 + 512;
/// TLS 1.3 (RFC 8446 §5.1): the record type of everything that is encrypted.
const APPLICATION_DATA: u8 = 23;

/// What went over one connection.
#[derive(Default)]
struct Heard {
    up: Vec<u8>,
    down: Vec<u8>,
}

/// Hands every byte on, and keeps it.
#[derive(Clone, Default)]
struct Wiretap(Arc<Mutex<Vec<Arc<Mutex<Heard>>>>>);

impl Wiretap {
    fn between(server: SocketAddr) -> Result<(Self, SocketAddr)> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let tap = Self::default();
        let kept = tap.clone();
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let Ok(far) = TcpStream::connect(server) else {
                    continue;
                };
                let heard = Arc::new(Mutex::new(Heard::default()));
                kept.0.lock().unwrap().push(Arc::clone(&heard));
                let (Ok(near_too), Ok(far_too)) = (near.try_clone(), far.try_clone()) else {
                    continue;
                };
                let also = Arc::clone(&heard);
                std::thread::spawn(move || {
                    hand_on(near, far, |bytes| heard.lock().unwrap().up.extend(bytes));
                });
                std::thread::spawn(move || {
                    hand_on(far_too, near_too, |bytes| also.lock().unwrap().down.extend(bytes));
                });
            }
        });
        Ok((tap, address))
    }

    fn heard(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let all = self.0.lock().unwrap();
        let one = |heard: &Arc<Mutex<Heard>>| {
            let heard = heard.lock().unwrap();
            (heard.up.clone(), heard.down.clone())
        };
        all.iter().map(one).collect()
    }
}

fn hand_on(mut from: TcpStream, mut to: TcpStream, mut keep: impl FnMut(&[u8])) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        keep(&buffer[..count]);
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    drop(to.shutdown(Shutdown::Write));
    drop(from.shutdown(Shutdown::Read));
}

/// The lengths of the encrypted records of one direction, in their order.
fn records(mut bytes: &[u8]) -> Vec<usize> {
    let mut lengths = Vec::new();
    while let [kind, _, _, high, low, rest @ ..] = bytes {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if *kind == APPLICATION_DATA {
            lengths.push(length);
        }
        bytes = rest.get(length..).unwrap_or_default();
    }
    lengths
}

fn count(bytes: &[u8], what: &[u8]) -> usize {
    bytes.windows(what.len()).filter(|window| *window == what).count()
}

#[test]
fn who_reads_the_wire_learns_the_fleets_name_and_how_much_is_fetched() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut stage = Stage::new(Programs::find()?, folder.path())?;
    stage.run_ceremony()?;
    let server = stage.start_control()?;
    let (tap, address) = Wiretap::between(server)?;
    stage.prepare_device(DEVICE)?;
    let config = folder.path().join("devices").join(DEVICE).join("device.toml");
    let text = std::fs::read_to_string(&config)?;
    std::fs::write(&config, text.replace(&server.to_string(), &address.to_string()))?;
    stage.start_device(DEVICE)?;
    // It has nothing to say yet.
    let at_least = |more: usize| {
        await_that("connections", SOON, || {
            let count = tap.heard().len();
            Ok(if count >= more {
                Ok(count)
            } else {
                Err(count.to_string())
            })
        })
    };
    let quiet = at_least(4)?;
    // Now it fetches, tries and runs two components, and then says so.
    stage.roll_first_release_out()?;
    let fetched = tap.heard().len();
    at_least(fetched + 4)?;
    stage.device_mut(DEVICE)?.stop()?;

    let heard = tap.heard();
    let mut digests = Vec::new();
    for entry in std::fs::read_dir(folder.path().join("devices").join(DEVICE).join("state/blobs"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        digests.push(name);
    }
    ensure!(digests.len() == 2, "{digests:?}");
    let mut secrets: Vec<Vec<u8>> = [
        DEVICE, "acme", "thermo", "tick", "plant-1", "sha256", "checkin", "HTTP/1.1", "spiffe",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into();
    for digest in &digests {
        secrets.push(digest.as_bytes().to_vec());
        let raw = (0..digest.len()).step_by(2);
        let raw = raw.map(|at| u8::from_str_radix(digest.get(at..at + 2).unwrap_or_default(), 16));
        secrets.push(raw.collect::<Result<_, _>>().context("a digest")?);
    }
    for (up, down) in &heard {
        for secret in &secrets {
            let seen = count(up, secret) + count(down, secret);
            ensure!(seen == 0, "{:?} is on the wire", String::from_utf8_lossy(secret));
        }
        // What is there to be read: the name of the handshake, and the fleet's name again in the subject of the authority that the
        // device believes (RFC 8446 §4.2.4); both in its first message, and nothing else anywhere.
        let name = format!("control.{FLEET}");
        ensure!(
            count(up, name.as_bytes()) == usize::from(!up.is_empty()),
            "the name of the handshake"
        );
        let opened = 2 * usize::from(!up.is_empty());
        ensure!(
            count(up, FLEET.as_bytes()) == opened && count(down, FLEET.as_bytes()) == 0,
            "the fleet's name, {} times",
            count(up, FLEET.as_bytes())
        );
    }

    // Sizes: every check-in has one length, whatever the device reports, and so has every answer.
    let check_ins = |of: &[(Vec<u8>, Vec<u8>)]| -> Vec<usize> {
        let all = of.iter().flat_map(|(up, _)| records(up));
        all.filter(|length| *length >= CHECK_IN.start).collect()
    };
    let (before, after) = heard.split_at(quiet);
    let (silent, full) = (check_ins(before), check_ins(after));
    ensure!(silent.len() >= 3 && full.len() >= 5, "{silent:?} {full:?}");
    let one = silent.first().context("a check-in")?;
    ensure!(CHECK_IN.contains(one), "{one}");
    ensure!(
        silent.iter().chain(&full).all(|length| length == one),
        "{silent:?} {full:?}"
    );
    // The first answer after the handshake is the check-in's.
    let answers = |of: &[(Vec<u8>, Vec<u8>)]| -> Vec<usize> {
        let first = |(_, down): &(Vec<u8>, Vec<u8>)| {
            records(down).into_iter().find(|length| CHECK_IN.contains(length))
        };
        let asked = of.iter().filter(|(up, _)| records(up).contains(one));
        asked.filter_map(first).collect()
    };
    let (silent, full) = (answers(before), answers(after));
    let one = silent.first().context("an answer")?;
    ensure!(silent.len() >= 3 && full.len() >= 5, "{silent:?} {full:?}");
    ensure!(
        silent.iter().chain(&full).all(|length| length == one),
        "{silent:?} {full:?}"
    );
    stage.stop()
}
