//! WASI 0.3, for components of a world of it: linked beside 0.2, which their standard libraries import, and by the same grant.
//!
//! Offered is what the world `wasi:http/service` imports, and of `wasi:cli` what a program finds around itself. Files and sockets are
//! not: 0.2's files come with quotas that wasmtime's own of 0.3 do not ask about, and there are no sockets here at all. What upstream
//! says of this code ("experimental", no patch releases for it alone) is why a device has to be switched to it.

use crate::state::GuestState;
use wasmtime::Result;
use wasmtime::component::{HasSelf, Linker};
use wasmtime_wasi::cli::{WasiCli, WasiCliView as _};
use wasmtime_wasi::p3::bindings::{cli, random};
use wasmtime_wasi_http::p3::bindings::http;
use wasmtime_wasi_http::{WasiHttp, WasiHttpView as _};

type G = GuestState;

/// Adds it to a linker. `sends`: outgoing requests are granted, or bound to a stub that refuses.
pub(crate) fn add(l: &mut Linker<G>, sends: bool) -> Result<()> {
    wasmtime_wasi::p3::clocks::add_to_linker(l)?;
    random::random::add_to_linker::<G, HasSelf<G>>(l, |state| state)?;
    random::insecure::add_to_linker::<G, HasSelf<G>>(l, |state| state)?;
    random::insecure_seed::add_to_linker::<G, HasSelf<G>>(l, |state| state)?;
    cli::environment::add_to_linker::<G, WasiCli>(l, G::cli)?;
    cli::exit::add_to_linker::<G, WasiCli>(l, G::cli)?;
    cli::stdin::add_to_linker::<G, WasiCli>(l, G::cli)?;
    cli::stdout::add_to_linker::<G, WasiCli>(l, G::cli)?;
    cli::stderr::add_to_linker::<G, WasiCli>(l, G::cli)?;
    cli::terminal_input::add_to_linker::<G, WasiCli>(l, G::cli)?;
    cli::terminal_output::add_to_linker::<G, WasiCli>(l, G::cli)?;
    cli::terminal_stdin::add_to_linker::<G, WasiCli>(l, G::cli)?;
    cli::terminal_stdout::add_to_linker::<G, WasiCli>(l, G::cli)?;
    cli::terminal_stderr::add_to_linker::<G, WasiCli>(l, G::cli)?;
    http::types::add_to_linker::<G, WasiHttp>(l, G::http)?;
    if sends {
        http::client::add_to_linker::<G, WasiHttp>(l, G::http)?;
    }
    Ok(())
}

impl random::random::Host for GuestState {
    fn get_random_bytes(&mut self, most: u64) -> Result<Vec<u8>> {
        random::random::Host::get_random_bytes(self.random(most)?, most)
    }
    fn get_random_u64(&mut self) -> Result<u64> {
        random::random::Host::get_random_u64(self.random(8)?)
    }
}

impl random::insecure::Host for GuestState {
    fn get_insecure_random_bytes(&mut self, most: u64) -> Result<Vec<u8>> {
        random::insecure::Host::get_insecure_random_bytes(self.random(most)?, most)
    }
    fn get_insecure_random_u64(&mut self) -> Result<u64> {
        random::insecure::Host::get_insecure_random_u64(self.random(8)?)
    }
}

impl random::insecure_seed::Host for GuestState {
    // As in WASI 0.2: a seed without a grant is a constant.
    fn get_insecure_seed(&mut self) -> Result<(u64, u64)> {
        wasmtime_wasi::p2::bindings::random::insecure_seed::Host::insecure_seed(self)
    }
}
