//! A number in the TPM that only grows (TPM 2.0 Library, Part 1, 37.2.4: NV counters).
//!
//! Whoever owns the machine may remove it and make it anew, and wins nothing: a TPM begins a new counter above the highest value any of
//! its counters ever had.

use crate::client::{Client, Index};
use crate::error::{ResponseCode, TpmError};
use crate::name::Address;
use crate::template::SHA256;
use redan_protocol::Digest;

/// The first of the indices that owners give out (TCG, Registry of Reserved TPM 2.0 Handles: 01800000 to 01bfffff).
const FIRST: u32 = 0x0180_0000;
/// As many as that.
const INDICES: u32 = 0x0040_0000;

const AUTHWRITE: u32 = 1 << 2;
const COUNTER: u32 = 1 << 4;
const AUTHREAD: u32 = 1 << 18;
const NO_DA: u32 = 1 << 25;
/// Set by the first increment.
const WRITTEN: u32 = 1 << 29;

/// One counter of a TPM.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Counter {
    address: Address,
    index: u32,
}

impl Counter {
    /// The counter of whom `whose` names: always the same, so that a device that is enrolled anew leaves none behind.
    pub fn of(address: &Address, whose: &str) -> Self {
        let digest = Digest::of(format!("redan counter\0{whose}").as_bytes());
        let [a, b, c, d, ..] = *digest.as_bytes();
        Self {
            address: address.clone(),
            index: FIRST | (u32::from_be_bytes([a, b, c, d]) % INDICES),
        }
    }

    /// Its value; `None`: there is no such counter, or it never counted.
    pub fn read(&self) -> Result<Option<u64>, TpmError> {
        let mut tpm = Client::open(&self.address)?;
        match self.look(&mut tpm)? {
            Some(true) => tpm.nv_read_counter(self.index).map(Some),
            _ => Ok(None),
        }
    }

    /// Adds one.
    pub fn increment(&self) -> Result<(), TpmError> {
        Client::open(&self.address)?.nv_increment(self.index)
    }

    /// Its value; it is made when it is not there.
    pub fn make(&self) -> Result<u64, TpmError> {
        let mut tpm = Client::open(&self.address)?;
        let counts = self.look(&mut tpm)?;
        if counts.is_none() {
            tpm.nv_define(self.public())?;
        }
        if counts != Some(true) {
            tpm.nv_increment(self.index)?;
        }
        tpm.nv_read_counter(self.index)
    }

    /// Removes it, if it is there.
    pub fn remove(&self) -> Result<(), TpmError> {
        let mut tpm = Client::open(&self.address)?;
        match self.look(&mut tpm)? {
            Some(_) => tpm.nv_undefine(self.index),
            None => Ok(()),
        }
    }

    /// Whether it has counted; `None`: it is not there.
    fn look(&self, tpm: &mut Client) -> Result<Option<bool>, TpmError> {
        let found = match tpm.nv_public(self.index) {
            Err(TpmError::Refused { answer, .. }) if answer.kind() == ResponseCode::HANDLE => {
                return Ok(None);
            }
            found => found?,
        };
        let counted = found.attributes & WRITTEN != 0;
        let fresh = Index {
            attributes: found.attributes & !WRITTEN,
            ..found
        };
        if fresh != self.public() {
            return Err(TpmError::Taken {
                path: self.address.path().display().to_string(),
                index: self.index,
            });
        }
        Ok(Some(counted))
    }

    fn public(&self) -> Index {
        Index {
            number: self.index,
            algorithm: SHA256,
            attributes: AUTHWRITE | COUNTER | AUTHREAD | NO_DA,
            length: 8,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_device_has_an_index_of_its_own_among_those_of_owners() {
        let address = Address::parse("tpm:/dev/tpmrm0").unwrap();
        let index = |whose: &str| Counter::of(&address, whose).index;
        assert_eq!(index("a"), index("a"));
        assert_ne!(index("a"), index("b"));
        for number in 0..500 {
            let index = index(&number.to_string());
            assert!((FIRST..FIRST + INDICES).contains(&index), "{index:#x}");
        }
    }
}
