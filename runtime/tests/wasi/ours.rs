//! The same guests on this runtime: compiled, linked and called as in an executor, with everything they use granted.

use crate::{Folders, Outcome, Start};
use redan_channel::ChannelError;
use redan_host_api::bench::Bench as Lent;
use redan_host_api::egress::{Dial, Outside, public_tls};
use redan_host_api::kv::Stores;
use redan_host_api::outbox::queue::Outboxes;
use redan_host_api::state::Capabilities;
use redan_host_api::workload::{Pools, Workload};
use redan_policy::suppose::{Given, suppose};
use redan_policy::{EffectiveGrant, intersect, parse_ask};
use redan_protocol::ipc::{Compile, Compiled, WorkloadKind};
use redan_protocol::{ByteCount, Code, Digest};
use redan_runtime::bench::Bench;
use redan_runtime::engine::Native;
use redan_sealed::Sealed;
use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex, OnceLock};
use wasmtime_wasi::p2::pipe::{MemoryInputPipe, MemoryOutputPipe};

/// What the conformance guests use, and room enough on a busy machine.
const USED: &str = r#"
[clock]
wall = true
[random]
[log]
[net.sockets]
[limits]
cpu = { per_call = "1h" }
wall = { call = "1h", start = "1h" }
"#;

const VOLUMES: &str = r#"
[[fs]]
name = "lib"
mode = "ro"
[[fs]]
name = "state"
mode = "rw"
quota = { bytes = "64MiB", files = 5000 }
"#;

fn grant(world: &str, more: &str, given: &Given) -> EffectiveGrant {
    let text = format!(
        "schema = \"redan.policy/1\"\nkind = \"ask\"\n[subject]\nname = \"acme/guest\"\nversion = \"1.0.0\"\n\
         world = \"{world}\"\n{USED}{more}"
    );
    let ask = parse_ask("ask.toml", &text).unwrap();
    let (fleet, device) = suppose(&ask, given);
    intersect(&ask, &fleet, &device).unwrap()
}

fn command(start: &Start, folders: &Folders) -> EffectiveGrant {
    let path = |folder: &tempfile::TempDir| folder.path().display().to_string();
    let given = Given {
        env: start
            .env
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        // `/state` is the workload's own: in a folder of the device's no file has two names.
        folders: BTreeMap::from([("/lib".to_owned(), path(&folders.lib))]),
        config: BTreeMap::new(),
    };
    let names: Vec<&str> = start.env.iter().map(|(name, _)| *name).collect();
    let arguments = &start.arguments;
    let more = format!("{VOLUMES}[env]\nallow = {names:?}\n[job]\nargs = {arguments:?}\n");
    grant("wasi:cli/command@0.2", &more, &given)
}

/// By the compiler's own code, once a guest and grant.
pub(crate) fn compile(wasm: &[u8], grant: &EffectiveGrant) -> Result<Arc<Sealed>, Code> {
    type Place = Arc<OnceLock<Result<Arc<Sealed>, Code>>>;
    static COMPILED: OnceLock<Mutex<HashMap<Digest, Place>>> = OnceLock::new();
    let place = {
        let mut compiled = COMPILED.get_or_init(Mutex::default).lock().unwrap();
        Arc::clone(compiled.entry(Digest::of(wasm)).or_default())
    };
    place
        .get_or_init(|| by_the_compiler(wasm, grant).map(Arc::new))
        .clone()
}

fn by_the_compiler(wasm: &[u8], grant: &EffectiveGrant) -> Result<Sealed, Code> {
    let (agent, compiler) = redan_channel::pair().unwrap();
    let file = redan_sealed::seal("component", wasm).unwrap();
    let job = Compile {
        digest: Digest::of(wasm),
        grant: grant.canonical_json(),
    };
    redan_channel::send(&agent, &job, &[file.as_fd()]).unwrap();
    std::thread::scope(|scope| {
        let ran = scope.spawn(|| redan_runtime::compiler::run(&compiler));
        let answer: Result<_, ChannelError> = redan_channel::recv::<Compiled>(&agent);
        ran.join().unwrap().unwrap();
        let answer = answer.unwrap();
        match answer.message {
            Compiled::Done { .. } => {
                let file = answer.descriptors.into_iter().next().unwrap();
                rustix::fs::fcntl_add_seals(&file, redan_sealed::WRITE_SEALS).unwrap();
                Ok(Sealed::read(&file).unwrap())
            }
            Compiled::Refused { code } => Err(code),
        }
    })
}

/// What a broker does with a name it may dial: here every name is this machine's.
struct Loopback;

impl Dial for Loopback {
    fn dial(
        &self,
        _: &redan_protocol::ComponentName,
        _: bool,
        _: &str,
        port: u16,
    ) -> futures_util::future::BoxFuture<'static, Result<std::os::fd::OwnedFd, Code>> {
        Box::pin(async move {
            let stream = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await;
            let stream = stream.map_err(|_| Code::EgressUnreachable)?;
            Ok(stream.into_std().unwrap().into())
        })
    }
}

fn capabilities(grant: EffectiveGrant, data: &std::path::Path, lent: Lent) -> Arc<Capabilities> {
    let stores = Stores::new(data.join("kv"));
    let outboxes = Outboxes::new(data.join("outbox"));
    let pools = Pools::new();
    pools.set_memory(ByteCount::new(u64::MAX));
    let workload = Workload::new(grant.component.clone(), &pools);
    let opened = Capabilities::open(
        grant,
        data,
        (&stores, &outboxes),
        None,
        Outside {
            dial: Arc::new(Loopback),
            public: public_tls().unwrap(),
            secrets: Arc::default(),
        },
        &workload,
    );
    opened.unwrap().on(&Arc::new(lent))
}

/// Runs a command to its end.
pub(crate) fn run(wasm: &[u8], start: &Start, folders: &Folders) -> Outcome {
    ran(wasm, start, command(start, folders))
}

/// The same with leave to send to these.
pub(crate) fn send(wasm: &[u8], arguments: &[String], to: &[String]) -> Outcome {
    let more = format!(
        "[job]\nargs = {arguments:?}\n[[net.http]]\nid = \"upstream\"\nallow = {to:?}\nprivate_addresses = true\n\
         methods = [\"GET\", \"HEAD\", \"POST\", \"PUT\", \"DELETE\", \"OPTIONS\", \"PATCH\", \"TRACE\", \"BREW\"]\n"
    );
    let grant = grant("wasi:cli/command@0.2", &more, &Given::default());
    ran(wasm, &Start::default(), grant)
}

fn ran(wasm: &[u8], start: &Start, grant: EffectiveGrant) -> Outcome {
    let native = compile(wasm, &grant).unwrap();
    let (out, err) = (MemoryOutputPipe::new(1 << 20), MemoryOutputPipe::new(1 << 20));
    let (input, outputs) = (start.input, (out.clone(), err.clone()));
    let lent = Lent::new(
        Box::new(move |builder| {
            builder.stdin(MemoryInputPipe::new(input));
        }),
        Box::new(move |builder| {
            builder.stdout(outputs.0.clone()).stderr(outputs.1.clone());
        }),
        Box::new(|_| {}),
    );
    let data = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let exit = runtime.block_on(async {
        let bench = Bench::new(None, Native::Plain).unwrap();
        let capabilities = capabilities(grant, data.path(), lent);
        let workload = bench.link(WorkloadKind::Job, &native, capabilities).unwrap();
        match workload.run().await {
            Ok(status) => Some(status),
            Err(Code::Trapped) => None,
            Err(code) => panic!("it was cut off: {code}"),
        }
    });
    runtime.shutdown_background();
    let text = |pipe: MemoryOutputPipe| String::from_utf8_lossy(&pipe.contents()).into_owned();
    Outcome {
        exit,
        out: text(out),
        err: text(err),
    }
}

/// Whether a command of these bytes is admitted, compiled and linked.
pub(crate) fn links(wasm: &[u8]) -> Result<(), Code> {
    let grant = grant("wasi:cli/command@0.2", "", &Given::default());
    let native = compile(wasm, &grant)?;
    let data = tempfile::tempdir().unwrap();
    let bench = Bench::new(None, Native::Plain).unwrap();
    let quiet = Lent::new(Box::new(|_| {}), Box::new(|_| {}), Box::new(|_| {}));
    let capabilities = capabilities(grant, data.path(), quiet);
    bench.link(WorkloadKind::Job, &native, capabilities).map(drop)
}

/// A service on its listener.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    _data: tempfile::TempDir,
    _runtime: tokio::runtime::Runtime,
}

pub(crate) fn serve(wasm: &[u8], world: &str) -> Server {
    // Imported by the guest of WASI 0.3, and not used.
    let more = "[[net.http]]\nid = \"upstream\"\nallow = [\"http://upstream.invalid\"]\nmethods = [\"GET\"]\n\
                [[trigger.http]]\nroute = \"/...\"\nmethods = [\"GET\", \"HEAD\", \"POST\", \"PUT\", \"DELETE\", \"OPTIONS\", \
                \"PATCH\", \"TRACE\", \"BREW\"]\n";
    let grant = grant(world, more, &Given::default());
    let native = compile(wasm, &grant).unwrap();
    let data = tempfile::tempdir().unwrap();
    let quiet = Lent::new(Box::new(|_| {}), Box::new(|_| {}), Box::new(|_| {}));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let bench = Bench::new(None, Native::of(&grant)).unwrap();
        let capabilities = capabilities(grant, data.path(), quiet);
        let workload = bench.link(WorkloadKind::Service, &native, capabilities).unwrap();
        workload.serve(listener).unwrap();
    });
    Server {
        address,
        _data: data,
        _runtime: runtime,
    }
}
