//! The guests, built from `guest-examples/conformance`.

include!("../../../guest-examples/built.rs");

pub(crate) fn job() -> Vec<u8> {
    std::fs::read(built().join("conformance-job.wasm")).unwrap()
}

pub(crate) fn service() -> Vec<u8> {
    std::fs::read(built().join("conformance_service.wasm")).unwrap()
}

/// Of WASI 0.3.
pub(crate) fn tasks() -> Vec<u8> {
    std::fs::read(built().join("tasks.wasm")).unwrap()
}

/// Sends requests; by its path, for another program to run.
pub(crate) fn sender() -> PathBuf {
    built().join("conformance-sender.wasm")
}

fn built() -> &'static Path {
    all_built(&[
        "conformance-job",
        "conformance-service",
        "tasks",
        "conformance-sender",
    ])
}
