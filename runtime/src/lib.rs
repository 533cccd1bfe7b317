//! The executor: the Wasm sandbox, limits, slots, triggers and swap. Sees payload, holds no key.
#![forbid(unsafe_code)]
