//! Whether a version may end: asked before it is replaced or stopped, answered to its own disadvantage only.
//!
//! A version that does not export the interface, traps, or takes too long, may end. How often `defer` is honoured, and for how long
//! in all, is the agent's to say.

use crate::swap::Lease;
use crate::version::Call;
use redan_host_api::bindings::lifecycle::Readiness;
use redan_protocol::Millis;

/// In how long it would rather end; `None`: now.
pub(crate) async fn prepare_stop(lease: &Lease, deadline: Millis) -> Option<Millis> {
    let entry = lease.stopped.as_ref()?;
    let call = Call::new(lease);
    let mut store = call.store(lease).ok()?;
    let guest = async {
        let instance = entry.instantiate_async(&mut store).await?;
        let asked = instance
            .redan_workload_lifecycle()
            .call_prepare_stop(&mut store, deadline.get());
        asked.await
    };
    let wall = call.limits().wall_call.min(deadline);
    let answer = call.run(lease, wall, guest).await;
    lease.record(
        answer.as_ref().err().copied(),
        call.verdict.noted(),
        call.cpu.used_millis(),
    );
    match answer {
        Ok(Readiness::Defer(millis)) => Some(Millis::new(millis.max(1))),
        Ok(Readiness::Ready) | Err(_) => None,
    }
}
