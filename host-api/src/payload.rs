//! Values that belong to a workload's owner: they cannot be printed, logged or serialised by accident.

/// Request data, keys, values, log text: anything a workload processes.
///
/// No `Debug`, `Display`, `Serialize` or `Clone`: a log line, an error or a wire type that held one would not compile. Each of these fails
/// for that reason alone; the first one says how it would compile.
///
/// ```
/// let payload = redan_host_api::Payload::new("a request");
/// println!("{}", payload.expose().len());
/// ```
///
/// ```compile_fail,E0277
/// let payload = redan_host_api::Payload::new("a request");
/// println!("{payload}");
/// ```
///
/// ```compile_fail,E0277
/// let payload = redan_host_api::Payload::new("a request");
/// println!("{payload:?}");
/// ```
///
/// ```compile_fail,E0277
/// #[derive(Debug)]
/// struct Event { key: redan_host_api::Payload<String> }
/// ```
///
/// ```compile_fail,E0599
/// let payload = redan_host_api::Payload::new("a request");
/// let copy: redan_host_api::Payload<&str> = payload.clone();
/// ```
///
/// ```compile_fail,E0616
/// let payload = redan_host_api::Payload::new("a request");
/// println!("{}", payload.0.len());
/// ```
///
/// Nothing to serialise it with is in reach of a report either:
///
/// ```compile_fail,E0277
/// fn carries(_: impl redan_protocol::report::Closed) {}
/// carries(redan_host_api::Payload::new(7_u64));
/// ```
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
