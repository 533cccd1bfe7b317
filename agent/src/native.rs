//! From a verified component to native code in sealed memory: out of the cache, or compiled in a process of its own.

use crate::disk::{Disk, RealDisk, read_own, replace};
use crate::fetch::{Blobs, disk_code};
use crate::seal::{Authentic, CacheKey, SealError, SealKey, open, read_memory, seal, sealed_memory};
use crate::supervisor::Supervisor;
use redan_agent_core::MemberRecord;
use redan_channel::AsyncChannel;
use redan_protocol::ipc::{Compile, Compiled, ToSupervisor};
use redan_protocol::{ByteCount, Code, Digest};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

/// Largest native code, bytes: eight times the largest component.
const NATIVE_LEN_MAX: ByteCount = ByteCount::mib(512);
/// Longest compilation: the machine's own deadline for preparing is longer still.
const COMPILE_WITHIN: Duration = Duration::from_mins(10);

/// The last entry that was refused, beside the entries; no key has this name.
const ASIDE: &str = "refused";

/// Where native code comes from.
#[derive(Clone)]
pub(crate) struct Native {
    pub(crate) folder: PathBuf,
    pub(crate) blobs: Blobs,
    pub(crate) key: Rc<SealKey>,
    pub(crate) supervisor: Supervisor,
}

impl Native {
    /// The native code of a member for one engine, in memory nobody can write. The component's digest is checked here, at
    /// every start, whatever the cache holds.
    pub(crate) async fn code(&self, member: &MemberRecord, engine: Digest) -> Result<OwnedFd, Code> {
        let component = self
            .blobs
            .verified(member.digest(), member.length())
            .map_err(|error| disk_code(&error))?
            .ok_or(Code::ArtifactMissing)?;
        let of = CacheKey {
            component: member.digest(),
            engine,
        };
        let path = self.folder.join(of.file_name());
        let memory = |bytes: &[u8]| sealed_memory(bytes).map_err(|_| Code::Internal);
        match self.cached(of, &path) {
            Ok(Some(entry)) => return memory(entry.native()),
            Ok(None) => {}
            Err(doubt) => {
                tracing::warn!(code = doubt.code().name(), "{doubt}; compiling it again");
                self.set_aside(&path);
            }
        }
        let compiling = self.compile(&component, member, engine);
        let native = tokio::time::timeout(COMPILE_WITHIN, compiling)
            .await
            .map_err(|_| Code::CompilerFailed)??;
        if let Err(error) = replace(&RealDisk, &path, &seal(&self.key, of, &native)) {
            // The code is good whether it is kept or not: a full disk costs the next start a compilation, and stops nothing.
            let code = disk_code(&error).name();
            tracing::warn!(code, "native code is not kept, and will be compiled again");
        }
        memory(&native)
    }

    /// The entry of a key, believed only when it is wholly as this device left it.
    fn cached(&self, of: CacheKey, path: &Path) -> Result<Option<Authentic>, SealError> {
        match read_own(path, NATIVE_LEN_MAX) {
            Ok(Some(entry)) => open(&self.key, of, entry).map(Some),
            Ok(None) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(SealError::Foreign),
            Err(_) => Err(SealError::Unreadable),
        }
    }

    /// Takes what is refused out of the way. The last one is kept under a name that is never read, for whoever wants to know.
    fn set_aside(&self, path: &Path) {
        let aside = self.folder.join(ASIDE);
        let length = path.symlink_metadata().map_or(u64::MAX, |found| found.len());
        let moved = length <= NATIVE_LEN_MAX.get() && RealDisk.rename(path, &aside).is_ok();
        // What can be neither moved nor removed is compiled around at every start, and never believed.
        if !moved && RealDisk.remove(path).is_err() {
            tracing::warn!("a refused entry of the cache cannot be removed");
        }
    }

    async fn compile(
        &self,
        component: &[u8],
        member: &MemberRecord,
        engine: Digest,
    ) -> Result<Vec<u8>, Code> {
        let failed = |_| Code::CompilerFailed;
        let started = self.supervisor.ask(ToSupervisor::StartCompiler).await?;
        let channel = started
            .descriptors
            .into_iter()
            .next()
            .ok_or(Code::CompilerFailed)?;
        let channel = AsyncChannel::new(channel).map_err(failed)?;
        let job = Compile {
            digest: member.digest(),
            grant: member.grant().canonical_json(),
        };
        let memory = sealed_memory(component).map_err(|_| Code::Internal)?;
        channel.send(&job, &[memory.as_fd()]).await.map_err(failed)?;
        let answer = channel.recv::<Compiled>().await.map_err(failed)?;
        match answer.message {
            Compiled::Refused { code } => Err(code),
            Compiled::Done { engine: made, .. } if made != engine => Err(Code::CompilerFailed),
            Compiled::Done { length, .. } => {
                let native = answer
                    .descriptors
                    .into_iter()
                    .next()
                    .ok_or(Code::CompilerFailed)?;
                let native = read_memory(native, NATIVE_LEN_MAX.min(length).get())
                    .map_err(|_| Code::CompilerFailed)?;
                if u64::try_from(native.len()) != Ok(length.get()) {
                    return Err(Code::CompilerFailed);
                }
                Ok(native)
            }
        }
    }
}
