//! What a process of the device may leave behind of its memory: log lines of our own crates, and nothing else.
//!
//! Payload passes through libraries that trace what passes through them (the bindings of every host call among them), and a panic may
//! quote what it was about. So whatever `REDAN_LOG` asks for, only our own crates are heard, whose lines are made of typed facts; an
//! executor that panics says where and not why; and nobody leaves a core dump.

use crate::Device;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use std::io::Write as _;
use std::panic::PanicHookInfo;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{FilterExt as _, filter_fn};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

/// Whose lines are written.
const OURS: &str = "redan";

/// Call first, in every process.
pub(crate) fn begin(command: &Device) {
    let filter = EnvFilter::try_from_env("REDAN_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    let ours = filter_fn(|of| of.target().starts_with(OURS));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_filter(filter.and(ours));
    tracing_subscriber::registry().with(lines).init();
    if matches!(command, Device::Executor { .. }) {
        std::panic::set_hook(Box::new(|panic| {
            drop(std::io::stderr().write_all(place(panic).as_bytes()));
        }));
    }
    no_core_dumps(command);
}

/// Where a panic was, without its words.
fn place(panic: &PanicHookInfo<'_>) -> String {
    match panic.location() {
        Some(at) => format!("redan-device: panicked at {}:{}\n", at.file(), at.line()),
        None => "redan-device: panicked\n".to_owned(),
    }
}

/// No child undoes the limit. Processes that are confined later stop being dumpable then: an executor's pool wants its own page map
/// before (`PAGEMAP_SCAN`). All others hold keys, or start those who do, from their first moment on.
fn no_core_dumps(command: &Device) {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let limited = setrlimit(Resource::Core, none);
    let later = matches!(
        command,
        Device::Agent { .. } | Device::Executor { .. } | Device::Broker { .. } | Device::Compiler { .. }
    );
    let hidden = if later {
        Ok(())
    } else {
        set_dumpable_behavior(DumpableBehavior::NotDumpable)
    };
    if let Err(errno) = limited.and(hidden) {
        tracing::warn!(%errno, "core dumps could not be turned off");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[test]
    fn a_panic_is_told_by_its_place_and_not_by_its_words() {
        let told = Arc::new(Mutex::new(String::new()));
        let tell = Arc::clone(&told);
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| *tell.lock().unwrap() = place(panic)));
        let secret = "what a guest processes";
        std::thread::spawn(move || panic!("{secret}")).join().unwrap_err();
        std::panic::set_hook(before);
        let told = told.lock().unwrap();
        assert!(told.contains("privacy.rs:") && !told.contains(secret), "{told}");
    }
}
