use super::*;

fn whole(protocol: Protocol, bytes: &[u8]) -> Result<Packet, Invalid> {
    let (header, taken) = Header::read(bytes)?.ok_or(Invalid)?;
    let body = &bytes[taken..];
    if body.len() != header.remaining {
        return Err(Invalid);
    }
    read(protocol, header, body)
}

#[test]
fn a_message_reads_back_as_it_was_written() {
    for protocol in [Protocol::V5, Protocol::V311] {
        for payload in [&b""[..], b"21.5", &[0; 300], &vec![7; 20_000]] {
            let bytes = publish_1(protocol, 7, "plant/7", Some("text/plain"), payload).unwrap();
            let Ok(Packet::Publish(message)) = whole(protocol, &bytes) else {
                panic!("{} bytes", payload.len());
            };
            assert_eq!(
                (message.id, message.topic.as_str(), message.retained),
                (Some(7), "plant/7", false)
            );
            let named = (protocol == Protocol::V5).then(|| "text/plain".to_owned());
            assert!(message.content_type == named && message.payload == payload);
            let (header, taken) = Header::read(&bytes).unwrap().unwrap();
            assert!(header.is_publish());
            assert_eq!(begun(header, &bytes[taken..][..11]), Ok(Some(7)));
        }
    }
}

#[test]
fn what_a_broker_says_is_read() {
    let v5 = |bytes: &[u8]| whole(Protocol::V5, bytes);
    let old = |bytes: &[u8]| whole(Protocol::V311, bytes);
    let welcome = |session, packet_max, receive_max| {
        Ok(Packet::ConnAck {
            session,
            code: 0,
            packet_max,
            receive_max,
        })
    };
    assert_eq!(old(&[0x20, 2, 1, 0]), welcome(true, None, None));
    assert_eq!(
        v5(&[0x20, 11, 0, 0, 8, 0x21, 0, 20, 0x27, 0, 0, 1, 0]),
        welcome(false, Some(256), Some(20))
    );
    assert_eq!(old(&[0x40, 2, 0, 9]), Ok(Packet::PubAck { id: 9, code: 0 }));
    assert_eq!(
        v5(&[0x40, 3, 0, 9, 0x97]),
        Ok(Packet::PubAck { id: 9, code: 0x97 })
    );
    assert_eq!(
        old(&[0x90, 4, 0, 1, 1, 0x80]),
        Ok(Packet::SubAck {
            id: 1,
            codes: vec![1, 0x80]
        })
    );
    assert_eq!(
        v5(&[0x90, 4, 0, 1, 0, 1]),
        Ok(Packet::SubAck {
            id: 1,
            codes: vec![1]
        })
    );
    // What users add may be there as often as they like; ids of subscriptions too.
    let many = [
        0x26, 0, 1, b'a', 0, 1, b'b', 0x26, 0, 0, 0, 0, 0x0b, 1, 0x0b, 0x81, 1,
    ];
    let packet = [&[0x30, 22, 0, 1, b'a', 17][..], &many, b"x"].concat();
    assert!(matches!(v5(&packet), Ok(Packet::Publish(_))));
    assert_eq!(old(&[0xb0, 2, 0, 3]), Ok(Packet::UnsubAck { id: 3 }));
    assert_eq!(v5(&[0xd0, 0]), Ok(Packet::PingResp));
    assert_eq!(v5(&[0xe0, 1, 0x8e]), Ok(Packet::Disconnect));
}

#[test]
fn what_no_broker_may_say_is_refused() {
    for (protocol, bytes) in [
        (Protocol::V311, &[0x20, 2, 2, 0][..]), // flags that do not exist
        (Protocol::V311, &[0x21, 2, 0, 0]),     // flags of the header
        (Protocol::V311, &[0x20, 1, 0]),        // half of it
        (Protocol::V311, &[0x20, 3, 0, 0, 0]),  // and more than it
        (Protocol::V311, &[0x40, 2, 0, 0]),     // a number that is none
        (Protocol::V311, &[0x10, 0]),           // what only clients say
        (Protocol::V311, &[0x82, 2, 0, 1]),
        (Protocol::V311, &[0xe0, 0]), // not in this version
        (Protocol::V5, &[0x00, 0]),
        (Protocol::V5, &[0xf0, 0]),       // authentication nobody asked for
        (Protocol::V5, &[0x50, 2, 0, 1]), // quality 2
        (Protocol::V5, &[0x34, 6, 0, 1, b'a', 0, 1, 0]),
        (Protocol::V5, &[0x36, 6, 0, 1, b'a', 0, 1, 0]), // quality 3
        (Protocol::V5, &[0x30, 3, 0, 0, 0]),             // no topic
        (Protocol::V5, &[0x30, 4, 0, 9, b'a', 0]),       // a topic longer than the packet
        (Protocol::V5, &[0x30, 4, 0, 1, 0, 0]),          // NUL
        (Protocol::V5, &[0x30, 4, 0, 1, 0xff, 0]),       // not UTF-8
        (Protocol::V5, &[0x30, 7, 0, 1, b'a', 3, 0x23, 0, 1]), // an alias
        (Protocol::V5, &[0x30, 5, 0, 1, b'a', 9, 1]),    // properties beyond the end
        (Protocol::V5, &[0x30, 5, 0, 1, b'a', 1, 0x7e]), // a property nobody defined
        (Protocol::V5, &[0x30, 11, 0, 1, b'a', 7, 3, 0, 0, 3, 0, 1, b'x']), // the same twice
        (Protocol::V5, &[0x30, 8, 0, 1, b'a', 4, 1, 0, 1, 0]), // and one that is not used
        (Protocol::V5, &[0x30, 6, 0, 1, b'a', 2, 1, 2]), // a format that does not exist
        (Protocol::V5, &[0x30, 6, 0, 1, b'a', 2, 0x0b, 0]), // a subscription of no number
        (Protocol::V5, &[0x30, 7, 0, 1, b'a', 3, 0x0b, 0x81, 0]), // a number in a longer spelling
        (Protocol::V5, &[0x30, 5, 0, 1, b'a', 0x80, 0]), // and a length
        (Protocol::V5, &[0x30, 9, 0, 1, b'a', 5, 0x11, 0, 0, 0, 1]), // what belongs to a welcome
        (Protocol::V5, &[0x20, 6, 0, 0, 3, 0x21, 0, 0]), // no message at once
        (Protocol::V5, &[0x20, 8, 0, 0, 5, 0x27, 0, 0, 0, 0]), // no packet of any size
        (Protocol::V5, &[0x20, 9, 0, 0, 6, 0x21, 0, 1, 0x21, 0, 1]),
        (Protocol::V5, &[0x20, 6, 0, 0, 3, 0x23, 0, 1]), // an alias in a welcome
        (Protocol::V5, &[0x20, 5, 0, 0, 2, 0x24, 2]),    // quality 2 at most
        (Protocol::V5, &[0x40, 7, 0, 9, 0, 3, 0x21, 0, 1]), // what belongs elsewhere
    ] {
        assert_eq!(whole(protocol, bytes), Err(Invalid), "{bytes:02x?}");
    }
}

#[test]
fn a_length_has_at_most_four_bytes_and_one_spelling() {
    let length =
        |bytes: &[u8]| Header::read(bytes).map(|read| read.map(|(header, taken)| (header.remaining, taken)));
    assert_eq!(length(&[]), Ok(None));
    assert_eq!(length(&[0x30]), Ok(None));
    assert_eq!(length(&[0x30, 0x80]), Ok(None));
    assert_eq!(length(&[0x30, 127]), Ok(Some((127, 2))));
    assert_eq!(length(&[0x30, 0x80, 1]), Ok(Some((128, 3))));
    assert_eq!(
        length(&[0x30, 0xff, 0xff, 0xff, 0x7f]),
        Ok(Some((268_435_455, 5)))
    );
    assert_eq!(length(&[0x30, 0xff, 0xff, 0xff, 0xff]), Err(Invalid));
    assert_eq!(length(&[0x30, 0x80, 0x80, 0x80, 0x80, 1]), Err(Invalid));
    assert_eq!(length(&[0x30, 0x80, 0]), Err(Invalid));
}

#[test]
fn no_bytes_at_all_make_the_reader_panic() {
    // Every packet cut anywhere, and with every single byte changed.
    let mut seeds = vec![
        vec![0x20, 11, 0, 0, 8, 0x21, 0, 20, 0x27, 0, 0, 1, 0],
        vec![0x90, 4, 0, 1, 0, 1],
        vec![0x40, 4, 0, 9, 0x97, 0],
        vec![0xe0, 2, 0x8e, 0],
    ];
    seeds.extend(publish_1(Protocol::V5, 7, "plant/7", Some("text/plain"), b"21.5"));
    let mut read_well = 0;
    for seed in seeds {
        for protocol in [Protocol::V5, Protocol::V311] {
            for at in 0..seed.len() {
                read_well += u32::from(whole(protocol, &seed[..at]).is_ok());
                for byte in 0..=255 {
                    let mut changed = seed.clone();
                    changed[at] = byte;
                    read_well += u32::from(whole(protocol, &changed).is_ok());
                    if let Ok(Some((header, taken))) = Header::read(&changed) {
                        let _ = begun(header, &changed[taken..]);
                    }
                }
            }
        }
    }
    assert!(read_well > 0);
}

#[test]
fn what_does_not_fit_its_length_is_not_written() {
    let long = "x".repeat(65_536);
    assert_eq!(publish_1(Protocol::V5, 1, &long, None, b""), None);
    assert_eq!(subscribe(Protocol::V311, 1, &[long]), None);
    let hello = Connect {
        client: "press-7",
        credentials: Some(("u", b"p")),
        keep_alive: 30,
        receive_max: 16,
        packet_max: 9,
        session: 60,
    };
    assert_eq!(
        connect(Protocol::V311, &hello).unwrap(),
        b"\x10\x19\x00\x04MQTT\x04\xc0\x00\x1e\x00\x07press-7\x00\x01u\x00\x01p"
    );
    assert_eq!(
        connect(Protocol::V5, &hello).unwrap(),
        b"\x10\x27\x00\x04MQTT\x05\xc0\x00\x1e\x0d\x11\0\0\0\x3c\x21\x00\x10\x27\0\0\0\x09\x00\x07press-7\x00\x01u\x00\x01p"
    );
}
