//! The revocation list of the servers' or the operators' issuer, whose key is offline, or of a device issuer under an authority that is not
//! active, whose key the server has not (RFC 5280 §5): file in, file out. Policy signers
//! publish it with `redan crl publish`; devices and the control server go by it from then on.

use crate::custody::Opening;
use crate::error::CeremonyError;
use crate::present::put_new;
use crate::verify::anchors;
use redan_identity::crl::{LISTS_LEN_MAX, Revocations, RevokedSerial, life_max, serial_of};
use redan_identity::profile::{check, latest_not_before};
use redan_identity::{CertificateDer, FleetAnchor, IdentityError, Issuer, IssuerKind, pem};
use redan_protocol::UnixSeconds;
use std::path::{Path, PathBuf};

/// What to list, and with what.
#[derive(Clone, Debug)]
pub struct Listing {
    /// Whose certificates.
    pub of: IssuerKind,
    /// The fleet's public/ folder.
    pub public: PathBuf,
    /// offline/server-issuer.pem or offline/operator-issuer.pem, sealed or not.
    pub issuer: PathBuf,
    /// The file that is published now: its entries stay, its number grows. `None`: there is none.
    pub previous: Option<PathBuf>,
    /// Certificates to take back, PEM, leaf first; what else is in the files is not read.
    pub revoked: Vec<PathBuf>,
    /// Now.
    pub now: UnixSeconds,
}

/// What was listed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Listed {
    /// Its number.
    pub number: u64,
    /// How many certificates are on it.
    pub revoked: usize,
    /// When the next one has to be there.
    pub until: UnixSeconds,
}

/// Makes the next list and writes it to `out`, never over a file. Entries are never dropped: a list does not say when what it names
/// expires.
pub fn list(listing: &Listing, opening: &Opening, out: &Path) -> Result<Listed, CeremonyError> {
    let anchors = anchors(&listing.public)?;
    let (key, chain) = pem::read_bundle(&opening.text(&listing.issuer)?)?;
    let certificate = chain.into_iter().next().ok_or(CeremonyError::Issuer)?;
    let foreign = || IdentityError::Foreign {
        fleet: anchors.fleet().clone(),
    };
    let anchor = anchors.signer_of(&certificate).ok_or_else(foreign)?;
    // The server makes the list of its own issuer, with its own numbers: two makers would undo each other's.
    if listing.of == IssuerKind::Device && anchor.sha256() == anchors.active().sha256() {
        return Err(CeremonyError::ServersList);
    }
    let life = life_max(listing.of);
    let issuer = Issuer::load(listing.of, anchor.clone(), key, certificate).proven(listing.now)?;
    let mut known = Revocations::default();
    if let Some(previous) = &listing.previous {
        let read = std::fs::read(previous).map_err(|error| CeremonyError::file(previous, &error))?;
        known = Revocations::kept(&anchors, listing.of, &read)?;
    }
    let (number, mut revoked) = known.of(issuer.certificate())?.unwrap_or_default();
    for path in &listing.revoked {
        let serial = taken_back(listing, anchor, &issuer, path)?;
        if !revoked.iter().any(|entry| entry.serial == serial) {
            let at = listing.now;
            revoked.insert(RevokedSerial { serial, at });
        }
    }
    let number = number.saturating_add(1);
    let made = issuer.crl(number, &revoked, listing.now, life)?;
    // Held against what its readers hold it against, together with the lists of other issuers that stay.
    known.offer(anchor, listing.of, issuer.certificate(), &made, listing.now)?;
    // An issuer that is gone makes no list any more; whoever knew its last one goes by it.
    known.forget_expired(listing.now);
    let file = known.keep();
    Revocations::default().adopt(&anchors, listing.of, file.as_bytes(), listing.now)?;
    put_new(out, file.as_bytes())?;
    Ok(Listed {
        number,
        revoked: revoked.len(),
        until: listing.now.after(life),
    })
}

/// The serial number of a certificate that this very issuer made.
fn taken_back(
    listing: &Listing,
    anchor: &FleetAnchor,
    issuer: &Issuer,
    path: &Path,
) -> Result<Vec<u8>, CeremonyError> {
    let limit = usize::try_from(LISTS_LEN_MAX.get()).unwrap_or(usize::MAX);
    let text = std::fs::read_to_string(path).map_err(|error| CeremonyError::file(path, &error))?;
    if text.len() > limit {
        let path = path.display().to_string();
        return Err(CeremonyError::TooLong { path });
    }
    let leaf = pem::read_chain(&text)?
        .into_iter()
        .next()
        .ok_or(CeremonyError::Issuer)?;
    let chain: [CertificateDer<'_>; 2] = [leaf, issuer.certificate().clone()];
    // At the time it was made: also what has expired meanwhile may be listed.
    check(anchor, &chain, listing.of.purpose(), latest_not_before(&chain))?;
    let [leaf, _] = &chain;
    Ok(serial_of(leaf)?)
}
