//! The executor process: takes orders from the agent, runs guests, reports closed events.

use crate::broker::Broker;
use crate::engine::{self, Allocation, EngineError, Native, Sizes};
use crate::job;
use crate::lifecycle;
use crate::message::Exchange;
use crate::service::Service;
use crate::swap::Lease;
use crate::version::Version;
use redan_channel::{AsyncChannel, ChannelError};
use redan_host_api::egress::{Outside, Secrets, public_tls, tls_of};
use redan_host_api::kv::Stores;
use redan_host_api::log::Sink;
use redan_host_api::mqtt::{Access, bus};
use redan_host_api::outbox::queue::Outboxes;
use redan_host_api::state::Capabilities;
use redan_host_api::workload::{Pools, Workload};
use redan_policy::EffectiveGrant;
use redan_protocol::ipc::{FromExecutor, SecretValue, SlotId, ToExecutor, WorkloadKind};
use redan_protocol::report::{Health, Isolation};
use redan_protocol::{Code, ComponentName, Digest};
use redan_sealed::Sealed;
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use wasmtime::Engine;

/// Slots linked at once. A component has at most two or three during an update.
pub const SLOTS_MAX: usize = 64;
/// Between two [`FromExecutor::Signals`] of a slot.
const SIGNALS_INTERVAL: Duration = Duration::from_secs(1);
/// Largest file of certificates or credentials of a broker, bytes. Tripped by `a_file_of_a_broker_over_its_limit_is_refused`.
const BROKER_FILE_MAX: u64 = 64 * 1024;
/// Answers waiting for the agent to read.
const ANSWERS: usize = 256;

/// Why the executor ended other than by the agent's leave.
#[derive(Debug, thiserror::Error)]
pub enum ExecutorError {
    /// The engine does not start.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The agent sent what is no order.
    #[error("the channel to the agent: {0}")]
    Channel(#[from] ChannelError),
    /// Threads or the reactor are not to be had.
    #[error("the executor does not start: {0}")]
    Start(#[source] std::io::Error),
    /// TLS for outgoing requests does not start.
    #[error("TLS for outgoing requests: {0}")]
    Tls(#[source] rustls::Error),
}

impl ExecutorError {
    /// The code that leaves the process.
    pub const fn code(&self) -> Code {
        Code::ExecutorFailed
    }
}

/// The entry point's name.
#[derive(Debug)]
pub struct Executor;

impl Executor {
    /// Builds engine and pool. Call before confinement: `PAGEMAP_SCAN` needs `/proc/self/pagemap` opened while the
    /// process is still dumpable, and the pool reserves its address space once.
    ///
    /// `wasi_0_3`: the device's owner switched it on. Without it there is no engine such code could run on.
    pub fn prepare(sizes: &Sizes, wasi_0_3: bool) -> Result<Prepared, ExecutorError> {
        let (plain, allocation) = engine::executor_engine(sizes)?;
        let engines = Engines {
            plain,
            // Without a pool: they are for the few workloads that want them, and address space is for those that do not.
            metered: engine::compiler_engine(Native::Metered)?,
            tasks: wasi_0_3
                .then(|| engine::compiler_engine(Native::Tasks))
                .transpose()?,
        };
        // tokio's signal driver makes its socket pair with a process's first runtime: now, while sockets may be made.
        // One thread, gone with this line; the runtime that serves starts its threads after confinement.
        drop(
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(ExecutorError::Start)?,
        );
        Ok(Prepared { engines, allocation })
    }
}

/// One engine for each kind of native code that may run here.
#[derive(Debug)]
struct Engines {
    plain: Engine,
    metered: Engine,
    tasks: Option<Engine>,
}

impl Engines {
    fn of(&self, native: Native) -> Result<&Engine, Code> {
        match native {
            Native::Plain => Ok(&self.plain),
            Native::Metered => Ok(&self.metered),
            Native::Tasks => self.tasks.as_ref().ok_or(Code::WasiSwitchedOff),
        }
    }
}

/// Engine and pool, ready to be confined with the process.
#[derive(Debug)]
pub struct Prepared {
    engines: Engines,
    allocation: Allocation,
}

impl Prepared {
    /// How instances get their memory here.
    pub fn allocation(&self) -> Allocation {
        self.allocation
    }

    /// Which native code of a kind this executor takes.
    pub fn engine_digest(&self, native: Native) -> Option<Digest> {
        self.engines.of(native).ok().map(engine::digest)
    }

    /// Serves the agent until it closes its channel. `agent` is the inherited descriptor 3, `broker` 4, `data` the
    /// publisher's own folder, `isolation` what the jail really put in force.
    pub fn run(
        self,
        agent: OwnedFd,
        broker: OwnedFd,
        data: PathBuf,
        isolation: Isolation,
    ) -> Result<(), ExecutorError> {
        let Engines {
            plain,
            metered,
            tasks,
        } = &self.engines;
        for engine in [Some(plain), Some(metered), tasks.as_ref()].into_iter().flatten() {
            engine::start_ticker(engine)?;
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .thread_name("guest")
            .build()
            .map_err(ExecutorError::Start)?;
        let outcome = runtime.block_on(serve(self.engines, agent, broker, data, isolation));
        // Guests end with the agent; a host call on a blocking thread must not keep the process.
        runtime.shutdown_timeout(Duration::from_secs(1));
        outcome
    }
}

async fn serve(
    engines: Engines,
    agent: OwnedFd,
    broker: OwnedFd,
    data: PathBuf,
    isolation: Isolation,
) -> Result<(), ExecutorError> {
    let agent = Arc::new(AsyncChannel::new(agent)?);
    let ready = FromExecutor::Ready {
        engine: engine::digest(&engines.plain),
        metered: engine::digest(&engines.metered),
        wasi_0_3: engines.tasks.as_ref().map(engine::digest),
        isolation,
    };
    agent.send(&ready, &[]).await?;
    let (answers, mut outbox) = mpsc::channel(ANSWERS);
    let sender = Arc::clone(&agent);
    tokio::spawn(async move {
        while let Some(answer) = outbox.recv().await {
            let answer: FromExecutor = answer;
            if sender.send(&answer, &[]).await.is_err() {
                return;
            }
        }
    });
    let executor = Arc::new(Running {
        engines,
        pools: Pools::new(),
        workloads: Mutex::default(),
        stores: Stores::new(data.join("kv")),
        outboxes: Outboxes::new(data.join("outbox")),
        data,
        outside: Outside {
            dial: Broker::start(broker)?,
            public: public_tls().map_err(ExecutorError::Tls)?,
            secrets: Arc::default(),
        },
        sinks: Mutex::default(),
        state: Mutex::default(),
        answers,
    });
    tokio::spawn(signals(Arc::clone(&executor)));
    loop {
        let received = match agent.recv::<ToExecutor>().await {
            Ok(received) => received,
            Err(ChannelError::Closed) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        executor.obey(received.message, received.descriptors).await;
    }
}

/// Everything a running executor holds.
pub(crate) struct Running {
    engines: Engines,
    pools: Arc<Pools>,
    workloads: Mutex<HashMap<ComponentName, Arc<Workload>>>,
    data: PathBuf,
    stores: Stores,
    outboxes: Outboxes,
    /// Without secrets: each workload has its own.
    pub(crate) outside: Outside,
    sinks: Mutex<HashMap<ComponentName, Arc<Sink>>>,
    state: Mutex<State>,
    answers: mpsc::Sender<FromExecutor>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) slots: HashMap<SlotId, Arc<Version>>,
    pub(crate) exchanges: HashMap<ComponentName, Arc<Exchange>>,
    /// What the agent said about brokers, until the slot is loaded.
    access: HashMap<SlotId, HashMap<String, Access>>,
    /// Values for slots that are about to be loaded.
    secrets: HashMap<SlotId, Vec<(String, SecretValue)>>,
    pub(crate) services: HashMap<ComponentName, Arc<Service>>,
    pub(crate) timers: HashMap<ComponentName, (SlotId, Vec<AbortHandle>)>,
    /// Counts up with every order about who answers for a component.
    pub(crate) turns: HashMap<ComponentName, u64>,
}

impl State {
    pub(crate) fn stop_timers(&mut self, component: &ComponentName) {
        for timer in self
            .timers
            .remove(component)
            .into_iter()
            .flat_map(|(_, timers)| timers)
        {
            timer.abort();
        }
    }
}

impl State {
    /// The number of an order about who answers for a component.
    pub(crate) fn turn(&mut self, component: &ComponentName) -> u64 {
        let turn = self.turns.entry(component.clone()).or_default();
        *turn = turn.saturating_add(1);
        *turn
    }
}

impl Running {
    /// An order that does not read takes everything: the agent meant to take something.
    fn narrow(&self, slot: SlotId, grant: &[u8]) {
        let mut state = self.state();
        let Some(version) = state.slots.get(&slot).cloned() else {
            return;
        };
        let later = EffectiveGrant::from_canonical_json(grant).ok();
        let own = version.capabilities();
        let later = later.filter(|later| later.component == version.component);
        version.narrow(&later.unwrap_or_else(|| own.grant().nothing()));
        // A session is open between calls too. Who answers for a component is who has its timers.
        let answers = state.timers.get(&version.component);
        if answers.is_some_and(|(of, _)| *of == slot) {
            self.correspond(&mut state, &version);
        }
    }

    pub(crate) fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) async fn say(&self, answer: FromExecutor) {
        // Fails only when the agent is gone, and then the process ends anyway.
        let _ = self.answers.send(answer).await;
    }

    async fn obey(self: &Arc<Self>, order: ToExecutor, descriptors: Vec<OwnedFd>) {
        match order {
            ToExecutor::Load {
                slot,
                component,
                kind,
                grant,
                ..
            } => {
                let outcome = self.load(slot, component, kind, grant, descriptors).await;
                self.say(outcome.map_or_else(
                    |code| FromExecutor::Failed { slot, code },
                    |()| FromExecutor::Loaded { slot },
                ))
                .await;
            }
            ToExecutor::Memory { total } => self.pools.set_memory(total),
            ToExecutor::Secrets { slot, values } => {
                let mut state = self.state();
                if state.secrets.len() < SLOTS_MAX {
                    state.secrets.insert(slot, values);
                }
            }
            ToExecutor::Narrow { slot, grant } => self.narrow(slot, &grant),
            ToExecutor::Activate { slot } => self.activate(slot).await,
            ToExecutor::Deactivate { component } => {
                let mut state = self.state();
                state.turn(&component);
                state.stop_timers(&component);
                if let Some(service) = state.services.get(&component) {
                    service.pointer.swap(None);
                }
                if let Some(exchange) = state.exchanges.get(&component) {
                    exchange.stop();
                }
            }
            ToExecutor::Access {
                slot,
                label,
                client,
                roots,
                credentials,
            } => {
                // A load that finds nothing here fails with the code.
                if let Ok(access) = self.access(client, roots, credentials, descriptors) {
                    let mut state = self.state();
                    if state.access.len() < SLOTS_MAX || state.access.contains_key(&slot) {
                        state.access.entry(slot).or_default().insert(label, access);
                    }
                }
            }
            ToExecutor::Link { component, end } => {
                let exchange = Arc::clone(self.state().exchanges.entry(component).or_default());
                if let Some(socket) = descriptors.into_iter().next() {
                    // A socket the kernel does not watch is a link that is not there: items wait.
                    let _ = exchange.links.link(&exchange.pointer, end, socket);
                }
            }
            ToExecutor::Unlink {
                component,
                peer,
                hears,
            } => {
                if let Some(exchange) = self.state().exchanges.get(&component) {
                    exchange.links.unlink(&peer, hears);
                }
            }
            ToExecutor::PrepareStop { slot, deadline } => self.apart(slot, async move |version| {
                let after = lifecycle::prepare_stop(&version, deadline).await;
                FromExecutor::Yields { slot, after }
            }),
            // These take time and must not hold up the next order.
            ToExecutor::Probe { slot } => self.apart(slot, async move |version| {
                let (health, code) = job::probe(&version).await;
                FromExecutor::Probed { slot, health, code }
            }),
            ToExecutor::Run { slot } => self.apart(slot, async move |version| {
                let code = job::run(&version).await.err();
                let health = code.map_or(Health::Healthy, |_| Health::Unhealthy);
                FromExecutor::Probed { slot, health, code }
            }),
            ToExecutor::Unload { slot, drain } => {
                if let Some(version) = self.take_out(slot) {
                    let executor = Arc::clone(self);
                    tokio::spawn(async move {
                        version.drain(drain).await;
                        executor.last_signals(&version).await;
                        executor.say(FromExecutor::Unloaded { slot }).await;
                    });
                } else {
                    // Gone already: what was wanted holds.
                    self.say(FromExecutor::Unloaded { slot }).await;
                }
            }
        }
    }

    fn apart<F>(self: &Arc<Self>, slot: SlotId, work: impl FnOnce(Lease) -> F)
    where
        F: Future<Output = FromExecutor> + Send + 'static,
    {
        // Leased while the order is obeyed: an `Unload` that follows waits for it.
        let version = self.state().slots.get(&slot).and_then(Version::lease);
        let (work, executor) = (version.map(work), Arc::clone(self));
        tokio::spawn(async move {
            let answer = match work {
                Some(work) => work.await,
                None => unknown(slot),
            };
            executor.say(answer).await;
        });
    }

    async fn load(
        self: &Arc<Self>,
        slot: SlotId,
        component: ComponentName,
        kind: WorkloadKind,
        grant: Vec<u8>,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), Code> {
        let grant = EffectiveGrant::from_canonical_json(&grant).map_err(|_| Code::PolicyInvalid)?;
        if grant.component != component {
            return Err(Code::PolicyInvalid);
        }
        {
            let state = self.state();
            if state.slots.contains_key(&slot) || state.slots.len() >= SLOTS_MAX {
                return Err(Code::Internal);
            }
        }
        let mut descriptors = descriptors.into_iter();
        let (Some(native), listener, None) = (descriptors.next(), descriptors.next(), descriptors.next())
        else {
            return Err(Code::Internal);
        };
        let access = self.state().access.remove(&slot).unwrap_or_default();
        let mut brokers = grant.messages.brokers.iter();
        if brokers.any(|broker| !access.contains_key(&broker.label)) {
            return Err(Code::BrokerFile);
        }
        let secrets = self.state().secrets.remove(&slot).unwrap_or_default();
        // Deserialising and opening buckets touch the disk and megabytes of code: not on a thread that serves.
        let executor = Arc::clone(self);
        let linked = tokio::task::spawn_blocking(move || {
            let native = Sealed::read(&native).map_err(|error| error.code())?;
            let capabilities = executor.capabilities(grant, secrets)?;
            let engine = executor.engines.of(Native::of(capabilities.grant()))?;
            Version::link(engine, slot, kind, &native, capabilities, access)
        });
        let version = linked.await.map_err(|_| Code::Internal)??;
        let mut state = self.state();
        if kind == WorkloadKind::Service {
            let service = Arc::clone(state.services.entry(component).or_default());
            if let Some(listener) = listener {
                service.listen(listener).map_err(|_| Code::Internal)?;
            }
        }
        state.slots.insert(slot, version);
        Ok(())
    }

    fn capabilities(
        &self,
        grant: EffectiveGrant,
        secrets: Vec<(String, SecretValue)>,
    ) -> Result<Arc<Capabilities>, Code> {
        let sink = match grant.log {
            Some(_) => Some(self.sink(&grant.component)?),
            None => None,
        };
        let outside = Outside {
            secrets: Arc::new(Secrets::new(secrets)),
            ..self.outside.clone()
        };
        let kept = (&self.stores, &self.outboxes);
        let workload = self.workload(&grant.component);
        let opened = Capabilities::open(grant, &self.data, kept, sink, outside, &workload);
        opened.map_err(|error| error.code())
    }

    /// One account for all versions of a component.
    fn workload(&self, component: &ComponentName) -> Arc<Workload> {
        let mut workloads = self.workloads.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Workload::new(component.clone(), &self.pools);
        Arc::clone(workloads.entry(component.clone()).or_insert_with(new))
    }

    /// Reads the files beside an order: the agent opened them, for this process may not.
    fn access(
        &self,
        client: String,
        roots: bool,
        credentials: bool,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Access, Code> {
        let mut files = descriptors.into_iter();
        let mut read = |there: bool| -> Result<Option<Vec<u8>>, Code> {
            if !there {
                return Ok(None);
            }
            let file = files.next().ok_or(Code::BrokerFile)?;
            let mut bytes = Vec::new();
            let mut bounded =
                std::io::Read::take(std::fs::File::from(file), BROKER_FILE_MAX.saturating_add(1));
            std::io::Read::read_to_end(&mut bounded, &mut bytes).map_err(|_| Code::BrokerFile)?;
            let fits = u64::try_from(bytes.len()).is_ok_and(|length| length <= BROKER_FILE_MAX);
            if fits {
                Ok(Some(bytes))
            } else {
                Err(Code::BrokerFile)
            }
        };
        let tls = match read(roots)? {
            None => Arc::clone(&self.outside.public),
            Some(pem) => tls_of(&pem).ok_or(Code::BrokerFile)?,
        };
        let credentials = match read(credentials)? {
            None => None,
            Some(text) => Some(Arc::new(bus::credentials(&text).ok_or(Code::BrokerFile)?)),
        };
        Ok(Access {
            client,
            credentials,
            tls,
        })
    }

    /// One log for all versions of a component, so that their lines keep one budget.
    fn sink(&self, component: &ComponentName) -> Result<Arc<Sink>, Code> {
        let mut sinks = self.sinks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sink) = sinks.get(component) {
            return Ok(Arc::clone(sink));
        }
        let sink = Sink::open(&self.data.join("logs"), component.workload().as_str());
        let sink = Arc::new(sink.map_err(|_| Code::DiskFailed)?);
        sinks.insert(component.clone(), Arc::clone(&sink));
        Ok(sink)
    }

    fn take_out(&self, slot: SlotId) -> Option<Arc<Version>> {
        let mut state = self.state();
        let version = state.slots.remove(&slot)?;
        if let Some(service) = state.services.get(&version.component) {
            service.pointer.take_out(&version);
        }
        if let Some(exchange) = state.exchanges.get(&version.component)
            && exchange.pointer.is(&version)
        {
            exchange.stop();
        }
        if state
            .timers
            .get(&version.component)
            .is_some_and(|(of, _)| *of == slot)
        {
            state.stop_timers(&version.component);
        }
        Some(version)
    }

    async fn last_signals(&self, version: &Version) {
        if let Some(signals) = version.take_signals() {
            let slot = version.slot;
            self.say(FromExecutor::Signals { slot, signals }).await;
        }
    }
}

pub(crate) fn unknown(slot: SlotId) -> FromExecutor {
    FromExecutor::Failed {
        slot,
        code: Code::NotFound,
    }
}

async fn signals(executor: Arc<Running>) {
    let mut ticks = tokio::time::interval(SIGNALS_INTERVAL);
    loop {
        ticks.tick().await;
        let versions: Vec<_> = executor.state().slots.values().cloned().collect();
        for version in versions {
            executor.last_signals(&version).await;
        }
    }
}
