//! What custodians check before anything is published: a device's own walk and checks, over a repository whose timestamp only the
//! server can sign. What comes out is verified piece by piece and is no [`crate::Repository`]: nothing can be decided from it.

use crate::claimed::{Claimed, Signers, Verified};
use crate::error::TufError;
use crate::metadata::{MetaEntry, Metadata, RoleKeys, Root, Targets, fits};
use crate::workflow::{Answer, Refresh, Step, Trusted, exact, parse, signatures, unexpired};
use redan_protocol::UnixSeconds;

/// Walks the roots from the first on, as a device that has only that one. `next` gives a file by its name, or `None` when there is
/// none; `now` is what the last root must not have expired by.
pub fn roots(
    first: Vec<u8>,
    mut next: impl FnMut(&str) -> Option<Vec<u8>>,
    now: UnixSeconds,
) -> Result<Verified<Root>, TufError> {
    let trusted = Trusted {
        root: first,
        ..Trusted::default()
    };
    let mut refresh = Refresh::new(trusted, now)?;
    let mut answer = None;
    loop {
        match refresh.step(answer.take())? {
            Step::Fetch { path, .. } if path == "timestamp.json" => return Ok(refresh.into_root()),
            Step::Fetch { path, .. } => answer = Some(next(&path).map_or(Answer::Absent, Answer::Bytes)),
            Step::Store { .. } | Step::Remove { .. } => answer = Some(Answer::Stored),
            Step::Done => return Err(TufError::Driver),
        }
    }
}

/// Believes a file of a role: signed by its signers, of the wanted version, not expired.
pub fn accept<T: Metadata>(
    bytes: &[u8],
    role: &str,
    version: u64,
    signers: &Signers<'_, T>,
    now: UnixSeconds,
) -> Result<Verified<T>, TufError> {
    let claimed: Claimed<T> = parse(bytes, role)?;
    let verified = claimed
        .verify(signers)
        .map_err(|source| signatures(role, source))?;
    exact(verified.get(), role, version)?;
    unexpired(verified.get(), role, now)?;
    Ok(verified)
}

impl Verified<Root> {
    /// Who may sign a role of this root.
    pub fn signers<T: Metadata>(&self, role: &str) -> Option<Signers<'_, T>> {
        let keys = self.get().roles.get(role)?;
        Some(Signers::new(&self.get().keys, keys.clone()))
    }
}

impl Verified<Targets> {
    /// Who may sign a role this one delegates to.
    pub fn signers(&self, role: &str) -> Option<Signers<'_, Targets>> {
        let delegations = self.get().delegations.as_ref()?;
        let delegated = delegations
            .roles
            .iter()
            .find(|delegated| delegated.name == role)?;
        let keys = RoleKeys {
            keyids: delegated.keyids.clone(),
            threshold: delegated.threshold,
        };
        Some(Signers::new(&delegations.keys, keys))
    }
}

impl MetaEntry {
    /// Whether a file is the one this entry names, by length and hashes.
    pub fn names(&self, bytes: &[u8]) -> bool {
        fits(bytes, self.length, &self.hashes)
    }
}
