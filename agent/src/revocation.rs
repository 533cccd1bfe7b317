//! Servers whose certificate their issuer took back: read from the policy signers' `policy/servers.crl` with the release repository, kept
//! on the disk, and asked in every handshake (20-identity, attack P16).
//!
//! A list that is not good changes nothing: the last good one stays in force, and there is an alarm. Without any list nothing is
//! refused, so a fleet that never published one goes on.

use crate::clock::Proven;
use crate::disk::{Disk, RealDisk};
use crate::fetch::disk_code;
use crate::pair::{Found, Pair};
use crate::refresh::{Files, Source, lookup};
use crate::session::Stopped;
use redan_identity::crl::{CrlFault, LISTS_LEN_MAX, Revocations, SERVER_LISTS};
use redan_identity::{Anchors, IssuerKind};
use redan_protocol::{Code, Digest, UnixSeconds};
use redan_trust::{Repository, Target};
use std::cell::RefCell;
use std::io;
use std::path::Path;
use std::rc::Rc;

/// Shared by whoever reads metadata and by the status; one of them at a time, on one thread.
pub(crate) type Revoked = Rc<RefCell<ServerLists>>;

/// The lists in force, and what is wrong with what was offered since.
#[derive(Debug)]
pub(crate) struct ServerLists {
    anchors: Anchors,
    proven: Proven,
    pair: Pair,
    generation: u64,
    /// The target that was taken last: it is not read twice.
    taken: Option<Digest>,
    fault: Option<Code>,
}

impl ServerLists {
    /// Reads what was kept, and puts it in force before the first handshake.
    pub(crate) fn open(
        disk: &impl Disk,
        folder: &Path,
        anchors: &Anchors,
        proven: &Proven,
    ) -> io::Result<Self> {
        let good = |bytes: &[u8]| stored(anchors, bytes).map(|(generation, _)| generation);
        let (pair, found) = Pair::load(disk, folder, good)?;
        let mut lists = Self {
            anchors: anchors.clone(),
            proven: proven.clone(),
            pair,
            generation: 0,
            taken: None,
            fault: None,
        };
        match found {
            Found::Nothing => {}
            Found::Record(bytes) => {
                if let Some((generation, known)) = stored(anchors, &bytes) {
                    lists.generation = generation;
                    lists.proven.lists().put(known);
                }
            }
            // Signed metadata holds the newest one; meanwhile nobody is refused, which is said.
            Found::Lost => lists.raise(Code::StateLost, "the kept list of revoked servers is damaged"),
        }
        Ok(lists)
    }

    /// These are the fleet's authorities from now on; a list by another's issuer is looked at once more.
    pub(crate) fn under(&mut self, anchors: &Anchors) {
        self.anchors = anchors.clone();
        self.taken = None;
    }

    /// What to raise an alarm for.
    pub(crate) fn alarm(&self) -> Option<Code> {
        let ran_out = || self.proven.lists().get().alarm(self.proven.now());
        self.fault.or_else(|| ran_out().map(|fault| fault.code()))
    }

    fn raise(&mut self, code: Code, why: &str) {
        if self.fault != Some(code) {
            tracing::error!(
                code = code.name(),
                remedy = code.remedy(),
                "{why}; the last good list stays"
            );
        }
        self.fault = Some(code);
    }

    /// Takes what the policy signers published. In force at once, and durable when the disk does its part; if it does not, there is an
    /// alarm, and it is read again with the next metadata.
    fn offer(&mut self, disk: &impl Disk, digest: Digest, file: &[u8], now: UnixSeconds) {
        let mut known = self.proven.lists().get();
        if let Err(fault) = known.adopt(&self.anchors, IssuerKind::Server, file, now) {
            self.raise(fault.code(), &fault.to_string());
            return;
        }
        let generation = self.generation.saturating_add(1);
        let record = format!("{generation}\n{}", known.keep());
        self.proven.lists().put(known);
        match self.pair.store(disk, record.as_bytes()) {
            Ok(()) => {
                tracing::info!(%digest, "a list of revoked servers is in force");
                self.generation = generation;
                self.taken = Some(digest);
                self.fault = None;
            }
            Err(error) => self.raise(disk_code(&error), "the list of revoked servers was not kept"),
        }
    }
}

/// A kept record: its generation, and lists every signature of which is checked again.
fn stored(anchors: &Anchors, bytes: &[u8]) -> Option<(u64, Revocations)> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (generation, lists) = text.split_once('\n')?;
    let known = Revocations::kept(anchors, IssuerKind::Server, lists.as_bytes()).ok()?;
    Some((generation.parse().ok()?, known))
}

/// Looks whether refreshed release metadata lists other lists than those that were taken last. What is not listed, or not reached, says
/// nothing.
pub(crate) async fn look(
    lists: &Revoked,
    source: &mut Source<'_>,
    files: &Files,
    release: &mut Repository,
    now: UnixSeconds,
) {
    let carried = matches!(source, Source::Folder(_));
    let target = match lookup(source, files, release, SERVER_LISTS).await {
        Ok(Some(target)) => target,
        Ok(None) | Err(Stopped::Network(_)) => return,
        Err(Stopped::Refused(refusal)) => {
            let why = format!("the list of revoked servers: {refusal}");
            lists.borrow_mut().raise(refusal.code(), &why);
            return;
        }
    };
    let Some(digest) = target.sha256() else {
        return;
    };
    if lists.borrow().taken == Some(digest) {
        return;
    }
    match fetch(source, &target, digest).await {
        Ok(bytes) => lists.borrow_mut().offer(&RealDisk, digest, &bytes, now),
        Err(Code::Unreachable) => {}
        // A stick need not carry it.
        Err(Code::ArtifactMissing) if carried => {}
        Err(code) => lists
            .borrow_mut()
            .raise(code, "the list of revoked servers cannot be had"),
    }
}

async fn fetch(source: &mut Source<'_>, target: &Target, digest: Digest) -> Result<Vec<u8>, Code> {
    // What is too long by its own metadata is not asked for.
    if target.entry.length > LISTS_LEN_MAX.get() {
        return Err(CrlFault::TooLarge.code());
    }
    let bytes = source.artifact(digest, LISTS_LEN_MAX).await?;
    if target.is(&bytes) {
        Ok(bytes)
    } else {
        Err(Code::DigestMismatch)
    }
}

#[cfg(test)]
mod tests;
