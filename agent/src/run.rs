//! Starting and ending: opens the state, starts what was committed without any network, then follows the fleet.

use crate::broker::{Broker, Rules};
use crate::clock::{Clock, Proven};
use crate::config::ServerAddress;
use crate::disk::RealDisk;
use crate::documents::Documents;
use crate::executor::Around;
use crate::fetch::Blobs;
use crate::held::Tokens;
use crate::journal::{Journal, Start};
use crate::link::Link;
use crate::lock::StateLock;
use crate::main_loop::Agent;
use crate::native::Native;
use crate::next::{self, Next};
use crate::record::Guard;
use crate::refresh::Files;
use crate::renewal::Renewal;
use crate::revocation::ServerLists;
use crate::store::Store;
use crate::supervisor::Supervisor;
use crate::trust::Trust;
use crate::{AgentError, Config, admin, burial, recover};
use redan_agent_core::cadence::Cadence;
use redan_agent_core::{Machine, Record};
use redan_channel::AsyncChannel;
use redan_policy::DeviceCeiling;
use redan_policy::grant::Mode;
use redan_protocol::ipc::LentFolder;
use redan_protocol::wire::control_host;
use redan_protocol::{SpiffeId, Version64};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Report numbers reserved with one write: flash wears, and a gap after a restart is no step back.
const REPORTS_RESERVED: u64 = 1024;

/// Runs the agent until SIGTERM, SIGINT, or the supervisor is gone. Builds its own async runtime: call it from plain `main`.
///
/// `memory_locked`: whether its memory stays out of swap, to be shown. `ready` is called once, when what was committed is starting and the
/// admin socket listens.
pub fn run(
    config: &Config,
    (supervisor, broker): (OwnedFd, OwnedFd),
    memory_locked: bool,
    ready: impl FnOnce(&SpiffeId),
) -> Result<(), AgentError> {
    let system = |what| move |source| AgentError::System { what, source };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system("start the reactor"))?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let mut term = signal(SignalKind::terminate()).map_err(system("wait for SIGTERM"))?;
        let mut int = signal(SignalKind::interrupt()).map_err(system("wait for SIGINT"))?;
        let ceiling = std::fs::read_to_string(&config.ceiling)
            .map_err(|source| AgentError::file("read", &config.ceiling, source))?;
        let ceiling = redan_policy::parse_device(&config.ceiling.display().to_string(), &ceiling)
            .map_err(AgentError::Ceiling)?;
        let store = Store::create(&config.state)?;
        let _lock = StateLock::take(&config.state)?;
        if let Err(error) = burial::make_room(&RealDisk, &store.at("")) {
            tracing::warn!("no room is kept for a tombstone: {error}");
        }
        // Before the identity is read: a power cut may have left half of the new one in its place.
        let next = next::settle(&RealDisk, &Tokens, &store.at("identity"))?;
        let identity = store.identity()?.ok_or_else(|| AgentError::NotEnrolled {
            state: config.state.clone(),
        })?;
        let mut listeners = BTreeMap::new();
        for (component, address) in ceiling.listen() {
            let failed = |source| AgentError::Listen {
                address: *address,
                source,
            };
            let listener = TcpListener::bind(address).map_err(failed)?;
            listener.set_nonblocking(true).map_err(failed)?;
            let bound = listener.local_addr().map_err(failed)?;
            listeners.insert(component.clone(), (bound, listener));
        }
        let socket = admin::bind(&store.at("admin.sock"))?;
        let bundles = admin::bind(&store.at("apply.sock"))?;
        let channel = |with, fd| AsyncChannel::new(fd).map_err(|source| AgentError::Channel { with, source });
        let (events, receiver) = mpsc::unbounded_channel();
        let key = Rc::new(store.seal_key()?);
        let around = Around {
            native: Native {
                folder: store.at("native"),
                blobs: Blobs::new(store.at("blobs")),
                key: Rc::clone(&key),
                supervisor: Supervisor::start(channel("supervisor", supervisor)?, events.clone()),
            },
            broker: Broker::start(channel("broker", broker)?),
            memory: ceiling.publisher_memory(),
            wasi_0_3: ceiling.wasi_0_3(),
            lent: lent(&ceiling),
            events: events.clone(),
        };
        let id = identity.id.clone();
        let renewal = Renewal::new(identity, !matches!(next, Next::Nothing));
        let mut agent = assemble(config, &store, (renewal, next), around, key, ceiling, listeners)?;
        agent.memory_locked = memory_locked;
        tokio::task::spawn_local(admin::serve(socket, events.clone()));
        tokio::task::spawn_local(admin::take_bundles(bundles, events));
        ready(&id);
        let ended = tokio::select! {
            ended = agent.run(receiver) => ended,
            _ = term.recv() => None,
            _ = int.recv() => None,
        };
        match ended {
            // No other task gets a turn from here on: nothing is written back.
            Some(proof) => Err(burial::begin(&config.state, &proof)),
            None => Ok(()),
        }
    })
}

fn assemble(
    config: &Config,
    store: &Store,
    (renewal, next): (Renewal, Next),
    around: Around,
    key: Rc<crate::seal::SealKey>,
    ceiling: redan_policy::DeviceCeiling,
    listeners: BTreeMap<redan_protocol::ComponentName, (std::net::SocketAddr, TcpListener)>,
) -> Result<Agent, AgentError> {
    let clock = Clock::start();
    let folder = store.at("journal");
    let (journal, start) = Journal::open(&RealDisk, &folder, &key)
        .map_err(|source| AgentError::file("read", &folder, source))?;
    let record: Record = match start {
        Start::From(record) => *record,
        Start::Lost => {
            tracing::error!("the journal is lost: nothing runs until the fleet directs it again");
            Record::default()
        }
    };
    let proven = Proven::new(clock);
    let identity = std::rc::Rc::clone(&renewal.identity);
    let guard = store.guard(&identity.id, &key)?;
    let trust = open_trust(store, &identity.id, (clock, &proven), guard.as_ref())?;
    // Under the maximum of the record, if there is one.
    proven.learn(identity.since);
    let folder = store.at("revoked");
    let revoked = ServerLists::open(&RealDisk, &folder, &identity.believed.anchors, &proven)
        .map_err(|source| AgentError::file("read", &folder, source))?;
    let server = config
        .server
        .as_ref()
        .map_or(identity.voucher.server.as_str(), ServerAddress::as_str);
    let more: Vec<String> = config.servers.iter().map(ToString::to_string).collect();
    // With a whole next pair the server may refuse the present one by now: nothing speaks with it any more.
    let next = match next {
        Next::Whole(key, chain) => identity.with_own(key, chain).ok(),
        _ => None,
    };
    let speaks = next.as_ref().unwrap_or(&identity).speaks(&proven)?;
    let link = Link::new(
        server.to_owned(),
        &more,
        control_host(identity.id.fleet()),
        speaks,
    );
    link.trust(&identity.believed.anchors);
    let serial = trust.as_ref().map_or(0, |trust| trust.record().policy_serial);
    let documents = Documents::open(store.at("metadata/policy"), &key, &config.ceiling, serial)?;
    let release = Files(store.at("metadata/release"));
    let director = Files(store.at("metadata/director"));
    let (machine, effects) = Machine::boot(record, clock.now());
    let mut agent = Agent {
        id: identity.id.clone(),
        link,
        renewal,
        identity_folder: store.at("identity"),
        trust_folder: store.at("trust"),
        guard,
        bundles: VecDeque::new(),
        carried: redan_protocol::DirectionSequence::default(),
        proven,
        clock,
        machine,
        journal,
        key,
        trust,
        ceiling,
        documents,
        listeners,
        executors: BTreeMap::new(),
        owners: BTreeMap::new(),
        around,
        rules: Rules::default(),
        links: crate::local_bus::Links::default(),
        isolation: BTreeMap::new(),
        versions: (
            Version64::new(release.timestamp_version()),
            Version64::new(director.timestamp_version()),
        ),
        release,
        director,
        revoked: Rc::new(RefCell::new(revoked)),
        reports: Reports::open(store)?,
        settled: None,
        running: false,
        offline: None,
        contact: None,
        forbidden: Vec::new(),
        cadence: Cadence::default(),
        wake: None,
        beat: Instant::now(),
        ended: None,
        memory_locked: false,
    };
    agent.suspend_if_stale();
    let mut inputs = VecDeque::new();
    agent.perform(effects, &mut inputs);
    for input in inputs {
        agent.feed(input);
    }
    Ok(agent)
}

/// The trust record; `None`: it is lost, which is said.
fn open_trust(
    store: &Store,
    id: &SpiffeId,
    (clock, proven): (Clock, &Proven),
    guard: Option<&Guard>,
) -> Result<Option<Trust>, AgentError> {
    match Trust::open(&store.at("trust"), id, clock, proven, guard)? {
        Ok(trust) => {
            recover::forget(store)?;
            Ok(Some(trust))
        }
        Err(loss) => {
            tracing::error!(
                code = redan_protocol::Code::StateLost.name(),
                remedy = redan_protocol::Code::StateLost.remedy(),
                "{loss}; what is committed runs on, nothing new is adopted"
            );
            Ok(None)
        }
    }
}

/// The numbers of the reports: they only grow, also over restarts.
pub(crate) struct Reports {
    store: Store,
    next: u64,
    reserved: u64,
}

impl Reports {
    fn open(store: &Store) -> Result<Self, AgentError> {
        let path = store.at("metadata/reports");
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            other => other.map_err(|source| AgentError::file("read", &path, source))?,
        };
        let next = text.trim().parse().unwrap_or(0);
        Ok(Self {
            store: store.clone(),
            next,
            reserved: next,
        })
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        if self.next >= self.reserved {
            let reserved = self.next.saturating_add(REPORTS_RESERVED);
            match self
                .store
                .keep("metadata/reports", reserved.to_string().as_bytes())
            {
                Ok(()) => self.reserved = reserved,
                Err(error) => tracing::warn!("report numbers were not reserved: {error}"),
            }
        }
        self.next = self.next.saturating_add(1);
        self.next
    }
}

/// Every executor reaches what the ceiling maps, whichever guest is granted it: which one is, a later policy may change. File permissions
/// are per publisher.
fn lent(ceiling: &DeviceCeiling) -> Vec<LentFolder> {
    let folders = ceiling.folders().map(|(path, mode)| LentFolder {
        path: path.to_owned(),
        writable: mode == Mode::ReadWrite,
    });
    folders.collect()
}
