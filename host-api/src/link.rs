//! From grant to linker: what is not granted is not linked, or is bound to something without authority.
//!
//! `wasi:io`, `wasi:http/types`, standard streams, exit, environment, clocks and the file system's types are always
//! linked, because toolchains import them whether they use them or not; what they give comes from the grant: no
//! variables, no folders, closed input, a clock that stands still. `wasi:random` refuses without a grant.

use crate::bindings::{keyvalue, logging, outbox};
use crate::files::HasFiles;
use crate::limits::Verdict;
use crate::log::Source;
use crate::state::{Capabilities, GuestState};
use redan_policy::EffectiveGrant;
use redan_policy::imports::Capability;
use redan_protocol::Code;
use wasmtime::component::{HasData, HasSelf, Linker, ResourceTable, ResourceTableError};
use wasmtime::{Engine, Result, Trap};
use wasmtime_wasi::cli::{WasiCli, WasiCliView};
use wasmtime_wasi::p2::bindings::{cli, filesystem, random};
use wasmtime_wasi::{WasiCtxView, WasiView};
use wasmtime_wasi_config::WasiConfig;
use wasmtime_wasi_http::{FieldMapError, WasiHttp, WasiHttpView};
use wasmtime_wasi_io::bindings::wasi::io;

type G = GuestState;

/// `wasi:io` needs the table of a call's resources and nothing else.
struct HasTable;

impl HasData for HasTable {
    type Data<'a> = &'a mut ResourceTable;
}

/// A linker that offers exactly what the grant gives.
pub fn linker(engine: &Engine, grant: &EffectiveGrant) -> Result<Linker<GuestState>> {
    let mut linker = Linker::new(engine);
    let l = &mut linker;
    // For wasi:random, replaced below by one that keeps the grant's limit, and wasi:io, by one that asks for no context.
    l.allow_shadowing(true);
    wasmtime_wasi::p2::add_to_linker_proxy_interfaces_async(l)?;
    random::random::add_to_linker::<G, HasSelf<G>>(l, |state| state)?;
    io::error::add_to_linker::<G, HasTable>(l, |state| &mut state.table)?;
    io::poll::add_to_linker::<G, HasTable>(l, |state| &mut state.table)?;
    io::streams::add_to_linker::<G, HasTable>(l, |state| &mut state.table)?;
    l.allow_shadowing(false);
    random::insecure::add_to_linker::<G, HasSelf<G>>(l, |state| state)?;
    random::insecure_seed::add_to_linker::<G, HasSelf<G>>(l, |state| state)?;
    cli::environment::add_to_linker::<G, WasiCli>(l, G::cli)?;
    cli::exit::add_to_linker::<G, WasiCli>(l, G::cli)?;
    cli::terminal_input::add_to_linker::<G, WasiCli>(l, G::cli)?;
    cli::terminal_output::add_to_linker::<G, WasiCli>(l, G::cli)?;
    cli::terminal_stdin::add_to_linker::<G, WasiCli>(l, G::cli)?;
    cli::terminal_stdout::add_to_linker::<G, WasiCli>(l, G::cli)?;
    cli::terminal_stderr::add_to_linker::<G, WasiCli>(l, G::cli)?;
    filesystem::preopens::add_to_linker::<G, HasFiles>(l, G::files)?;
    filesystem::types::add_to_linker::<G, HasFiles>(l, G::files)?;
    let http = wasmtime_wasi_http::p2::bindings::LinkOptions::default();
    wasmtime_wasi_http::p2::bindings::http::types::add_to_linker::<G, WasiHttp>(l, &(&http).into(), G::http)?;
    // Asked for as optional and not granted: linked, with nothing behind it.
    let stub = |capability: Capability| {
        let mut denied = grant.denied_optional.iter();
        denied.any(|denied| denied == capability.section())
    };
    if grant.log.is_some() || stub(Capability::Log) {
        logging::logging::add_to_linker::<G, HasSelf<G>>(l, |state| state)?;
    }
    let sends = !grant.net_http.is_empty() || stub(Capability::NetHttp);
    if grant.world.is_wasi_0_3() {
        crate::wasi_0_3::add(l, sends)?;
    }
    if sends {
        wasmtime_wasi_http::p2::bindings::http::outgoing_handler::add_to_linker::<G, WasiHttp>(l, G::http)?;
    }
    if !grant.kv.is_empty() || stub(Capability::Kv) {
        keyvalue::store::add_to_linker::<G, HasSelf<G>>(l, |state| state)?;
        keyvalue::atomics::add_to_linker::<G, HasSelf<G>>(l, |state| state)?;
        keyvalue::batch::add_to_linker::<G, HasSelf<G>>(l, |state| state)?;
    }
    if !grant.messages.outbox.is_empty() || stub(Capability::Outbox) {
        outbox::outbox::add_to_linker::<G, HasSelf<G>>(l, |state| state)?;
    }
    if grant.config.is_some() || stub(Capability::Config) {
        wasmtime_wasi_config::add_to_linker(l, |state: &mut G| WasiConfig::from(state.config()))?;
    }
    if stub(Capability::Sockets) {
        sockets(l)?;
    }
    Ok(linker)
}

/// The same, for capabilities a bench may have lent something to.
pub fn linker_for(engine: &Engine, capabilities: &Capabilities) -> Result<Linker<GuestState>> {
    let mut linker = linker(engine, capabilities.grant())?;
    if capabilities.bench().is_some_and(|bench| bench.witness.is_some()) {
        crate::watch::watch(&mut linker)?;
    }
    Ok(linker)
}

/// `wasi:sockets`, with nothing behind it: the context allows no TCP, no UDP and no names.
fn sockets(l: &mut Linker<G>) -> Result<()> {
    use wasmtime_wasi::p2::bindings::sockets as p2;
    use wasmtime_wasi::sockets::{WasiSockets, WasiSocketsView};
    let options = p2::network::LinkOptions::default();
    p2::network::add_to_linker::<G, WasiSockets>(l, &options, G::sockets)?;
    p2::instance_network::add_to_linker::<G, WasiSockets>(l, G::sockets)?;
    p2::ip_name_lookup::add_to_linker::<G, WasiSockets>(l, G::sockets)?;
    p2::tcp::add_to_linker::<G, WasiSockets>(l, G::sockets)?;
    p2::tcp_create_socket::add_to_linker::<G, WasiSockets>(l, G::sockets)?;
    p2::udp::add_to_linker::<G, WasiSockets>(l, G::sockets)?;
    p2::udp_create_socket::add_to_linker::<G, WasiSockets>(l, G::sockets)
}

/// Which code a failed call gets. What the host itself denied outranks the trap it led to.
pub fn classify(error: &wasmtime::Error, verdict: &Verdict) -> Code {
    if let Some(code) = verdict.code() {
        return code;
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::StackOverflow) => return Code::StackLimit,
        Some(Trap::OutOfFuel) => return Code::FuelLimit,
        Some(_) => return Code::Trapped,
        None => {}
    }
    if matches!(
        error.downcast_ref::<FieldMapError>(),
        Some(FieldMapError::TotalSizeTooBig | FieldMapError::TooManyFields)
    ) {
        return Code::HeaderLimit;
    }
    if matches!(
        error.downcast_ref::<ResourceTableError>(),
        Some(ResourceTableError::Full)
    ) {
        return Code::HandleLimit;
    }
    // wasmtime has no types for these; each text is held by the test that trips its limit.
    let root = error.root_cause().to_string();
    if root.contains("store handle limit exceeded") {
        Code::HandleLimit
    } else if root.contains("fuel allocated for hostcalls") {
        Code::HostcallLimit
    } else if root.contains("memory count too high") {
        Code::MemoryLimit
    } else if root.contains("table count too high") {
        Code::TableLimit
    } else if root.contains("count too high") || root.contains("concurrent") {
        Code::InstanceLimit
    } else {
        Code::Trapped
    }
}

impl GuestState {
    pub(crate) fn random(&mut self, length: u64) -> Result<&mut wasmtime_wasi::random::WasiRandomCtx> {
        self.note(|seen| seen.random = seen.random.max(Some(length)));
        let limit = self.capabilities.grant().random;
        if limit.is_none_or(|random| length > random.max_bytes_per_call.get()) {
            self.verdict.deny(Code::RandomLimit);
            return Err(wasmtime::format_err!("random bytes over the grant's limit"));
        }
        let WasiCtxView { ctx, .. } = self.ctx();
        Ok(ctx.random())
    }
}

impl random::random::Host for GuestState {
    fn get_random_bytes(&mut self, length: u64) -> Result<Vec<u8>> {
        random::random::Host::get_random_bytes(self.random(length)?, length)
    }
    fn get_random_u64(&mut self) -> Result<u64> {
        random::random::Host::get_random_u64(self.random(8)?)
    }
}

impl random::insecure::Host for GuestState {
    fn get_insecure_random_bytes(&mut self, length: u64) -> Result<Vec<u8>> {
        random::insecure::Host::get_insecure_random_bytes(self.random(length)?, length)
    }
    fn get_insecure_random_u64(&mut self) -> Result<u64> {
        random::insecure::Host::get_insecure_random_u64(self.random(8)?)
    }
}

impl random::insecure_seed::Host for GuestState {
    // Toolchains ask for it at start, for hash maps. A seed without a grant is a constant: it conveys nothing.
    fn insecure_seed(&mut self) -> Result<(u64, u64)> {
        match self.capabilities.grant().random {
            Some(_) => random::insecure_seed::Host::insecure_seed(self.ctx().ctx.random()),
            None => Ok((0, 0)),
        }
    }
}

impl logging::logging::Host for GuestState {
    async fn log(&mut self, level: logging::logging::Level, context: String, message: String) -> Result<()> {
        let level = match level {
            logging::logging::Level::Trace => "trace",
            logging::logging::Level::Debug => "debug",
            logging::logging::Level::Info => "info",
            logging::logging::Level::Warn => "warn",
            logging::logging::Level::Error => "error",
            logging::logging::Level::Critical => "critical",
        };
        self.lines
            .write(Source::Log, format!("{level} {context}: {message}").as_bytes());
        Ok(())
    }
}
