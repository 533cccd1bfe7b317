//! Names of keys: the part of RFC 7512 that names one key in one token of one module, and nothing more.
//!
//! `pkcs11:token=holder-1;object=release.root-4?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/run/pin`

use crate::TokenError;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Longest URI, bytes. Tripped by `a_uri_that_names_no_single_key_is_refused`, as the limits below.
const URI_LEN_MAX: usize = 2048;
/// Longest token label, bytes: `CK_TOKEN_INFO` has room for so many.
const TOKEN_LEN_MAX: usize = 32;
/// Longest serial number, bytes: likewise.
const SERIAL_LEN_MAX: usize = 16;
/// Longest label of a key, bytes.
const OBJECT_LEN_MAX: usize = 128;
/// Longest id of a key, bytes.
const ID_LEN_MAX: usize = 64;

/// Which key, in which token, through which module. Parsed once; every part is within its limits.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Uri {
    token: String,
    serial: Option<String>,
    object: String,
    id: Option<Vec<u8>>,
    module: PathBuf,
    pin: Option<PathBuf>,
}

impl Uri {
    /// Whether a text means to be one: then it is not the name of a file.
    pub fn is(text: &str) -> bool {
        text.get(..7)
            .is_some_and(|scheme| scheme.eq_ignore_ascii_case("pkcs11:"))
    }

    /// Reads one. Everything it does not know is refused: a part that is ignored might be the one that tells two keys apart.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let wrong = TokenError::Uri;
        if text.len() > URI_LEN_MAX {
            return Err(wrong("it is longer than 2048 bytes"));
        }
        let rest = text
            .strip_prefix("pkcs11:")
            .ok_or(wrong("it does not begin with pkcs11:"))?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (mut token, mut serial, mut object, mut id) = (None, None, None, None);
        for part in path.split(';') {
            let (name, value) = part
                .split_once('=')
                .ok_or(wrong("a part of it is not name=value"))?;
            match name {
                "token" => once(&mut token, text_of(value, TOKEN_LEN_MAX)?)?,
                "serial" => once(&mut serial, text_of(value, SERIAL_LEN_MAX)?)?,
                "object" => once(&mut object, text_of(value, OBJECT_LEN_MAX)?)?,
                "id" => once(&mut id, bytes_of(value, ID_LEN_MAX)?)?,
                // Said by tools, and true of every key here.
                "type" if value == "private" => {}
                _ => {
                    return Err(wrong(
                        "only token, serial, object, id and type=private name a key",
                    ));
                }
            }
        }
        let (mut module, mut pin) = (None, None);
        for part in query.split('&').filter(|_| !query.is_empty()) {
            let (name, value) = part
                .split_once('=')
                .ok_or(wrong("a part of it is not name=value"))?;
            match name {
                "module-path" => once(&mut module, absolute(&text_of(value, URI_LEN_MAX)?)?)?,
                "pin-source" => {
                    let source = text_of(value, URI_LEN_MAX)?;
                    let file = source
                        .strip_prefix("file:")
                        .ok_or(wrong("pin-source is written file:/path"))?;
                    once(&mut pin, absolute(file.strip_prefix("//").unwrap_or(file))?)?;
                }
                // Arguments and the environment are read by others.
                "pin-value" => return Err(wrong("a PIN is never part of it; name a file with pin-source")),
                _ => return Err(wrong("only module-path and pin-source may follow the ?")),
            }
        }
        Ok(Self {
            token: token.ok_or(wrong("token= is missing"))?,
            serial,
            object: object.ok_or(wrong("object= is missing"))?,
            id,
            module: module.ok_or(wrong("module-path= is missing"))?,
            pin,
        })
    }

    /// The same token, another key.
    pub fn sibling(&self, object: &str) -> Result<Self, TokenError> {
        if object.is_empty() || object.len() > OBJECT_LEN_MAX || object.contains(char::is_control) {
            return Err(TokenError::Uri("the new key's label is too long"));
        }
        Ok(Self {
            object: object.to_owned(),
            id: None,
            ..self.clone()
        })
    }

    /// The token's label.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The key's label.
    pub fn object(&self) -> &str {
        &self.object
    }

    pub(crate) fn serial(&self) -> Option<&str> {
        self.serial.as_deref()
    }

    pub(crate) fn id(&self) -> Option<&[u8]> {
        self.id.as_deref()
    }

    pub(crate) fn module(&self) -> &Path {
        &self.module
    }

    /// The file of its PIN.
    pub fn pin(&self) -> Option<&Path> {
        self.pin.as_deref()
    }
}

impl std::fmt::Display for Uri {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "pkcs11:token={}", encoded(self.token.as_bytes()))?;
        if let Some(serial) = &self.serial {
            write!(f, ";serial={}", encoded(serial.as_bytes()))?;
        }
        write!(f, ";object={}", encoded(self.object.as_bytes()))?;
        if let Some(id) = &self.id {
            f.write_str(";id=")?;
            for byte in id {
                write!(f, "%{byte:02X}")?;
            }
        }
        let path = |path: &Path| encoded(path.as_os_str().as_encoded_bytes());
        write!(f, "?module-path={}", path(&self.module))?;
        if let Some(pin) = &self.pin {
            // A path that begins with // would lose both without an empty authority before it (RFC 8089 §2).
            let pin = path(pin);
            let authority = if pin.starts_with("//") { "//" } else { "" };
            write!(f, "&pin-source=file:{authority}{pin}")?;
        }
        Ok(())
    }
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), TokenError> {
    if slot.replace(value).is_some() {
        return Err(TokenError::Uri("a part of it is there twice"));
    }
    Ok(())
}

fn absolute(text: &str) -> Result<PathBuf, TokenError> {
    let path = PathBuf::from(text);
    if !path.is_absolute() {
        return Err(TokenError::Uri("its files are named by absolute paths"));
    }
    Ok(path)
}

fn text_of(value: &str, most: usize) -> Result<String, TokenError> {
    let text = String::from_utf8(bytes_of(value, most)?);
    let text = text.map_err(|_| TokenError::Uri("a part of it is not UTF-8"))?;
    if text.contains(char::is_control) {
        return Err(TokenError::Uri("a part of it holds control characters"));
    }
    Ok(text)
}

/// Characters that stand for themselves: those RFC 7512 §2.3 lets stand in a path and a query alike.
fn stands(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:[]@!$'()*+,/".contains(&byte)
}

fn bytes_of(value: &str, most: usize) -> Result<Vec<u8>, TokenError> {
    let mut bytes = Vec::new();
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        let decoded = if byte == b'%' {
            let mut digit = || char::from(rest.next()?).to_digit(16);
            let pair = digit().zip(digit());
            let pair = pair.and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
            pair.ok_or(TokenError::Uri(
                "a % in it is not followed by two hexadecimal digits",
            ))?
        } else if stands(byte) {
            byte
        } else {
            return Err(TokenError::Uri(
                "a character in it must be written as % and two digits",
            ));
        };
        bytes.push(decoded);
    }
    if bytes.is_empty() || bytes.len() > most {
        return Err(TokenError::Uri("a part of it is empty or too long"));
    }
    Ok(bytes)
}

fn encoded(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        if stands(*byte) {
            text.push(char::from(*byte));
        } else {
            // Writing to a String does not fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests;
