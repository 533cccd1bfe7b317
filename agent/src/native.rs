//! From a verified component to native code in sealed memory: out of the cache, or compiled in a process of its own.

use crate::disk::{Disk, RealDisk, replace};
use crate::fetch::{Blobs, disk_code};
use crate::seal::{CacheKey, SealKey, open, read_memory, seal, sealed_memory};
use crate::supervisor::Supervisor;
use redan_agent_core::MemberRecord;
use redan_channel::AsyncChannel;
use redan_protocol::ipc::{Compile, Compiled, ToSupervisor};
use redan_protocol::{ByteCount, Code, Digest};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

/// Largest native code, bytes: eight times the largest component.
const NATIVE_LEN_MAX: ByteCount = ByteCount::mib(512);
/// Longest compilation: the machine's own deadline for preparing is longer still.
const COMPILE_WITHIN: Duration = Duration::from_mins(10);

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
        if let Some(entry) = RealDisk
            .read(&path, NATIVE_LEN_MAX)
            .map_err(|error| disk_code(&error))?
        {
            match open(&self.key, of, &entry) {
                Ok(native) => return memory(native),
                Err(error) => {
                    tracing::warn!(code = error.code().name(), "{error}; compiling it again");
                    RealDisk.remove(&path).map_err(|error| disk_code(&error))?;
                }
            }
        }
        let compiling = self.compile(&component, member, engine);
        let native = tokio::time::timeout(COMPILE_WITHIN, compiling)
            .await
            .map_err(|_| Code::CompilerFailed)??;
        replace(&RealDisk, &path, &seal(&self.key, of, &native)).map_err(|error| disk_code(&error))?;
        memory(&native)
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
