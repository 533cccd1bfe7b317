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

mod stopped {
    #![allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated")]
    wasmtime::component::bindgen!({
        path: "wit",
        world: "redan:workload/stopped",
        exports: { default: async },
        require_store_data_send: true,
    });
}

mod messages {
    #![allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated")]
    wasmtime::component::bindgen!({
        path: "wit",
        world: "redan:workload/messages",
        exports: { default: async },
        require_store_data_send: true,
    });
}

pub use messages::exports::redan::messaging::handler;
pub use messages::{Messages, MessagesPre};
pub(crate) use offered::redan::outbox;
pub(crate) use offered::wasi::{keyvalue, logging};
pub use probed::exports::redan::workload::health;
pub use probed::{Probed, ProbedPre};
pub use stopped::exports::redan::workload::lifecycle;
pub use stopped::{Stopped, StoppedPre};
