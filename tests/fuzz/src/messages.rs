//! What a broker of messages sends: one connection's bytes, however they come.

use crate::Target;
use redan_host_api::mqtt::codec::{HEADER_LEN_MAX, Header, Invalid, Message, Packet, publish_1, read};
use redan_host_api::mqtt::frames::{Frame, Frames, HEAD_MAX};
use redan_policy::grant::Protocol;

/// Largest payload that is taken, bytes.
const PAYLOAD_MAX: usize = 64;

pub(crate) const MQTT: Target = Target {
    name: "mqtt",
    seeds,
    run: connection,
    mutations: 20_000,
};

fn seeds() -> Vec<Vec<u8>> {
    let message = |protocol| publish_1(protocol, 7, "plant/7", Some("text/plain"), b"21.5").unwrap();
    let giant = b"\x32\xff\xff\xff\x7f\x00\x07plant/7\x00\x09".to_vec();
    // Each property of a message once, and what users add twice.
    let properties = [
        &[0x01, 1, 0x02, 0, 0, 0, 9, 0x03, 0, 1, b't', 0x08, 0, 1, b'r'][..],
        &[
            0x09, 0, 1, 0xff, 0x0b, 0x81, 1, 0x26, 0, 1, b'k', 0, 1, b'v', 0x26, 0, 0, 0, 0,
        ],
    ]
    .concat();
    let length = |bytes: &[u8]| u8::try_from(bytes.len()).unwrap();
    let body = [
        &b"\x00\x07plant/7\x00\x08"[..],
        &[length(&properties)],
        &properties,
        b"21.5",
    ]
    .concat();
    let full = [&[0x33, length(&body)][..], &body].concat();
    let old = [
        &[0x20, 2, 1, 0][..],
        &[0x90, 4, 0, 1, 1, 0x80, 0x40, 2, 0, 9, 0xb0, 2, 0, 3, 0xd0, 0],
        &message(Protocol::V311),
    ];
    let new = [
        &[0x20, 11, 0, 0, 8, 0x21, 0, 20, 0x27, 0, 0, 1, 0][..],
        &[0x90, 4, 0, 1, 0, 1, 0x40, 4, 0, 9, 0x97, 0, 0xd0, 0],
        &message(Protocol::V5),
        &full,
        &[0xe0, 2, 0x8e, 0],
    ];
    vec![
        [b"4", old.concat().as_slice()].concat(),
        [b"5", new.concat().as_slice()].concat(),
        [b"4", giant.as_slice()].concat(),
        [b"5", giant.as_slice(), &[7; 300]].concat(),
    ]
}

/// `4`: MQTT 3.1.1, `5`: MQTT 5. Packets are the same whatever pieces their bytes come in, no more is kept than one of the largest size, and a
/// message means what it would if it were written anew.
fn connection(input: &[u8]) -> bool {
    let (protocol, bytes) = match input.split_first() {
        Some((b'4', bytes)) => (Protocol::V311, bytes),
        Some((b'5', bytes)) => (Protocol::V5, bytes),
        _ => return false,
    };
    let whole = cut(protocol, bytes, bytes.len().max(1));
    for step in [1, 7] {
        assert_eq!(cut(protocol, bytes, step), whole);
    }
    let (frames, ended) = whole;
    for frame in &frames {
        match frame {
            Frame::TooLarge(id) => assert_ne!(*id, Some(0)),
            Frame::Packet(packet) => holds(protocol, packet),
        }
    }
    ended.is_ok() && !frames.is_empty()
}

fn cut(protocol: Protocol, bytes: &[u8], step: usize) -> (Vec<Frame>, Result<(), Invalid>) {
    let mut frames = Frames::new(protocol, PAYLOAD_MAX);
    let mut came = Vec::new();
    for part in bytes.chunks(step) {
        frames.bytes.extend_from_slice(part);
        loop {
            match frames.next() {
                Ok(Some(frame)) => came.push(frame),
                Ok(None) => break,
                Err(error) => return (came, Err(error)),
            }
        }
        let most = PAYLOAD_MAX + HEAD_MAX + HEADER_LEN_MAX + step;
        assert!(
            frames.bytes.len() <= most,
            "{} bytes are kept",
            frames.bytes.len()
        );
    }
    (came, Ok(()))
}

fn holds(protocol: Protocol, packet: &Packet) {
    match packet {
        Packet::Publish(message) => {
            assert!(!message.topic.is_empty() && !message.topic.contains('\0'));
            assert!(message.id != Some(0));
            assert!(protocol == Protocol::V5 || message.content_type.is_none());
            let (id, content_type) = (message.id.unwrap_or(1), message.content_type.as_deref());
            let written = publish_1(protocol, id, &message.topic, content_type, &message.payload).unwrap();
            let (header, taken) = Header::read(&written).unwrap().unwrap();
            let anew = Packet::Publish(Message {
                id: Some(id),
                retained: false,
                ..message.clone()
            });
            assert!(read(protocol, header, written.split_at(taken).1) == Ok(anew));
        }
        Packet::ConnAck {
            packet_max,
            receive_max,
            ..
        } => {
            assert!(*packet_max != Some(0) && *receive_max != Some(0));
            let told = packet_max.is_some() || receive_max.is_some();
            assert!(protocol == Protocol::V5 || !told);
        }
        Packet::PubAck { id, code } => {
            assert!(*id != 0 && (protocol == Protocol::V5 || *code == 0));
        }
        Packet::SubAck { id, .. } | Packet::UnsubAck { id } => assert_ne!(*id, 0),
        Packet::Disconnect => assert_eq!(protocol, Protocol::V5),
        Packet::PingResp => {}
    }
}
