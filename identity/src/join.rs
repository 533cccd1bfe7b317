//! Enrolment by join token: the proof that a device knows a token's secret, on this connection and for this request (decision 0009).

use crate::error::IdentityError;
use crate::key::{read_private, write_private};
use aws_lc_rs::hmac;
use redan_protocol::join::{EXPORTER_LABEL, Proof, TokenId, TokenSecret};
use redan_protocol::{DeviceId, Digest, FleetId};
use std::path::Path;
use zeroize::Zeroizing;

/// What both ends of one TLS connection know and nobody else does (RFC 8446 §7.5): a proof over it is worth nothing on another
/// connection.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Binding([u8; 32]);

impl std::fmt::Debug for Binding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Binding(…)")
    }
}

impl Binding {
    /// Of a connection whose handshake is done.
    pub(crate) fn of<S>(connection: &rustls::ConnectionCommon<S>) -> Result<Self, rustls::Error> {
        let exported = connection.export_keying_material([0; 32], EXPORTER_LABEL, None)?;
        Ok(Self(exported))
    }
}

/// What a proof is about: everything the request asks for.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// In which fleet.
    pub fleet: &'a FleetId,
    /// By which token.
    pub token: &'a TokenId,
    /// Under which name.
    pub device: &'a DeviceId,
    /// The certificate request, as it is sent.
    pub csr: &'a str,
}

impl Asked<'_> {
    /// Fixed lengths first, then what varies, each with its length before it: no two requests write the same bytes.
    fn bytes(&self, binding: &Binding) -> Vec<u8> {
        let mut bytes = b"redan.join/1\n".to_vec();
        bytes.extend(binding.0);
        bytes.extend(self.token.as_bytes());
        bytes.extend(Digest::of(self.csr.as_bytes()).as_bytes());
        for name in [self.fleet.as_str(), self.device.as_str()] {
            bytes.extend(format!("{}:{name}\n", name.len()).as_bytes());
        }
        bytes
    }

    /// The proof of whoever knows the secret.
    pub fn prove(&self, secret: &TokenSecret, binding: &Binding) -> Proof {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let tag = hmac::sign(&key, &self.bytes(binding));
        let mut proof = [0; 32];
        proof
            .iter_mut()
            .zip(tag.as_ref())
            .for_each(|(to, from)| *to = *from);
        Proof::from_bytes(proof)
    }

    /// Whether a proof is right. Compared in constant time.
    pub fn proven(&self, secret: &TokenSecret, binding: &Binding, proof: &Proof) -> bool {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        hmac::verify(&key, &self.bytes(binding), proof.as_bytes()).is_ok()
    }
}

/// The one secret behind the tokens of a fleet, in a file beside its database and never in it: each token's secret is made of it and
/// the token's id, so that whoever reads the database can prove nothing.
pub struct JoinKey(hmac::Key);

impl std::fmt::Debug for JoinKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JoinKey(…)")
    }
}

impl JoinKey {
    /// Reads the file; makes it when there is none.
    pub fn open(path: &Path) -> Result<Self, IdentityError> {
        if !path.exists() {
            let fresh = TokenSecret::from_bytes(random()?);
            let text = Zeroizing::new(String::from(fresh));
            write_private(path, text.as_bytes())?;
        }
        let text = read_private(path)?;
        let secret = TokenSecret::parse(text.trim()).map_err(|_| IdentityError::Malformed {
            what: "the fleet's join key",
        })?;
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes())))
    }

    /// A token's secret.
    pub fn secret(&self, fleet: &FleetId, token: &TokenId) -> TokenSecret {
        let mut of = b"redan.token/1\n".to_vec();
        of.extend(token.as_bytes());
        of.extend(fleet.as_str().as_bytes());
        let tag = hmac::sign(&self.0, &of);
        let mut secret = [0; 32];
        secret
            .iter_mut()
            .zip(tag.as_ref())
            .for_each(|(to, from)| *to = *from);
        TokenSecret::from_bytes(secret)
    }
}

/// A new token's id.
pub fn token_id() -> Result<TokenId, IdentityError> {
    random().map(TokenId::from_bytes)
}

fn random<const N: usize>() -> Result<[u8; N], IdentityError> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| IdentityError::Crypto {
        doing: "making random numbers",
    })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn names(device: &str) -> (FleetId, TokenId, DeviceId) {
        (
            FleetId::parse("plant.example").unwrap(),
            TokenId::from_bytes([3; 16]),
            DeviceId::parse(device).unwrap(),
        )
    }

    #[test]
    fn a_proof_is_for_one_connection_one_request_and_one_name() {
        let (fleet, token, device) = names("press-1");
        let secret = TokenSecret::from_bytes([7; 32]);
        let binding = Binding([9; 32]);
        let csr = "a request";
        let asked = Asked {
            fleet: &fleet,
            token: &token,
            device: &device,
            csr,
        };
        let proof = asked.prove(&secret, &binding);
        assert!(asked.proven(&secret, &binding, &proof), "positive control");
        let (_, _, other_device) = names("press-2");
        let other_fleet = FleetId::parse("other.example").unwrap();
        let other_token = TokenId::from_bytes([4; 16]);
        for other in [
            Asked {
                csr: "another",
                ..asked
            },
            Asked {
                device: &other_device,
                ..asked
            },
            Asked {
                fleet: &other_fleet,
                ..asked
            },
            Asked {
                token: &other_token,
                ..asked
            },
        ] {
            assert!(!other.proven(&secret, &binding, &proof), "{other:?}");
        }
        assert!(!asked.proven(&secret, &Binding([8; 32]), &proof));
        assert!(!asked.proven(&TokenSecret::from_bytes([6; 32]), &binding, &proof));
    }

    #[test]
    fn a_join_key_is_kept_and_readable_by_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("join.key");
        let (fleet, token, _) = names("press-1");
        let secret = JoinKey::open(&path).unwrap().secret(&fleet, &token);
        assert_eq!(JoinKey::open(&path).unwrap().secret(&fleet, &token), secret);
        let other = TokenId::from_bytes([4; 16]);
        assert_ne!(JoinKey::open(&path).unwrap().secret(&fleet, &other), secret);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(JoinKey::open(&path), Err(IdentityError::KeyMode { .. })));
    }
}
