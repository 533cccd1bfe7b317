//! The executor's engine and the store of one call, as the runtime makes them, and the bare ones beside.

use redan_benches::fleet::{ASK_JOB, grant};
use redan_host_api::egress::{Dial, Outside, public_tls};
use redan_host_api::kv::Stores;
use redan_host_api::limits::{Cpu, Verdict};
use redan_host_api::link;
use redan_host_api::log::Sink;
use redan_host_api::outbox::queue::Outboxes;
use redan_host_api::state::{Capabilities, GuestState, new_store};
use redan_host_api::workload::{Pools, Workload};
use redan_policy::EffectiveGrant;
use redan_protocol::{ByteCount, Code, ComponentName};
use redan_runtime::engine::{EPOCH, Sizes, executor_engine};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime::{Engine, Store};
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

/// What an executor holds before the first call.
pub(crate) struct Sandbox {
    pub(crate) engine: Engine,
    runtime: Runtime,
    grant: EffectiveGrant,
    stores: Stores,
    outboxes: Outboxes,
    sink: Arc<Sink>,
    workload: Arc<Workload>,
    tls: Arc<rustls::ClientConfig>,
    data: TempDir,
}

/// Nobody dials in a bench.
struct Nowhere;

impl Dial for Nowhere {
    fn dial(
        &self,
        _: &ComponentName,
        _: bool,
        _: &str,
        _: u16,
    ) -> Pin<Box<dyn Future<Output = Result<OwnedFd, Code>> + Send>> {
        Box::pin(async { Err(Code::EgressUnreachable) })
    }
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        Self::sized(&Sizes::default())
    }

    /// With a pool of another size.
    pub(crate) fn sized(sizes: &Sizes) -> Self {
        let (engine, _) = executor_engine(sizes).unwrap();
        ticker(&engine);
        let data = TempDir::new().unwrap();
        let stores = Stores::new(data.path().join("kv"));
        let outboxes = Outboxes::new(data.path().join("outbox"));
        let sink = Arc::new(Sink::open(&data.path().join("logs"), "tick").unwrap());
        let grant = grant(ASK_JOB).unwrap();
        let tls = public_tls().unwrap();
        let pools = Pools::new();
        pools.set_memory(ByteCount::new(u64::MAX));
        Self {
            workload: Workload::new(grant.component.clone(), &pools),
            engine,
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .unwrap(),
            grant,
            stores,
            outboxes,
            sink,
            tls,
            data,
        }
    }

    /// What loading a version does with its grant.
    pub(crate) fn open(&self) -> Arc<Capabilities> {
        let (sink, tls) = (Arc::clone(&self.sink), Arc::clone(&self.tls));
        Capabilities::open(
            self.grant.clone(),
            self.data.path(),
            (&self.stores, &self.outboxes),
            Some(sink),
            Outside {
                dial: Arc::new(Nowhere),
                public: tls,
                secrets: Arc::default(),
            },
            &self.workload,
        )
        .unwrap()
    }

    /// Links by the grant.
    pub(crate) fn linked(&self, component: &Component) -> CommandPre<GuestState> {
        let linker = link::linker(&self.engine, &self.grant).unwrap();
        CommandPre::new(linker.instantiate_pre(component).unwrap()).unwrap()
    }

    /// One call under its grant, as `redan_runtime`'s job makes it.
    pub(crate) fn call(&self, entry: &CommandPre<GuestState>, capabilities: &Arc<Capabilities>) {
        let limits = &capabilities.grant().limits;
        let verdict = Verdict::default();
        let cpu = Cpu::new(capabilities, &verdict);
        let mut store = new_store(&self.engine, capabilities, &verdict, &cpu).unwrap();
        let wall = Duration::from_millis(limits.wall_call.get());
        let guest = std::pin::pin!(async {
            let command = entry.instantiate_async(&mut store).await?;
            command.wasi_cli_run().call_run(&mut store).await
        });
        let outcome = self
            .runtime
            .block_on(async { tokio::time::timeout(wall, cpu.measure(guest)).await });
        outcome.unwrap().unwrap().unwrap();
        assert_eq!(verdict.noted(), None);
    }

    /// An instance of a job under its grant, alive for as long as the store is held.
    pub(crate) fn hold(
        &self,
        entry: &CommandPre<GuestState>,
        capabilities: &Arc<Capabilities>,
    ) -> Store<GuestState> {
        let verdict = Verdict::default();
        let cpu = Cpu::new(capabilities, &verdict);
        let mut store = new_store(&self.engine, capabilities, &verdict, &cpu).unwrap();
        // Unmeasured, everything this thread did before would count as the call's.
        self.runtime
            .block_on(cpu.measure(Box::pin(entry.instantiate_async(&mut store))))
            .unwrap();
        store
    }

    /// The same with the context that any job needs, and none of the limits.
    pub(crate) fn hold_bare(&self, entry: &CommandPre<Plain>) -> Store<Plain> {
        let mut store = self.plain_store();
        self.runtime
            .block_on(entry.instantiate_async(&mut store))
            .unwrap();
        store
    }

    /// Links everything that `wasmtime-wasi` has.
    pub(crate) fn linked_plain(&self, component: &Component) -> CommandPre<Plain> {
        let mut linker = Linker::<Plain>::new(&self.engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker).unwrap();
        CommandPre::new(linker.instantiate_pre(component).unwrap()).unwrap()
    }

    /// One call with its context and none of the limits.
    pub(crate) fn plain_call(&self, entry: &CommandPre<Plain>) {
        let mut store = self.plain_store();
        let outcome = self.runtime.block_on(async {
            let command = entry.instantiate_async(&mut store).await?;
            command.wasi_cli_run().call_run(&mut store).await
        });
        outcome.unwrap().unwrap();
    }

    fn plain_store(&self) -> Store<Plain> {
        let plain = Plain(ResourceTable::new(), WasiCtx::builder().build());
        let mut store = Store::new(&self.engine, plain);
        // The engine's code checks epochs; this store never sees one.
        store.set_epoch_deadline(u64::MAX / 2);
        store
    }

    /// The same call with nothing around it.
    pub(crate) fn bare_call(&self, entry: &CommandPre<()>) {
        let mut store = Store::new(&self.engine, ());
        // The engine's code checks epochs; this store never sees one.
        store.set_epoch_deadline(u64::MAX / 2);
        let outcome = self.runtime.block_on(async {
            let command = entry.instantiate_async(&mut store).await?;
            command.wasi_cli_run().call_run(&mut store).await
        });
        outcome.unwrap().unwrap();
    }
}

/// A job's context and nothing else.
pub(crate) struct Plain(ResourceTable, WasiCtx);

impl WasiView for Plain {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.1,
            table: &mut self.0,
        }
    }
}

/// Advances epochs as the executor's own ticker does.
fn ticker(engine: &Engine) {
    let weak = engine.weak();
    std::thread::spawn(move || {
        while let Some(engine) = weak.upgrade() {
            engine.increment_epoch();
            drop(engine);
            std::thread::sleep(EPOCH);
        }
    });
}
