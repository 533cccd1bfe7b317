//! The three verifiers: members of a fleet, anybody with a key (enrolment), this fleet's control server.

use super::provider;
use crate::anchors::Anchors;
use crate::crl::Lists;
use crate::error::{IdentityError, ProfileFault};
use crate::profile::{Presented, Purpose, latest_not_before, presented_spki};
use redan_protocol::{AuthorityState, Code, Digest, SpiffeId, UnixSeconds};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    AlertDescription, CertificateError, DigitallySignedStruct, DistinguishedName as Hint, OtherError,
    SignatureScheme,
};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Signature algorithms of handshakes (attacks.md, TLS profile). Every key of the profile that shakes hands is P-256.
const SCHEMES: &[SignatureScheme] = &[SignatureScheme::ECDSA_NISTP256_SHA256];

/// A lower bound of the true time: what a device has proven so far, or an operator's clock. Asked at every handshake.
#[derive(Clone)]
pub struct Floor {
    now: Arc<dyn Fn() -> UnixSeconds + Send + Sync>,
    learn: Arc<dyn Fn(UnixSeconds) + Send + Sync>,
    lists: Lists,
}

impl Floor {
    /// A bound that moves.
    pub fn moving(clock: impl Fn() -> UnixSeconds + Send + Sync + 'static) -> Self {
        Self::learning(clock, |_| ())
    }

    /// A bound that moves, and is told what each server's chain proves. The servers' issuer is offline, so a not-before in a chain
    /// that was verified is a time that offline keys signed (corrections 1): it is that late at least, whoever presents the chain.
    pub fn learning(
        clock: impl Fn() -> UnixSeconds + Send + Sync + 'static,
        learn: impl Fn(UnixSeconds) + Send + Sync + 'static,
    ) -> Self {
        Self {
            now: Arc::new(clock),
            learn: Arc::new(learn),
            lists: Lists::default(),
        }
    }

    /// And whom to refuse though its time has not passed: what is in these lists at the moment of a handshake.
    #[must_use]
    pub fn refusing(self, lists: Lists) -> Self {
        Self { lists, ..self }
    }
}

impl From<UnixSeconds> for Floor {
    fn from(fixed: UnixSeconds) -> Self {
        Self::moving(move || fixed)
    }
}

impl fmt::Debug for Floor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Floor({})", (self.now)())
    }
}

/// The code behind a handshake that one of our verifiers refused; `None` when TLS itself failed.
pub fn refusal(error: &std::io::Error) -> Option<Code> {
    match tls_error(error)? {
        rustls::Error::InvalidCertificate(CertificateError::Expired) => Some(Code::CertificateExpired),
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => Some(Code::ForeignCertificate),
        rustls::Error::InvalidCertificate(CertificateError::Revoked) => Some(Code::AuthorityRevoked),
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(cause))) => {
            cause.downcast_ref::<IdentityError>().map(IdentityError::code)
        }
        rustls::Error::InvalidCertificate(CertificateError::BadEncoding)
        | rustls::Error::NoCertificatesPresented => Some(Code::CertificateProfile),
        _ => None,
    }
}

/// What the *other* side said of our certificate, when it refused it. In TLS 1.3 that comes after our handshake is done.
pub fn rejection(error: &std::io::Error) -> Option<Code> {
    let rustls::Error::AlertReceived(alert) = tls_error(error)? else {
        return None;
    };
    match alert {
        AlertDescription::CertificateExpired => Some(Code::CertificateExpired),
        AlertDescription::UnknownCA => Some(Code::ForeignCertificate),
        AlertDescription::CertificateRevoked => Some(Code::AuthorityRevoked),
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::CertificateRequired => Some(Code::CertificateProfile),
        _ => None,
    }
}

fn tls_error(error: &std::io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// Refuses with the alert that says the least one needs: expired, of a revoked authority, foreign, or not of the profile.
fn refuse(error: IdentityError) -> rustls::Error {
    rustls::Error::InvalidCertificate(match error {
        IdentityError::NotNow { .. } => CertificateError::Expired,
        IdentityError::Revoked { .. } => CertificateError::Revoked,
        IdentityError::Foreign { .. } | IdentityError::WrongFleet { .. } => CertificateError::UnknownIssuer,
        other => CertificateError::Other(OtherError(Arc::new(other))),
    })
}

fn chain<'a>(leaf: &CertificateDer<'a>, others: &[CertificateDer<'a>]) -> Vec<CertificateDer<'a>> {
    let mut chain = vec![leaf.clone()];
    chain.extend_from_slice(others);
    chain
}

fn seconds(now: UnixTime) -> UnixSeconds {
    UnixSeconds::new(now.as_secs())
}

/// The rest of both verifier traits is the same for all three: TLS 1.2 never, and one signature scheme.
macro_rules! handshake_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Err(rustls::PeerIncompatible::Tls12NotOffered.into())
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            if !SCHEMES.contains(&signature.scheme) {
                return Err(rustls::PeerIncompatible::NoSignatureSchemesInCommon.into());
            }
            let algorithms = &provider().signature_verification_algorithms;
            rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            SCHEMES.to_vec()
        }
    };
}

/// Devices and operators of one fleet; devices also with a certificate that has expired, see [`crate::profile::check_client`].
#[derive(Debug)]
pub(super) struct Members {
    anchors: Anchors,
    /// What was found of chains whose handshakes have not ended, so that whoever ends one need not verify both signatures again.
    found: Mutex<BTreeMap<Digest, Presented>>,
}

/// Most such chains; with more, they are verified once more. Those of handshakes that broke off stay until then. Tripped by
/// `handshakes_that_break_off_leave_no_more_behind_than_the_limit_and_who_is_forgotten_is_verified_again`.
const FOUND_MAX: usize = 256;

impl Members {
    pub(super) fn new(anchors: Anchors) -> Self {
        let found = Mutex::default();
        Self { anchors, found }
    }

    /// What the verifier has found of this very chain in a handshake that has just ended. Once: the next handshake is judged anew.
    pub(super) fn found(&self, chain: &[CertificateDer<'_>]) -> Option<Presented> {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.remove(&name_of(chain))
    }
}

/// A chain's own name, byte for byte.
fn name_of(chain: &[CertificateDer<'_>]) -> Digest {
    Digest::of(&chain.iter().map(AsRef::as_ref).collect::<Vec<&[u8]>>().concat())
}

impl ClientCertVerifier for Members {
    fn root_hint_subjects(&self) -> &[Hint] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let chain = chain(leaf, others);
        let presented = self.anchors.check_client(&chain, seconds(now)).map_err(refuse)?;
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if found.len() >= FOUND_MAX {
            found.clear();
        }
        found.insert(name_of(&chain), presented);
        Ok(ClientCertVerified::assertion())
    }

    handshake_signatures!();
}

/// Whoever holds a P-256 key: enrolment.
#[derive(Debug)]
pub(super) struct Anybody;

impl ClientCertVerifier for Anybody {
    fn root_hint_subjects(&self) -> &[Hint] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        presented_spki(leaf).map_err(refuse)?;
        Ok(ClientCertVerified::assertion())
    }

    handshake_signatures!();
}

/// This fleet's control server and nobody else.
#[derive(Debug)]
pub(super) struct OurServer {
    anchors: Anchors,
    /// What the server is told of them, so that it presents a certificate that this client can verify.
    subjects: Vec<Hint>,
    host: String,
    floor: Floor,
}

impl OurServer {
    pub(super) fn new(anchors: Anchors, host: String, floor: Floor) -> Self {
        Self {
            subjects: anchors.subjects(),
            anchors,
            host,
            floor,
        }
    }
}

impl ServerCertVerifier for OurServer {
    fn root_hint_subjects(&self) -> Option<&[Hint]> {
        Some(&self.subjects)
    }

    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain = chain(leaf, others);
        let made = latest_not_before(&chain);
        let now = (self.floor.now)().max(made);
        let identity = self.anchors.check(&chain, Purpose::Server, now).map_err(refuse)?;
        let control = SpiffeId::Control(self.anchors.fleet().clone());
        if *identity.id() != control || name.to_str() != self.host {
            return Err(refuse(ProfileFault::Uri.into()));
        }
        if self.floor.lists.name(&identity) {
            return Err(refuse(IdentityError::TakenBack));
        }
        // Who has a tainted authority's key says what time it is as well.
        if self.anchors.state(identity.authority()) != Some(AuthorityState::Tainted) {
            (self.floor.learn)(made);
        }
        Ok(ServerCertVerified::assertion())
    }

    handshake_signatures!();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::FleetCa;
    use crate::key::KeyFile;
    use crate::profile::IssuerKind;
    use redan_protocol::{DeviceId, FleetId};
    use std::time::Duration;

    /// Holds: devices' certificates, and hangs up in the middle of each handshake.
    #[test]
    fn handshakes_that_break_off_leave_no_more_behind_than_the_limit_and_who_is_forgotten_is_verified_again()
    {
        let fleet = FleetId::parse("plant.example").unwrap();
        let now = UnixSeconds::new(1_800_000_000);
        let ca = FleetCa::found(fleet.clone(), now).unwrap();
        let issuer = ca.issuer(IssuerKind::Device, now).unwrap();
        let key = KeyFile::generate().unwrap();
        let members = Members::new(ca.anchor().unwrap().into());
        let device = |n: usize| {
            let name = DeviceId::parse(&format!("press-{n}")).unwrap();
            let id = SpiffeId::Device(fleet.clone(), name);
            issuer.issue_for(&id, &key, now).unwrap()
        };
        let verify = |chain: &[CertificateDer<'static>]| {
            let at = UnixTime::since_unix_epoch(Duration::from_secs(now.get()));
            members.verify_client_cert(&chain[0], &chain[1..], at)
        };
        let held = || members.found.lock().unwrap().len();
        let first = device(0);
        verify(&first).unwrap();
        for n in 1..FOUND_MAX {
            verify(&device(n)).unwrap();
        }
        assert_eq!(held(), FOUND_MAX);
        let last = device(FOUND_MAX);
        verify(&last).unwrap();
        assert_eq!(held(), 1);
        // Once, and only who was verified since; `accept` verifies the other by itself.
        assert!(members.found(&last).is_some());
        assert!(members.found(&last).is_none() && members.found(&first).is_none());
        verify(&first).unwrap();
        assert!(members.found(&first).is_some());
    }
}
