//! A scripted broker on loopback: what it says is bytes, written down here.

use super::*;
use crate::egress::tls_of;
use crate::mqtt::codec::publish_1;
use futures_util::FutureExt as _;
use redan_policy::grant::Protocol;
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Dials the scripted broker, whatever is asked.
struct Line(std::net::SocketAddr);

impl Dial for Line {
    fn dial(&self, _: &ComponentName, _: bool, _: &str, _: u16) -> BoxFuture<'static, Result<OwnedFd, Code>> {
        async { Err(Code::EgressDenied) }.boxed()
    }

    fn dial_broker(&self, _: &ComponentName, _: &str, _: u16) -> BoxFuture<'static, Result<OwnedFd, Code>> {
        let address = self.0;
        async move {
            let socket = std::net::TcpStream::connect(address).map_err(|_| Code::EgressUnreachable)?;
            Ok(socket.into())
        }
        .boxed()
    }
}

/// Takes messages, and settles them as it is let.
#[derive(Clone)]
struct Taker {
    taken: mpsc::UnboundedSender<Vec<u8>>,
    notes: mpsc::UnboundedSender<Code>,
    held: Arc<Mutex<VecDeque<Arc<Semaphore>>>>,
}

impl Receive for Taker {
    fn receive(&self, message: Message) -> BoxFuture<'static, ()> {
        let gate = self.held.lock().unwrap().pop_front();
        self.taken.send(message.payload).unwrap();
        async move {
            if let Some(gate) = gate {
                gate.acquire().await.unwrap().forget();
            }
        }
        .boxed()
    }

    fn note(&self, code: Code) {
        // Nobody may listen any more.
        let _ = self.notes.send(code);
    }
}

struct Plant {
    listener: TcpListener,
    bus: Bus,
    taken: mpsc::UnboundedReceiver<Vec<u8>>,
    notes: mpsc::UnboundedReceiver<Code>,
}

async fn plant(protocol: Protocol, gates: &[Arc<Semaphore>]) -> Plant {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    start(settings(&listener, protocol), listener, gates)
}

/// What it takes to speak to the broker behind a listener.
fn settings(listener: &TcpListener, protocol: Protocol) -> Settings {
    let address = listener.local_addr().unwrap();
    Settings {
        component: "acme/alarm".parse().unwrap(),
        broker: Broker {
            label: "plant".into(),
            host: "127.0.0.1".into(),
            port: address.port(),
            tls: false,
            roots: None,
            credentials: None,
            client_id: None,
            protocol,
        },
        access: Access {
            client: "press-7".into(),
            credentials: None,
            tls: tls_of(b"").unwrap(),
        },
        subscribe: vec!["plant/#".into()],
        leave: vec![],
        window: 4,
        payload_max: 1000,
        patience: Duration::from_mins(2),
    }
}

fn start(settings: Settings, listener: TcpListener, gates: &[Arc<Semaphore>]) -> Plant {
    let (taken_in, taken) = mpsc::unbounded_channel();
    let (notes_in, notes) = mpsc::unbounded_channel();
    let receive = Taker {
        taken: taken_in,
        notes: notes_in,
        held: Arc::new(Mutex::new(gates.iter().cloned().collect())),
    };
    let dial = Arc::new(Line(listener.local_addr().unwrap()));
    let bus = Bus::start(settings, dial, Arc::new(receive));
    Plant {
        listener,
        bus,
        taken,
        notes,
    }
}

impl Plant {
    /// The next connection, up to where the client waits for messages.
    async fn welcome(&self, session: bool) -> TcpStream {
        let (mut stream, hello) = self.hello().await;
        assert_eq!(hello & 2, 0, "the session goes on");
        stream.write_all(&[0x20, 2, u8::from(session), 0]).await.unwrap();
        if !session {
            let subscribe = packet(&mut stream).await;
            assert_eq!(subscribe[0], 0x82);
            stream.write_all(&[0x90, 3, 0, 1, 1]).await.unwrap();
        }
        stream
    }

    /// The next connection and the flags of its first packet.
    async fn hello(&self) -> (TcpStream, u8) {
        let (mut stream, _) = self.listener.accept().await.unwrap();
        let hello = packet(&mut stream).await;
        assert_eq!(hello[..6], *b"\x10\x13\x00\x04MQ");
        (stream, hello[9])
    }
}

/// A whole short packet of the client.
async fn packet(stream: &mut TcpStream) -> Vec<u8> {
    let mut head = [0; 2];
    stream.read_exact(&mut head).await.unwrap();
    assert!(head[1] < 128);
    let mut body = vec![0; usize::from(head[1])];
    stream.read_exact(&mut body).await.unwrap();
    [head.to_vec(), body].concat()
}

fn message(id: u16, payload: &[u8]) -> Vec<u8> {
    publish_1(Protocol::V311, id, "plant/7", None, payload).unwrap()
}

fn gate(open: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(open))
}

#[tokio::test]
async fn a_message_is_acknowledged_when_it_is_settled_and_in_its_turn() {
    let (first, second) = (gate(0), gate(1));
    let mut plant = plant(Protocol::V311, &[Arc::clone(&first), second]).await;
    let mut stream = plant.welcome(false).await;
    stream.write_all(&message(7, b"one")).await.unwrap();
    stream.write_all(&message(8, b"two")).await.unwrap();
    assert_eq!(plant.taken.recv().await.unwrap(), b"one");
    assert_eq!(plant.taken.recv().await.unwrap(), b"two");
    // The second is settled; but the first came first.
    tokio::task::yield_now().await;
    let early = stream.try_read(&mut [0; 8]);
    assert_eq!(early.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    first.add_permits(1);
    assert_eq!(packet(&mut stream).await, [0x40, 2, 0, 7]);
    assert_eq!(packet(&mut stream).await, [0x40, 2, 0, 8]);
}

#[tokio::test]
async fn what_was_not_acknowledged_comes_again_on_the_next_connection() {
    let mut plant = plant(Protocol::V311, &[gate(0)]).await;
    let mut stream = plant.welcome(false).await;
    stream.write_all(&message(7, b"one")).await.unwrap();
    assert_eq!(plant.taken.recv().await.unwrap(), b"one");
    // Sent again on the same connection it is being handled still, and not handed over twice.
    stream.write_all(&message(7, b"one")).await.unwrap();
    stream.write_all(&message(8, b"two")).await.unwrap();
    assert_eq!(plant.taken.recv().await.unwrap(), b"two");
    drop(stream);
    // The broker kept the session: nothing is subscribed to again, and what was kept for later subscribers does not come twice.
    let mut stream = plant.welcome(true).await;
    stream.write_all(&message(7, b"one")).await.unwrap();
    assert_eq!(plant.taken.recv().await.unwrap(), b"one");
    assert_eq!(packet(&mut stream).await, [0x40, 2, 0, 7]);
}

#[tokio::test]
async fn a_broker_that_forgot_the_session_is_subscribed_to_again() {
    let plant = plant(Protocol::V311, &[]).await;
    drop(plant.welcome(false).await);
    drop(plant.welcome(false).await);
}

#[tokio::test]
async fn a_broker_that_lies_costs_a_connection_and_no_more() {
    let lies: [(&str, &[u8]); 7] = [
        ("a second welcome", &[0x20, 2, 0, 0]),
        ("what only clients say", &[0x82, 5, 0, 1, 0, 0, 1]),
        ("a packet of no type", &[0x00, 0]),
        ("quality of service 2", &[0x34, 5, 0, 1, b'a', 0, 1]),
        ("256 MiB of acknowledgement", &[0x90, 0xff, 0xff, 0xff, 0x7f]),
        ("a length without an end", &[0x30, 0xff, 0xff, 0xff, 0xff]),
        ("a topic beyond its packet", &[0x30, 3, 0xff, 0xff, b'a']),
    ];
    for (lie, bytes) in lies {
        let mut plant = plant(Protocol::V311, &[]).await;
        let mut stream = plant.welcome(false).await;
        stream.write_all(bytes).await.unwrap();
        assert_eq!(plant.notes.recv().await, Some(Code::BrokerInvalid), "{lie}");
        let mut stream = plant.welcome(true).await;
        stream.write_all(&message(7, b"one")).await.unwrap();
        assert_eq!(plant.taken.recv().await.unwrap(), b"one", "{lie}");
    }
}

#[tokio::test]
async fn a_broker_that_says_no_is_tried_again() {
    let mut plant = plant(Protocol::V311, &[]).await;
    let (mut stream, _) = plant.hello().await;
    stream.write_all(&[0x20, 2, 0, 5]).await.unwrap();
    assert_eq!(plant.notes.recv().await, Some(Code::BrokerRefused));
    let (mut stream, _) = plant.hello().await;
    stream.write_all(&[0x20, 2, 0, 0]).await.unwrap();
    assert_eq!(packet(&mut stream).await[0], 0x82);
    stream.write_all(&[0x90, 3, 0, 1, 0x80]).await.unwrap();
    assert_eq!(
        plant.notes.recv().await,
        Some(Code::BrokerRefused),
        "the subscription"
    );
}

#[tokio::test]
async fn a_flood_waits_in_the_kernel() {
    let gates: Vec<_> = std::iter::repeat_with(|| gate(0)).take(4).collect();
    let mut plant = plant(Protocol::V311, &gates).await;
    let mut stream = plant.welcome(false).await;
    // Quality of service 0: nothing in the protocol bounds it.
    let flood = [&[0x31_u8, 14, 0, 5][..], b"plant", b"payload"]
        .concat()
        .repeat(500);
    stream.write_all(&flood).await.unwrap();
    for _ in 0..4 {
        plant.taken.recv().await.unwrap();
    }
    // As much as the kernel takes; it is not read.
    let mut written = flood.len();
    while let Ok(more) = stream.try_write(&flood) {
        written += more;
        tokio::task::yield_now().await;
        assert!(
            written <= 64 << 20,
            "64 MiB were read, or buffered, without an end"
        );
    }
    assert!(plant.taken.try_recv().is_err(), "four at once, and no more");
    gates[0].add_permits(1);
    assert_eq!(plant.taken.recv().await.unwrap(), b"payload");
}

#[tokio::test]
async fn a_message_over_the_limit_is_acknowledged_counted_and_not_handed_over() {
    let mut plant = plant(Protocol::V311, &[]).await;
    let mut stream = plant.welcome(false).await;
    for (id, length) in [(7, 1001), (8, 500_000)] {
        stream.write_all(&message(id, &vec![0; length])).await.unwrap();
        assert_eq!(plant.notes.recv().await, Some(Code::MessageLimit));
        assert_eq!(packet(&mut stream).await[3], u8::try_from(id).unwrap());
    }
    stream.write_all(&message(9, &[1; 1000])).await.unwrap();
    assert_eq!(plant.taken.recv().await.unwrap(), [1; 1000]);
}

#[tokio::test]
async fn a_message_of_ours_is_sent_when_the_broker_says_so() {
    let plant = plant(Protocol::V311, &[]).await;
    let publish = |topic: &str| plant.bus.publish(topic.into(), None, b"hot".to_vec());
    let script = async {
        let mut stream = plant.welcome(false).await;
        let sent = packet(&mut stream).await;
        assert_eq!(sent, b"\x32\x10\x00\x09plant/7/a\x00\x02hot");
        // Numbers that are not ours acknowledge nothing.
        stream
            .write_all(&[0x40, 2, 0, 9, 0x40, 2, 0xff, 0xff])
            .await
            .unwrap();
        stream.write_all(&[0x40, 2, 0, 2]).await.unwrap();
        let sent = packet(&mut stream).await;
        assert_eq!(sent[12..16], [b'b', 0, 3, b'h'], "the next number");
        drop(stream);
    };
    let sending = async {
        assert_eq!(publish("plant/7/a").await, Ok(()));
        assert_eq!(
            publish("plant/7/b").await,
            Err(Code::BrokerUnreachable),
            "nobody knows: sent again"
        );
        assert_eq!(
            publish(&"x".repeat(70_000)).await,
            Err(Code::BrokerUnreachable),
            "while it is away"
        );
    };
    tokio::join!(script, sending);
}

#[tokio::test]
async fn a_broker_that_never_acknowledges_is_left() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let settings = Settings {
        subscribe: vec![],
        patience: Duration::from_millis(50),
        ..settings(&listener, Protocol::V311)
    };
    let mut plant = start(settings, listener, &[]);
    let script = async {
        let (mut stream, _) = plant.listener.accept().await.unwrap();
        let mut greeting = [0; 21];
        stream.read_exact(&mut greeting).await.unwrap();
        stream.write_all(&[0x20, 2, 0, 0]).await.unwrap();
        let mut rest = vec![];
        stream.read_to_end(&mut rest).await.unwrap();
        rest
    };
    let (rest, sent) = tokio::join!(script, plant.bus.publish("plant/7".into(), None, vec![]));
    assert_eq!((rest[0], sent), (0x32, Err(Code::BrokerUnreachable)));
    assert_eq!(plant.notes.recv().await, Some(Code::BrokerUnreachable));
}

#[test]
fn credentials_are_two_lines() {
    let read = |text: &[u8]| credentials(text);
    assert!(read(b"press-7\nsecret\n") == Some(("press-7".into(), b"secret".to_vec())));
    assert!(read(b"press-7\r\nsecret") == Some(("press-7".into(), b"secret".to_vec())));
    assert!(read(b"press-7") == Some(("press-7".into(), vec![])));
    for wrong in [
        &b""[..],
        b"\nsecret\n",
        b"press-7\nsecret\nmore\n",
        b"\xff\nsecret\n",
        b"a\0b\nsecret",
    ] {
        assert!(read(wrong).is_none(), "{wrong:?}");
    }
}
