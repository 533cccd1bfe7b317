//! A certificate for an operator or for the control server, signed by its offline issuer: operators' live 7 days, the server's 90.

use crate::error::CeremonyError;
use redan_identity::key::write_private;
use redan_identity::{FleetAnchor, Issuer, IssuerKind, KeyFile, Zeroizing, pem};
use redan_protocol::{FleetId, OperatorName, SpiffeId, UnixSeconds};
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
    /// The issuer's key and certificate: offline/operator-issuer.pem or offline/server-issuer.pem.
    pub issuer: PathBuf,
    /// Now.
    pub now: UnixSeconds,
}

/// Makes a key and its certificate and writes both to `out`, mode 0600, never over a file. Gives the identity and its last second.
pub fn issue(issuing: &Issuing, out: &Path) -> Result<(SpiffeId, UnixSeconds), CeremonyError> {
    if out.symlink_metadata().is_ok() {
        let path = out.display().to_string();
        return Err(CeremonyError::Exists { path });
    }
    let read = |path: &Path| std::fs::read_to_string(path).map_err(|error| CeremonyError::file(path, &error));
    let fleet = fleet(&read(&issuing.public.join("fleet.json"))?)?;
    let anchor = FleetAnchor::from_pem(fleet.clone(), &read(&issuing.public.join("ca.pem"))?)?;
    let (key, chain) = pem::read_bundle(&Zeroizing::new(read(&issuing.issuer)?))?;
    let certificate = chain.into_iter().next().ok_or(CeremonyError::Issuer)?;
    let (kind, id) = match &issuing.whose {
        Whose::Operator(name) => (IssuerKind::Operator, SpiffeId::Operator(fleet, name.clone())),
        Whose::Server => (IssuerKind::Server, SpiffeId::Control(fleet)),
    };
    let issuer = Issuer::load(kind, anchor.clone(), key, certificate).proven(issuing.now)?;
    let key = KeyFile::generate()?;
    let chain = issuer.issue_for(&id, &key, issuing.now)?;
    let known = redan_identity::profile::check(&anchor, &chain, kind.purpose(), issuing.now)?;
    write_private(out, pem::write_bundle(&key, &chain).as_bytes())?;
    Ok((id, known.expires()))
}

fn fleet(text: &str) -> Result<FleetId, CeremonyError> {
    let described: serde_json::Value = serde_json::from_str(text).map_err(|_| CeremonyError::Fleet)?;
    let name = described.get("fleet").and_then(serde_json::Value::as_str);
    FleetId::parse(name.unwrap_or_default()).map_err(|_| CeremonyError::Fleet)
}
