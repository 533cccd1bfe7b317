//! The change of a fleet's certificate authority (decision 0014): a new one is made, and root custodians take it through its steps.

use crate::custody::Custody;
use crate::error::CeremonyError;
use crate::found::{issuers, put};
use crate::present::Present;
use crate::verify::founding;
use redan_identity::{FleetAnchor, pem};
use redan_protocol::authority::{AuthoritiesError, Step, StepError};
use redan_protocol::{Authorities, Authority, AuthorityState, Digest, UnixSeconds};
use redan_trust::metadata::Root;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Fewest digits of an authority's digest that name it.
const NAME_DIGITS_MIN: usize = 8;

/// Makes an authority for a fleet in `out`, which must not exist: its key, its issuers, and what the server is to have of it once it is
/// active. Nobody believes it before root custodians list it. Gives its digest.
pub fn make(public: &Path, custody: &Custody, out: &Path, now: UnixSeconds) -> Result<Digest, CeremonyError> {
    if out.symlink_metadata().is_ok() {
        return Err(CeremonyError::Exists {
            path: out.display().to_string(),
        });
    }
    let fleet = founding(public)?.fleet().clone();
    let half = PathBuf::from(format!("{}.unfinished", out.display()));
    if half.exists() {
        std::fs::remove_dir_all(&half).map_err(|error| CeremonyError::file(&half, &error))?;
    }
    let written = || {
        let (offline, online) = (half.join("offline"), half.join("online"));
        for folder in [&offline, &online] {
            std::fs::create_dir_all(folder).map_err(|error| CeremonyError::file(folder, &error))?;
        }
        let (anchor, _) = issuers(&fleet, custody, (&offline, &online), now)?;
        let text = pem::write_chain(&[anchor.root().clone()]);
        put(&half.join("ca.pem"), text.as_bytes())?;
        Ok(anchor.sha256())
    };
    let made = written();
    let made = match made {
        Ok(made) => made,
        Err(error) => {
            // Nothing half-applied: what was written so far goes with the error.
            drop(std::fs::remove_dir_all(&half));
            return Err(error);
        }
    };
    std::fs::rename(&half, out).map_err(|error| CeremonyError::file(out, &error))?;
    Ok(made)
}

/// Reads the certificate of an authority that is to be prepared for a fleet.
pub fn read(public: &Path, ca: &Path) -> Result<FleetAnchor, CeremonyError> {
    let text = std::fs::read_to_string(ca).map_err(|error| CeremonyError::file(ca, &error))?;
    let fleet = founding(public)?.fleet().clone();
    Ok(FleetAnchor::from_pem(fleet, &text)?)
}

/// Which authority, and what is done to it.
#[derive(Clone, Debug)]
pub enum Changed {
    /// It becomes known.
    Prepare(FleetAnchor),
    /// Any later step of one that is listed, by its digest or how that begins.
    Later(Step, String),
}

/// The authorities a root lists; before there is a list, the one of the founding, as this public folder has it.
pub(crate) fn listed(root: &Root, present: &Present) -> Result<Authorities, CeremonyError> {
    if let Some(listed) = &root.authorities {
        return Ok(listed.clone());
    }
    let founding = founding(present.public())?;
    if root.ca_sha256 != Some(founding.sha256()) {
        return Err(CeremonyError::OtherFleet);
    }
    Ok(Authorities::founded(founding.root().to_vec())?)
}

/// The list after a change. Whether the step is legal is for [`crate::request::Request::check`] to say, for who makes a request and who
/// signs it alike.
pub(crate) fn changed(change: &Changed, before: &Authorities) -> Result<Authorities, CeremonyError> {
    let (name, to) = match change {
        Changed::Prepare(anchor) => (anchor.sha256(), AuthorityState::Prepared.name()),
        Changed::Later(step, begins) => (named(before, begins)?, led_to(*step)),
    };
    let mut after: BTreeMap<Digest, Authority> = before.clone().into();
    let mut set = |name: Digest, to: AuthorityState| {
        if let Some(authority) = after.get_mut(&name) {
            authority.state = to;
        }
    };
    match change {
        Changed::Prepare(anchor) => {
            let state = AuthorityState::Prepared;
            let certificate = anchor.root().to_vec();
            after.insert(name, Authority { state, certificate });
        }
        Changed::Later(Step::Prepare, _) => set(name, AuthorityState::Prepared),
        Changed::Later(Step::Activate, _) => {
            set(before.active(), AuthorityState::Old);
            set(name, AuthorityState::Active);
        }
        Changed::Later(Step::Taint, _) => set(name, AuthorityState::Tainted),
        Changed::Later(Step::Revoke, _) => drop(after.remove(&name)),
    }
    match Authorities::try_from(after) {
        Ok(after) if after != *before => Ok(after),
        Err(too_many @ AuthoritiesError::TooMany { .. }) => Err(too_many.into()),
        _ => Err(StepError::Illegal {
            authority: name,
            from: before.state(name).map_or(REVOKED, AuthorityState::name),
            to,
        }
        .into()),
    }
}

/// How an authority stands after a step.
fn led_to(step: Step) -> &'static str {
    match step {
        Step::Prepare => AuthorityState::Prepared.name(),
        Step::Activate => AuthorityState::Active.name(),
        Step::Taint => AuthorityState::Tainted.name(),
        Step::Revoke => REVOKED,
    }
}

/// How one stands that is not listed.
const REVOKED: &str = "revoked";

/// Writes the list into a root that is not signed yet.
pub(crate) fn write(payload: &mut Value, listed: &Authorities) {
    if let Some(root) = payload.as_object_mut() {
        root.insert("authorities".to_owned(), json!(listed));
        root.insert("ca_sha256".to_owned(), json!(listed.active()));
    }
}

/// The one authority whose digest begins so.
fn named(listed: &Authorities, begins: &str) -> Result<Digest, CeremonyError> {
    let all = listed.iter().map(|(name, _)| name);
    let found: Vec<Digest> = all.filter(|name| name.to_string().starts_with(begins)).collect();
    match found.as_slice() {
        [name] if begins.len() >= NAME_DIGITS_MIN => Ok(*name),
        _ => Err(CeremonyError::NoAuthority {
            name: begins.to_owned(),
        }),
    }
}
