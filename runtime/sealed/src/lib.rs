//! The one unsafe deserialisation, from a write-sealed memfd only.
