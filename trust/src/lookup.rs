//! Finding a target (TUF 1.0.34 §5.6.7): delegations on demand, pre-order, terminating honoured, cycles and depth bounded.
//!
//! A delegate that is expired, badly signed or missing stops only the paths it is trusted for: a rogue delegate cannot stop
//! a whole repository.

use crate::claimed::{Signers, Verified};
use crate::error::TufError;
use crate::metadata::{DelegatedRole, RoleKeys, TargetEntry, Targets, file_name, file_stem, fits, limits};
use crate::repository::Repository;
use crate::workflow::{Answer, Step, accept_targets, bytes, listed, reuse};
use redan_protocol::{ByteCount, Digest};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Most delegated roles visited for one target (§5.6.7.1 leaves the number to us).
pub const ROLES_MAX: usize = 32;

/// A target, and through whom it is trusted.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Target {
    /// Its path.
    pub path: String,
    /// What its signers say.
    pub entry: TargetEntry,
    /// The roles it was found through, `targets` first.
    pub roles: Vec<String>,
}

impl Target {
    /// Its SHA-256, when it is signed.
    pub fn sha256(&self) -> Option<Digest> {
        self.entry.sha256()
    }

    /// Whether bytes are this target: its length, and every hash of a known kind, of which there must be one.
    pub fn is(&self, bytes: &[u8]) -> bool {
        !self.entry.hashes.is_empty() && fits(bytes, Some(self.entry.length), &self.entry.hashes)
    }

    /// Its path below a plain TUF target base: `dir/HASH.file` with consistent snapshots (§6.2).
    pub fn file(&self, consistent: bool) -> String {
        let (Some(hash), true) = (self.entry.hashes.prefix(), consistent) else {
            return self.path.clone();
        };
        match self.path.rsplit_once('/') {
            Some((folder, file)) => format!("{folder}/{hash}.{file}"),
            None => format!("{hash}.{}", self.path),
        }
    }
}

/// What the driver has to do next.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LookupStep {
    /// Fetch or store, as in a refresh.
    Do(Step),
    /// Found.
    Found(Target),
    /// Nobody who is trusted for the path lists it.
    NotFound,
}

struct Visit {
    role: DelegatedRole,
    parent: usize,
}

/// One search for one target.
pub struct Lookup<'a> {
    repository: &'a mut Repository,
    path: String,
    /// Verified roles so far: name, metadata, chain of names.
    seen: Vec<(Arc<Verified<Targets>>, Vec<String>)>,
    visited: BTreeSet<String>,
    stack: Vec<Visit>,
    fetching: Option<Visit>,
    storing: bool,
    /// The search is over, with this.
    found: Option<LookupStep>,
}

impl Repository {
    /// Begins a search.
    pub fn lookup(&mut self, path: &str) -> Lookup<'_> {
        let top = Arc::clone(&self.targets);
        let mut lookup = Lookup {
            repository: self,
            path: path.to_owned(),
            seen: Vec::new(),
            visited: BTreeSet::from(["targets".to_owned()]),
            stack: Vec::new(),
            fetching: None,
            storing: false,
            found: None,
        };
        lookup.enter(top, vec!["targets".to_owned()]);
        lookup
    }
}

impl Lookup<'_> {
    /// Takes the answer to the last step and says the next one.
    pub fn step(&mut self, answer: Option<Answer>) -> Result<LookupStep, TufError> {
        if std::mem::take(&mut self.storing) {
            if answer != Some(Answer::Stored) {
                return Err(TufError::Driver);
            }
        } else if let Some(visit) = self.fetching.take() {
            let path = file_name(&visit.role.name, None);
            let bytes = bytes(answer.ok_or(TufError::Driver)?, &path, limits::TARGETS)?;
            let (role, name) = (self.accept(&bytes, &visit)?, file_stem(&visit.role.name));
            self.descend(role, &visit);
            self.repository.stored.insert(name.clone(), bytes.clone());
            self.storing = true;
            return Ok(LookupStep::Do(Step::Store { role: name, bytes }));
        } else if answer.is_some() {
            return Err(TufError::Driver);
        }
        self.next()
    }

    fn next(&mut self) -> Result<LookupStep, TufError> {
        loop {
            if let Some(found) = &self.found {
                return Ok(found.clone());
            }
            let Some(visit) = self.stack.pop() else {
                return Ok(LookupStep::NotFound);
            };
            if self.visited.len() > ROLES_MAX || !self.visited.insert(visit.role.name.clone()) {
                continue;
            }
            let entry = listed(self.repository.snapshot(), &visit.role.name)?;
            if let Some(bytes) = self.repository.stored.get(&file_stem(&visit.role.name))
                && let Some(role) = reuse(self.accept(bytes, &visit))?
            {
                self.descend(role, &visit);
                continue;
            }
            let version = self
                .repository
                .root()
                .consistent_snapshot
                .then_some(entry.version);
            let limit = entry
                .length
                .map_or(limits::TARGETS, ByteCount::new)
                .min(limits::TARGETS);
            let path = file_name(&visit.role.name, version);
            self.fetching = Some(visit);
            return Ok(LookupStep::Do(Step::Fetch { path, limit }));
        }
    }

    fn accept(&self, bytes: &[u8], visit: &Visit) -> Result<Verified<Targets>, TufError> {
        let role = &visit.role;
        let entry = listed(self.repository.snapshot(), &role.name)?;
        let (parent, _) = self.seen.get(visit.parent).ok_or(TufError::Driver)?;
        let delegations = parent.get().delegations.as_ref().ok_or(TufError::Driver)?;
        let keys = RoleKeys {
            keyids: role.keyids.clone(),
            threshold: role.threshold,
        };
        accept_targets(
            bytes,
            &role.name,
            entry,
            &Signers::new(&delegations.keys, keys),
            self.repository.now,
        )
    }

    fn descend(&mut self, role: Verified<Targets>, visit: &Visit) {
        let chain = self
            .seen
            .get(visit.parent)
            .map(|(_, chain)| chain.clone())
            .unwrap_or_default();
        let chain = chain.into_iter().chain([visit.role.name.clone()]).collect();
        self.enter(Arc::new(role), chain);
    }

    /// Looks into a role, then puts those it delegates the path to on the stack, first one on top.
    fn enter(&mut self, role: Arc<Verified<Targets>>, chain: Vec<String>) {
        if let Some(entry) = role.get().targets.get(&self.path) {
            self.found = Some(LookupStep::Found(Target {
                path: self.path.clone(),
                entry: entry.clone(),
                roles: chain,
            }));
            return;
        }
        let parent = self.seen.len();
        let mut next = Vec::new();
        for delegated in role
            .get()
            .delegations
            .iter()
            .flat_map(|delegations| delegations.covering(&self.path))
        {
            let terminating = delegated.terminating;
            next.push(Visit {
                role: delegated,
                parent,
            });
            if terminating {
                // Nobody after it is asked, here or further up.
                self.stack.clear();
                break;
            }
        }
        self.stack.extend(next.into_iter().rev());
        self.seen.push((role, chain));
    }
}
