//! A certificate for an operator or for the control server, signed by its offline issuer: operators' live 7 days, the server's 90.

use crate::custody::Opening;
use crate::error::CeremonyError;
use crate::verify::fleet;
use redan_identity::key::write_private;
use redan_identity::{Issuer, IssuerKind, KeyFile, TokenUri, Zeroizing, pem};
use redan_protocol::{OperatorName, SpiffeId, UnixSeconds};
use std::path::{Path, PathBuf};

/// Whose certificate.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Whose {
    /// An operator's.
    Operator(OperatorName),
    /// The control server's.
    Server,
}

/// What to issue, and with what.
#[derive(Clone, Debug)]
pub struct Issuing {
    /// Whose.
    pub whose: Whose,
    /// The fleet's public/ folder.
    pub public: PathBuf,
    /// The issuer's key and certificate: offline/operator-issuer.pem or offline/server-issuer.pem, sealed or not.
    pub issuer: PathBuf,
    /// The key's place in a token; `None`: a file with the certificate.
    pub key: Option<TokenUri>,
    /// Now.
    pub now: UnixSeconds,
}

/// Makes a key and its certificate and writes both to `out`, mode 0600, never over a file: of a key in a token, its name. Gives the identity and its last second.
pub fn issue(
    issuing: &Issuing,
    opening: &Opening,
    out: &Path,
) -> Result<(SpiffeId, UnixSeconds), CeremonyError> {
    if out.symlink_metadata().is_ok() {
        let path = out.display().to_string();
        return Err(CeremonyError::Exists { path });
    }
    let (fleet, anchor) = fleet(&issuing.public)?;
    let (key, chain) = pem::read_bundle(&opening.text(&issuing.issuer)?)?;
    let certificate = chain.into_iter().next().ok_or(CeremonyError::Issuer)?;
    let (kind, id) = match &issuing.whose {
        Whose::Operator(name) => (IssuerKind::Operator, SpiffeId::Operator(fleet, name.clone())),
        Whose::Server => (IssuerKind::Server, SpiffeId::Control(fleet)),
    };
    let issuer = Issuer::load(kind, anchor.clone(), key, certificate).proven(issuing.now)?;
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
    let known = redan_identity::profile::check(&anchor, &chain, kind.purpose(), issuing.now)?;
    write_private(out, text.as_bytes())?;
    Ok((id, known.expires()))
}
