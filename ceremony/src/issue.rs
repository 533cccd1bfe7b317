//! A certificate for an operator or for the control server, signed by its offline issuer: operators' live 7 days, the server's 90. And
//! the next issuer of devices' certificates, signed by the fleet's root: a year, or until it is stolen.

use crate::custody::Opening;
use crate::error::CeremonyError;
use crate::verify::anchors;
use redan_identity::key::write_private;
use redan_identity::{
    FleetCa, IdentityError, Issuer, IssuerKind, KeyFile, TokenUri, Zeroizing, pem, profile,
};
use redan_protocol::{OperatorName, SpiffeId, UnixSeconds};
use std::path::{Path, PathBuf};

/// Whose certificate.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Whose {
    /// An operator's.
    Operator(OperatorName),
    /// The control server's.
    Server,
    /// The issuer of devices' certificates that the control server holds.
    DeviceIssuer,
}

/// What to issue, and with what.
#[derive(Clone, Debug)]
pub struct Issuing {
    /// Whose.
    pub whose: Whose,
    /// The fleet's public/ folder.
    pub public: PathBuf,
    /// The issuer's key and certificate: offline/operator-issuer.pem or offline/server-issuer.pem, sealed or not; for an issuer the root's
    /// key: offline/fleet-ca.key.pem.
    pub issuer: PathBuf,
    /// The key's place in a token; `None`: a file with the certificate.
    pub key: Option<TokenUri>,
    /// Now.
    pub now: UnixSeconds,
}

/// Makes a key and its certificate and writes both to `out`, mode 0600, never over a file: of a key in a token, its name. Says whose it
/// is, and its last second.
pub fn issue(
    issuing: &Issuing,
    opening: &Opening,
    out: &Path,
) -> Result<(String, UnixSeconds), CeremonyError> {
    if out.symlink_metadata().is_ok() {
        let path = out.display().to_string();
        return Err(CeremonyError::Exists { path });
    }
    let anchors = anchors(&issuing.public)?;
    let fleet = anchors.fleet().clone();
    if issuing.whose == Whose::DeviceIssuer {
        let key = opening.text(&issuing.issuer)?;
        let mut ca = Err(IdentityError::KeyMismatch);
        for (_, anchor) in anchors.iter() {
            // Whose key it is, is for the key to say.
            if matches!(ca, Err(IdentityError::KeyMismatch)) {
                ca = FleetCa::load(anchor.clone(), &key);
            }
        }
        let ca = ca?;
        let issuer = ca.issuer(IssuerKind::Device, issuing.now)?;
        let (_, expires) = profile::valid_between(issuer.certificate())?;
        let chain = [issuer.certificate().clone()];
        write_private(out, pem::write_bundle(issuer.key(), &chain).as_bytes())?;
        return Ok((format!("the device issuer of {fleet}"), expires));
    }
    let (key, chain) = pem::read_bundle(&opening.text(&issuing.issuer)?)?;
    let certificate = chain.into_iter().next().ok_or(CeremonyError::Issuer)?;
    let (kind, id) = match &issuing.whose {
        Whose::Operator(name) => (
            IssuerKind::Operator,
            SpiffeId::Operator(fleet.clone(), name.clone()),
        ),
        Whose::Server | Whose::DeviceIssuer => (IssuerKind::Server, SpiffeId::Control(fleet.clone())),
    };
    let foreign = || IdentityError::Foreign { fleet: fleet.clone() };
    let above = anchors.signer_of(&certificate).ok_or_else(foreign)?;
    let issuer = Issuer::load(kind, above.clone(), key, certificate).proven(issuing.now)?;
    let (chain, text) = if let Some(uri) = &issuing.key {
        let key = opening.identity_token(uri)?;
        let chain = issuer.issue_for(&id, &key, issuing.now)?;
        let text = Zeroizing::new(format!("{uri}\n{}", pem::write_chain(&chain)));
        (chain, text)
    } else {
        let key = KeyFile::generate()?;
        let chain = issuer.issue_for(&id, &key, issuing.now)?;
        let text = pem::write_bundle(&key, &chain);
        (chain, text)
    };
    let known = anchors.check(&chain, kind.purpose(), issuing.now)?;
    write_private(out, text.as_bytes())?;
    Ok((id.to_string(), known.expires()))
}
