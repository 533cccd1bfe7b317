//! Values that belong to a workload's owner: they cannot be printed, logged or serialised by accident.

/// Request data, keys, values, log text: anything a workload processes.
///
/// No `Debug`, `Display` or `Serialize`: a wire type that held one would not compile (`tests/payload.rs`).
pub struct Payload<T>(T);

impl<T> Payload<T> {
    /// Marks a value as the owner's.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value, for handing it to the guest or to the owner's own store.
    pub fn expose(&self) -> &T {
        &self.0
    }

    /// The value itself.
    pub fn into_inner(self) -> T {
        self.0
    }
}
