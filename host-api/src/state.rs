//! What a workload version may use ([`Capabilities`]), and what one call holds of it ([`GuestState`]).

use crate::bench::Bench;
use crate::clock::{Monotonic, Wall};
use crate::egress::{Egress, Hooks, Outside};
use crate::files::{Files, FilesView};
use crate::kv::{Bucket, KvError, Stores};
use crate::limits::{Cpu, Meter, Verdict};
use crate::log::{Sink, Source};
use crate::outbox::queue::{OutboxError, Outboxes, Queue};
use crate::output::{Lines, Standard};
use crate::volume::Mounted;
use crate::workload::{Kept, Reservation, Workload};
use redan_policy::EffectiveGrant;
use redan_policy::grant::{Bucket as Quota, Mode, World};
use redan_protocol::Code;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use wasmtime::component::ResourceTable;
use wasmtime::{Engine, Store, UpdateDeadline};
use wasmtime_wasi::filesystem::WasiFilesystemCtxView;
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_config::WasiConfigVariables;
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

/// Why a workload's capabilities could not be made ready.
#[derive(Debug, thiserror::Error)]
pub enum CapabilityError {
    /// A bucket does not open.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// The executor has no room for the minimum the grant keeps for it.
    #[error("the workload's minimum of memory is not there")]
    Memory,
    /// The engine does not count fuel.
    #[error("the engine counts no fuel")]
    Fuel,
    /// An outbox does not open.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    /// A volume's or the log's folder is not to be had.
    #[error("a folder of the workload: {0}")]
    Folder(#[source] io::Error),
    /// A bundle does not read, or a secret has no value.
    #[error("outgoing requests: {0}")]
    Egress(Code),
}

impl CapabilityError {
    /// The code that leaves the process.
    pub fn code(&self) -> Code {
        match self {
            Self::Kv(error) => error.code(),
            Self::Memory => Code::DeviceMemory,
            Self::Fuel => Code::Internal,
            Self::Outbox(error) => error.code(),
            Self::Folder(error) if error.kind() == io::ErrorKind::StorageFull => Code::DiskFull,
            Self::Folder(_) => Code::DiskFailed,
            Self::Egress(code) => *code,
        }
    }
}

/// Everything a grant gives, opened once a version.
pub struct Capabilities {
    grant: EffectiveGrant,
    buckets: BTreeMap<String, (Arc<Bucket>, Arc<Quota>)>,
    queues: BTreeMap<String, Arc<Queue>>,
    volumes: Vec<Mounted>,
    sink: Option<Arc<Sink>>,
    config: WasiConfigVariables,
    egress: Option<Arc<Egress>>,
    tls: Arc<rustls::ClientConfig>,
    bench: Option<Arc<Bench>>,
    pub(crate) workload: Arc<Workload>,
    kept: Arc<Kept>,
}

impl Capabilities {
    /// Opens what the grant names below `data`, the publisher's own folder, and keeps the minimum of memory.
    pub fn open(
        grant: EffectiveGrant,
        data: &Path,
        (stores, outboxes): (&Stores, &Outboxes),
        sink: Option<Arc<Sink>>,
        outside: Outside,
        of: &Arc<Workload>,
    ) -> Result<Arc<Self>, CapabilityError> {
        let kept = of.keep(grant.limits.memory_min).ok_or(CapabilityError::Memory)?;
        let workload = grant.component.workload().as_str();
        let mut buckets = BTreeMap::new();
        for quota in &grant.kv {
            let bucket = stores.bucket(workload, &quota.label)?;
            buckets.insert(quota.label.clone(), (bucket, Arc::new(quota.clone())));
        }
        let mut queues = BTreeMap::new();
        for outbox in &grant.messages.outbox {
            queues.insert(outbox.id.clone(), outboxes.queue(workload, &outbox.id)?);
        }
        let folder = data.join("volumes").join(workload);
        let volumes = grant.fs.iter().map(|volume| Mounted::prepare(volume, &folder));
        let volumes = volumes.collect::<io::Result<Vec<_>>>();
        let volumes = volumes.map_err(CapabilityError::Folder)?;
        let tls = Arc::clone(&outside.public);
        let egress = (!grant.net_http.is_empty()).then(|| Egress::new(&grant, outside));
        let egress = egress.transpose().map_err(CapabilityError::Egress)?;
        Ok(Arc::new(Self {
            config: configuration(&grant),
            egress: egress.map(Arc::new),
            grant,
            buckets,
            queues,
            volumes,
            sink,
            tls,
            bench: None,
            workload: Arc::clone(of),
            kept,
        }))
    }

    /// The same with less: what `later` does not give is not there any more, whatever was linked. What is open stays open, so that
    /// buckets, logs and budgets are one with those of the calls before.
    pub fn narrowed(&self, later: &EffectiveGrant) -> Result<Arc<Self>, CapabilityError> {
        let grant = self.grant.narrowed_to(later);
        let kept = grant.kv.iter().filter_map(|quota| {
            let (bucket, _) = self.buckets.get(&quota.label)?;
            Some((quota.label.clone(), (Arc::clone(bucket), Arc::new(quota.clone()))))
        });
        let buckets = kept.collect();
        let mounted = grant.fs.iter().filter_map(|granted| {
            let known = self
                .volumes
                .iter()
                .find(|volume| volume.granted.name == granted.name)?;
            Some(Mounted {
                granted: granted.clone(),
                folder: known.folder.clone(),
            })
        });
        let volumes = mounted.collect();
        let kept_queues = grant.messages.outbox.iter().filter_map(|outbox| {
            let queue = self.queues.get(&outbox.id)?;
            Some((outbox.id.clone(), Arc::clone(queue)))
        });
        let queues = kept_queues.collect();
        let egress = self.egress.as_ref().filter(|_| !grant.net_http.is_empty());
        let egress = egress.map(|egress| egress.narrowed(&grant)).transpose();
        Ok(Arc::new(Self {
            config: configuration(&grant),
            egress: egress.map_err(CapabilityError::Egress)?.map(Arc::new),
            buckets,
            queues,
            volumes,
            sink: self.sink.clone(),
            grant,
            tls: Arc::clone(&self.tls),
            bench: self.bench.clone(),
            workload: Arc::clone(&self.workload),
            kept: Arc::clone(&self.kept),
        }))
    }

    /// The same with what a publisher's bench lends. Of capabilities nobody uses yet.
    pub fn on(mut self: Arc<Self>, bench: &Arc<Bench>) -> Arc<Self> {
        if let Some(capabilities) = Arc::get_mut(&mut self) {
            capabilities.bench = Some(Arc::clone(bench));
        }
        self
    }

    /// The egress a bench lends for one request.
    pub(crate) fn egress_for<B>(&self, request: &http::Request<B>) -> Option<Arc<Egress>> {
        let bench = self.bench.as_ref()?;
        bench.egress_for(&self.grant.component, self.grant.limits, &self.tls, request)
    }

    /// What a bench lends; never on a device.
    pub fn bench(&self) -> Option<&Arc<Bench>> {
        self.bench.as_ref()
    }

    /// The grant they come from.
    pub fn grant(&self) -> &EffectiveGrant {
        &self.grant
    }

    /// Whether a writable volume is over its quota now.
    pub fn volume_is_over(&self) -> bool {
        self.writable().any(Mounted::is_over)
    }

    /// Whether there is a writable volume at all.
    pub fn has_writable_volume(&self) -> bool {
        self.writable().next().is_some()
    }

    fn writable(&self) -> impl Iterator<Item = &Mounted> {
        self.volumes
            .iter()
            .filter(|volume| volume.granted.mode == Mode::ReadWrite)
    }

    /// The queue of an outbox of the grant.
    pub fn queue(&self, id: &str) -> Option<Arc<Queue>> {
        self.queues.get(id).cloned()
    }

    /// Outgoing HTTP, if any is granted.
    pub fn egress(&self) -> Option<Arc<Egress>> {
        self.egress.clone()
    }

    pub(crate) fn bucket(&self, label: &str) -> Option<(Arc<Bucket>, Arc<Quota>)> {
        let granted = self.buckets.get(label);
        let granted = granted.map(|(bucket, quota)| (Arc::clone(bucket), Arc::clone(quota)));
        let Some(bench) = &self.bench else {
            return granted;
        };
        let found = granted.or_else(|| bench.bucket(self.grant.component.workload().as_str(), label));
        if let Some((bucket, _)) = &found {
            bench.note(|seen| drop(seen.buckets.insert(label.to_owned(), Arc::clone(bucket))));
        }
        found
    }
}

fn configuration(grant: &EffectiveGrant) -> WasiConfigVariables {
    let config = grant.config.iter().flatten();
    config.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// The state of one call.
pub struct GuestState {
    pub(crate) table: ResourceTable,
    /// Made when the guest first asks for something of it: many services never do, and it seeds random generators.
    wasi: Option<WasiCtx>,
    http: WasiHttpCtx,
    hooks: Hooks,
    meter: Meter,
    files: Files,
    pub(crate) lines: Lines,
    pub(crate) capabilities: Arc<Capabilities>,
    pub(crate) verdict: Verdict,
    /// For a witness: which volume a descriptor belongs to.
    pub(crate) below: BTreeMap<u32, String>,
}

impl GuestState {
    /// For a witness: how many resources there are now.
    fn count_handles(&mut self) {
        if self.capabilities.bench.is_some() {
            let now = u64::try_from(self.table.iter_mut().count()).unwrap_or(u64::MAX);
            self.note(|seen| seen.handles = seen.handles.max(now));
        }
    }

    /// `wasi:filesystem`, with quotas.
    pub(crate) fn files(&mut self) -> FilesView<'_> {
        FilesView {
            inner: WasiFilesystemCtxView {
                ctx: opened(&mut self.wasi, &self.capabilities, &self.lines).filesystem(),
                table: &mut self.table,
            },
            files: &mut self.files,
        }
    }

    /// `wasi:config`'s values.
    pub(crate) fn config(&self) -> &WasiConfigVariables {
        &self.capabilities.config
    }
}

impl WasiView for GuestState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: opened(&mut self.wasi, &self.capabilities, &self.lines),
            table: &mut self.table,
        }
    }
}

impl WasiHttpView for GuestState {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            hooks: &mut self.hooks,
            table: &mut self.table,
            ctx: &mut self.http,
        }
    }
}

/// A store for one call, every limit set. `verdict` and `cpu` are watched by the caller.
pub fn new_store(
    engine: &Engine,
    capabilities: &Arc<Capabilities>,
    verdict: &Verdict,
    cpu: &Arc<Cpu>,
) -> Result<Store<GuestState>, CapabilityError> {
    let limits = capabilities.grant.limits;
    let lines = Lines {
        sink: capabilities.sink.clone().zip(capabilities.grant.log),
        bench: capabilities.bench.clone(),
        logged: capabilities.grant.log.is_some(),
        verdict: verdict.clone(),
    };
    let handles = usize::try_from(limits.handles).unwrap_or(usize::MAX);
    let mut table = ResourceTable::new();
    table.set_max_capacity(handles);
    let mut http = WasiHttpCtx::new();
    http.set_field_size_limit(
        FIELD_OVERHEAD.saturating_add(narrow(limits.header_bytes.get()).saturating_mul(4)),
    );
    let state = GuestState {
        table,
        wasi: wasi(capabilities, &lines).map_err(CapabilityError::Folder)?,
        http,
        hooks: Hooks {
            egress: capabilities.egress.clone(),
            verdict: verdict.clone(),
            bench: capabilities.bench.is_some().then(|| Arc::clone(capabilities)),
        },
        meter: Meter::new(
            &limits,
            Reservation::new(&capabilities.kept),
            verdict.clone(),
            capabilities.bench.clone(),
        ),
        files: Files::new(
            &capabilities.volumes,
            &capabilities.workload,
            limits.descriptors,
            verdict.clone(),
        ),
        lines,
        capabilities: Arc::clone(capabilities),
        verdict: verdict.clone(),
        below: BTreeMap::new(),
    };
    let mut store = Store::new(engine, state);
    store.limiter(|state| &mut state.meter);
    store.set_hostcall_fuel(narrow(limits.hostcall_bytes.get()));
    store.set_max_component_handles(handles);
    if let Some(tasks) = store.concurrent_resource_table() {
        // Tasks, streams, futures and calls under way: only where an engine has any.
        tasks.set_max_capacity(handles);
    }
    if limits.fuel_per_call > 0 {
        // Fails where the engine counts none: then the workload does not run, for its limit would not hold.
        store
            .set_fuel(limits.fuel_per_call)
            .map_err(|_| CapabilityError::Fuel)?;
    }
    let (cpu, verdict) = (Arc::clone(cpu), verdict.clone());
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(move |mut store| {
        store.data_mut().count_handles();
        Ok(if cpu.is_interrupted() {
            verdict.deny(Code::Superseded);
            UpdateDeadline::Interrupt
        } else if cpu.exhausted() {
            verdict.deny(Code::CpuLimit);
            UpdateDeadline::Interrupt
        } else {
            UpdateDeadline::Yield(1)
        })
    });
    Ok(store)
}

/// Room for the map itself: wasmtime counts a header map's memory, not its bytes on the wire, which the runtime checks.
const FIELD_OVERHEAD: usize = 4096;

/// The context of a call, where there is something to open that may fail.
fn wasi(capabilities: &Capabilities, lines: &Lines) -> io::Result<Option<WasiCtx>> {
    let bench = capabilities.bench.as_ref();
    if bench.is_none() && capabilities.volumes.is_empty() {
        return Ok(None);
    }
    let mut builder = context(capabilities, lines);
    if let Some(bench) = bench {
        lend(&mut builder, bench, capabilities.grant.log.is_some())?;
    }
    for volume in &capabilities.volumes {
        let write = volume.granted.mode == Mode::ReadWrite;
        let usage = capabilities.workload.usage(&volume.granted.name);
        let perms = if write && usage.begin(volume) {
            FsPerms::ReadWrite
        } else {
            if write {
                lines.verdict.note(Code::VolumeQuota);
            }
            FsPerms::ReadOnly
        };
        let opened = builder.preopened_dir(&volume.folder, &volume.granted.guest, perms);
        opened.map_err(|_| io::Error::from(io::ErrorKind::NotFound))?;
    }
    Ok(Some(builder.build()))
}

/// The context of a call, now at the latest.
fn opened<'a>(wasi: &'a mut Option<WasiCtx>, capabilities: &Capabilities, lines: &Lines) -> &'a mut WasiCtx {
    wasi.get_or_insert_with(|| context(capabilities, lines).build())
}

/// All of a context that cannot fail.
fn context(capabilities: &Capabilities, lines: &Lines) -> WasiCtxBuilder {
    let grant = &capabilities.grant;
    let mut builder = WasiCtx::builder();
    builder
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false)
        .stdout(Standard {
            lines: lines.clone(),
            source: Source::Out,
        })
        .stderr(Standard {
            lines: lines.clone(),
            source: Source::Err,
        });
    let bench = capabilities.bench.as_ref();
    if !bench.is_some_and(|bench| bench.fine_clocks) {
        builder
            .wall_clock(Wall(grant.clock, bench.cloned()))
            .monotonic_clock(Monotonic(grant.clock, Instant::now(), bench.cloned()));
    }
    if let Some(random) = grant.random {
        builder.max_random_size(random.max_bytes_per_call.get());
    }
    for (name, value) in &grant.env {
        builder.env(name, value);
    }
    if grant.world == World::Command {
        builder
            .arg(grant.component.workload().as_str())
            .args(&grant.job_args);
    }
    builder
}

fn lend(builder: &mut WasiCtxBuilder, bench: &Bench, log: bool) -> io::Result<()> {
    (bench.input)(builder);
    if log {
        (bench.output)(builder);
    }
    builder.envs(&bench.env);
    for (folder, guest, write) in &bench.folders {
        let perms = if *write {
            FsPerms::ReadWrite
        } else {
            FsPerms::ReadOnly
        };
        let opened = builder.preopened_dir(folder, guest, perms);
        opened.map_err(|_| io::Error::from(io::ErrorKind::NotFound))?;
    }
    Ok(())
}

fn narrow(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}
