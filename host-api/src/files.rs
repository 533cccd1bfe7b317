//! `wasi:filesystem` with quotas: wasmtime's own, asked only after there is room.
//!
//! Every operation is wasmtime's. Before one that may grow a volume, its growth is reserved ([`Usage`]); before one that
//! opens something, a descriptor is counted. Streams keep both: a stream of a file that was closed still holds the file.

use crate::limits::Verdict;
use crate::volume::{Mounted, Usage};
use crate::workload::{Open, Workload};
use bytes::Bytes;
use redan_protocol::Code;
use rustix::io::Errno;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use wasmtime::component::{HasData, Resource};
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystemCtxView};
use wasmtime_wasi::p2::bindings::filesystem::{preopens, types};
use wasmtime_wasi::p2::{
    DynInputStream, DynOutputStream, FsError, FsResult, InputStream, OutputStream, Pollable, StreamError,
    StreamResult,
};

/// Largest single write to a file, bytes: what wasmtime's own streams take.
const WRITE_MAX: usize = 64 * 1024;

/// What one call has open, and where it may grow.
pub(crate) struct Files {
    volumes: Vec<Volume>,
    open: HashMap<u32, Entry>,
    workload: Arc<Workload>,
    descriptors_max: u32,
    verdict: Verdict,
}

/// A volume and how full it is; nothing for a folder that a publisher's bench lends, which has no quota.
#[derive(Clone, Default)]
struct Volume(Option<(Mounted, Arc<Usage>)>);

/// An open descriptor: of which volume, and its place in the count. What was open before the call has none.
#[derive(Clone)]
struct Entry {
    volume: Option<usize>,
    place: Option<Arc<Open>>,
}

impl Files {
    pub(crate) fn new(
        volumes: &[Mounted],
        workload: &Arc<Workload>,
        descriptors_max: u32,
        verdict: Verdict,
    ) -> Self {
        let volumes = volumes.iter().map(|mounted| {
            let usage = workload.usage(&mounted.granted.name);
            Volume(Some((mounted.clone(), usage)))
        });
        Self {
            volumes: volumes.collect(),
            open: HashMap::new(),
            workload: Arc::clone(workload),
            descriptors_max,
            verdict,
        }
    }

    fn entry(&self, fd: &Resource<Descriptor>) -> FsResult<Entry> {
        let entry = self.open.get(&fd.rep()).cloned();
        // Every descriptor came through here.
        entry.ok_or_else(|| FsError::trap(wasmtime::format_err!("a descriptor nobody opened")))
    }

    fn volume(&self, fd: &Resource<Descriptor>) -> FsResult<Volume> {
        let volume = self.entry(fd)?.volume.and_then(|volume| self.volumes.get(volume));
        Ok(volume.cloned().unwrap_or_default())
    }

    /// Both of one volume: nothing moves from one quota to another.
    fn one_volume(&self, a: &Resource<Descriptor>, b: &Resource<Descriptor>) -> FsResult<Volume> {
        if self.entry(a)?.volume == self.entry(b)?.volume {
            self.volume(a)
        } else {
            Err(types::ErrorCode::CrossDevice.into())
        }
    }

    fn place(&self) -> FsResult<Arc<Open>> {
        let place = self.workload.open(self.descriptors_max, &self.verdict);
        // Like handles: a guest that leaks them ends.
        let place = place.ok_or_else(|| FsError::trap(wasmtime::format_err!("descriptors used up")))?;
        Ok(Arc::new(place))
    }
}

impl Volume {
    fn reserve(&self, verdict: &Verdict, bytes: u64, files: u64) -> Result<Reserved, types::ErrorCode> {
        let Some((mounted, usage)) = &self.0 else {
            return Ok(Reserved {
                usage: None,
                bytes,
                files,
            });
        };
        if !usage.reserve(mounted, bytes, files) {
            verdict.deny(Code::VolumeQuota);
            return Err(types::ErrorCode::InsufficientSpace);
        }
        Ok(Reserved {
            usage: Some(Arc::clone(usage)),
            bytes,
            files,
        })
    }

    /// Whether it is a folder of the device's own, into which others than the workload write.
    fn is_mapped(&self) -> bool {
        self.0
            .as_ref()
            .is_some_and(|(mounted, _)| mounted.granted.host.is_some())
    }

    /// Whether a guest may open what is there: files and folders (attack D03). No guest can make anything else, but others can, in a
    /// folder of the device's own; there a file with a second name is not the folder's alone, and no guest's either.
    fn admits(&self, found: &types::DescriptorStat) -> Result<(), types::ErrorCode> {
        match found.type_ {
            types::DescriptorType::RegularFile if self.is_mapped() && found.link_count > 1 => {
                Err(types::ErrorCode::NotPermitted)
            }
            // A link that is not to be followed is refused by whoever opens it.
            types::DescriptorType::RegularFile
            | types::DescriptorType::Directory
            | types::DescriptorType::SymbolicLink => Ok(()),
            _ => Err(types::ErrorCode::NotPermitted),
        }
    }

    /// There may be less in it than is known.
    fn removed(&self) {
        if let Some((_, usage)) = &self.0 {
            usage.removed();
        }
    }
}

/// Bytes and files on their way to the disk.
struct Reserved {
    usage: Option<Arc<Usage>>,
    bytes: u64,
    files: u64,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if let Some(usage) = &self.usage {
            usage.written(self.bytes, self.files);
        }
    }
}

/// How much a file grows when so many bytes are written there.
fn growth(file: &std::fs::File, offset: u64, length: usize) -> io::Result<u64> {
    let end = offset.saturating_add(wide(length));
    Ok(end.saturating_sub(file.metadata()?.len()))
}

fn wide(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// [`FilesView`], as linkers want it.
pub(crate) struct HasFiles;

impl HasData for HasFiles {
    type Data<'a> = FilesView<'a>;
}

/// One host call's view.
pub(crate) struct FilesView<'a> {
    pub(crate) inner: WasiFilesystemCtxView<'a>,
    pub(crate) files: &'a mut Files,
}

impl FilesView<'_> {
    fn file(&self, fd: &Resource<Descriptor>) -> FsResult<Arc<std::fs::File>> {
        match self.inner.table.get(fd)? {
            Descriptor::File(file) => Ok(Arc::clone(&file.file)),
            Descriptor::Dir(_) => Err(types::ErrorCode::BadDescriptor.into()),
        }
    }

    /// Puts a writer in front of wasmtime's.
    fn guard(
        &mut self,
        fd: &Resource<Descriptor>,
        stream: Resource<DynOutputStream>,
        position: Option<u64>,
    ) -> FsResult<Resource<DynOutputStream>> {
        let (file, entry, volume) = (self.file(fd)?, self.files.entry(fd)?, self.files.volume(fd)?);
        let inner = self.inner.table.delete(stream)?;
        let writer: DynOutputStream = Box::new(Writer {
            inner,
            file,
            position,
            volume,
            verdict: self.files.verdict.clone(),
            writing: None,
            _place: entry.place,
        });
        Ok(self.inner.table.push(writer)?)
    }
}

type Fd = Resource<Descriptor>;

impl preopens::Host for FilesView<'_> {
    fn get_directories(&mut self) -> wasmtime::Result<Vec<(Fd, String)>> {
        let directories = preopens::Host::get_directories(&mut self.inner)?;
        for (fd, guest) in &directories {
            let named = |volume: &Volume| {
                volume
                    .0
                    .as_ref()
                    .is_some_and(|(of, _)| of.granted.guest == *guest)
            };
            let entry = Entry {
                volume: self.files.volumes.iter().position(named),
                place: None,
            };
            self.files.open.insert(fd.rep(), entry);
        }
        Ok(directories)
    }
}

impl types::Host for FilesView<'_> {
    fn convert_error_code(&mut self, error: FsError) -> wasmtime::Result<types::ErrorCode> {
        types::Host::convert_error_code(&mut self.inner, error)
    }

    fn filesystem_error_code(
        &mut self,
        error: Resource<wasmtime::Error>,
    ) -> wasmtime::Result<Option<types::ErrorCode>> {
        types::Host::filesystem_error_code(&mut self.inner, error)
    }
}

impl types::HostDescriptor for FilesView<'_> {
    async fn set_size(&mut self, fd: Fd, size: u64) -> FsResult<()> {
        let (volume, file) = (self.files.volume(&fd)?, self.file(&fd)?);
        let now = file.metadata()?.len();
        let _reserved = volume.reserve(&self.files.verdict, size.saturating_sub(now), 0)?;
        if size < now {
            volume.removed();
        }
        self.inner.set_size(fd, size).await
    }

    async fn write(&mut self, fd: Fd, bytes: Vec<u8>, offset: u64) -> FsResult<u64> {
        let (volume, file) = (self.files.volume(&fd)?, self.file(&fd)?);
        let grows = growth(&file, offset, bytes.len())?;
        let _reserved = volume.reserve(&self.files.verdict, grows, 0)?;
        self.inner.write(fd, bytes, offset).await
    }

    async fn create_directory_at(&mut self, fd: Fd, path: String) -> FsResult<()> {
        let _reserved = self.files.volume(&fd)?.reserve(&self.files.verdict, 0, 1)?;
        self.inner.create_directory_at(fd, path).await
    }

    async fn symlink_at(&mut self, fd: Fd, source: String, path: String) -> FsResult<()> {
        let volume = self.files.volume(&fd)?;
        let _reserved = volume.reserve(&self.files.verdict, wide(source.len()), 1)?;
        self.inner.symlink_at(fd, source, path).await
    }

    async fn link_at(
        &mut self,
        fd: Fd,
        flags: types::PathFlags,
        old: String,
        new_fd: Fd,
        new: String,
    ) -> FsResult<()> {
        let volume = self.files.one_volume(&fd, &new_fd)?;
        if volume.is_mapped() {
            return Err(types::ErrorCode::NotPermitted.into());
        }
        // Each name counts whole: which of them goes first is not known.
        let size = self
            .inner
            .stat_at(Fd::new_borrow(fd.rep()), flags, old.clone())
            .await?
            .size;
        let _reserved = volume.reserve(&self.files.verdict, size, 1)?;
        self.inner.link_at(fd, flags, old, new_fd, new).await
    }

    async fn rename_at(&mut self, fd: Fd, old: String, new_fd: Fd, new: String) -> FsResult<()> {
        let volume = self.files.one_volume(&fd, &new_fd)?;
        volume.removed();
        self.inner.rename_at(fd, old, new_fd, new).await
    }

    async fn open_at(
        &mut self,
        fd: Fd,
        path_flags: types::PathFlags,
        path: String,
        open_flags: types::OpenFlags,
        flags: types::DescriptorFlags,
    ) -> FsResult<Fd> {
        let (entry, volume) = (self.files.entry(&fd)?, self.files.volume(&fd)?);
        let place = self.files.place()?;
        let mut reserved = None;
        let borrowed = Fd::new_borrow(fd.rep());
        // Looked at before it is opened: opening a FIFO waits for its other end, opening a device may do anything.
        match self.inner.stat_at(borrowed, path_flags, path.clone()).await {
            Ok(found) => volume.admits(&found)?,
            // Another call may make or remove it meanwhile: then one file is counted twice, or in the next measurement.
            Err(_) if open_flags.contains(types::OpenFlags::CREATE) => {
                reserved = Some(volume.reserve(&self.files.verdict, 0, 1)?);
            }
            Err(_) => {}
        }
        if open_flags.contains(types::OpenFlags::TRUNCATE) {
            volume.removed();
        }
        let opened = self.inner.open_at(fd, path_flags, path, open_flags, flags).await;
        drop(reserved);
        let opened = opened?;
        // And once more what was opened: somebody outside may have put it there in between.
        let found = self.inner.stat(Fd::new_borrow(opened.rep())).await;
        if let Err(refused) = found.and_then(|found| Ok(volume.admits(&found)?)) {
            types::HostDescriptor::drop(&mut self.inner, opened).map_err(FsError::trap)?;
            return Err(refused);
        }
        let place = Some(place);
        self.files.open.insert(opened.rep(), Entry { place, ..entry });
        Ok(opened)
    }

    async fn remove_directory_at(&mut self, fd: Fd, path: String) -> FsResult<()> {
        self.files.volume(&fd)?.removed();
        self.inner.remove_directory_at(fd, path).await
    }

    async fn unlink_file_at(&mut self, fd: Fd, path: String) -> FsResult<()> {
        self.files.volume(&fd)?.removed();
        self.inner.unlink_file_at(fd, path).await
    }

    fn drop(&mut self, fd: Fd) -> wasmtime::Result<()> {
        let rep = fd.rep();
        types::HostDescriptor::drop(&mut self.inner, fd)?;
        self.files.open.remove(&rep);
        Ok(())
    }

    fn read_via_stream(&mut self, fd: Fd, offset: u64) -> FsResult<Resource<DynInputStream>> {
        let place = self.files.entry(&fd)?.place;
        let stream = self.inner.read_via_stream(fd, offset)?;
        let inner = self.inner.table.delete(stream)?;
        let reader: DynInputStream = Box::new(Reader { inner, _place: place });
        Ok(self.inner.table.push(reader)?)
    }

    fn write_via_stream(&mut self, fd: Fd, offset: u64) -> FsResult<Resource<DynOutputStream>> {
        let stream = self.inner.write_via_stream(Fd::new_borrow(fd.rep()), offset)?;
        self.guard(&fd, stream, Some(offset))
    }

    fn append_via_stream(&mut self, fd: Fd) -> FsResult<Resource<DynOutputStream>> {
        let stream = self.inner.append_via_stream(Fd::new_borrow(fd.rep()))?;
        self.guard(&fd, stream, None)
    }

    // What follows neither grows anything nor opens anything.

    async fn read_directory(&mut self, fd: Fd) -> FsResult<Resource<types::DirectoryEntryStream>> {
        self.inner.read_directory(fd).await
    }
    async fn read(&mut self, fd: Fd, length: u64, offset: u64) -> FsResult<(Vec<u8>, bool)> {
        self.inner.read(fd, length, offset).await
    }
    async fn advise(&mut self, fd: Fd, offset: u64, length: u64, advice: types::Advice) -> FsResult<()> {
        self.inner.advise(fd, offset, length, advice).await
    }
    async fn sync_data(&mut self, fd: Fd) -> FsResult<()> {
        self.inner.sync_data(fd).await
    }
    async fn sync(&mut self, fd: Fd) -> FsResult<()> {
        self.inner.sync(fd).await
    }
    async fn get_flags(&mut self, fd: Fd) -> FsResult<types::DescriptorFlags> {
        self.inner.get_flags(fd).await
    }
    async fn get_type(&mut self, fd: Fd) -> FsResult<types::DescriptorType> {
        self.inner.get_type(fd).await
    }
    async fn set_times(
        &mut self,
        fd: Fd,
        access: types::NewTimestamp,
        change: types::NewTimestamp,
    ) -> FsResult<()> {
        self.inner.set_times(fd, access, change).await
    }
    async fn set_times_at(
        &mut self,
        fd: Fd,
        flags: types::PathFlags,
        path: String,
        access: types::NewTimestamp,
        change: types::NewTimestamp,
    ) -> FsResult<()> {
        self.inner.set_times_at(fd, flags, path, access, change).await
    }
    async fn stat(&mut self, fd: Fd) -> FsResult<types::DescriptorStat> {
        self.inner.stat(fd).await
    }
    async fn stat_at(
        &mut self,
        fd: Fd,
        flags: types::PathFlags,
        path: String,
    ) -> FsResult<types::DescriptorStat> {
        self.inner.stat_at(fd, flags, path).await
    }
    async fn readlink_at(&mut self, fd: Fd, path: String) -> FsResult<String> {
        self.inner.readlink_at(fd, path).await
    }
    async fn is_same_object(&mut self, a: Fd, b: Fd) -> wasmtime::Result<bool> {
        self.inner.is_same_object(a, b).await
    }
    async fn metadata_hash(&mut self, fd: Fd) -> FsResult<types::MetadataHashValue> {
        self.inner.metadata_hash(fd).await
    }
    async fn metadata_hash_at(
        &mut self,
        fd: Fd,
        flags: types::PathFlags,
        path: String,
    ) -> FsResult<types::MetadataHashValue> {
        self.inner.metadata_hash_at(fd, flags, path).await
    }
}

impl types::HostDirectoryEntryStream for FilesView<'_> {
    async fn read_directory_entry(
        &mut self,
        stream: Resource<types::DirectoryEntryStream>,
    ) -> FsResult<Option<types::DirectoryEntry>> {
        self.inner.read_directory_entry(stream).await
    }

    fn drop(&mut self, stream: Resource<types::DirectoryEntryStream>) -> wasmtime::Result<()> {
        types::HostDirectoryEntryStream::drop(&mut self.inner, stream)
    }
}

/// A file's input, which keeps the file open.
struct Reader {
    inner: DynInputStream,
    _place: Option<Arc<Open>>,
}

#[wasmtime_wasi::async_trait]
impl Pollable for Reader {
    async fn ready(&mut self) {
        self.inner.ready().await;
    }
}

#[wasmtime_wasi::async_trait]
impl InputStream for Reader {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        self.inner.read(size)
    }
    async fn blocking_read(&mut self, size: usize) -> StreamResult<Bytes> {
        self.inner.blocking_read(size).await
    }
    async fn cancel(&mut self) {
        self.inner.cancel().await;
    }
}

/// A file's output, which reserves before it writes.
struct Writer {
    inner: DynOutputStream,
    file: Arc<std::fs::File>,
    /// Where the next byte goes; `None`: at the end.
    position: Option<u64>,
    volume: Volume,
    verdict: Verdict,
    writing: Option<Reserved>,
    _place: Option<Arc<Open>>,
}

impl Writer {
    fn reserve(&mut self, length: usize) -> StreamResult<Reserved> {
        let grows = match self.position {
            Some(offset) => growth(&self.file, offset, length),
            None => Ok(wide(length)),
        };
        let grows = grows.map_err(|error| StreamError::LastOperationFailed(error.into()))?;
        let full = |_| StreamError::LastOperationFailed(io::Error::from(Errno::NOSPC).into());
        let reserved = self.volume.reserve(&self.verdict, grows, 0).map_err(full)?;
        self.position = self.position.map(|offset| offset.saturating_add(wide(length)));
        Ok(reserved)
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Writer {
    async fn ready(&mut self) {
        self.inner.ready().await;
        self.writing = None;
    }
}

#[wasmtime_wasi::async_trait]
impl OutputStream for Writer {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let reserved = self.reserve(bytes.len())?;
        let outcome = self.inner.write(bytes);
        self.writing = outcome.is_ok().then_some(reserved);
        outcome
    }
    fn flush(&mut self) -> StreamResult<()> {
        self.inner.flush()
    }
    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(self.inner.check_write()?.min(WRITE_MAX))
    }
    async fn blocking_write_and_flush(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.ready().await;
        let _reserved = self.reserve(bytes.len())?;
        self.inner.blocking_write_and_flush(bytes).await
    }
    async fn cancel(&mut self) {
        self.inner.cancel().await;
        self.writing = None;
    }
}
