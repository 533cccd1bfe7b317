//! What `wit/` generates: the interfaces offered beside WASI 0.2, and the export asked for.

mod offered {
    #![allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated")]
    wasmtime::component::bindgen!({
        path: "wit",
        world: "redan:workload/offered",
        imports: { default: async | trappable },
        with: { "wasi:keyvalue/store.bucket": crate::keyvalue::Handle },
        require_store_data_send: true,
    });
}

mod probed {
    #![allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated")]
    wasmtime::component::bindgen!({
        path: "wit",
        world: "redan:workload/probed",
        exports: { default: async },
        require_store_data_send: true,
    });
}

pub(crate) use offered::wasi::{keyvalue, logging};
pub use probed::exports::redan::workload::health;
pub use probed::{Probed, ProbedPre};
