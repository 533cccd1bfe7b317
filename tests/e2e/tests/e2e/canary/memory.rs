//! What is in the memory of a device's processes, as root sees it.

use anyhow::{Context as _, Result};
use std::collections::BTreeMap;
use std::os::unix::fs::FileExt as _;

/// Largest mapping that is read, bytes: an executor's pool reserves more than there is.
const MAPPING_MAX: u64 = 64 << 20;

/// Processes below a supervisor by their kind, and the supervisor itself.
pub(crate) fn processes(supervisor: u32) -> Result<BTreeMap<String, u32>> {
    let mut found = BTreeMap::from([("supervisor".to_owned(), supervisor)]);
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let status = std::fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        if status.lines().any(|line| line == format!("PPid:\t{supervisor}")) {
            // It may end between the two looks at it.
            let line = std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
            let kind = line.split('\0').nth(1).unwrap_or_default().to_owned();
            found.insert(
                kind,
                entry.file_name().to_string_lossy().parse().context("a process")?,
            );
        }
    }
    Ok(found)
}

/// Everything a process could have written to, piece after piece.
pub(crate) fn memory(process: u32) -> Result<Vec<u8>> {
    let memory = std::fs::File::open(format!("/proc/{process}/mem"))?;
    let mut all = Vec::new();
    for line in std::fs::read_to_string(format!("/proc/{process}/maps"))?.lines() {
        let mut fields = line.split_whitespace();
        let (range, rights) = (
            fields.next().context("a range")?,
            fields.next().context("rights")?,
        );
        let (from, to) = range.split_once('-').context("a range")?;
        let (from, to) = (u64::from_str_radix(from, 16)?, u64::from_str_radix(to, 16)?);
        if !rights.starts_with("rw") || to - from > MAPPING_MAX {
            continue;
        }
        let mut piece = vec![0; usize::try_from(to - from)?];
        // A mapping may be gone by now, or be none to read.
        if memory.read_exact_at(&mut piece, from).is_ok() {
            all.extend(piece);
        }
    }
    Ok(all)
}
