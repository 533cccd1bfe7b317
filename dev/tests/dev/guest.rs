//! Guests, built from `guest-examples`, and written as text.

include!("../../../guest-examples/built.rs");

/// A built guest by its file's name.
pub(crate) fn built(name: &str) -> String {
    let folder = all_built(&["collect", "conformance-job", "conformance-service"]);
    folder.join(name).display().to_string()
}

/// A component in the text format, as a file.
pub(crate) fn written(folder: &Path, text: &str) -> String {
    let path = folder.join("guest.wasm");
    std::fs::write(&path, wat::parse_str(text).unwrap()).unwrap();
    path.display().to_string()
}

/// A command that imports an empty instance of this name.
pub(crate) fn importing(folder: &Path, interface: &str) -> String {
    let text = format!(
        "(component
           (import \"{interface}\" (instance))
           (core module $m (func (export \"run\") (result i32) i32.const 0))
           (core instance $i (instantiate $m))
           (func $run (result (result)) (canon lift (core func $i \"run\")))
           (instance $e (export \"run\" (func $run)))
           (export \"wasi:cli/run@0.2.0\" (instance $e)))"
    );
    written(folder, &text)
}
