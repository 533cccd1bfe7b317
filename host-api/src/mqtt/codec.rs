//! MQTT 5.0 and 3.1.1 on the wire, as far as a client of quality of service 0 and 1 needs it. No I/O.
//!
//! What a broker sends is read strictly and without trust: every length is checked against what is there, nothing is reserved
//! for what was only announced, and what a client is never sent is an error (MQTT 5.0 §4.13).

use redan_policy::grant::Protocol;

/// A broker said what is not MQTT, or not what it may say to us. Which of the two does not matter to anybody but its owner.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not what a broker may say")]
pub struct Invalid;

/// Longest fixed header, bytes: the type, and four bytes of length (§2.1.4).
pub const HEADER_LEN_MAX: usize = 5;

const CONNACK: u8 = 2;
const PUBLISH: u8 = 3;
const PUBACK: u8 = 4;
const SUBACK: u8 = 9;
const UNSUBACK: u8 = 11;
const PINGRESP: u8 = 13;
const DISCONNECT: u8 = 14;

/// The beginning of a packet: its first byte and how much follows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Header {
    first: u8,
    /// Bytes that follow.
    pub remaining: usize,
}

impl Header {
    /// Reads it from the bytes so far: `None` wants more. With it, how many bytes it took.
    pub fn read(bytes: &[u8]) -> Result<Option<(Self, usize)>, Invalid> {
        let Some((first, rest)) = bytes.split_first() else {
            return Ok(None);
        };
        let mut remaining = 0_usize;
        for (at, byte) in rest.iter().take(4).enumerate() {
            let shift = u32::try_from(at).map_err(|_| Invalid)?.saturating_mul(7);
            remaining |= usize::from(byte & 0x7f).wrapping_shl(shift);
            if byte & 0x80 == 0 {
                // The shortest spelling only (§1.5.5).
                if at > 0 && *byte == 0 {
                    return Err(Invalid);
                }
                let header = Self {
                    first: *first,
                    remaining,
                };
                return Ok(Some((header, at.saturating_add(2))));
            }
        }
        if rest.len() >= 4 { Err(Invalid) } else { Ok(None) }
    }

    /// Whether it is a message, of which more is taken than of anything else.
    pub fn is_publish(self) -> bool {
        self.first >> 4 == PUBLISH
    }
}

/// What a broker may say.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Packet {
    /// The answer to the connection.
    ConnAck {
        /// Whether the broker kept the session.
        session: bool,
        /// Zero is yes.
        code: u8,
        /// Largest packet it takes.
        packet_max: Option<u32>,
        /// Unacknowledged messages it takes at once.
        receive_max: Option<u16>,
    },
    /// A message.
    Publish(Message),
    /// It has a message of ours.
    PubAck {
        /// Which.
        id: u16,
        /// 0x80 and above: it does not want it.
        code: u8,
    },
    /// It took subscriptions, or not.
    SubAck {
        /// Which.
        id: u16,
        /// One each; 0x80 and above is no.
        codes: Vec<u8>,
    },
    /// It ended subscriptions.
    UnsubAck {
        /// Which.
        id: u16,
    },
    /// It is there.
    PingResp,
    /// It ends the connection (MQTT 5 only).
    Disconnect,
}

/// A message as a broker delivers it. No `Debug` of content: see [`crate::Payload`].
#[derive(Clone, Eq, PartialEq)]
pub struct Message {
    /// Number of a message of quality of service 1.
    pub id: Option<u16>,
    /// Kept for those who subscribe later.
    pub retained: bool,
    /// Where it was published, as it was sent: not held against any grammar yet.
    pub topic: String,
    /// Content type (MQTT 5 only).
    pub content_type: Option<String>,
    /// The bytes.
    pub payload: Vec<u8>,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Message")
    }
}

/// Reads the body of a packet.
pub fn read(protocol: Protocol, header: Header, body: &[u8]) -> Result<Packet, Invalid> {
    let v5 = protocol == Protocol::V5;
    let mut rest = Reader(body);
    let (kind, flags) = (header.first >> 4, header.first & 0x0f);
    if kind != PUBLISH && flags != 0 {
        return Err(Invalid);
    }
    let packet = match kind {
        CONNACK => {
            let (flags, code) = (rest.byte()?, rest.byte()?);
            if flags > 1 {
                return Err(Invalid);
            }
            let properties = if v5 {
                rest.properties(OF_CONNACK)?
            } else {
                Properties::default()
            };
            Packet::ConnAck {
                session: flags == 1,
                code,
                packet_max: properties.packet_max,
                receive_max: properties.receive_max,
            }
        }
        PUBLISH => return publish(v5, flags, rest),
        PUBACK => {
            let id = rest.id()?;
            let code = if v5 && !rest.0.is_empty() { rest.byte()? } else { 0 };
            if v5 && !rest.0.is_empty() {
                rest.properties(OF_ACK)?;
            }
            Packet::PubAck { id, code }
        }
        SUBACK | UNSUBACK => {
            let id = rest.id()?;
            if v5 {
                rest.properties(OF_ACK)?;
            }
            let codes = std::mem::take(&mut rest.0).to_vec();
            if kind == SUBACK {
                Packet::SubAck { id, codes }
            } else {
                Packet::UnsubAck { id }
            }
        }
        PINGRESP => Packet::PingResp,
        DISCONNECT if v5 => {
            rest.0 = &[];
            Packet::Disconnect
        }
        _ => return Err(Invalid),
    };
    if rest.0.is_empty() {
        Ok(packet)
    } else {
        Err(Invalid)
    }
}

fn publish(v5: bool, flags: u8, mut rest: Reader<'_>) -> Result<Packet, Invalid> {
    let (quality, retained) = ((flags >> 1) & 3, flags & 1 == 1);
    // We subscribe to quality 1 at most, so 2 is never sent (§3.8.4); 3 does not exist (§3.3.1.2).
    if quality > 1 {
        return Err(Invalid);
    }
    let topic = rest.text()?;
    let id = if quality == 1 { Some(rest.id()?) } else { None };
    let properties = if v5 {
        rest.properties(OF_PUBLISH)?
    } else {
        Properties::default()
    };
    if topic.is_empty() {
        return Err(Invalid);
    }
    Ok(Packet::Publish(Message {
        id,
        retained,
        topic,
        content_type: properties.content_type,
        payload: rest.0.to_vec(),
    }))
}

/// The number of a message of which only the beginning was read, when it has one: it is acknowledged without being taken.
pub fn begun(header: Header, beginning: &[u8]) -> Result<Option<u16>, Invalid> {
    let mut rest = Reader(beginning);
    rest.bytes()?;
    match (header.first >> 1) & 3 {
        0 => Ok(None),
        1 => rest.id().map(Some),
        _ => Err(Invalid),
    }
}

#[derive(Default)]
struct Properties {
    packet_max: Option<u32>,
    receive_max: Option<u16>,
    content_type: Option<String>,
}

/// Properties of a welcome (§3.2.2.3).
const OF_CONNACK: &[u8] = &[
    0x11, 0x12, 0x13, 0x15, 0x16, 0x1a, 0x1c, 0x1f, 0x21, 0x22, 0x24, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2a,
];
/// Properties of a message (§3.3.2.3), but for a topic's alias: we admit none (§3.1.2.11.5), so a topic is always there.
const OF_PUBLISH: &[u8] = &[0x01, 0x02, 0x03, 0x08, 0x09, 0x0b, 0x26];
/// Properties of an acknowledgement (§3.4.2.2, §3.9.2.1, §3.11.2.1): a reason in words, and what users add.
const OF_ACK: &[u8] = &[0x1f, 0x26];
/// Properties that may be there more than once: what users add, and of a message the ids of its subscriptions.
const MANY: [u8; 2] = [0x26, 0x0b];

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Invalid> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Invalid)?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Invalid> {
        let (byte, rest) = self.0.split_first().ok_or(Invalid)?;
        self.0 = rest;
        Ok(*byte)
    }

    fn short(&mut self) -> Result<u16, Invalid> {
        Ok(u16::from_be_bytes([self.byte()?, self.byte()?]))
    }

    fn long(&mut self) -> Result<u32, Invalid> {
        Ok((u32::from(self.short()?) << 16) | u32::from(self.short()?))
    }

    /// A packet's number is never zero (§2.2.1).
    fn id(&mut self) -> Result<u16, Invalid> {
        self.short()
            .and_then(|id| if id == 0 { Err(Invalid) } else { Ok(id) })
    }

    fn bytes(&mut self) -> Result<&'a [u8], Invalid> {
        let length = self.short()?;
        self.take(usize::from(length))
    }

    fn text(&mut self) -> Result<String, Invalid> {
        let text = std::str::from_utf8(self.bytes()?).map_err(|_| Invalid)?;
        // No NUL (§1.5.4).
        if text.contains('\0') {
            Err(Invalid)
        } else {
            Ok(text.to_owned())
        }
    }

    fn number(&mut self) -> Result<usize, Invalid> {
        let mut number = 0_usize;
        for shift in [0_u32, 7, 14, 21] {
            let byte = self.byte()?;
            number |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                // The shortest spelling only (§1.5.5).
                return if shift > 0 && byte == 0 {
                    Err(Invalid)
                } else {
                    Ok(number)
                };
            }
        }
        Err(Invalid)
    }

    /// §2.2.2. What a client does not use is read over, by its type; what is not one `of` this packet's, or there twice, is an error.
    fn properties(&mut self, of: &[u8]) -> Result<Properties, Invalid> {
        let length = self.number()?;
        let mut rest = Reader(self.take(length)?);
        let mut found = Properties::default();
        let mut seen = Vec::new();
        while !rest.0.is_empty() {
            // All that are defined are below 0x80: one byte.
            let property = rest.byte()?;
            if !of.contains(&property) || seen.contains(&property) {
                return Err(Invalid);
            }
            if !MANY.contains(&property) {
                seen.push(property);
            }
            match property {
                // Content type.
                0x03 => found.content_type = Some(rest.text()?),
                // Receive maximum, maximum packet size: not zero.
                0x21 => found.receive_max = Some(rest.id()?),
                0x27 => {
                    found.packet_max = Some(
                        rest.long()
                            .and_then(|n| if n == 0 { Err(Invalid) } else { Ok(n) })?,
                    );
                }
                // Yes or no (§3.2.2.3.4 and on, §3.3.2.3.2): format, quality, retain, wildcards, subscription ids, shared ones.
                0x01 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2a => {
                    if rest.byte()? > 1 {
                        return Err(Invalid);
                    }
                }
                // Two: keep alive, topic alias maximum.
                0x13 | 0x22 => {
                    rest.short()?;
                }
                // Four: expiry of message and session.
                0x02 | 0x11 => {
                    rest.long()?;
                }
                // A number: the subscription's id, not zero (§3.3.2.3.8).
                0x0b => {
                    if rest.number()? == 0 {
                        return Err(Invalid);
                    }
                }
                // Text or bytes: response topic, correlation, client id, authentication, response, server, reason.
                0x08 | 0x09 | 0x12 | 0x15 | 0x16 | 0x1a | 0x1c | 0x1f => {
                    rest.bytes()?;
                }
                // Two texts: what users add.
                0x26 => {
                    rest.bytes()?;
                    rest.bytes()?;
                }
                _ => return Err(Invalid),
            }
        }
        Ok(found)
    }
}

/// What a client says first.
pub struct Connect<'a> {
    /// Its name at the broker, under which its session is kept.
    pub client: &'a str,
    /// User name and password.
    pub credentials: Option<(&'a str, &'a [u8])>,
    /// Silence after which the broker takes it for gone, seconds.
    pub keep_alive: u16,
    /// Messages of quality 1 it takes at once (MQTT 5 only).
    pub receive_max: u16,
    /// Largest packet it takes (MQTT 5 only).
    pub packet_max: u32,
    /// How long the session is kept without it, seconds (MQTT 5; for ever with 3.1.1).
    pub session: u32,
}

/// `CONNECT` (§3.1): the session goes on.
pub fn connect(protocol: Protocol, connect: &Connect<'_>) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    put(&mut body, b"MQTT")?;
    body.push(if protocol == Protocol::V5 { 5 } else { 4 });
    body.push(if connect.credentials.is_some() { 0xc0 } else { 0 });
    body.extend(connect.keep_alive.to_be_bytes());
    if protocol == Protocol::V5 {
        let mut properties = vec![0x11];
        properties.extend(connect.session.to_be_bytes());
        properties.push(0x21);
        properties.extend(connect.receive_max.to_be_bytes());
        properties.push(0x27);
        properties.extend(connect.packet_max.to_be_bytes());
        number(&mut body, properties.len())?;
        body.extend(properties);
    }
    put(&mut body, connect.client.as_bytes())?;
    if let Some((user, password)) = connect.credentials {
        put(&mut body, user.as_bytes())?;
        put(&mut body, password)?;
    }
    packet(0x10, &body)
}

/// `SUBSCRIBE` (§3.8) to quality 1; what is kept for later subscribers comes for a new subscription only (MQTT 5).
pub fn subscribe(protocol: Protocol, id: u16, filters: &[String]) -> Option<Vec<u8>> {
    let (mut body, v5) = (id.to_be_bytes().to_vec(), protocol == Protocol::V5);
    if v5 {
        body.push(0);
    }
    for filter in filters {
        put(&mut body, filter.as_bytes())?;
        body.push(if v5 { 0x11 } else { 1 });
    }
    packet(0x82, &body)
}

/// `UNSUBSCRIBE` (§3.10).
pub fn unsubscribe(protocol: Protocol, id: u16, filters: &[String]) -> Option<Vec<u8>> {
    let mut body = id.to_be_bytes().to_vec();
    if protocol == Protocol::V5 {
        body.push(0);
    }
    for filter in filters {
        put(&mut body, filter.as_bytes())?;
    }
    packet(0xa2, &body)
}

/// `PUBLISH` (§3.3) of quality 1.
pub fn publish_1(
    protocol: Protocol,
    id: u16,
    topic: &str,
    content_type: Option<&str>,
    payload: &[u8],
) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    put(&mut body, topic.as_bytes())?;
    body.extend(id.to_be_bytes());
    if protocol == Protocol::V5 {
        let mut properties = Vec::new();
        if let Some(content_type) = content_type {
            properties.push(0x03);
            put(&mut properties, content_type.as_bytes())?;
        }
        number(&mut body, properties.len())?;
        body.extend(properties);
    }
    body.extend(payload);
    packet(0x32, &body)
}

/// `PUBACK` (§3.4).
pub fn puback(id: u16) -> [u8; 4] {
    let [high, low] = id.to_be_bytes();
    [0x40, 2, high, low]
}

/// `PINGREQ` (§3.12).
pub const PINGREQ: [u8; 2] = [0xc0, 0];
/// `DISCONNECT` (§3.14), short enough to be the same in both versions.
pub const DISCONNECT_WELL: [u8; 2] = [0xe0, 0];

fn put(to: &mut Vec<u8>, bytes: &[u8]) -> Option<()> {
    to.extend(u16::try_from(bytes.len()).ok()?.to_be_bytes());
    to.extend(bytes);
    Some(())
}

fn number(to: &mut Vec<u8>, mut number: usize) -> Option<()> {
    for _ in 0..4 {
        let low = u8::try_from(number & 0x7f).ok()?;
        number >>= 7;
        if number == 0 {
            to.push(low);
            return Some(());
        }
        to.push(low | 0x80);
    }
    None
}

fn packet(first: u8, body: &[u8]) -> Option<Vec<u8>> {
    let mut packet = Vec::with_capacity(body.len().saturating_add(HEADER_LEN_MAX));
    packet.push(first);
    number(&mut packet, body.len())?;
    packet.extend(body);
    Some(packet)
}

#[cfg(test)]
mod tests;
