//! Bytes of a broker, cut into packets. What is too large is read over without being kept.

use super::codec::{HEADER_LEN_MAX, Header, Invalid, Packet, begun, read};
use bytes::{Buf as _, BytesMut};
use redan_policy::grant::Protocol;

/// Topic, number and properties of a message, beside its payload, bytes: as long as MQTT's longest text, and room.
pub const HEAD_MAX: usize = 68 * 1024;

/// What came.
#[derive(Debug, Eq, PartialEq)]
pub enum Frame {
    /// A whole packet.
    Packet(Packet),
    /// A message over the limit; its number, if it wants to be acknowledged.
    TooLarge(Option<u16>),
}

/// Bytes that came and are not cut yet: at most one packet of the largest size, and one read.
pub struct Frames {
    /// What came and is not cut yet.
    pub bytes: BytesMut,
    protocol: Protocol,
    largest: usize,
    skip: usize,
}

impl Frames {
    /// `largest`: payload of a message.
    pub fn new(protocol: Protocol, largest: usize) -> Self {
        Self {
            bytes: BytesMut::new(),
            protocol,
            largest: largest.saturating_add(HEAD_MAX),
            skip: 0,
        }
    }

    /// The next packet, if it is there whole.
    #[expect(
        clippy::should_implement_trait,
        reason = "it has more when more has come: no iterator"
    )]
    pub fn next(&mut self) -> Result<Option<Frame>, Invalid> {
        let over = self.skip.min(self.bytes.len());
        self.bytes.advance(over);
        self.skip = self.skip.saturating_sub(over);
        if self.skip > 0 {
            return Ok(None);
        }
        let Some((header, taken)) = Header::read(&self.bytes)? else {
            return Ok(None);
        };
        let behind = self.bytes.get(taken..).unwrap_or_default();
        if header.remaining > self.largest {
            // Only a message may be so large (§3.1.2.11.4), and its topic is read to acknowledge it.
            if !header.is_publish() {
                return Err(Invalid);
            }
            let wanted = match behind {
                [high, low, ..] => usize::from(u16::from_be_bytes([*high, *low])).saturating_add(4),
                _ => return Ok(None),
            };
            let Some(beginning) = behind.get(..wanted) else {
                return Ok(None);
            };
            let id = begun(header, beginning)?;
            self.bytes.advance(taken);
            self.skip = header.remaining;
            return Ok(Some(Frame::TooLarge(id)));
        }
        let Some(body) = behind.get(..header.remaining) else {
            return Ok(None);
        };
        let packet = read(self.protocol, header, body)?;
        self.bytes.advance(taken.saturating_add(header.remaining));
        Ok(Some(Frame::Packet(packet)))
    }

    /// The largest packet that is taken, as a broker is told.
    pub(super) fn packet_max(&self) -> u32 {
        u32::try_from(self.largest.saturating_add(HEADER_LEN_MAX)).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::codec::publish_1;

    #[test]
    fn packets_are_whole_however_the_bytes_come() {
        let mut bytes = publish_1(Protocol::V5, 3, "plant/7", None, b"21.5").unwrap();
        bytes.extend([0xd0, 0]);
        for step in 1..bytes.len() {
            let mut frames = Frames::new(Protocol::V5, 100);
            let mut came = vec![];
            for part in bytes.chunks(step) {
                frames.bytes.extend_from_slice(part);
                while let Some(frame) = frames.next().unwrap() {
                    came.push(frame);
                }
            }
            assert_eq!(came.len(), 2, "in steps of {step}");
            assert_eq!(came[1], Frame::Packet(Packet::PingResp));
        }
    }

    #[test]
    fn a_message_over_the_limit_is_read_over_and_never_kept() {
        let large = publish_1(Protocol::V5, 9, "plant/7", None, &vec![7; HEAD_MAX * 3]).unwrap();
        let mut frames = Frames::new(Protocol::V5, 1000);
        let (mut came, mut most) = (vec![], 0);
        for part in large.chunks(4096).chain([&[0xd0, 0][..]]) {
            frames.bytes.extend_from_slice(part);
            while let Some(frame) = frames.next().unwrap() {
                came.push(frame);
            }
            most = most.max(frames.bytes.len());
        }
        assert_eq!(came, [Frame::TooLarge(Some(9)), Frame::Packet(Packet::PingResp)]);
        assert!(most <= 4096, "{most} bytes were kept");
    }

    #[test]
    fn anything_else_over_the_limit_is_refused_unread() {
        let mut frames = Frames::new(Protocol::V5, 0);
        // 256 MiB of acknowledgement.
        frames.bytes.extend_from_slice(&[0x90, 0xff, 0xff, 0xff, 0x7f]);
        assert_eq!(frames.next(), Err(Invalid));
        let mut frames = Frames::new(Protocol::V5, 0);
        frames.bytes.extend_from_slice(&[0x30, 0xff, 0xff, 0xff, 0x7f]);
        assert_eq!(
            frames.next(),
            Ok(None),
            "a message of that size is waited for, and cut"
        );
    }
}
