//! A scripted broker of messages, as the far end of the broker process's sockets. MQTT 3.1.1, quality of service 1.

use crate::device::PATIENCE;
use crate::far_end::FarEnd;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;

pub(crate) struct Plant {
    listener: TcpListener,
    stream: Option<TcpStream>,
    next: u16,
}

impl Plant {
    /// A plant, and a broker process that dials it when messages are asked for.
    pub(crate) fn start() -> (Self, (FarEnd, OwnedFd)) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let far_end = FarEnd::answering(move |question| {
            assert!(question.messages, "only messages are asked for here");
            Ok(address)
        });
        let plant = Self {
            listener,
            stream: None,
            next: 0,
        };
        (plant, far_end)
    }

    /// The next connection, up to where messages may be sent.
    pub(crate) fn welcome(&mut self) {
        let (stream, _) = self.listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        self.stream = Some(stream);
        assert_eq!(self.packet()[0], 0x10);
        self.write(&[0x20, 2, 0, 0]);
        let subscribe = self.packet();
        assert_eq!(subscribe[0], 0x82);
        self.write(&[0x90, 3, subscribe[2], subscribe[3], 1]);
    }

    /// The next connection of a client that leaves a subscription before it has the others; the filters of both.
    pub(crate) fn welcome_one_that_leaves(&mut self) -> [String; 2] {
        let (stream, _) = self.listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        self.stream = Some(stream);
        assert_eq!(self.packet()[0], 0x10);
        // The session goes on, and the broker still knows what was subscribed to.
        self.write(&[0x20, 2, 1, 0]);
        let leave = self.packet();
        assert_eq!(leave[0], 0xa2);
        self.write(&[0xb0, 2, leave[2], leave[3]]);
        let subscribe = self.packet();
        assert_eq!(subscribe[0], 0x82);
        self.write(&[0x90, 3, subscribe[2], subscribe[3], 1]);
        let filter = |packet: &[u8]| {
            let length = usize::from(u16::from_be_bytes([packet[4], packet[5]]));
            String::from_utf8(packet[6..6 + length].to_vec()).unwrap()
        };
        [filter(&leave), filter(&subscribe)]
    }

    /// Until the client's connection has ended.
    pub(crate) fn ends(&mut self) {
        let mut rest = Vec::new();
        // Closed with something unread it is reset; either way nothing came.
        let ended = self.stream().read_to_end(&mut rest);
        assert!(
            ended.is_ok() || ended.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
        );
        assert_eq!(rest, b"");
    }

    fn stream(&mut self) -> &mut TcpStream {
        self.stream.as_mut().unwrap()
    }

    fn write(&mut self, bytes: &[u8]) {
        self.stream().write_all(bytes).unwrap();
    }

    /// The next packet of the client, whole; shorter than 16 KiB.
    pub(crate) fn packet(&mut self) -> Vec<u8> {
        let mut packet = vec![0; 2];
        self.stream().read_exact(&mut packet).unwrap();
        let mut length = usize::from(packet[1] & 0x7f);
        if packet[1] & 0x80 != 0 {
            let mut more = [0];
            self.stream().read_exact(&mut more).unwrap();
            length |= usize::from(more[0]) << 7;
        }
        let mut body = vec![0; length];
        self.stream().read_exact(&mut body).unwrap();
        packet.truncate(1);
        packet.push(0);
        packet.extend(body);
        packet
    }

    /// Sends a message of quality of service 1; its number.
    pub(crate) fn send(&mut self, topic: &str, payload: &[u8]) -> u16 {
        self.next += 1;
        let mut body = u16::try_from(topic.len()).unwrap().to_be_bytes().to_vec();
        body.extend(topic.as_bytes());
        body.extend(self.next.to_be_bytes());
        body.extend(payload);
        let mut packet = vec![0x32];
        let mut length = body.len();
        loop {
            let low = u8::try_from(length & 0x7f).unwrap();
            length >>= 7;
            packet.push(if length > 0 { low | 0x80 } else { low });
            if length == 0 {
                break;
            }
        }
        packet.extend(body);
        self.write(&packet);
        self.next
    }

    /// The next packet is the acknowledgement of this message.
    pub(crate) fn acknowledged(&mut self, id: u16) {
        let [high, low] = id.to_be_bytes();
        assert_eq!(self.packet(), [0x40, 0, high, low]);
    }

    /// Acknowledges a message of the client by its number.
    pub(crate) fn acknowledge(&mut self, [high, low]: [u8; 2]) {
        self.write(&[0x40, 2, high, low]);
    }

    /// Sends a message and waits for its acknowledgement.
    pub(crate) fn settle(&mut self, topic: &str, payload: &[u8]) {
        let id = self.send(topic, payload);
        self.acknowledged(id);
    }

    /// The next packet is a message of the client: topic and payload. It is acknowledged.
    pub(crate) fn published(&mut self) -> (String, Vec<u8>) {
        let packet = self.packet();
        assert_eq!(packet[0], 0x32, "{packet:?}");
        let length = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
        let (topic, rest) = packet[4..].split_at(length);
        self.acknowledge([rest[0], rest[1]]);
        (String::from_utf8(topic.to_vec()).unwrap(), rest[2..].to_vec())
    }

    /// The connection ends.
    pub(crate) fn hang_up(&mut self) {
        self.stream = None;
    }
}
