//! Names: `tpm:/dev/tpmrm0` is a TPM, `tpm:/dev/tpmrm0?public=…&private=…` something that only it can load.

use crate::error::TpmError;
use std::fmt;
use std::path::{Path, PathBuf};

const SCHEME: &str = "tpm:";
/// Longest path of a TPM, bytes: one of a socket fits into `sockaddr_un`. Tripped by `what_is_no_name_is_refused`.
const PATH_LEN_MAX: usize = 100;
/// Longest half of a blob, bytes. Halves of P-256 keys are under 200. Tripped by `what_is_no_name_is_refused`.
const HALF_LEN_MAX: usize = 1024;

/// Where a TPM is: the kernel's device, or the socket of a software TPM.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Address(PathBuf);

impl Address {
    /// Whether a text wants to be one, or to begin with one.
    pub fn is(text: &str) -> bool {
        text.starts_with(SCHEME)
    }

    /// Reads `tpm:` and an absolute path of visible characters.
    pub fn parse(text: &str) -> Result<Self, TpmError> {
        let path = text
            .strip_prefix(SCHEME)
            .ok_or(TpmError::Name("it does not begin with tpm:"))?;
        if !path.starts_with('/') {
            return Err(TpmError::Name("its path is not absolute"));
        }
        if path.len() > PATH_LEN_MAX {
            return Err(TpmError::Name("its path is longer than 100 bytes"));
        }
        if !path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'?') {
            return Err(TpmError::Name("its path has other characters than visible ones"));
        }
        Ok(Self(path.into()))
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.0.display())
    }
}

/// A key or a secret that a TPM made and does not keep: its public half, and its private one under a key that never leaves the TPM.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Blob {
    pub(crate) address: Address,
    /// `TPMT_PUBLIC`.
    pub(crate) public: Vec<u8>,
    /// What is in a `TPM2B_PRIVATE`.
    pub(crate) private: Vec<u8>,
}

impl Blob {
    /// Reads what [`Display`](fmt::Display) writes, and nothing else.
    pub fn parse(text: &str) -> Result<Self, TpmError> {
        let (address, halves) = text.split_once('?').ok_or(TpmError::Name("it has no halves"))?;
        let halves = halves.strip_prefix("public=");
        let halves = halves.and_then(|halves| halves.split_once("&private="));
        let (public, private) = halves.ok_or(TpmError::Name("it is not ?public=…&private=…"))?;
        Ok(Self {
            address: Address::parse(address)?,
            public: half(public)?,
            private: half(private)?,
        })
    }

    /// The TPM that can load it.
    pub fn address(&self) -> &Address {
        &self.address
    }
}

/// Lower case only: one blob has one name.
fn half(text: &str) -> Result<Vec<u8>, TpmError> {
    let bytes = hex::decode(text).map_err(|_| TpmError::Name("a half is not in hexadecimal digits"))?;
    if bytes.is_empty() || bytes.len() > HALF_LEN_MAX {
        return Err(TpmError::Name("a half has not 1 to 1024 bytes"));
    }
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(TpmError::Name("a half is not in small digits"));
    }
    Ok(bytes)
}

impl fmt::Display for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (public, private) = (hex::encode(&self.public), hex::encode(&self.private));
        write!(f, "{}?public={public}&private={private}", self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_reads_back() {
        let address = Address::parse("tpm:/dev/tpmrm0").unwrap();
        assert_eq!(
            (address.path(), address.to_string().as_str()),
            (Path::new("/dev/tpmrm0"), "tpm:/dev/tpmrm0")
        );
        let text = "tpm:/dev/tpmrm0?public=0023&private=ff";
        let blob = Blob::parse(text).unwrap();
        assert_eq!((&blob.public, &blob.private), (&vec![0, 0x23], &vec![0xff]));
        assert_eq!((blob.to_string().as_str(), blob.address()), (text, &address));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long = format!("tpm:/{}", "a".repeat(PATH_LEN_MAX - 1));
        assert!(Address::parse(&long).is_ok());
        for (text, why) in [
            ("/dev/tpmrm0", "it does not begin with tpm:"),
            ("tpm:", "its path is not absolute"),
            ("tpm:dev/tpm0", "its path is not absolute"),
            (&format!("{long}a"), "its path is longer than 100 bytes"),
            (
                "tpm:/dev/tpm 0",
                "its path has other characters than visible ones",
            ),
            ("tpm:/dev/tpm?", "its path has other characters than visible ones"),
        ] {
            assert_eq!(Address::parse(text), Err(TpmError::Name(why)), "{text}");
        }
        let most = "aa".repeat(HALF_LEN_MAX);
        assert!(Blob::parse(&format!("tpm:/t?public={most}&private={most}")).is_ok());
        for (text, why) in [
            ("tpm:/t", "it has no halves"),
            ("tpm:/t?private=00&public=00", "it is not ?public=…&private=…"),
            ("tpm:/t?public=00", "it is not ?public=…&private=…"),
            (
                "tpm:/t?public=0&private=00",
                "a half is not in hexadecimal digits",
            ),
            (
                "tpm:/t?public=00&private=00&x=1",
                "a half is not in hexadecimal digits",
            ),
            ("tpm:/t?public=&private=00", "a half has not 1 to 1024 bytes"),
            (
                &format!("tpm:/t?public={most}aa&private=00"),
                "a half has not 1 to 1024 bytes",
            ),
            ("tpm:/t?public=AA&private=00", "a half is not in small digits"),
            ("/t?public=00&private=00", "it does not begin with tpm:"),
        ] {
            assert_eq!(Blob::parse(text), Err(TpmError::Name(why)), "{text}");
        }
    }
}
