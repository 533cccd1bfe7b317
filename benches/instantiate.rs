//! What does the sandbox around one call cost? Ours is the whole of it: the call's context, every limit, the grant's
//! capabilities, CPU account and wall clock, then instantiate, call, drop. The reference is a bare store, instantiate,
//! call, drop: the same engine, pool, component and bindings.

use crate::sandbox::Sandbox;
use redan_benches::{Asking, compare, each, guest};
use wasmtime::component::{Component, Linker};
use wasmtime_wasi::p2::bindings::CommandPre;

pub(crate) fn bench(asking: &mut Asking) {
    let sandbox = Sandbox::new();
    let component = Component::new(&sandbox.engine, guest::command().unwrap()).unwrap();
    let (ours, capabilities) = (sandbox.linked(&component), sandbox.open());
    let bare = Linker::<()>::new(&sandbox.engine)
        .instantiate_pre(&component)
        .unwrap();
    let bare = CommandPre::new(bare).unwrap();

    compare(
        asking,
        "sandboxed call",
        &mut |times| each(times, || sandbox.call(&ours, &capabilities)),
        ("bare store", &mut |times| {
            each(times, || sandbox.bare_call(&bare))
        }),
    );
}
