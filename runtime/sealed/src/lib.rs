//! The one unsafe deserialisation, from a write-sealed memfd only.
//!
//! What it is: [`Sealed`], bytes read once from a memory file that nobody can change any more, and
//! [`Sealed::component`], which makes native code of them. [`seal`] makes such a file.
//!
//! Whom it believes: the agent at the other end of the executor's inherited channel, which checked the MAC of its
//! cache entry over these very bytes before it sealed and passed them (the key never leaves the agent), and the kernel,
//! which keeps the seals (`memfd_create(2)`, fcntl(2) "File Sealing").
//!
//! Invariants: without all of [`WRITE_SEALS`] nothing is read; the bytes are read once into private memory, and that
//! buffer, not the file, is what is deserialised; a file of another size than its own metadata says is refused.
//!
//! Absent on purpose: paths, mapping of shared memory, keys, any way to deserialise other bytes.
//!
//! `unsafe` stands here once. Without it every start would compile again (`benches/` "verified cold start").
#![deny(unsafe_op_in_unsafe_fn)]

use redan_protocol::{ByteCount, Code};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};
use wasmtime::Engine;
use wasmtime::component::Component;

/// Largest sealed file read, bytes. Native code is 3 to 6 times its Wasm; components are at most 64 MiB.
pub const SEALED_LEN_MAX: ByteCount = ByteCount::mib(512);

/// The seals that together make content final: no writing, no shrinking, no growing, no removal of these seals.
pub const WRITE_SEALS: SealFlags = SealFlags::WRITE
    .union(SealFlags::SHRINK)
    .union(SealFlags::GROW)
    .union(SealFlags::SEAL);

/// Why bytes were not taken.
#[derive(Debug, thiserror::Error)]
pub enum SealedError {
    /// Not a memory file, or one that somebody could still change.
    #[error("the memory file is not sealed against writing, shrinking, growing and unsealing")]
    NotSealed,
    /// Empty, over [`SEALED_LEN_MAX`], or shorter than it says.
    #[error("the sealed file's length is not acceptable")]
    Length,
    /// The kernel said no.
    #[error("the memory file cannot be used: {0}")]
    Os(#[source] Errno),
    /// wasmtime does not take it: made by another version, for other settings, or not native code at all.
    #[error("the native code is not of this engine")]
    ForeignCode,
    /// Native code of this engine that wants more from the start than any instance may have here.
    #[error("the component does not fit this engine: {0}")]
    DoesNotFit(Code),
}

impl SealedError {
    /// The code that leaves the process.
    pub const fn code(&self) -> Code {
        match self {
            Self::NotSealed | Self::Length | Self::ForeignCode => Code::CachePoisoned,
            Self::Os(_) => Code::Internal,
            Self::DoesNotFit(code) => *code,
        }
    }

    /// What to do about it.
    pub const fn remedy(&self) -> &'static str {
        self.code().remedy()
    }
}

/// Bytes of a write-sealed memory file, read once. Made only by [`Sealed::read`].
///
/// ```
/// fn native(sealed: redan_sealed::Sealed) -> usize { sealed.bytes().len() }
/// ```
///
/// ```compile_fail,E0423
/// let forged = redan_sealed::Sealed(Vec::new());
/// ```
///
/// ```compile_fail,E0277
/// let forged: redan_sealed::Sealed = Vec::<u8>::new().into();
/// ```
pub struct Sealed(Vec<u8>);

impl Sealed {
    /// Checks the seals, then reads the whole file. Fails without [`WRITE_SEALS`].
    pub fn read(file: impl AsFd) -> Result<Self, SealedError> {
        let seals = rustix::fs::fcntl_get_seals(&file).map_err(|errno| match errno {
            // Not a file that can be sealed.
            Errno::INVAL => SealedError::NotSealed,
            other => SealedError::Os(other),
        })?;
        if !seals.contains(WRITE_SEALS) {
            return Err(SealedError::NotSealed);
        }
        let status = rustix::fs::fstat(&file).map_err(SealedError::Os)?;
        let length = u64::try_from(status.st_size).map_err(|_| SealedError::Length)?;
        if length == 0 || length > SEALED_LEN_MAX.get() {
            return Err(SealedError::Length);
        }
        let mut bytes = vec![0; usize::try_from(length).map_err(|_| SealedError::Length)?];
        let mut rest = bytes.as_mut_slice();
        let mut offset = 0_u64;
        while !rest.is_empty() {
            let taken = match rustix::io::pread(&file, &mut *rest, offset) {
                Ok(0) => return Err(SealedError::Length),
                Ok(taken) => taken,
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(SealedError::Os(errno)),
            };
            let (_, behind) = rest.split_at_mut_checked(taken).ok_or(SealedError::Length)?;
            rest = behind;
            offset = offset.saturating_add(u64::try_from(taken).map_err(|_| SealedError::Length)?);
        }
        Ok(Self(bytes))
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Makes native code of the bytes.
    #[allow(unsafe_code, reason = "the crate exists for this call")]
    pub fn component(&self, engine: &Engine) -> Result<Component, SealedError> {
        // JUSTIFICATION: without it every start of an executor compiles every component again.
        // SAFETY: `deserialize` wants unchanged bytes that `Component::serialize` made. `self` is made only by `read`,
        // from a file whose seals forbid every change, received over the executor's inherited channel, whose other end
        // is the agent alone. The agent seals only what its own compiler child answered, or what it read once from its
        // cache and checked under its device-only MAC key. `self.0` is private memory read once: no second look at the
        // file can differ. wasmtime itself refuses another version, other settings or missing CPU features.
        let component = unsafe { Component::deserialize(engine, &self.0) };
        component.map_err(|error| refusal(&error))
    }
}

/// Whether the code is bad or only too large: bad code is thrown away and compiled again, which cures no size.
///
/// wasmtime has no types for its pool's refusals; the texts are held by tests here.
fn refusal(error: &wasmtime::Error) -> SealedError {
    const SIZES: [(&str, Code); 8] = [
        ("instance allocation for this", Code::InstanceLimit),
        ("core module instances", Code::InstanceLimit),
        ("tables count of", Code::TableLimit),
        ("table index", Code::TableLimit),
        ("tables, which exceeds", Code::TableLimit),
        ("memories count of", Code::MemoryLimit),
        ("memory index", Code::MemoryLimit),
        ("Wasm linear memories", Code::MemoryLimit),
    ];
    let text = format!("{error:#}");
    let size = SIZES.iter().find(|(phrase, _)| text.contains(phrase));
    size.map_or(SealedError::ForeignCode, |(_, code)| {
        SealedError::DoesNotFit(*code)
    })
}

impl std::fmt::Debug for Sealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealed").field("length", &self.0.len()).finish()
    }
}

/// A memory file holding these bytes, with [`WRITE_SEALS`] set.
pub fn seal(name: &str, bytes: &[u8]) -> Result<OwnedFd, SealedError> {
    let file = unsealed(name, bytes)?;
    rustix::fs::fcntl_add_seals(&file, WRITE_SEALS).map_err(SealedError::Os)?;
    Ok(file)
}

/// A memory file holding these bytes that its receiver will seal.
pub fn unsealed(name: &str, bytes: &[u8]) -> Result<OwnedFd, SealedError> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = rustix::fs::memfd_create(name, flags).map_err(SealedError::Os)?;
    let mut rest = bytes;
    while !rest.is_empty() {
        match rustix::io::write(&file, rest) {
            Ok(written) => rest = rest.get(written..).ok_or(SealedError::Length)?,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(SealedError::Os(errno)),
        }
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{Mode, OFlags};

    const EMPTY: &str = "(component)";

    fn native(engine: &Engine) -> Vec<u8> {
        Component::new(engine, wat::parse_str(EMPTY).unwrap())
            .unwrap()
            .serialize()
            .unwrap()
    }

    #[test]
    fn sealed_native_code_of_this_engine_is_taken() {
        let engine = Engine::default();
        let file = seal("native", &native(&engine)).unwrap();
        assert!(Sealed::read(&file).unwrap().component(&engine).is_ok());
    }

    #[test]
    fn a_file_that_lacks_any_one_seal_is_refused() {
        for missing in [
            SealFlags::WRITE,
            SealFlags::SHRINK,
            SealFlags::GROW,
            SealFlags::SEAL,
        ] {
            let file = unsealed("native", b"bytes").unwrap();
            rustix::fs::fcntl_add_seals(&file, WRITE_SEALS.difference(missing)).unwrap();
            assert!(
                matches!(Sealed::read(&file), Err(SealedError::NotSealed)),
                "{missing:?}"
            );
        }
    }

    #[test]
    fn a_file_that_cannot_be_sealed_is_refused() {
        let (reader, _writer) = rustix::pipe::pipe().unwrap();
        assert!(matches!(Sealed::read(&reader), Err(SealedError::NotSealed)));
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        assert!(matches!(Sealed::read(&file), Err(SealedError::NotSealed)));
    }

    #[test]
    fn a_file_on_a_disk_is_refused_even_where_files_know_seals() {
        // tmpfs answers the question for seals; a file there carries the one that forbids all others.
        let mut asked = 0;
        for folder in ["/dev/shm", env!("CARGO_MANIFEST_DIR")] {
            let file = std::fs::File::open(folder);
            let file = file.and_then(|folder| {
                let flags = OFlags::TMPFILE | OFlags::RDWR;
                Ok(rustix::fs::openat(&folder, ".", flags, Mode::RUSR | Mode::WUSR)?)
            });
            // Not every file system here can make a file without a name.
            let Ok(file) = file else {
                continue;
            };
            rustix::io::write(&file, &native(&Engine::default())).unwrap();
            assert!(
                matches!(Sealed::read(&file), Err(SealedError::NotSealed)),
                "{folder}"
            );
            asked += 1;
        }
        assert!(asked > 0, "no file could be made");
    }

    #[test]
    fn native_code_that_was_cut_short_is_refused() {
        let engine = Engine::default();
        let native = native(&engine);
        for keep in [native.len() - 1, native.len() / 2, 64, 1] {
            let cut = native.get(..keep).unwrap();
            let file = seal("native", cut).unwrap();
            let refused = Sealed::read(&file).unwrap().component(&engine);
            assert!(matches!(refused, Err(SealedError::ForeignCode)), "{keep} bytes");
        }
    }

    #[test]
    fn a_file_one_byte_over_the_limit_is_refused_unread() {
        let sized = |length: u64| {
            let file = unsealed("native", b"").unwrap();
            rustix::fs::ftruncate(&file, length).unwrap();
            rustix::fs::fcntl_add_seals(&file, WRITE_SEALS).unwrap();
            Sealed::read(&file).map(|sealed| sealed.bytes().len())
        };
        assert!(matches!(
            sized(SEALED_LEN_MAX.get() + 1),
            Err(SealedError::Length)
        ));
        assert_eq!(sized(4096).unwrap(), 4096);
    }

    #[test]
    fn sealed_bytes_that_are_not_native_code_are_refused() {
        let file = seal("native", b"\0asm not native code").unwrap();
        let refused = Sealed::read(&file).unwrap().component(&Engine::default());
        assert!(matches!(refused, Err(SealedError::ForeignCode)));
    }

    #[test]
    fn an_empty_file_is_refused() {
        let file = seal("native", b"").unwrap();
        assert!(matches!(Sealed::read(&file), Err(SealedError::Length)));
    }

    #[test]
    fn a_sealed_file_cannot_be_written_any_more() {
        let file = seal("native", b"final").unwrap();
        assert_eq!(rustix::io::pwrite(&file, b"x", 0), Err(Errno::PERM));
    }
}
