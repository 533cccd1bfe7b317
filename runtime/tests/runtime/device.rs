//! An executor on real channels, driven as the agent drives it; and the compiler, asked as the agent asks it.

use crate::far_end::FarEnd;
use crate::{grants, guests};
use redan_channel::ChannelError;
use redan_policy::EffectiveGrant;
use redan_policy::grant::World;
use redan_protocol::ipc::{Compile, Compiled, FromExecutor, Signals, SlotId, ToExecutor, WorkloadKind};
use redan_protocol::report::{Health, Isolation};
use redan_protocol::{ByteCount, Code, Digest, Millis};
use redan_runtime::engine::{Native, Sizes};
use redan_runtime::executor::{Executor, ExecutorError};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use std::collections::VecDeque;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Silence this long is a failed test and no slow machine.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

/// One executor, its agent's end of the channel, its data folder, and the broker's far end.
pub(crate) struct Device {
    pub(crate) data: tempfile::TempDir,
    agent: Option<OwnedFd>,
    executor: Option<JoinHandle<Result<(), ExecutorError>>>,
    next: u32,
    signals: VecDeque<(SlotId, Signals)>,
    _far_end: FarEnd,
}

impl Device {
    pub(crate) fn start() -> Self {
        Self::with(
            &Sizes {
                instances: 16,
                memory_max: ByteCount::mib(32),
                keep_resident: ByteCount::kib(512),
            },
            FarEnd::refusing(),
        )
    }

    /// One whose ceiling does not have WASI 0.3 switched on.
    pub(crate) fn switched_off() -> Self {
        Self::over(
            tempfile::tempdir().unwrap(),
            &Sizes::default(),
            FarEnd::refusing(),
            false,
        )
    }

    pub(crate) fn with(sizes: &Sizes, far_end: (FarEnd, OwnedFd)) -> Self {
        Self::over(tempfile::tempdir().unwrap(), sizes, far_end, true)
    }

    /// The executor ends, and another begins over the same folder.
    pub(crate) fn restarted(mut self) -> Self {
        let data = std::mem::replace(&mut self.data, tempfile::tempdir().unwrap());
        self.end();
        Self::over(data, &Sizes::default(), FarEnd::refusing(), true)
    }

    fn over(
        data: tempfile::TempDir,
        sizes: &Sizes,
        (far_end, broker): (FarEnd, OwnedFd),
        wasi_0_3: bool,
    ) -> Self {
        let (agent, inherited) = redan_channel::pair().unwrap();
        set_socket_timeout(&agent, Timeout::Recv, Some(PATIENCE)).unwrap();
        let folder = data.path().to_owned();
        watch_for_panics();
        let prepared = Executor::prepare(sizes, wasi_0_3).unwrap();
        let digest = |native| prepared.engine_digest(native);
        let (engine, metered) = (digest(Native::Plain).unwrap(), digest(Native::Metered).unwrap());
        let tasks = digest(Native::Tasks);
        assert_eq!(tasks.is_some(), wasi_0_3);
        let isolation = Isolation::default();
        let executor = std::thread::spawn(move || prepared.run(inherited, broker, folder, isolation));
        let mut device = Self {
            data,
            agent: Some(agent),
            executor: Some(executor),
            next: 1,
            signals: VecDeque::new(),
            _far_end: far_end,
        };
        let ready = FromExecutor::Ready {
            engine,
            metered,
            wasi_0_3: tasks,
            isolation,
        };
        assert_eq!(device.hear(), ready);
        device.memory(ByteCount::mib(1024));
        device
    }

    /// Gives the executor its part of the device's memory.
    pub(crate) fn memory(&self, total: ByteCount) {
        self.say(&ToExecutor::Memory { total }, &[]);
    }

    fn channel(&self) -> BorrowedFd<'_> {
        self.agent.as_ref().unwrap().as_fd()
    }

    pub(crate) fn say(&self, order: &ToExecutor, beside: &[BorrowedFd<'_>]) {
        redan_channel::send(self.channel(), order, beside).unwrap();
    }

    /// The next answer. Signals are kept for [`Self::signals`].
    pub(crate) fn hear(&mut self) -> FromExecutor {
        loop {
            let received = redan_channel::recv::<FromExecutor>(self.channel()).unwrap();
            assert!(received.descriptors.is_empty());
            match received.message {
                FromExecutor::Signals { slot, signals } => self.signals.push_back((slot, signals)),
                answer => return answer,
            }
        }
    }

    pub(crate) fn fresh_slot(&mut self) -> SlotId {
        self.next += 1;
        SlotId(self.next)
    }

    /// The slot that the next load will have.
    pub(crate) fn next_slot(&self) -> SlotId {
        SlotId(self.next + 1)
    }

    /// Loads native code that somebody made, beside whatever descriptors.
    pub(crate) fn load_beside(
        &mut self,
        grant: &EffectiveGrant,
        beside: &[BorrowedFd<'_>],
    ) -> Result<SlotId, Code> {
        let slot = self.fresh_slot();
        for broker in &grant.messages.brokers {
            self.say(&access(slot, &broker.label, false), &[]);
        }
        let order = load_order(slot, grant);
        self.say(&order, beside);
        match self.hear() {
            FromExecutor::Loaded { slot: loaded } if loaded == slot => Ok(slot),
            FromExecutor::Failed { slot: failed, code } if failed == slot => Err(code),
            other => panic!("{other:?} is no answer to a load"),
        }
    }

    /// Loads native code as the agent does: in a write-sealed memory file.
    pub(crate) fn load_native(&mut self, native: &[u8], grant: &EffectiveGrant) -> Result<SlotId, Code> {
        let file = redan_sealed::seal("native", native).unwrap();
        self.load_beside(grant, &[file.as_fd()])
    }

    /// Compiles and loads.
    pub(crate) fn load(&mut self, wasm: &[u8], grant: &EffectiveGrant) -> Result<SlotId, Code> {
        let native = guests::native(wasm, grant);
        self.load_native(&native, grant)
    }

    /// Loads a service with its listener.
    pub(crate) fn load_service(&mut self, wasm: &[u8], grant: &EffectiveGrant, on: &TcpListener) -> SlotId {
        let native = guests::native(wasm, grant);
        let file = redan_sealed::seal("native", &native).unwrap();
        self.load_beside(grant, &[file.as_fd(), on.as_fd()]).unwrap()
    }

    /// Loads a service and sends it the traffic of a listener of its own.
    pub(crate) fn serve(&mut self, wasm: &[u8], grant: &EffectiveGrant) -> (SlotId, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let slot = self.load_service(wasm, grant, &listener);
        self.activate(slot);
        (slot, listener.local_addr().unwrap())
    }

    pub(crate) fn activate(&mut self, slot: SlotId) {
        self.say(&ToExecutor::Activate { slot }, &[]);
        assert_eq!(self.hear(), FromExecutor::Activated { slot });
    }

    pub(crate) fn unload(&mut self, slot: SlotId, drain: Millis) {
        self.say(&ToExecutor::Unload { slot, drain }, &[]);
        assert_eq!(self.hear(), FromExecutor::Unloaded { slot });
    }

    /// Runs a job once: `Ok`, or the code it failed with.
    pub(crate) fn run(&mut self, slot: SlotId) -> Result<(), Code> {
        self.say(&ToExecutor::Run { slot }, &[]);
        self.probed(slot)
    }

    pub(crate) fn probe(&mut self, slot: SlotId) -> Result<(), Code> {
        self.say(&ToExecutor::Probe { slot }, &[]);
        self.probed(slot)
    }

    pub(crate) fn probed(&mut self, slot: SlotId) -> Result<(), Code> {
        match self.hear() {
            FromExecutor::Probed {
                slot: probed,
                health,
                code,
            } if probed == slot => match (health, code) {
                (Health::Healthy, None) => Ok(()),
                (Health::Unhealthy, Some(code)) => Err(code),
                other => panic!("{other:?} contradicts itself"),
            },
            FromExecutor::Failed { slot: failed, code } if failed == slot => Err(code),
            other => panic!("{other:?} is no answer to a probe or a run"),
        }
    }

    /// What a run of a freshly loaded guest ends with. Linking it must succeed.
    pub(crate) fn outcome(&mut self, wasm: &[u8], grant: &EffectiveGrant) -> Result<(), Code> {
        let slot = self.load(wasm, grant).unwrap();
        self.run(slot)
    }

    /// The next signals of a slot.
    pub(crate) fn signals(&mut self, of: SlotId) -> Signals {
        loop {
            if let Some(at) = self.signals.iter().position(|(slot, _)| *slot == of) {
                return self.signals.remove(at).unwrap().1;
            }
            match redan_channel::recv::<FromExecutor>(self.channel())
                .unwrap()
                .message
            {
                FromExecutor::Signals { slot, signals } => self.signals.push_back((slot, signals)),
                other => panic!("{other:?} where only signals were to come"),
            }
        }
    }

    /// Whether signals of a slot came that nobody asked for yet.
    pub(crate) fn signalled(&self, of: SlotId) -> bool {
        self.signals.iter().any(|(slot, _)| *slot == of)
    }

    pub(crate) fn forget_signals(&mut self) {
        self.signals.clear();
    }

    /// Somebody else's workload still runs on this executor.
    pub(crate) fn serves_others(&mut self) {
        let grant = grants::bare("other/neighbour", World::Command);
        let slot = self.load(&guests::harmless("well-behaved"), &grant).unwrap();
        assert_eq!(self.run(slot), Ok(()), "the neighbour must not notice");
        self.unload(slot, Millis::seconds(60));
    }

    /// The lines of a workload's log: from where, and what.
    pub(crate) fn log(&self, workload: &str) -> Vec<String> {
        let path = self.data.path().join("logs").join(workload).with_extension("log");
        let text = std::fs::read_to_string(path).unwrap();
        let lines = text
            .lines()
            .map(|line| line.split_once(' ').unwrap().1.to_owned());
        lines.collect()
    }

    /// Whether a workload's log has a line; it may not be there yet.
    pub(crate) fn logged(&self, workload: &str, wanted: &str) -> bool {
        let path = self.data.path().join("logs").join(workload).with_extension("log");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        lines.any(|(_, line)| line == wanted)
    }

    /// Where a workload's volume lies; made, as it would be at the first load.
    pub(crate) fn volume(&self, workload: &str) -> PathBuf {
        let folder = self.data.path().join("volumes").join(workload).join("state");
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }
}

impl Device {
    /// The agent goes away; how the executor ends, within a test's patience.
    pub(crate) fn end(mut self) {
        let executor = self.executor.take().unwrap();
        drop(self.agent.take());
        let (said, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || said.send(executor.join()));
        ended.recv_timeout(PATIENCE).unwrap().unwrap().unwrap();
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        drop(self.agent.take());
        let ended = self.executor.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            ended.transpose().unwrap().unwrap_or(Ok(())).unwrap();
            assert!(!PANICKED.load(Ordering::SeqCst), "an executor's thread panicked");
        }
    }
}

/// Whether any executor's thread panicked: the runtime catches it, the client sees nothing, and it is a bug all the same.
static PANICKED: AtomicBool = AtomicBool::new(false);

fn watch_for_panics() {
    static WATCHING: Once = Once::new();
    WATCHING.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if std::thread::current().name() == Some("guest") {
                PANICKED.store(true, Ordering::SeqCst);
            }
            before(panic);
        }));
    });
}

/// How a broker is spoken to, with a file of credentials beside it or without.
pub(crate) fn access(slot: SlotId, label: &str, credentials: bool) -> ToExecutor {
    ToExecutor::Access {
        slot,
        label: label.to_owned(),
        client: "press-7".to_owned(),
        roots: false,
        credentials,
    }
}

pub(crate) fn load_order(slot: SlotId, grant: &EffectiveGrant) -> ToExecutor {
    ToExecutor::Load {
        slot,
        component: grant.component.clone(),
        digest: Digest::of(b"not asked by the executor"),
        kind: match grant.world {
            World::HttpProxy | World::HttpService => WorkloadKind::Service,
            World::Command => WorkloadKind::Job,
            World::Messages => WorkloadKind::Message,
        },
        grant: grant.canonical_json(),
    }
}

/// The compiler's answer to a job: native code, or its refusal.
pub(crate) fn compile(wasm: &[u8], grant: &EffectiveGrant) -> Result<Vec<u8>, Code> {
    let file = redan_sealed::seal("component", wasm).unwrap();
    let job = Compile {
        digest: Digest::of(wasm),
        grant: grant.canonical_json(),
    };
    compile_job(&job, &[file.as_fd()])
}

pub(crate) fn compile_job(job: &Compile, beside: &[BorrowedFd<'_>]) -> Result<Vec<u8>, Code> {
    let (agent, compiler) = redan_channel::pair().unwrap();
    redan_channel::send(&agent, job, beside).unwrap();
    std::thread::scope(|scope| {
        let ran = scope.spawn(|| redan_runtime::compiler::run(&compiler));
        let answer = redan_channel::recv::<Compiled>(&agent);
        ran.join().unwrap().unwrap();
        match answer.map(|answer| (answer.message, answer.descriptors)) {
            Ok((Compiled::Done { length, .. }, descriptors)) => {
                let [file] = <[OwnedFd; 1]>::try_from(descriptors).unwrap();
                rustix::fs::fcntl_add_seals(&file, redan_sealed::WRITE_SEALS).unwrap();
                let native = redan_sealed::Sealed::read(&file).unwrap().bytes().to_vec();
                assert_eq!(ByteCount::new(native.len().try_into().unwrap()), length);
                Ok(native)
            }
            Ok((Compiled::Refused { code }, descriptors)) => {
                assert!(descriptors.is_empty());
                Err(code)
            }
            Err(error @ ChannelError::Closed) => panic!("no answer: {error}"),
            Err(error) => panic!("{error}"),
        }
    })
}
