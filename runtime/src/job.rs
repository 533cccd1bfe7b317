//! Jobs: `wasi:cli/command` on timers with jitter, and health probes of any version.

use crate::swap::Lease;
use crate::version::{Call, Entry, Version};
use redan_host_api::bindings::health::State;
use redan_policy::grant::TimerTrigger;
use redan_protocol::report::Health;
use redan_protocol::{Code, Millis};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::AbortHandle;
use wasmtime_wasi::I32Exit;

/// Shortest pause between two runs: a timer of zero must not be a loop.
const EVERY_MIN: Millis = Millis::new(100);

/// How often a timer that policy took away is asked about again.
const TAKEN_AWAY: Duration = Duration::from_secs(1);

/// Runs the job once. What the guest says by its exit is its outcome.
pub(crate) async fn run(lease: &Lease) -> Result<(), Code> {
    exit(lease)
        .await
        .and_then(|status| if status == 0 { Ok(()) } else { Err(Code::JobFailed) })
}

/// Runs the job once, to its exit status. `wasi:cli/run`'s own error is 1.
pub(crate) async fn exit(lease: &Lease) -> Result<i32, Code> {
    let Entry::Job(entry) = &lease.entry else {
        return Err(Code::Internal);
    };
    let call = Call::new(lease);
    let outcome = match (lease.places.try_acquire(), call.store(lease)) {
        (Err(_), _) => Err(Code::ConcurrencyLimit),
        (Ok(_), Err(code)) => Err(code),
        (Ok(_place), Ok(mut store)) => {
            let guest = async {
                let command = entry.instantiate_async(&mut store).await?;
                match command.wasi_cli_run().call_run(&mut store).await {
                    Ok(outcome) => Ok(i32::from(outcome.is_err())),
                    Err(error) => match error.downcast_ref::<I32Exit>() {
                        Some(exit) => Ok(exit.0),
                        None => Err(error),
                    },
                }
            };
            call.run(lease, call.limits().wall_call, guest).await
        }
    };
    let failure = match outcome {
        Ok(0) => None,
        Ok(_) => Some(Code::JobFailed),
        Err(code) => Some(code),
    };
    lease.record(failure, call.verdict.noted(), call.cpu.used_millis());
    outcome
}

/// How a version is: it starts within its limit, and says so itself if it exports the health interface.
pub(crate) async fn probe(lease: &Lease) -> (Health, Option<Code>) {
    let call = Call::new(lease);
    match ask(lease, &call).await {
        Ok(State::Healthy) => (Health::Healthy, None),
        Ok(State::Degraded) => (Health::Degraded, None),
        Ok(State::Starting) => (Health::Starting, None),
        Ok(State::Unhealthy) => (Health::Unhealthy, Some(Code::Unhealthy)),
        Err(Code::WallLimit) => (Health::Unhealthy, Some(Code::ProbeTimeout)),
        Err(code) => (Health::Unhealthy, Some(code)),
    }
}

async fn ask(version: &Version, call: &Call) -> Result<State, Code> {
    let mut store = call.store(version)?;
    let start = call.limits().wall_start;
    let Some(health) = &version.health else {
        let instance = version.plain.instantiate_async(&mut store);
        call.run(version, start, instance).await?;
        return Ok(State::Healthy);
    };
    let probed = call
        .run(version, start, health.instantiate_async(&mut store))
        .await?;
    let timeout = call.capabilities.grant().health.timeout;
    let check = probed.redan_workload_health().call_check(&mut store);
    Ok(call.run(version, timeout, check).await?.state)
}

/// Starts the timers of a version. They end when the handles are aborted; a run under way goes on.
pub(crate) fn start_timers(version: &Arc<Version>) -> Vec<AbortHandle> {
    let timers = version.capabilities().grant().trigger_timer.len();
    (0..timers)
        .map(|nth| tokio::spawn(tick(Arc::clone(version), nth)).abort_handle())
        .collect()
}

/// The timer as it is now: it may have been slowed down, or taken away.
fn timer(version: &Version, nth: usize) -> Option<TimerTrigger> {
    version.capabilities().grant().trigger_timer.get(nth).cloned()
}

async fn tick(version: Arc<Version>, nth: usize) {
    let mut due = tokio::time::Instant::now();
    loop {
        // One that was taken away may come back with a later policy: it is asked again.
        let Some(present) = timer(&version, nth) else {
            tokio::time::sleep(TAKEN_AWAY).await;
            continue;
        };
        let every = Duration::from_millis(present.every.max(EVERY_MIN).get());
        tokio::time::sleep_until(due + jitter(present.jitter)).await;
        if timer(&version, nth).is_none() {
            continue;
        }
        // An aborted timer goes on to its next pause: by then the version may drain.
        let Some(lease) = version.lease() else {
            return;
        };
        // A run of its own: aborting the timer at a swap does not cut it off.
        let _ = tokio::spawn(async move { run(&lease).await }).await;
        let now = tokio::time::Instant::now();
        due += every;
        if due < now {
            // Runs that were missed are not made up for.
            due = now + every;
        }
    }
}

/// A random part of the jitter, so that a fleet's devices do not act at once.
fn jitter(most: Millis) -> Duration {
    let mut bytes = [0; 8];
    let drawn = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    let random = if drawn.is_ok() {
        u64::from_le_bytes(bytes)
    } else {
        0
    };
    let span = most.get().saturating_add(1);
    Duration::from_millis(random.checked_rem(span).unwrap_or(0))
}
