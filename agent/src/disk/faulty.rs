//! A disk in memory that loses power at the n-th call, before, after, or in the middle of it.

use super::{BLANK, Disk};
use redan_protocol::ByteCount;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Cut {
    Before,
    After,
    Torn,
    /// No power cut: the call fails with this error, once.
    Error(io::ErrorKind),
}

#[derive(Clone, Debug, Default)]
struct Files {
    /// Content by inode: what the cache holds, and what the platter holds.
    inodes: Vec<(Vec<u8>, Vec<u8>)>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    calls: usize,
    reads: usize,
    off: bool,
    /// From this call on no file is made or gets longer.
    full_from: Option<usize>,
}

/// One thing that a disk may write or not.
enum Unsynced {
    Name(PathBuf, Option<usize>),
    Content(usize),
}

#[derive(Debug, Default)]
pub(crate) struct FaultyDisk {
    files: RefCell<Files>,
    fault: Option<(usize, Cut)>,
}

impl FaultyDisk {
    pub(crate) fn calls(&self) -> usize {
        self.files.borrow().calls
    }

    pub(crate) fn reads(&self) -> usize {
        self.files.borrow().reads
    }

    pub(crate) fn with_fault(mut self, at: usize, cut: Cut) -> Self {
        self.fault = Some((at, cut));
        self.files.get_mut().calls = 0;
        self
    }

    /// A disk that somebody else fills up before the n-th call from now: files keep the room they have, and get no more.
    pub(crate) fn full_from(mut self, at: usize) -> Self {
        let files = self.files.get_mut();
        (files.calls, files.full_from) = (0, Some(at));
        self
    }

    pub(crate) fn emptied(mut self) -> Self {
        self.files.get_mut().full_from = None;
        self
    }

    /// Power comes back: only what was made durable is there. `lucky` disks had written the rest of the cache as well.
    pub(crate) fn power_cycle(self, lucky: bool) -> Self {
        let mut files = self.files.into_inner();
        if lucky {
            files.durable_names = files.names.clone();
        } else {
            files.names = files.durable_names.clone();
            for (cached, platter) in &mut files.inodes {
                cached.clone_from(platter);
            }
        }
        (files.calls, files.reads) = (0, 0);
        files.off = false;
        files.full_from = None;
        Self {
            files: RefCell::new(files),
            fault: None,
        }
    }

    /// What no sync has made durable yet: each of these may reach the platter before any other, or never.
    fn unsynced(&self) -> Vec<Unsynced> {
        let files = self.files.borrow();
        let paths: BTreeSet<_> = files.names.keys().chain(files.durable_names.keys()).collect();
        let names = paths.into_iter().filter_map(|path| {
            let (now, durable) = (files.names.get(path), files.durable_names.get(path));
            (now != durable).then(|| Unsynced::Name(path.clone(), now.copied()))
        });
        let contents = files.inodes.iter().enumerate();
        let contents = contents.filter(|(_, (cached, platter))| cached != platter);
        names
            .chain(contents.map(|(inode, _)| Unsynced::Content(inode)))
            .collect()
    }

    /// Power comes back after the disk wrote in an order of its own: every disk that can be left.
    pub(crate) fn every_order(self) -> Vec<Self> {
        let unsynced = self.unsynced();
        let files = self.files.into_inner();
        let kept = (0..1_u32 << unsynced.len()).map(|kept| {
            let mut files = files.clone();
            files.names = files.durable_names.clone();
            for (bit, item) in unsynced.iter().enumerate() {
                if kept & (1 << bit) == 0 {
                    continue;
                }
                match item {
                    Unsynced::Name(path, Some(inode)) => drop(files.names.insert(path.clone(), *inode)),
                    Unsynced::Name(path, None) => drop(files.names.remove(path)),
                    Unsynced::Content(inode) => {
                        let (cached, platter) = &mut files.inodes[*inode];
                        platter.clone_from(cached);
                    }
                }
            }
            for (cached, platter) in &mut files.inodes {
                cached.clone_from(platter);
            }
            files.durable_names = files.names.clone();
            (files.calls, files.off) = (0, false);
            Self {
                files: RefCell::new(files),
                fault: None,
            }
        });
        kept.collect()
    }

    pub(crate) fn flip_a_bit(&self, path: &Path, at: usize) {
        let mut files = self.files.borrow_mut();
        let inode = files.names[path];
        let (cached, platter) = &mut files.inodes[inode];
        cached[at] ^= 1;
        platter.clone_from(cached);
    }

    fn change(&self, half: impl FnOnce(&mut Files), whole: impl FnOnce(&mut Files)) -> io::Result<()> {
        let files = &mut *self.files.borrow_mut();
        if files.off {
            return Err(io::ErrorKind::Other.into());
        }
        let here = self
            .fault
            .filter(|(at, _)| *at == files.calls)
            .map(|(_, cut)| cut);
        files.calls += 1;
        match here {
            None => whole(files),
            Some(Cut::Error(kind)) => return Err(kind.into()),
            Some(cut) => {
                match cut {
                    Cut::After => whole(files),
                    Cut::Torn => half(files),
                    Cut::Before | Cut::Error(_) => {}
                }
                files.off = true;
                return Err(io::ErrorKind::Other.into());
            }
        }
        Ok(())
    }
}

impl Disk for FaultyDisk {
    fn read(&self, path: &Path, _limit: ByteCount) -> io::Result<Option<Vec<u8>>> {
        self.files.borrow_mut().reads += 1;
        let files = self.files.borrow();
        Ok(files.names.get(path).map(|inode| files.inodes[*inode].0.clone()))
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        if self.files.borrow().full_from.is_some_and(|at| self.calls() >= at) {
            self.files.borrow_mut().calls += 1;
            return Err(io::ErrorKind::StorageFull.into());
        }
        let put = |files: &mut Files, bytes: &[u8]| {
            let inode = files.names.get(path).copied().unwrap_or_else(|| {
                files.inodes.push((vec![], vec![]));
                files.inodes.len() - 1
            });
            files.names.insert(path.to_owned(), inode);
            files.inodes[inode].0 = bytes.to_vec();
            // The worst case: truncation and half the bytes reached the platter before any sync.
            files.inodes[inode].1 = bytes[..bytes.len() / 2].to_vec();
        };
        self.change(
            |files| put(files, &bytes[..bytes.len() / 2]),
            |files| put(files, bytes),
        )
    }

    fn overwrite(&self, path: &Path, bytes: &[u8], room: ByteCount) -> io::Result<()> {
        let put = |files: &mut Files, bytes: &[u8], until: usize| {
            let inode = files.names.get(path).copied().unwrap_or_else(|| {
                files.inodes.push((vec![], vec![]));
                files.inodes.len() - 1
            });
            files.names.insert(path.to_owned(), inode);
            let content = &mut files.inodes[inode];
            content.0.resize(until.max(content.0.len()), BLANK);
            content.0[..bytes.len()].copy_from_slice(bytes);
            // The worst case: half the bytes reached the platter before any sync, over what was there.
            content.1.resize(content.0.len(), BLANK);
            content.1[..bytes.len() / 2].copy_from_slice(&bytes[..bytes.len() / 2]);
        };
        let (now, full) = {
            let files = self.files.borrow();
            let now = files.names.get(path).map(|inode| files.inodes[*inode].0.len());
            (now, files.full_from.is_some_and(|at| files.calls >= at))
        };
        if full && now.is_none_or(|now| now < bytes.len()) {
            self.files.borrow_mut().calls += 1;
            return Err(io::ErrorKind::StorageFull.into());
        }
        let room = usize::try_from(room.get()).unwrap();
        let until = if full { bytes.len() } else { room.max(bytes.len()) };
        let mut whole = bytes.to_vec();
        whole.resize(until.max(now.unwrap_or(0)), BLANK);
        self.change(
            |files| put(files, &bytes[..bytes.len() / 2], until),
            |files| put(files, &whole, until),
        )
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        self.change(
            |_| {},
            |files| {
                let inode = files.names[path];
                let (cached, platter) = &mut files.inodes[inode];
                platter.clone_from(cached);
            },
        )
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(
            |_| {},
            |files| {
                if let Some(inode) = files.names.remove(from) {
                    files.names.insert(to.to_owned(), inode);
                }
            },
        )
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.change(
            |_| {},
            |files| {
                let inside = |path: &Path| path.parent() == Some(folder);
                files.durable_names.retain(|path, _| !inside(path));
                let now: Vec<_> = files.names.iter().filter(|(path, _)| inside(path)).collect();
                let now: Vec<_> = now
                    .into_iter()
                    .map(|(path, inode)| (path.clone(), *inode))
                    .collect();
                files.durable_names.extend(now);
            },
        )
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change(
            |_| {},
            |files| {
                files.names.remove(path);
            },
        )
    }
}
