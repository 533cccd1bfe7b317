//! What a publisher's bench lends a workload beside its grant: the terminal, and a witness of what it uses.
//!
//! No device makes a [`Bench`] (`tests/boundaries` holds that): without one, everything here is inert.

use crate::egress::{Dial, Egress, Outside};
use crate::kv::{Bucket, Stores};
use redan_policy::grant::{Bucket as Quota, HttpRule, Limits, NetBudget, Origin, Roots};
use redan_protocol::{ByteCount, Code, ComponentName};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::io::AsyncWrite;
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

/// Gives a call its standard streams.
pub type Equip = dyn Fn(&mut WasiCtxBuilder) + Send + Sync;
/// Hears what a device keeps in its owner's file, or to itself.
pub type Hear = dyn Fn(Told<'_>) + Send + Sync;

/// What the publisher is told while a workload runs.
#[derive(Debug)]
pub enum Told<'a> {
    /// A line of `wasi:logging`, where the grant has a log.
    Logged(&'a [u8]),
    /// Why the guest ended where it did not want to.
    Trapped(&'a wasmtime::Error),
    /// A call failed or was cut off.
    Failed(Code),
}

/// What is lent.
pub struct Bench {
    /// Standard input.
    pub input: Box<Equip>,
    /// Standard output and error, where the grant has a log.
    pub output: Box<Equip>,
    /// Who is told what happens.
    pub hear: Box<Hear>,
    /// Environment beside the grant's.
    pub env: Vec<(String, String)>,
    /// Folders beside the grant's volumes: here, as the guest sees it, whether it may write.
    pub folders: Vec<(PathBuf, String, bool)>,
    /// Every method and path reaches a service, whatever its grant names.
    pub every_request: bool,
    /// Clocks as fine as this machine's, whatever the grant says.
    pub fine_clocks: bool,
    /// Any destination may be asked for, dialled by this; else the grant's rules hold.
    pub anywhere: Option<Arc<dyn Dial>>,
    /// Any bucket may be opened, out of these.
    pub stores: Option<Stores>,
    /// Who notes what is used.
    pub witness: Option<Arc<Witness>>,
    /// Whether output was thrown away for want of a log.
    pub dropped: AtomicBool,
}

impl Bench {
    /// A bench with its streams and nothing else.
    pub fn new(input: Box<Equip>, output: Box<Equip>, hear: Box<Hear>) -> Self {
        Self {
            input,
            output,
            hear,
            fine_clocks: false,
            env: Vec::new(),
            folders: Vec::new(),
            every_request: false,
            anywhere: None,
            stores: None,
            witness: None,
            dropped: AtomicBool::new(false),
        }
    }

    /// At the terminal of this process; with somebody who notes what is used.
    pub fn at_terminal(witness: Option<Arc<Witness>>, hear: Box<Hear>) -> Self {
        use wasmtime_wasi::cli::{stderr, stdout};
        let noting = witness.clone();
        let output: Box<Equip> = Box::new(move |builder| {
            builder.inherit_stdout().inherit_stderr();
            if let Some(witness) = &noting {
                let (out, err) = (Arc::clone(witness), Arc::clone(witness));
                builder.stdout(Noted {
                    inner: stdout(),
                    witness: out,
                });
                builder.stderr(Noted {
                    inner: stderr(),
                    witness: err,
                });
            }
        });
        let input: Box<Equip> = Box::new(|builder| {
            builder.inherit_stdin();
        });
        Self {
            witness,
            ..Self::new(input, output, hear)
        }
    }

    /// Whether the guest wrote what nobody saw.
    pub fn has_dropped(&self) -> bool {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Notes a request to a service.
    pub fn answered(&self, method: &str, path: &str) {
        self.note(|seen| {
            seen.answered.insert((method.to_owned(), path.to_owned()));
        });
    }

    /// Notes a call's end: its cost, and why it failed.
    pub fn ended(&self, cpu_millis: u64, failure: Option<Code>) {
        self.note(|seen| seen.cpu = seen.cpu.max(cpu_millis));
        if let Some(code) = failure {
            (self.hear)(Told::Failed(code));
        }
    }

    /// A bucket nobody granted.
    pub(crate) fn bucket(&self, workload: &str, label: &str) -> Option<(Arc<Bucket>, Arc<Quota>)> {
        let bucket = self.stores.as_ref()?.bucket(workload, label).ok()?;
        let quota = Quota {
            label: label.to_owned(),
            bytes: ByteCount::new(u64::MAX),
            keys: u32::MAX,
            ops: None,
        };
        Some((bucket, Arc::new(quota)))
    }

    /// An egress that admits exactly this request: the same sender, one rule made for it.
    pub(crate) fn egress_for<B>(
        &self,
        component: &ComponentName,
        limits: Limits,
        tls: &Arc<rustls::ClientConfig>,
        request: &http::Request<B>,
    ) -> Option<Arc<Egress>> {
        let dial = self.anywhere.as_ref()?;
        let uri = request.uri();
        let https = uri.scheme()? == &http::uri::Scheme::HTTPS;
        let (host, port) = redan_policy::egress::parse_authority(uri.authority()?.as_str(), https)?;
        let origin = Origin { https, host, port };
        let method = request.method().as_str().to_owned();
        self.note(|seen| {
            let call = (method.clone(), uri.path().to_owned());
            seen.sent.entry(origin.clone()).or_default().insert(call);
        });
        let rule = HttpRule {
            id: "bench".to_owned(),
            allow: vec![vec![origin]],
            deny: Vec::new(),
            methods: vec![method],
            paths: Vec::new(),
            private_addresses: true,
            roots: Roots::Public,
            budget: NetBudget::default(),
        };
        let outside = Outside {
            dial: Arc::clone(dial),
            public: Arc::clone(tls),
            secrets: Arc::default(),
        };
        Some(Arc::new(Egress::of_one(component.clone(), rule, limits, outside)))
    }

    pub(crate) fn note(&self, what: impl FnOnce(&mut Seen)) {
        if let Some(witness) = &self.witness {
            witness.note(what);
        }
    }
}

/// What a workload was seen to use, over all its calls.
#[derive(Clone, Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one thing that was used or was not"
)]
pub struct Seen {
    /// Requests that were answered: method and path.
    pub answered: BTreeSet<(String, String)>,
    /// Requests that were sent, by origin: method and path.
    pub sent: BTreeMap<Origin, BTreeSet<(String, String)>>,
    /// Hosts of those that have private addresses.
    pub private: BTreeSet<String>,
    /// Configuration keys that were asked for.
    pub config: BTreeSet<String>,
    /// Whether all of the configuration was asked for.
    pub config_all: bool,
    /// Buckets that were opened.
    pub buckets: BTreeMap<String, Arc<Bucket>>,
    /// Volumes that were touched, by the guest's path, and whether to write.
    pub volumes: BTreeMap<String, bool>,
    /// Whether the environment was read.
    pub env: bool,
    /// Whether the clock was read.
    pub clock: bool,
    /// Whether it was the wall clock.
    pub wall: bool,
    /// Most random bytes in one call.
    pub random: Option<u64>,
    /// Whether something was written or logged.
    pub log: bool,
    /// Most bytes of all memories of an instance.
    pub memory: u64,
    /// Most table elements of an instance.
    pub tables: u64,
    /// Most resources of an instance.
    pub handles: u64,
    /// Most CPU time of a call, milliseconds.
    pub cpu: u64,
}

/// Notes what a workload uses.
#[derive(Debug, Default)]
pub struct Witness(Mutex<Seen>);

impl Witness {
    /// Changes what was seen.
    pub fn note(&self, what: impl FnOnce(&mut Seen)) {
        what(&mut self.seen_now());
    }

    /// What was seen so far.
    pub fn seen(&self) -> Seen {
        self.seen_now().clone()
    }

    fn seen_now(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An output stream that is noted when something is written.
pub struct Noted<S> {
    /// The stream.
    pub inner: S,
    /// Who notes it.
    pub witness: Arc<Witness>,
}

impl<S: IsTerminal> IsTerminal for Noted<S> {
    fn is_terminal(&self) -> bool {
        self.inner.is_terminal()
    }
}

impl<S: StdoutStream> StdoutStream for Noted<S> {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        self.witness.note(|seen| seen.log = true);
        self.inner.async_stream()
    }
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(Noted {
            inner: self.inner.p2_stream(),
            witness: Arc::clone(&self.witness),
        })
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Noted<Box<dyn OutputStream>> {
    async fn ready(&mut self) {
        self.inner.ready().await;
    }
}

#[wasmtime_wasi::async_trait]
impl OutputStream for Noted<Box<dyn OutputStream>> {
    fn write(&mut self, bytes: bytes::Bytes) -> StreamResult<()> {
        if !bytes.is_empty() {
            self.witness.note(|seen| seen.log = true);
        }
        self.inner.write(bytes)
    }
    fn flush(&mut self) -> StreamResult<()> {
        self.inner.flush()
    }
    fn check_write(&mut self) -> StreamResult<usize> {
        self.inner.check_write()
    }
    async fn cancel(&mut self) {
        self.inner.cancel().await;
    }
}
