//! What is made in a TPM: three `TPMT_PUBLIC` (TPM 2.0 Library, Part 2, 12.2.4), written here and read back to the last byte.

use crate::wire::{Parameters, Reader, Wrong};

/// `TPM_ALG_SHA256`.
pub(crate) const SHA256: u16 = 0x000b;
/// `TPM_ALG_ECDSA`.
pub(crate) const ECDSA: u16 = 0x0018;
/// `TPM_ALG_NULL`.
pub(crate) const NULL: u16 = 0x0010;
const ECC: u16 = 0x0023;
const KEYEDHASH: u16 = 0x0008;
const AES: u16 = 0x0006;
const CFB: u16 = 0x0043;
/// `TPM_ECC_NIST_P256`.
const P256: u16 = 0x0003;

const FIXED_TPM: u32 = 1 << 1;
const FIXED_PARENT: u32 = 1 << 4;
const SENSITIVE_DATA_ORIGIN: u32 = 1 << 5;
const USER_WITH_AUTH: u32 = 1 << 6;
/// Somebody who guesses at passwords of other things in this TPM does not lock a device out of its own.
const NO_DA: u32 = 1 << 10;
const RESTRICTED: u32 = 1 << 16;
const DECRYPT: u32 = 1 << 17;
const SIGN: u32 = 1 << 18;

/// It never leaves this TPM, and no other key can wrap it.
const STAYS: u32 = FIXED_TPM | FIXED_PARENT | USER_WITH_AUTH | NO_DA;
const PRIMARY: u32 = STAYS | SENSITIVE_DATA_ORIGIN | RESTRICTED | DECRYPT;
const SIGNING: u32 = STAYS | SENSITIVE_DATA_ORIGIN | SIGN;

/// The storage key under the owner's seed (TCG, TPM 2.0 Provisioning Guidance: P-256, AES-128-CFB). From one seed and one template comes
/// one key, so that it need not be kept.
pub(crate) fn primary() -> Vec<u8> {
    let mut out = head(ECC, PRIMARY);
    for word in [AES, 128, CFB, NULL, P256, NULL] {
        out.u16(word);
    }
    out.sized(&[]);
    out.sized(&[]);
    out.0.to_vec()
}

/// A key that signs SHA-256 digests with ECDSA on P-256.
pub(crate) fn signing() -> Vec<u8> {
    let mut out = signing_head();
    out.sized(&[]);
    out.sized(&[]);
    out.0.to_vec()
}

/// A secret from outside.
pub(crate) fn sealed() -> Vec<u8> {
    let mut out = head(KEYEDHASH, STAYS);
    out.u16(NULL);
    out.sized(&[]);
    out.0.to_vec()
}

/// The public point of a key that was made as [`signing`] says: uncompressed (SEC 1 §2.3.3).
pub(crate) fn point(public: &[u8]) -> Result<[u8; 65], Wrong> {
    let head = signing_head();
    let mut reader = Reader(public);
    if reader.take(head.0.len())? != head.0.as_slice() {
        return Err(Wrong::Form("its public half is not that of a key made here"));
    }
    let mut point = [0; 65];
    let (form, coordinates) = point.split_at_mut(1);
    form.copy_from_slice(&[4]);
    for coordinate in coordinates.chunks_exact_mut(32) {
        number(&mut reader, coordinate)?;
    }
    reader.end()?;
    Ok(point)
}

/// Whether a public half is that of a secret that was made as [`sealed`] says.
pub(crate) fn is_sealed(public: &[u8]) -> Result<(), Wrong> {
    let mut head = head(KEYEDHASH, STAYS);
    head.u16(NULL);
    let mut reader = Reader(public);
    if reader.take(head.0.len())? != head.0.as_slice() || reader.sized()?.len() != 32 {
        return Err(Wrong::Form("its public half is not that of a secret sealed here"));
    }
    reader.end()
}

/// A number of at most 32 bytes, into a field of 32: zeros in front may be left out.
pub(crate) fn number(reader: &mut Reader<'_>, into: &mut [u8]) -> Result<(), Wrong> {
    let number = reader.sized()?;
    let start = into.len().checked_sub(number.len());
    let place = start.and_then(|start| into.get_mut(start..));
    let place = place.ok_or(Wrong::Form("it has a number of more than 32 bytes"))?;
    place.copy_from_slice(number);
    Ok(())
}

fn signing_head() -> Parameters {
    let mut out = head(ECC, SIGNING);
    for word in [NULL, ECDSA, SHA256, P256, NULL] {
        out.u16(word);
    }
    out
}

/// Type, algorithm of the name, attributes, no policy.
fn head(kind: u16, attributes: u32) -> Parameters {
    let mut out = Parameters::default();
    out.u16(kind);
    out.u16(SHA256);
    out.u32(attributes);
    out.sized(&[]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn public(x: &[u8], y: &[u8]) -> Vec<u8> {
        let mut out = signing_head();
        out.sized(x);
        out.sized(y);
        out.0.to_vec()
    }

    #[test]
    fn a_point_is_read_and_short_coordinates_are_filled_up() {
        let read = point(&public(&[7; 32], &[9])).unwrap();
        let expected = [&[4][..], &[7; 32], &[0; 31], &[9]].concat();
        assert_eq!(read.as_slice(), expected);
    }

    #[test]
    fn a_key_or_secret_that_could_leave_its_tpm_is_not_read() {
        let good = public(&[7; 32], &[9; 32]);
        assert!(point(&good).is_ok());
        let other = Wrong::Form("its public half is not that of a key made here");
        // Type, name algorithm, attributes, policy, parameters: each bit of them.
        for at in 0..signing_head().0.len() {
            for bit in 0..8 {
                let mut changed = good.clone();
                changed[at] ^= 1 << bit;
                assert_eq!(point(&changed), Err(other), "byte {at}, bit {bit}");
            }
        }
        for length in 0..good.len() {
            assert!(point(&good[..length]).is_err());
        }
        assert!(point(&[&good[..], &[0]].concat()).is_err());
        assert!(point(&public(&[7; 33], &[9; 32])).is_err());

        let mut secret = head(KEYEDHASH, STAYS);
        secret.u16(NULL);
        secret.sized(&[1; 32]);
        assert_eq!(is_sealed(&secret.0), Ok(()));
        for at in 0..secret.0.len() - 32 {
            let mut changed = secret.0.to_vec();
            changed[at] ^= 2;
            assert!(is_sealed(&changed).is_err(), "byte {at}");
        }
        assert!(is_sealed(&good).is_err());
    }
}
