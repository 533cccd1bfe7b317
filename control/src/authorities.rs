//! The certificate authorities a fleet is served under (decision 0014): what its newest release root lists, and before there is such a
//! list, `ca.pem` of its founding.

use crate::error::ServerError;
use crate::fleet::{Fleet, State};
use crate::held::{Folder, listed};
use crate::keys;
use crate::release::Files;
use redan_identity::profile::valid_between;
use redan_identity::{Anchors, FleetAnchor};
use redan_protocol::{Digest, FleetId};
use redan_trust::metadata::Root;
use serde_json::{Value, json};
use std::path::Path;

/// Digits of an authority's digest in the name of the server's certificate under it.
const NAMED_DIGITS: usize = 16;

/// The anchors of a fleet. `uploaded`: the release metadata that is served. Also knows what was revoked, so that whoever comes with a
/// certificate of it is told so.
pub(crate) fn anchors(folder: &Folder, fleet: &FleetId, uploaded: &Files) -> Result<Anchors, ServerError> {
    let mut release = folder.repository("release")?;
    release.extend(uploaded.clone());
    let mut roots = keys::all::<Root>(&release, "root")?;
    roots.sort_by_key(|(version, _)| *version);
    let path = folder.public("ca.pem");
    let named = |path: &Path, source| ServerError::Identity {
        path: path.display().to_string(),
        source,
    };
    let text = std::fs::read_to_string(&path).map_err(|error| ServerError::file(&path, &error))?;
    let founding = FleetAnchor::from_pem(fleet.clone(), &text).map_err(|source| named(&path, source))?;
    let newest = roots.last().and_then(|(_, root)| root.authorities.clone());
    let Some(newest) = newest else {
        return Ok(founding.into());
    };
    let place = folder.public("release");
    let anchors = Anchors::of(fleet, &newest).map_err(|source| named(&place, source))?;
    let mut former = vec![founding];
    for authority in roots.iter().filter_map(|(_, root)| root.authorities.as_ref()) {
        for (name, authority) in authority.iter() {
            if former.iter().any(|known| known.sha256() == name) {
                continue;
            }
            let root = authority.certificate.clone().into();
            former.push(FleetAnchor::new(fleet.clone(), root).map_err(|source| named(&place, source))?);
        }
    }
    Ok(anchors.with_former(former))
}

/// The file of the server's certificate under an authority that is not the active one.
pub(crate) fn file_under(authority: Digest) -> String {
    let digits = authority.to_string();
    format!("server-{}.pem", digits.get(..NAMED_DIGITS).unwrap_or_default())
}

/// Whether a file is named so.
pub(crate) fn is_under_another(name: &str) -> bool {
    let digits = name
        .strip_prefix("server-")
        .and_then(|name| name.strip_suffix(".pem"));
    digits.is_some_and(|digits| {
        digits.len() == NAMED_DIGITS
            && digits
                .bytes()
                .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    })
}

/// Removes the server's certificates, and their keys, under authorities that nobody believes any more.
pub(crate) fn sweep(online: &Path, anchors: &Anchors) -> Result<(), ServerError> {
    let mut needed = anchors.iter().map(|(_, anchor)| file_under(anchor.sha256()));
    let needed: Vec<String> = needed.by_ref().collect();
    for name in listed(online)? {
        if is_under_another(&name) && !needed.contains(&name) {
            let path = online.join(&name);
            std::fs::remove_file(&path).map_err(|error| ServerError::file(&path, &error))?;
            tracing::info!(path = %path.display(), "removed the server's certificate under a revoked authority");
        }
    }
    Ok(())
}

/// How many devices last spoke with a certificate under an authority, and are not revoked.
pub(crate) fn devices_under(state: &State, authority: Digest) -> usize {
    let rows = state.devices.values().filter(|row| !row.revoked);
    rows.filter(|row| row.authority == Some(authority)).count()
}

/// What an operator sees of them: when nobody holds a certificate under a tainted one, it can be revoked.
pub(crate) fn view(fleet: &Fleet, state: &State) -> Value {
    let held = fleet.held();
    let one = |(stands, anchor): (redan_protocol::AuthorityState, &FleetAnchor)| {
        let authority = anchor.sha256();
        json!({
            "authority": authority,
            "state": stands,
            "expires": valid_between(anchor.root()).map(|(_, to)| to).ok(),
            "devices": devices_under(state, authority),
        })
    };
    held.anchors.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_name_of_one_form_is_a_certificate_under_another_authority() {
        let authority = Digest::of(b"authority");
        let name = file_under(authority);
        assert!(is_under_another(&name), "{name}");
        for other in [
            "server.pem".to_owned(),
            "server-.pem".to_owned(),
            name.to_uppercase(),
            name.replace(".pem", ".key.json"),
            name.replace("server-", "server-a"),
            name.replace("server-", "../server-"),
            format!("{name}.new"),
        ] {
            assert!(!is_under_another(&other), "{other}");
        }
    }
}
