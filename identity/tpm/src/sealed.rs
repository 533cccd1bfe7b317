//! Secrets that only one TPM unseals.

use crate::client::{Client, DATA_LEN_MAX, Made};
use crate::error::TpmError;
use crate::key::nonsense;
use crate::name::{Address, Blob};
use crate::template;
use zeroize::Zeroizing;

/// Longest secret, bytes (`MAX_SYM_DATA`). Tripped by `a_secret_that_is_too_long_or_empty_is_not_sealed`.
pub const SECRET_LEN_MAX: usize = DATA_LEN_MAX;

/// Seals a secret for a TPM.
pub fn seal(address: &Address, secret: &[u8]) -> Result<Blob, TpmError> {
    if secret.is_empty() || secret.len() > SECRET_LEN_MAX {
        return Err(TpmError::Name("a secret has 1 to 128 bytes"));
    }
    let made = Client::open(address)?
        .under_primary(|tpm, primary| tpm.create(primary, &template::sealed(), secret))?;
    let Made { public, private } = made;
    template::is_sealed(&public).map_err(|wrong| nonsense(address, wrong))?;
    Ok(Blob {
        address: address.clone(),
        public,
        private,
    })
}

/// Gives a secret back.
pub fn unseal(blob: &Blob) -> Result<Zeroizing<Vec<u8>>, TpmError> {
    template::is_sealed(&blob.public)
        .map_err(|_| TpmError::Name("its public half is not that of a secret fixed to its TPM"))?;
    Client::open(&blob.address)?.with(blob, Client::unseal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_is_too_long_or_empty_is_not_sealed() {
        let nowhere = Address::parse("tpm:/nowhere").unwrap();
        let refused = TpmError::Name("a secret has 1 to 128 bytes");
        assert_eq!(seal(&nowhere, &[]), Err(refused.clone()));
        assert_eq!(seal(&nowhere, &[1; SECRET_LEN_MAX + 1]), Err(refused));
        let asked = seal(&nowhere, &[1; SECRET_LEN_MAX]).unwrap_err();
        assert_eq!(asked.code().name(), "tpm-missing");
    }
}
