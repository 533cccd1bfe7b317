//! What `tests/fuzz` is let into, and nobody else: the reader of the native-code cache, which no other crate may use.

use crate::seal::{self, CacheKey, KEY_LEN, Purpose, SealKey, TAG_LEN};
use redan_protocol::{Code, Digest};

/// The native code in an entry of the cache, as a start of the agent with this key would take it.
pub fn cached(
    device: &[u8; KEY_LEN],
    component: Digest,
    engine: Digest,
    entry: Vec<u8>,
) -> Result<Vec<u8>, Code> {
    let of = CacheKey { component, engine };
    let opened = seal::open(&SealKey::new(device), of, entry);
    opened
        .map(|entry| entry.native().to_vec())
        .map_err(seal::SealError::code)
}

/// The MAC over whatever is said to be a header, and native code.
pub fn mac(device: &[u8; KEY_LEN], header: &[u8], native: &[u8]) -> [u8; TAG_LEN] {
    SealKey::new(device).tag(Purpose::NativeCode, &[header, native])
}
