//! Plain `wasmtime-wasi` and `wasmtime-wasi-http`, no limits, nothing of ours: what `wasmtime run` and `wasmtime serve` do.

use crate::{Folders, Outcome, Start};
use http_body_util::BodyExt as _;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use wasmtime::component::{Accessor, Component, Linker, ResourceTable};
use wasmtime::{Config, Engine, Store};
use wasmtime_wasi::p2::bindings::Command;
use wasmtime_wasi::p2::pipe::{MemoryInputPipe, MemoryOutputPipe};
use wasmtime_wasi::{FsPerms, I32Exit, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::p3::Request;
use wasmtime_wasi_http::p3::bindings::ServicePre;
use wasmtime_wasi_http::{WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView};

struct Host {
    table: ResourceTable,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    hooks: Hooks,
}

struct Hooks;

impl WasiHttpHooks for Hooks {
    fn send_request(
        &mut self,
        _: http::Request<WasiBody>,
        _: Option<wasmtime_wasi_http::RequestOptions>,
        _: Box<dyn Future<Output = Result<(), wasmtime_wasi_http::Error>> + Send>,
    ) -> Box<dyn Future<Output = Result<Sent, wasmtime_wasi_http::Error>> + Send> {
        Box::new(async { Err(wasmtime_wasi_http::Error::HttpRequestDenied) })
    }
}

type Sent = (
    http::Response<WasiBody>,
    Box<dyn Future<Output = Result<(), wasmtime_wasi_http::Error>> + Send>,
);

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl WasiHttpView for Host {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            hooks: &mut self.hooks,
            table: &mut self.table,
            ctx: &mut self.http,
        }
    }
}

fn engine() -> Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE
        .get_or_init(|| Engine::new(&Config::new()).unwrap())
        .clone()
}

fn linker() -> Linker<Host> {
    let mut linker = Linker::new(&engine());
    wasmtime_wasi::p2::add_to_linker_async(&mut linker).unwrap();
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker).unwrap();
    wasmtime_wasi::p3::add_to_linker(&mut linker).unwrap();
    wasmtime_wasi_http::p3::add_to_linker(&mut linker).unwrap();
    linker
}

fn store(wasi: WasiCtx) -> Store<Host> {
    let host = Host {
        table: ResourceTable::new(),
        wasi,
        http: WasiHttpCtx::new(),
        hooks: Hooks,
    };
    Store::new(&engine(), host)
}

/// Runs a command to its end.
pub(crate) fn run(wasm: &[u8], name: &str, start: &Start, folders: &Folders) -> Outcome {
    let (out, err) = (MemoryOutputPipe::new(1 << 20), MemoryOutputPipe::new(1 << 20));
    let mut builder = WasiCtxBuilder::new();
    builder
        .arg(name)
        .args(&start.arguments)
        .envs(&start.env)
        .stdin(MemoryInputPipe::new(start.input))
        .stdout(out.clone())
        .stderr(err.clone());
    builder
        .preopened_dir(folders.lib.path(), "/lib", FsPerms::ReadOnly)
        .unwrap();
    builder
        .preopened_dir(folders.state.path(), "/state", FsPerms::ReadWrite)
        .unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let exit = runtime.block_on(async {
        let component = Component::from_binary(&engine(), wasm).unwrap();
        let mut store = store(builder.build());
        let command = Command::instantiate_async(&mut store, &component, &linker())
            .await
            .unwrap();
        match command.wasi_cli_run().call_run(&mut store).await {
            Ok(outcome) => Some(i32::from(outcome.is_err())),
            Err(error) => error.downcast_ref::<I32Exit>().map(|exit| exit.0),
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

/// Whether it links: instantiation alone.
pub(crate) fn links(wasm: &[u8]) -> bool {
    let component = Component::from_binary(&engine(), wasm).unwrap();
    linker().instantiate_pre(&component).is_ok()
}

/// A server as `wasmtime serve` is one: an instance a request, HTTP/1.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    _runtime: tokio::runtime::Runtime,
}

pub(crate) fn serve(wasm: &[u8]) -> Server {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let component = Component::from_binary(&engine(), wasm).unwrap();
    let linked = linker().instantiate_pre(&component).unwrap();
    let proxy = match ServicePre::new(linked.clone()) {
        Ok(service) => Serves::Service(service),
        Err(_) => Serves::Proxy(ProxyPre::new(linked).unwrap()),
    };
    let proxy = Arc::new(proxy);
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
        .unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let proxy = Arc::clone(&proxy);
            let service = hyper::service::service_fn(move |request| answer(Arc::clone(&proxy), request));
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(client), service));
        }
    });
    Server {
        address,
        _runtime: runtime,
    }
}

/// What a component is, as `wasmtime serve` finds out.
enum Serves {
    Proxy(ProxyPre<Host>),
    Service(ServicePre<Host>),
}

async fn answer(
    serves: Arc<Serves>,
    request: http::Request<hyper::body::Incoming>,
) -> Result<http::Response<WasiBody>, wasmtime::Error> {
    match &*serves {
        Serves::Proxy(proxy) => by_proxy(proxy.clone(), request).await,
        Serves::Service(service) => by_service(service.clone(), request).await,
    }
}

async fn by_service(
    service: ServicePre<Host>,
    request: http::Request<hyper::body::Incoming>,
) -> Result<http::Response<WasiBody>, wasmtime::Error> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let mut store = store(WasiCtxBuilder::new().build());
    let (request, read) = Request::from_http(store.data_mut().http().hooks, request);
    let task = tokio::spawn(async move {
        let service = service.instantiate_async(&mut store).await?;
        let handle = async |accessor: &Accessor<Host>| {
            let answer = service.handle(accessor, request).await??;
            let answer = accessor.with(|store| answer.into_http(store, read))?;
            drop(sender.send(answer));
            std::future::poll_fn(|context| accessor.poll_no_interesting_tasks(context)).await;
            wasmtime::error::Ok(())
        };
        store.run_concurrent(handle).await?
    });
    match receiver.await {
        Ok(answer) => Ok(answer),
        Err(_) => Err(task
            .await
            .unwrap()
            .err()
            .unwrap_or_else(|| wasmtime::format_err!("no answer"))),
    }
}

async fn by_proxy(
    proxy: ProxyPre<Host>,
    request: http::Request<hyper::body::Incoming>,
) -> Result<http::Response<WasiBody>, wasmtime::Error> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let mut store = store(WasiCtxBuilder::new().build());
    let request = store
        .data_mut()
        .http()
        .new_incoming_request(Scheme::Http, request)?;
    let out = store.data_mut().http().new_response_outparam(sender)?;
    let task = tokio::spawn(async move {
        let instance = proxy.instantiate_async(&mut store).await?;
        instance
            .wasi_http_incoming_handler()
            .call_handle(&mut store, request, out)
            .await
    });
    match receiver.await {
        Ok(Ok(answer)) => Ok(answer.map(|body| body.map_err(Into::into).boxed_unsync())),
        Ok(Err(code)) => Err(code.into()),
        Err(_) => Err(task
            .await
            .unwrap()
            .err()
            .unwrap_or_else(|| wasmtime::format_err!("no answer"))),
    }
}
