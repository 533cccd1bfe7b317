//! One signer's signature, by itself in a file (`redan.signature/1`): signers need not meet, nor share a machine or a day.

use crate::error::CeremonyError;
use crate::present::{bytes, put_new};
use crate::request::{Checked, Request};
use redan_protocol::Digest;
use redan_publish::metadata::detached;
use redan_publish::{PublicKey, SigningKey};
use serde::{Deserialize, Serialize};
use std::path::Path;

const SCHEMA: &str = "redan.signature/1";
/// How much of the payload's digest a signer types at least, characters. Somebody who has days can make another payload whose digest
/// begins the same; whoever gives more, or all of it, is safe from that too.
pub const CONFIRM_CHARS: usize = 8;

/// A signature on its way to who assembles.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    schema: String,
    /// What was signed.
    pub payload_sha256: Digest,
    /// Whose it is.
    pub keyid: String,
    /// Hexadecimal.
    pub sig: String,
}

/// Signs a request that keeps the rules, with a key that may, for somebody who knows what it is: `typed` begins its digest.
pub fn sign(
    request: &Request,
    checked: &Checked,
    key: &SigningKey,
    typed: &str,
) -> Result<Signature, CeremonyError> {
    let (digest, typed) = (checked.sha256.to_string(), typed.trim());
    if typed.len() < CONFIRM_CHARS || !digest.starts_with(typed) {
        return Err(CeremonyError::Confirm);
    }
    let named = signer(request, checked, key)?;
    Ok(Signature {
        schema: SCHEMA.into(),
        payload_sha256: checked.sha256,
        keyid: named.id.clone(),
        sig: detached(&request.payload, key)?,
    })
}

/// The key as the role names it; asked before a signer is asked anything.
pub fn signer<'a>(
    request: &Request,
    checked: &'a Checked,
    key: &SigningKey,
) -> Result<&'a PublicKey, CeremonyError> {
    let public = key.public().public;
    let named = checked.signers.iter().find(|signer| signer.public == public);
    named.ok_or_else(|| CeremonyError::NotNamed {
        key: key.public().id,
        role: request.role.clone(),
    })
}

impl Signature {
    /// Reads one.
    pub fn read(path: &Path) -> Result<Self, CeremonyError> {
        let read: Option<Self> = serde_json::from_slice(&bytes(path)?).ok();
        let known = read.filter(|signature| signature.schema == SCHEMA);
        known.ok_or_else(|| CeremonyError::Signature {
            path: path.display().to_string(),
        })
    }

    /// Writes it to a new file.
    pub fn write(&self, path: &Path) -> Result<(), CeremonyError> {
        let text = serde_json::to_vec_pretty(self).map_err(|_| CeremonyError::Bug)?;
        put_new(path, &text)
    }
}
