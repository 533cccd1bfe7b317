//! Artifacts onto the disk: resumed where they broke off, hashed while they stream, named only when the digest is met.
//!
//! `<state>/blobs/<sha256>.part` grows; `<state>/blobs/<sha256>` exists only whole and verified. What a part file held before a
//! power cut is hashed again: the disk is believed as little as the server.

use crate::disk::{Disk, RealDisk, is_no_file, open_to_write};
use crate::link::{Link, Standing};
use crate::patience::Pace;
use redan_identity::client::Connection;
use redan_protocol::digest::Hasher;
use redan_protocol::{ByteCount, Code, Digest};
use rustix::fs::OFlags;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

/// Gets an artifact onto the disk, going on where an earlier try broke off. The next try after a failure asks the next address.
pub(crate) async fn fetch(link: Link, blobs: Blobs, digest: Digest, length: ByteCount) -> Result<(), Code> {
    let turn = link.turn();
    let fetched = fetch_here(&link, &blobs, digest, length).await;
    if fetched.is_err() {
        link.pass(turn);
    }
    fetched
}

/// Over a connection of its own, as long as what it was opened under holds.
async fn take(link: &Link, partial: &mut Partial, digest: Digest) -> Result<(), Code> {
    let mut standing = link.standing();
    let mut connection = link.open().await?;
    transfer((&mut connection, &mut standing), partial, digest).await
}

async fn fetch_here(link: &Link, blobs: &Blobs, digest: Digest, length: ByteCount) -> Result<(), Code> {
    let here = blobs
        .verified(digest, length)
        .map_err(|error| disk_code(&error))?;
    if here.is_some() {
        return Ok(());
    }
    let mut partial = blobs.resume(digest, length)?;
    let resumed = partial.offset() > 0;
    if !partial.complete() {
        take(link, &mut partial, digest).await?;
    }
    match partial.finish() {
        // The wrong bytes may be those of an earlier try, which another address sent: this one is asked for all of them before it is
        // blamed. Else a liar that sends a little and hangs up would spoil what every other address sends.
        Err(Code::DigestMismatch) if resumed => {
            let mut partial = blobs.resume(digest, length)?;
            take(link, &mut partial, digest).await?;
            partial.finish()
        }
        finished => finished,
    }
}

/// Takes what is missing. A server below the floor rate is left with what it sent, and asked again later.
pub(crate) async fn transfer(
    (connection, standing): (&mut Connection, &mut Standing),
    partial: &mut Partial,
    digest: Digest,
) -> Result<(), Code> {
    let range = format!("bytes={}-", partial.offset());
    let headers: &[(&str, &str)] = if partial.offset() == 0 {
        &[]
    } else {
        &[("range", &range)]
    };
    let mut download = connection
        .download(&format!("/artifacts/{digest}"), headers)
        .await
        .map_err(|error| error.code())?;
    match download.status {
        200 => partial.restart()?,
        206 => {}
        404 => return Err(Code::ArtifactMissing),
        _ => return Err(Code::Unreachable),
    }
    let mut pace = Pace::begin();
    while let Some(chunk) = pace.chunk(&mut download).await? {
        if !standing.holds(connection) {
            return Err(Code::ForeignServer);
        }
        partial.push(&chunk)?;
    }
    Ok(())
}

/// The artifacts of one device.
#[derive(Clone, Debug)]
pub(crate) struct Blobs(PathBuf);

/// An artifact that is not whole yet.
#[derive(Debug)]
pub(crate) struct Partial {
    blobs: Blobs,
    digest: Digest,
    length: ByteCount,
    file: File,
    hasher: Hasher,
    offset: u64,
}

impl Blobs {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self(folder)
    }

    /// The bytes of an artifact, if they are here and still have their digest. A rotten one is removed.
    pub(crate) fn verified(&self, digest: Digest, length: ByteCount) -> io::Result<Option<Vec<u8>>> {
        let path = self.0.join(digest.to_string());
        let bytes = match RealDisk.read(&path, length) {
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge || is_no_file(&error) => None,
            other => match other? {
                None => return Ok(None),
                Some(bytes) => Some(bytes).filter(|bytes| Digest::of(bytes) == digest),
            },
        };
        if bytes.is_none() {
            RealDisk.remove(&path)?;
        }
        Ok(bytes)
    }

    /// Goes on where an earlier try broke off: hashes what is there and says where to continue.
    pub(crate) fn resume(&self, digest: Digest, length: ByteCount) -> Result<Partial, Code> {
        let mut file = open_to_write(&self.part(digest), OFlags::RDWR).map_err(|error| disk_code(&error))?;
        let mut hasher = Hasher::default();
        let mut offset = 0_u64;
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let count = file.read(&mut buffer).map_err(|error| disk_code(&error))?;
            let Some(chunk) = buffer.get(..count).filter(|chunk| !chunk.is_empty()) else {
                break;
            };
            hasher.update(chunk);
            offset = offset.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        }
        let mut partial = Partial {
            blobs: self.clone(),
            digest,
            length,
            file,
            hasher,
            offset,
        };
        if partial.offset > length.get() {
            partial.restart()?;
        }
        Ok(partial)
    }

    fn part(&self, digest: Digest) -> PathBuf {
        self.0.join(format!("{digest}.part"))
    }
}

impl Partial {
    /// Where the next byte belongs: the start of the `Range` to ask for.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether all bytes are here.
    pub(crate) fn complete(&self) -> bool {
        self.offset == self.length.get()
    }

    /// The server sends from the beginning: what was here is forgotten.
    pub(crate) fn restart(&mut self) -> Result<(), Code> {
        self.file.set_len(0).map_err(|error| disk_code(&error))?;
        self.file
            .seek(SeekFrom::Start(0))
            .map_err(|error| disk_code(&error))?;
        self.hasher = Hasher::default();
        self.offset = 0;
        Ok(())
    }

    /// The next bytes. More than were signed are refused before they are written.
    pub(crate) fn push(&mut self, chunk: &[u8]) -> Result<(), Code> {
        let offset = self
            .offset
            .saturating_add(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
        if offset > self.length.get() {
            self.restart()?;
            return Err(Code::LengthMismatch);
        }
        self.file.write_all(chunk).map_err(|error| disk_code(&error))?;
        self.hasher.update(chunk);
        self.offset = offset;
        Ok(())
    }

    /// Checks the digest and gives the artifact its name. What does not have it is thrown away; a short one is kept for
    /// the next try.
    pub(crate) fn finish(self) -> Result<(), Code> {
        if !self.complete() {
            self.file.sync_all().map_err(|error| disk_code(&error))?;
            return Err(Code::LengthMismatch);
        }
        let part = self.blobs.part(self.digest);
        if self.hasher.finish() != self.digest {
            RealDisk.remove(&part).map_err(|error| disk_code(&error))?;
            return Err(Code::DigestMismatch);
        }
        let name = self.blobs.0.join(self.digest.to_string());
        let named = self.file.sync_all().and_then(|()| RealDisk.rename(&part, &name));
        named
            .and_then(|()| RealDisk.sync_folder(&self.blobs.0))
            .map_err(|error| disk_code(&error))
    }
}

/// The code of a failed disk call.
pub(crate) fn disk_code(error: &io::Error) -> Code {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Code::DiskFull,
        _ => Code::DiskFailed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: &[u8] = b"the bytes of a component";

    fn blobs() -> (tempfile::TempDir, Blobs) {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::new(folder.path().to_owned());
        (folder, blobs)
    }

    fn digest() -> Digest {
        Digest::of(BYTES)
    }

    fn length() -> ByteCount {
        ByteCount::new(u64::try_from(BYTES.len()).unwrap())
    }

    #[test]
    fn a_download_goes_on_where_it_broke_off_whatever_the_place() {
        for cut in 0..=BYTES.len() {
            let (_folder, blobs) = blobs();
            let mut first = blobs.resume(digest(), length()).unwrap();
            first.push(&BYTES[..cut]).unwrap();
            drop(first);
            assert_eq!(blobs.verified(digest(), length()).unwrap(), None);
            let mut second = blobs.resume(digest(), length()).unwrap();
            assert_eq!(second.offset(), u64::try_from(cut).unwrap());
            second.push(&BYTES[cut..]).unwrap();
            second.finish().unwrap();
            assert_eq!(
                blobs.verified(digest(), length()).unwrap().as_deref(),
                Some(BYTES)
            );
        }
    }

    #[test]
    fn a_tampered_artifact_never_gets_its_name() {
        let (folder, blobs) = blobs();
        let mut partial = blobs.resume(digest(), length()).unwrap();
        partial.push(b"THE bytes of a component").unwrap();
        assert_eq!(partial.finish(), Err(Code::DigestMismatch));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_prefix_that_rotted_on_disk_is_not_believed() {
        let (folder, blobs) = blobs();
        blobs
            .resume(digest(), length())
            .unwrap()
            .push(&BYTES[..10])
            .unwrap();
        std::fs::write(folder.path().join(format!("{}.part", digest())), b"rot       ").unwrap();
        let mut partial = blobs.resume(digest(), length()).unwrap();
        partial.push(&BYTES[10..]).unwrap();
        assert_eq!(partial.finish(), Err(Code::DigestMismatch));
        assert_eq!(blobs.resume(digest(), length()).unwrap().offset(), 0);
    }

    #[test]
    fn more_bytes_than_signed_are_refused_and_fewer_are_kept_for_the_next_try() {
        let (_folder, blobs) = blobs();
        let mut partial = blobs.resume(digest(), length()).unwrap();
        assert_eq!(partial.push(&[0; 100]), Err(Code::LengthMismatch));
        partial.push(&BYTES[..5]).unwrap();
        assert_eq!(partial.finish(), Err(Code::LengthMismatch));
        assert_eq!(blobs.resume(digest(), length()).unwrap().offset(), 5);
    }

    #[test]
    fn an_artifact_that_rotted_after_it_was_named_is_removed_and_fetched_again() {
        let (folder, blobs) = blobs();
        let name = folder.path().join(digest().to_string());
        for rotten in [
            &b"THE bytes of a component"[..],
            b"short",
            b"much longer than it was when it was signed",
        ] {
            std::fs::write(&name, rotten).unwrap();
            assert_eq!(blobs.verified(digest(), length()).unwrap(), None);
            assert!(!name.exists());
        }
    }
}
