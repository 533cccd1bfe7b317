//! What does a whole request through the sandbox cost? Ours is the executor itself, driven over its channel as the agent
//! drives it: admission by route, a fresh instance for every request, every limit and account. The reference is a plain
//! hyper service that says the same. Both on a runtime of their own with the same threads, asked by one client over the
//! same number of kept connections; the time is of one request while all connections are busy.

use bytes::Bytes;
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use redan_benches::fleet::{ASK_SERVICE, grant};
use redan_benches::{Asking, compare, guest, tool};
use redan_channel::{pair, recv, send};
use redan_protocol::ipc::{FromExecutor, SlotId, ToExecutor, WorkloadKind};
use redan_protocol::report::Isolation;
use redan_protocol::{ByteCount, ComponentName, Digest};
use redan_runtime::compiler::admit;
use redan_runtime::engine::{Native, Sizes, compiler_engine};
use redan_runtime::executor::Executor;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// As many as the grant here lets call at once: one more connection would measure the queue.
const CONNECTIONS: u64 = 64;
/// What `wasmtime serve` can do without reusing an instance: all of ours that its command line has, and that it then still answers with
/// (it needs the engine's concurrency, which ours has off).
const BEST: &[&str] = &[
    "-O",
    "pooling-allocator=y,pooling-pagemap-scan=y,pooling-memory-keep-resident=524288,pooling-table-keep-resident=16384",
    "-O",
    "pooling-async-stack-keep-resident=65536,pooling-max-memory-size=268435456",
];
/// And with reusing them, which ours does not (`docs/decisions/0024-no-instance-is-used-twice.md`).
const REUSE: &[&str] = &["--max-instance-reuse-count", "128"];
const GOOD: &[u8] = b"HTTP/1.1 200 OK\r\n";
const REQUEST: &[u8] = b"GET /thermo/ HTTP/1.1\r\nhost: localhost\r\n\r\n";

pub(crate) fn bench(asking: &mut Asking) {
    let data = TempDir::new().unwrap();
    let (agent, ours) = executor(&data);
    let reference = plain();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .unwrap();
    let mut ask = |question: &str, name: &str, other: SocketAddr| {
        // Fresh ones: who says nothing for ten seconds is disconnected, here and there.
        let (mut to_ours, mut to_other) =
            runtime.block_on(async { (connect(ours).await, connect(other).await) });
        compare(
            asking,
            question,
            &mut |times| runtime.block_on(load(&mut to_ours, times)),
            (name, &mut |times| runtime.block_on(load(&mut to_other, times))),
        );
    };
    ask("http request", "plain hyper", reference);
    let wasm = data.path().join("hello.wasm");
    std::fs::write(&wasm, guest::hello().unwrap()).unwrap();
    let reusing = [BEST, REUSE].concat();
    for (name, flags) in [
        ("wasmtime serve", &[][..]),
        ("wasmtime serve, its best", BEST),
        ("wasmtime serve, with reuse", &reusing[..]),
    ] {
        if let Some(served) = Served::start(flags, &wasm) {
            ask(&format!("http request, {name}"), name, served.address);
        }
    }
    // The executor ends with its channel.
    drop(agent);
}

/// Starts an executor with the service active. Its channel must outlive it.
fn executor(data: &TempDir) -> (OwnedFd, SocketAddr) {
    let (listener, address) = listener();
    let (agent, of_agent) = pair().unwrap();
    let (broker, of_broker) = pair().unwrap();
    let folder = data.path().to_owned();
    std::thread::spawn(move || {
        let _broker = broker;
        let prepared = Executor::prepare(&Sizes::default(), false).unwrap();
        prepared
            .run(of_agent, of_broker, folder, Isolation::default())
            .unwrap();
    });
    let mut grant = grant(ASK_SERVICE).unwrap();
    grant.limits.concurrency = u32::try_from(CONNECTIONS).unwrap();
    let component = guest::hello().unwrap();
    let native = admit(&compiler_engine(Native::Plain).unwrap(), &component, &grant)
        .unwrap()
        .serialize()
        .unwrap();
    let native = redan_sealed::seal("native", &native).unwrap();
    let slot = SlotId(1);
    let load = ToExecutor::Load {
        slot,
        component: ComponentName::parse("acme/thermo").unwrap(),
        digest: Digest::of(&component),
        kind: WorkloadKind::Service,
        grant: grant.canonical_json(),
    };
    assert!(matches!(answer(&agent), FromExecutor::Ready { .. }));
    let memory = ToExecutor::Memory {
        total: ByteCount::mib(1024),
    };
    send(&agent, &memory, &[]).unwrap();
    send(&agent, &load, &[native.as_fd(), listener.as_fd()]).unwrap();
    assert_eq!(answer(&agent), FromExecutor::Loaded { slot });
    send(&agent, &ToExecutor::Activate { slot }, &[]).unwrap();
    assert_eq!(answer(&agent), FromExecutor::Activated { slot });
    let (signals, of_signals) = (agent.try_clone().unwrap(), agent);
    // Signals come once a second; unread, they would fill the channel.
    std::thread::spawn(move || while recv::<FromExecutor>(&signals).is_ok() {});
    (of_signals, address)
}

pub(crate) fn answer(agent: &OwnedFd) -> FromExecutor {
    recv::<FromExecutor>(agent).unwrap().message
}

/// `wasmtime serve` as a process, which ends with this.
struct Served {
    address: SocketAddr,
    process: Child,
}

impl Served {
    fn start(flags: &[&str], wasm: &Path) -> Option<Self> {
        let mut serve = Command::new(tool("wasmtime")?);
        // Free a moment ago: it takes no socket, and says no port it was given.
        let (listener, address) = listener();
        drop(listener);
        serve
            .arg("serve")
            .args(flags)
            .arg("--addr")
            .arg(address.to_string())
            .arg(wasm);
        let process = serve
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let served = Self { address, process };
        let up = (0..500).any(|_| {
            std::thread::sleep(Duration::from_millis(20));
            std::net::TcpStream::connect(address).is_ok()
        });
        assert!(up, "wasmtime does not serve with {flags:?}");
        Some(served)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// Starts plain hyper with the timeouts that ours has.
fn plain() -> SocketAddr {
    let (listener, address) = listener();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            listener.set_nonblocking(true).unwrap();
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                client.set_nodelay(true).unwrap();
                let hello = service_fn(|_| async {
                    Ok::<_, Infallible>(hyper::Response::new(Full::new(Bytes::from_static(b"hello"))))
                });
                tokio::spawn(
                    http1::Builder::new()
                        .timer(TokioTimer::new())
                        .header_read_timeout(Duration::from_secs(10))
                        .serve_connection(TokioIo::new(client), hello),
                );
            }
        });
    });
    address
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn connect(to: SocketAddr) -> Vec<TcpStream> {
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        let connection = TcpStream::connect(to).await.unwrap();
        connection.set_nodelay(true).unwrap();
        connections.push(connection);
    }
    connections
}

/// So many requests, shared by the connections.
async fn load(connections: &mut [TcpStream], times: u64) -> Duration {
    let start = Instant::now();
    let busy = connections.iter_mut().zip(0..).map(|(connection, nth)| {
        let times = times / CONNECTIONS + u64::from(nth < times % CONNECTIONS);
        async move {
            for _ in 0..times {
                ask(connection).await;
            }
        }
    });
    futures_util::future::join_all(busy).await;
    start.elapsed()
}

/// One request. The client costs both sides the same, so it does as little as it can: it looks for the end of the answer
/// and that it is a good one.
async fn ask(connection: &mut TcpStream) {
    connection.write_all(REQUEST).await.unwrap();
    let (mut answer, mut length) = ([0; 1024], 0);
    loop {
        let read = connection.read(answer.get_mut(length..).unwrap()).await.unwrap();
        assert_ne!(read, 0, "the server keeps the connection");
        length += read;
        let answer = answer.get(..length).unwrap();
        let start = answer.len().min(GOOD.len());
        assert_eq!(answer.get(..start), GOOD.get(..start), "a good answer");
        // With a declared length, or in chunks.
        if answer.ends_with(b"\r\n\r\nhello") || answer.ends_with(b"hello\r\n0\r\n\r\n") {
            return;
        }
    }
}
