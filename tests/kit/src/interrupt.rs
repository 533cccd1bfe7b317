//! Stopping in order when a person presses Ctrl-C or a supervisor sends SIGTERM.

use anyhow::{Context, Result, bail};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

static ASKED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From now on SIGINT and SIGTERM make [`check`] fail instead of ending this process.
pub fn watch() -> Result<()> {
    let flag = ASKED.get_or_init(|| Arc::new(AtomicBool::new(false)));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(flag)).context("cannot watch for signals")?;
    }
    Ok(())
}

/// Whether to stop now.
pub fn asked() -> bool {
    ASKED.get().is_some_and(|flag| flag.load(Ordering::Relaxed))
}

/// An error once a signal has come: destructors then stop every process.
pub fn check() -> Result<()> {
    if asked() {
        bail!("interrupted; every process that was started has been told to stop");
    }
    Ok(())
}
