//! Canonical JSON (OLPC), the one encoding that is ever hashed or signed.

use serde::Serialize;

/// Encodes canonically.
pub fn to_vec<T: Serialize>(value: &T) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = Vec::new();
    let mut serializer =
        serde_json::Serializer::with_formatter(&mut bytes, olpc_cjson::CanonicalFormatter::new());
    value.serialize(&mut serializer)?;
    Ok(bytes)
}
