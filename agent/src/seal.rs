//! Native code that this device compiled, sealed with a key that only its agent holds (30-runtime, sealed native code).
//!
//! An entry is `magic ‖ sha256(wasm) ‖ engine ‖ length ‖ HMAC ‖ native code`. It is read from disk once; the MAC is checked
//! over those very bytes, and they alone go into the memory file that is write-sealed and passed on: nobody can change
//! them between check and use.

use aws_lc_rs::{constant_time, hmac};
use redan_protocol::{Code, Digest};
use rustix::fs::{MemfdFlags, SealFlags};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;

/// First bytes of an entry; a new layout gets a new number.
const MAGIC: &[u8; 8] = b"RDNATIV1";
/// Magic, two digests, length.
const HEADER_LEN: usize = 8 + 32 + 32 + 8;
/// HMAC-SHA256 (RFC 2104).
pub(crate) const TAG_LEN: usize = 32;
/// Length of the device-only key, bytes: the hash's own length (RFC 2104 §3).
pub(crate) const KEY_LEN: usize = 32;

/// What a record under the device-only key is for: one purpose's bytes are never taken for another's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Purpose {
    NativeCode,
    Journal,
    Policy,
    TrustRecord,
}

impl Purpose {
    fn label(self) -> &'static [u8] {
        match self {
            Self::NativeCode => b"redan native code\0",
            Self::Journal => b"redan journal\0",
            Self::Policy => b"redan fleet policy\0",
            Self::TrustRecord => b"redan trust record\0",
        }
    }
}

/// The device-only MAC key. Never leaves the agent.
pub(crate) struct SealKey(hmac::Key);

impl SealKey {
    pub(crate) fn new(bytes: &[u8; KEY_LEN]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// The MAC of `parts`, whose borders the caller fixes by constant lengths.
    pub(crate) fn tag(&self, purpose: Purpose, parts: &[&[u8]]) -> [u8; TAG_LEN] {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(purpose.label());
        for part in parts {
            context.update(part);
        }
        let mut tag = [0; TAG_LEN];
        for (to, from) in tag.iter_mut().zip(context.sign().as_ref()) {
            *to = *from;
        }
        tag
    }

    /// Whether `tag` is the MAC of `parts`, in constant time.
    pub(crate) fn is(&self, purpose: Purpose, parts: &[&[u8]], tag: &[u8]) -> bool {
        constant_time::verify_slices_are_equal(&self.tag(purpose, parts), tag).is_ok()
    }
}

/// For which component and which engine native code was made. Any difference in version, configuration or CPU is another
/// engine digest, so another entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct CacheKey {
    pub(crate) component: Digest,
    pub(crate) engine: Digest,
}

impl CacheKey {
    /// The entry's file name.
    pub(crate) fn file_name(&self) -> String {
        let mut both = self.component.as_bytes().to_vec();
        both.extend(self.engine.as_bytes());
        Digest::of(&both).to_string()
    }

    fn header(&self, length: usize) -> Vec<u8> {
        let mut header = MAGIC.to_vec();
        header.extend(self.component.as_bytes());
        header.extend(self.engine.as_bytes());
        header.extend(u64::try_from(length).unwrap_or(u64::MAX).to_le_bytes());
        header
    }
}

/// An entry that must not be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum SealError {
    #[error("the cached native code is not an entry of this key")]
    Header,
    #[error("the cached native code was changed")]
    Tag,
    #[error("the cached native code is in a file that others can touch")]
    Foreign,
    #[error("the cached native code is in no file that can be read")]
    Unreadable,
}

impl SealError {
    pub(crate) fn code(self) -> Code {
        match self {
            Self::Header | Self::Tag | Self::Foreign | Self::Unreadable => Code::CachePoisoned,
        }
    }
}

/// The entry for native code fresh from the compiler.
pub(crate) fn seal(key: &SealKey, of: CacheKey, native: &[u8]) -> Vec<u8> {
    let mut entry = of.header(native.len());
    let tag = key.tag(Purpose::NativeCode, &[&entry, native]);
    entry.extend(tag);
    entry.extend(native);
    entry
}

/// An entry whose every byte is as this device wrote it.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Authentic(Vec<u8>);

impl Authentic {
    /// The native code in it: the very bytes that were checked.
    pub(crate) fn native(&self) -> &[u8] {
        self.0
            .get(HEADER_LEN.saturating_add(TAG_LEN)..)
            .unwrap_or_default()
    }
}

/// The entry, when every byte is as this device wrote it, for exactly this key.
pub(crate) fn open(key: &SealKey, of: CacheKey, entry: Vec<u8>) -> Result<Authentic, SealError> {
    let (header, rest) = entry.split_at_checked(HEADER_LEN).ok_or(SealError::Header)?;
    let (tag, native) = rest.split_at_checked(TAG_LEN).ok_or(SealError::Header)?;
    if header != of.header(native.len()) {
        return Err(SealError::Header);
    }
    if !key.is(Purpose::NativeCode, &[header, native], tag) {
        return Err(SealError::Tag);
    }
    Ok(Authentic(entry))
}

/// A memory file with these bytes that nobody, not even we, can change any more.
pub(crate) fn sealed_memory(bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(
        rustix::fs::memfd_create(
            "redan-sealed",
            MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::NOEXEC_SEAL,
        )
        .or_else(|errno| {
            // Kernels before 6.3 do not know NOEXEC_SEAL; the write seals below are what counts.
            if errno == rustix::io::Errno::INVAL {
                rustix::fs::memfd_create("redan-sealed", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
            } else {
                Err(errno)
            }
        })?,
    );
    file.write_all(bytes)?;
    file.rewind()?;
    rustix::fs::fcntl_add_seals(
        &file,
        SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL,
    )?;
    Ok(file.into())
}

/// Reads a memory file another process filled, at most `limit` bytes, from its beginning.
pub(crate) fn read_memory(memory: OwnedFd, limit: u64) -> io::Result<Vec<u8>> {
    let mut file = File::from(memory);
    file.rewind()?;
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > limit {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SealKey {
        SealKey::new(&[7; KEY_LEN])
    }

    fn of() -> CacheKey {
        CacheKey {
            component: Digest::of(b"component"),
            engine: Digest::of(b"engine"),
        }
    }

    #[test]
    fn what_was_sealed_opens() {
        let entry = seal(&key(), of(), b"native");
        assert_eq!(open(&key(), of(), entry).unwrap().native(), b"native");
    }

    #[test]
    fn one_changed_bit_anywhere_is_refused() {
        let entry = seal(&key(), of(), b"native code");
        for at in 0..entry.len() {
            for bit in 0..8 {
                let mut poisoned = entry.clone();
                poisoned[at] ^= 1 << bit;
                let error = open(&key(), of(), poisoned).unwrap_err();
                assert_eq!(error.code(), Code::CachePoisoned, "byte {at}");
            }
        }
        for length in 0..entry.len() {
            assert_eq!(
                open(&key(), of(), entry[..length].to_vec()),
                Err(SealError::Header)
            );
        }
    }

    #[test]
    fn an_entry_of_another_engine_component_or_device_is_refused() {
        let entry = seal(&key(), of(), b"native");
        let engine = CacheKey {
            engine: Digest::of(b"other"),
            ..of()
        };
        assert_eq!(open(&key(), engine, entry.clone()), Err(SealError::Header));
        let component = CacheKey {
            component: Digest::of(b"other"),
            ..of()
        };
        assert_eq!(open(&key(), component, entry.clone()), Err(SealError::Header));
        assert_eq!(
            open(&SealKey::new(&[8; KEY_LEN]), of(), entry),
            Err(SealError::Tag)
        );
    }

    #[test]
    fn a_tag_for_one_purpose_is_none_for_another() {
        let tag = key().tag(Purpose::Journal, &[b"x"]);
        assert!(key().is(Purpose::Journal, &[b"x"], &tag));
        assert!(!key().is(Purpose::NativeCode, &[b"x"], &tag));
    }

    #[test]
    fn sealed_memory_cannot_be_written() {
        let memory = sealed_memory(b"native").unwrap();
        let error = rustix::io::pwrite(&memory, b"x", 0).unwrap_err();
        assert_eq!(error, rustix::io::Errno::PERM);
        assert_eq!(read_memory(memory, 6).unwrap(), b"native");
        let memory = sealed_memory(b"native").unwrap();
        assert_eq!(
            read_memory(memory, 5).unwrap_err().kind(),
            io::ErrorKind::FileTooLarge
        );
    }
}
