//! What do the limits cost? Ours is the sandboxed call: its context by the grant, every limit on. The reference is what an embedder of
//! `wasmtime-wasi` does for the same call with its limits off: its whole context and linker, and no limiter, handle or host-call limit,
//! epoch, CPU account or wall clock.

use crate::sandbox::Sandbox;
use redan_benches::{Asking, compare, each, guest};
use wasmtime::component::Component;

pub(crate) fn bench(asking: &mut Asking) {
    let sandbox = Sandbox::new();
    let component = Component::new(&sandbox.engine, guest::command().unwrap()).unwrap();
    let (ours, capabilities) = (sandbox.linked(&component), sandbox.open());
    let free = sandbox.linked_plain(&component);

    compare(
        asking,
        "limits on and off",
        &mut |times| each(times, || sandbox.call(&ours, &capabilities)),
        ("wasmtime-wasi, no limits", &mut |times| {
            each(times, || sandbox.plain_call(&free))
        }),
    );
}
