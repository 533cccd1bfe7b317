//! A session with one broker: connected through the broker process, resumed after whatever happens, acknowledged in order.
//!
//! ```text
//! dial ─▶ CONNECT, the session goes on ─▶ SUBSCRIBE unless the broker still knows ─▶ messages in, messages out
//!  ▲                                                                                        │
//!  └──────────── a wait that doubles, with jitter ◀── closed, silent, or not MQTT ──────────┘
//! ```
//! Nothing here outlives a connection but what the broker keeps: messages that were not acknowledged come again, and what was
//! not acknowledged to us is sent again by whoever wanted it sent.

use super::codec::{self, Message, Packet};
use super::frames::{Frame, Frames};
use crate::egress::{Dial, connected};
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use redan_policy::grant::Broker;
use redan_protocol::{Code, ComponentName};
use rustls::pki_types::ServerName;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// Messages of one session that are read and not settled yet, at most; fewer where fewer calls may run at once. Beyond it, nothing
/// is read: the broker's flood waits in the kernel. Tripped by `a_flood_waits_in_the_kernel`.
pub const WINDOW_MAX: usize = 16;
/// Messages of ours without acknowledgement, at most.
const PENDING_MAX: usize = 16;
/// Dialling, TLS and the broker's welcome, each.
const WELCOME_WITHIN: Duration = Duration::from_secs(10);
/// Silence of ours after which we show that we are there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// What the broker is told of it: one and a half times that is its patience (§3.1.2.10).
const KEEP_ALIVE_SECONDS: u16 = 40;
/// How long a broker may take to answer: to a sign of life, to a message, or to read what is written. Tripped by
/// `a_broker_that_never_acknowledges_is_left`.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// How long a broker keeps the session without us: as long as an outbox keeps an item.
const SESSION_SECONDS: u32 = 7 * 86_400;
/// First wait before it is tried again; doubles.
const RETRY_MIN: Duration = Duration::from_millis(500);
/// Longest such wait: a plant whose broker comes back should not wait longer.
const RETRY_MAX: Duration = Duration::from_mins(1);
/// A connection that lasted this long was a good one: the next wait is the first again.
const STEADY: Duration = Duration::from_secs(10);
/// Read at once, bytes.
const READ_LEN: usize = 16 * 1024;

/// What a device's own files say of a broker, beside its address.
#[derive(Clone)]
pub struct Access {
    /// Client id.
    pub client: String,
    /// User name and password.
    pub credentials: Option<Arc<(String, Vec<u8>)>>,
    /// Which certificates are believed.
    pub tls: Arc<rustls::ClientConfig>,
}

/// One session.
#[derive(Clone)]
pub struct Settings {
    /// For whom.
    pub component: ComponentName,
    /// Which broker.
    pub broker: Broker,
    /// How it is spoken to.
    pub access: Access,
    /// What is subscribed to.
    pub subscribe: Vec<String>,
    /// What was, and is no more.
    pub leave: Vec<String>,
    /// Messages that are handled at once.
    pub window: usize,
    /// Largest payload, bytes.
    pub payload_max: usize,
    /// How long the broker may take to answer; [`ANSWER_WITHIN`].
    pub patience: Duration,
}

impl Settings {
    /// Whether a session with these is one with those: then it need not be begun again.
    pub fn same(&self, other: &Self) -> bool {
        self.broker == other.broker
            && self.access.client == other.access.client
            && self.access.credentials == other.access.credentials
            && self.subscribe == other.subscribe
            && (self.window, self.payload_max) == (other.window, other.payload_max)
    }
}

/// Who takes messages.
pub trait Receive: Send + Sync {
    /// Ends when the message is settled: then it is acknowledged. Dropped with the connection, and the message comes again.
    fn receive(&self, message: Message) -> BoxFuture<'static, ()>;
    /// Something worth a code happened.
    fn note(&self, code: Code);
}

struct Outgoing {
    topic: String,
    content_type: Option<String>,
    payload: Vec<u8>,
    done: oneshot::Sender<Result<(), Code>>,
}

/// A running session; it ends when this is dropped.
pub struct Bus {
    outgoing: mpsc::Sender<Outgoing>,
    patience: Duration,
    task: AbortHandle,
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Bus {
    /// Begins a session. Call inside a runtime.
    pub fn start(settings: Settings, dial: Arc<dyn Dial>, receive: Arc<dyn Receive>) -> Self {
        let (outgoing, incoming) = mpsc::channel(PENDING_MAX);
        let patience = settings.patience;
        let task = tokio::spawn(keep_up(settings, dial, receive, incoming)).abort_handle();
        Self {
            outgoing,
            patience,
            task,
        }
    }

    /// Publishes with quality of service 1: `Ok` when the broker has the message.
    pub async fn publish(
        &self,
        topic: String,
        content_type: Option<String>,
        payload: Vec<u8>,
    ) -> Result<(), Code> {
        let (done, outcome) = oneshot::channel();
        let outgoing = Outgoing {
            topic,
            content_type,
            payload,
            done,
        };
        let asked = self.outgoing.send_timeout(outgoing, self.patience).await;
        asked.map_err(|_| Code::BrokerUnreachable)?;
        let outcome = tokio::time::timeout(self.patience.saturating_mul(2), outcome).await;
        // A session that was dropped or is late: nobody knows whether the broker has it, so it is sent again.
        outcome.map_or(Err(Code::BrokerUnreachable), |outcome| {
            outcome.unwrap_or(Err(Code::BrokerUnreachable))
        })
    }
}

async fn keep_up(
    mut settings: Settings,
    dial: Arc<dyn Dial>,
    receive: Arc<dyn Receive>,
    mut outgoing: mpsc::Receiver<Outgoing>,
) {
    let (mut tries, mut subscribed) = (0_u32, false);
    loop {
        let began = Instant::now();
        let ended = match open(&settings, dial.as_ref()).await {
            Ok(stream) => {
                let mut connection = Connection::new(&settings, stream, receive.as_ref());
                connection.serve(&mut subscribed, &mut outgoing).await
            }
            Err(code) => code,
        };
        if subscribed {
            settings.leave.clear();
        }
        receive.note(ended);
        if began.elapsed() >= STEADY {
            tries = 0;
        }
        let wait = spread(RETRY_MIN.saturating_mul(1 << tries.min(10)).min(RETRY_MAX));
        tries = tries.saturating_add(1);
        let until = Instant::now().checked_add(wait).unwrap_or(began);
        // Nobody waits for a broker that is away longer than they have to.
        while let Ok(asked) = tokio::time::timeout_at(until, outgoing.recv()).await {
            let Some(asked) = asked else { return };
            let _ = asked.done.send(Err(Code::BrokerUnreachable));
        }
    }
}

/// Half to the whole of a wait, so that a plant's devices do not come back all at once.
pub fn spread(wait: Duration) -> Duration {
    let mut byte = [0];
    // Without randomness they do; it is no secret.
    let _ = rustix::rand::getrandom(&mut byte, rustix::rand::GetRandomFlags::empty());
    let [byte] = byte;
    let half = wait.checked_div(2).unwrap_or(wait);
    let part = half.saturating_mul(u32::from(byte)).checked_div(255);
    half.saturating_add(part.unwrap_or_default())
}

/// A connected stream, with or without TLS.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

async fn open(settings: &Settings, dial: &dyn Dial) -> Result<Box<dyn Stream>, Code> {
    let broker = &settings.broker;
    let dialled = dial.dial_broker(&settings.component, &broker.host, broker.port);
    let dialled = tokio::time::timeout(WELCOME_WITHIN, dialled).await;
    let socket = dialled
        .map_err(|_| Code::BrokerUnreachable)?
        .map_err(|code| match code {
            Code::EgressDenied | Code::EgressAddressDenied => code,
            _ => Code::BrokerUnreachable,
        })?;
    let socket = connected(socket).map_err(|_| Code::BrokerUnreachable)?;
    // Acknowledgements are small and waited for.
    let _ = socket.set_nodelay(true);
    if !broker.tls {
        return Ok(Box::new(socket));
    }
    let name = ServerName::try_from(broker.host.clone()).map_err(|_| Code::BrokerInvalid)?;
    let tls = tokio_rustls::TlsConnector::from(Arc::clone(&settings.access.tls));
    let stream = tokio::time::timeout(WELCOME_WITHIN, tls.connect(name, socket)).await;
    let stream = stream.map_err(|_| Code::BrokerUnreachable)?;
    // Not the broker the device's owner named, or no TLS 1.3 there.
    Ok(Box::new(stream.map_err(|_| Code::BrokerInvalid)?))
}

/// A message that was read: its number, and whether it is settled.
struct Held {
    serial: u64,
    id: Option<u16>,
    settled: bool,
}

struct Connection<'a> {
    settings: &'a Settings,
    receive: &'a dyn Receive,
    reader: ReadHalf<Box<dyn Stream>>,
    writer: WriteHalf<Box<dyn Stream>>,
    frames: Frames,
    /// In the order they came: acknowledged is in this order (§4.6).
    held: VecDeque<Held>,
    handling: FuturesUnordered<BoxFuture<'static, u64>>,
    serial: u64,
    pending: HashMap<u16, (Instant, oneshot::Sender<Result<(), Code>>)>,
    last_id: u16,
    written: Instant,
    asked: Option<Instant>,
    packet_max: usize,
    pending_max: usize,
}

impl<'a> Connection<'a> {
    fn new(settings: &'a Settings, stream: Box<dyn Stream>, receive: &'a dyn Receive) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        Self {
            settings,
            receive,
            reader,
            writer,
            frames: Frames::new(settings.broker.protocol, settings.payload_max),
            held: VecDeque::new(),
            handling: FuturesUnordered::new(),
            serial: 0,
            pending: HashMap::new(),
            last_id: 0,
            written: Instant::now(),
            asked: None,
            packet_max: usize::MAX,
            pending_max: PENDING_MAX,
        }
    }

    /// Until it ends, and why.
    async fn serve(&mut self, subscribed: &mut bool, outgoing: &mut mpsc::Receiver<Outgoing>) -> Code {
        match self.serve_until(subscribed, outgoing).await {
            Ok(never) => match never {},
            Err(code) => code,
        }
    }

    async fn serve_until(
        &mut self,
        subscribed: &mut bool,
        outgoing: &mut mpsc::Receiver<Outgoing>,
    ) -> Result<std::convert::Infallible, Code> {
        self.welcome(subscribed).await?;
        // A broker that kept the session may have sent what it kept along with its welcome.
        self.take(subscribed).await?;
        loop {
            let reads = !self.full();
            let publishes = self.pending.len() < self.pending_max;
            let due = self.due();
            tokio::select! {
                read = self.reader.read_buf(&mut self.frames.bytes), if reads => match read {
                    Ok(0) | Err(_) => return Err(Code::BrokerUnreachable),
                    Ok(_) => self.take(subscribed).await?,
                },
                Some(serial) = self.handling.next(), if !self.handling.is_empty() => {
                    self.settled(serial).await?;
                    // What was not read meanwhile may hold the answer that was asked for.
                    self.asked = self.asked.map(|_| Instant::now());
                    self.take(subscribed).await?;
                }
                Some(asked) = outgoing.recv(), if publishes => self.publish(asked).await?,
                () = tokio::time::sleep_until(due) => self.is_due().await?,
            }
            self.frames.bytes.reserve(READ_LEN);
        }
    }

    fn full(&self) -> bool {
        self.held.len() >= self.settings.window.clamp(1, WINDOW_MAX)
    }

    async fn welcome(&mut self, subscribed: &mut bool) -> Result<(), Code> {
        let (access, protocol) = (&self.settings.access, self.settings.broker.protocol);
        let window = self.settings.window.clamp(1, WINDOW_MAX);
        let hello = codec::Connect {
            client: &access.client,
            credentials: access
                .credentials
                .as_deref()
                .map(|(user, password)| (user.as_str(), password.as_slice())),
            keep_alive: KEEP_ALIVE_SECONDS,
            receive_max: u16::try_from(window).unwrap_or(u16::MAX),
            packet_max: self.frames.packet_max(),
            session: SESSION_SECONDS,
        };
        let hello = codec::connect(protocol, &hello).ok_or(Code::BrokerFile)?;
        self.write(&hello).await?;
        let welcome = tokio::time::timeout(WELCOME_WITHIN, self.first()).await;
        let Packet::ConnAck {
            session,
            code,
            packet_max,
            receive_max,
        } = welcome.map_err(|_| Code::BrokerUnreachable)??
        else {
            return Err(Code::BrokerInvalid);
        };
        if code != 0 {
            return Err(Code::BrokerRefused);
        }
        self.packet_max = packet_max.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
        self.pending_max = receive_max.map_or(PENDING_MAX, |most| usize::from(most).min(PENDING_MAX));
        *subscribed &= session;
        if !self.settings.leave.is_empty() {
            let id = self.next_id();
            let leave = codec::unsubscribe(protocol, id, &self.settings.leave).ok_or(Code::TopicInvalid)?;
            self.write(&leave).await?;
        }
        if !*subscribed && !self.settings.subscribe.is_empty() {
            let id = self.next_id();
            let subscribe =
                codec::subscribe(protocol, id, &self.settings.subscribe).ok_or(Code::TopicInvalid)?;
            self.write(&subscribe).await?;
        }
        Ok(())
    }

    /// The first packet, whichever.
    async fn first(&mut self) -> Result<Packet, Code> {
        loop {
            match self.frames.next().map_err(|_| Code::BrokerInvalid)? {
                Some(Frame::Packet(packet)) => return Ok(packet),
                Some(Frame::TooLarge(_)) => return Err(Code::BrokerInvalid),
                None => {}
            }
            self.frames.bytes.reserve(READ_LEN);
            match self.reader.read_buf(&mut self.frames.bytes).await {
                Ok(0) | Err(_) => return Err(Code::BrokerUnreachable),
                Ok(_) => {}
            }
        }
    }

    /// Cuts and obeys what was read, as long as there is room.
    async fn take(&mut self, subscribed: &mut bool) -> Result<(), Code> {
        while !self.full() {
            let frame = self.frames.next().map_err(|_| Code::BrokerInvalid)?;
            match frame {
                None => return Ok(()),
                Some(Frame::TooLarge(id)) => {
                    self.receive.note(Code::MessageLimit);
                    self.hold(id, None);
                }
                Some(Frame::Packet(Packet::Publish(message))) => self.message(message),
                Some(Frame::Packet(Packet::PubAck { id, code })) => {
                    // A number that is not ours acknowledges nothing.
                    if let Some((_, done)) = self.pending.remove(&id) {
                        let outcome = if code < 0x80 {
                            Ok(())
                        } else {
                            Err(Code::BrokerRefused)
                        };
                        let _ = done.send(outcome);
                    }
                }
                Some(Frame::Packet(Packet::SubAck { codes, .. })) => {
                    *subscribed =
                        codes.len() == self.settings.subscribe.len() && codes.iter().all(|code| *code < 0x80);
                    if !*subscribed {
                        self.receive.note(Code::BrokerRefused);
                    }
                }
                Some(Frame::Packet(Packet::UnsubAck { .. })) => {}
                Some(Frame::Packet(Packet::PingResp)) => self.asked = None,
                Some(Frame::Packet(Packet::Disconnect)) => return Err(Code::BrokerUnreachable),
                Some(Frame::Packet(Packet::ConnAck { .. })) => return Err(Code::BrokerInvalid),
            }
            self.acknowledge().await?;
        }
        Ok(())
    }

    fn message(&mut self, message: Message) {
        // Old brokers send what was not acknowledged once more on the same connection (3.1 did); it is being handled.
        if message.id.is_some() && self.held.iter().any(|held| held.id == message.id) {
            return;
        }
        if message.payload.len() > self.settings.payload_max {
            self.receive.note(Code::MessageLimit);
            return self.hold(message.id, None);
        }
        let id = message.id;
        let receiving = self.receive.receive(message);
        self.hold(id, Some(receiving));
    }

    fn hold(&mut self, id: Option<u16>, receiving: Option<BoxFuture<'static, ()>>) {
        self.serial = self.serial.wrapping_add(1);
        let serial = self.serial;
        self.held.push_back(Held {
            serial,
            id,
            settled: receiving.is_none(),
        });
        if let Some(receiving) = receiving {
            self.handling.push(Box::pin(async move {
                receiving.await;
                serial
            }));
        }
    }

    async fn settled(&mut self, serial: u64) -> Result<(), Code> {
        if let Some(held) = self.held.iter_mut().find(|held| held.serial == serial) {
            held.settled = true;
        }
        self.acknowledge().await
    }

    /// Acknowledges what is settled, up to the first that is not.
    async fn acknowledge(&mut self) -> Result<(), Code> {
        let mut acks = Vec::new();
        while self.held.front().is_some_and(|held| held.settled) {
            let id = self.held.pop_front().and_then(|held| held.id);
            acks.extend(id.into_iter().flat_map(codec::puback));
        }
        if acks.is_empty() {
            Ok(())
        } else {
            self.write(&acks).await
        }
    }

    async fn publish(&mut self, asked: Outgoing) -> Result<(), Code> {
        let id = self.next_id();
        let protocol = self.settings.broker.protocol;
        let packet = codec::publish_1(
            protocol,
            id,
            &asked.topic,
            asked.content_type.as_deref(),
            &asked.payload,
        );
        let Some(packet) = packet.filter(|packet| packet.len() <= self.packet_max) else {
            let _ = asked.done.send(Err(Code::MessageLimit));
            return Ok(());
        };
        let until = Instant::now()
            .checked_add(self.settings.patience)
            .unwrap_or(self.written);
        self.pending.insert(id, (until, asked.done));
        self.write(&packet).await
    }

    /// A number nothing is under way with: they are fewer than there are numbers.
    fn next_id(&mut self) -> u16 {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            if !self.pending.contains_key(&self.last_id) {
                return self.last_id;
            }
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Code> {
        let written = async {
            self.writer.write_all(bytes).await?;
            self.writer.flush().await
        };
        match tokio::time::timeout(self.settings.patience, written).await {
            Ok(Ok(())) => {
                self.written = Instant::now();
                Ok(())
            }
            _ => Err(Code::BrokerUnreachable),
        }
    }

    /// When something must have happened, or must be done.
    fn due(&self) -> Instant {
        let alive = match self.asked {
            Some(_) if self.full() => None,
            Some(asked) => asked.checked_add(self.settings.patience),
            None => self.written.checked_add(KEEP_ALIVE),
        };
        let acks = self.pending.values().map(|(until, _)| *until);
        let acks = acks.min().filter(|_| !self.full());
        let due = alive.into_iter().chain(acks).min();
        due.unwrap_or_else(|| {
            let later = Instant::now().checked_add(KEEP_ALIVE);
            later.unwrap_or(self.written)
        })
    }

    async fn is_due(&mut self) -> Result<(), Code> {
        let now = Instant::now();
        let late = |since: Instant, span| since.checked_add(span).is_some_and(|until| now >= until);
        if !self.full() {
            let silent = self
                .asked
                .is_some_and(|asked| late(asked, self.settings.patience));
            if silent || self.pending.values().any(|(until, _)| now >= *until) {
                return Err(Code::BrokerUnreachable);
            }
        }
        // Also while nothing is read: the broker must not take us for gone because a handler is slow.
        if late(self.written, KEEP_ALIVE) {
            self.asked = self.asked.or(Some(now));
            self.write(&codec::PINGREQ).await?;
        }
        Ok(())
    }
}

/// The credentials file: user name, then password, a line each; the password may be missing and is then empty.
pub fn credentials(text: &[u8]) -> Option<(String, Vec<u8>)> {
    let mut lines = text.split(|byte| *byte == b'\n');
    let trimmed = |line: &[u8]| line.strip_suffix(b"\r").unwrap_or(line).to_vec();
    let user = String::from_utf8(trimmed(lines.next()?)).ok()?;
    let password = lines.next().map(trimmed).unwrap_or_default();
    let rest = lines.any(|line| !line.is_empty());
    (!user.is_empty() && !user.contains('\0') && !rest).then_some((user, password))
}

#[cfg(test)]
mod tests;
