//! What a workload's requests have from the host and its guest never sees: whom to believe, and the values of secrets.

use crate::egress::Dial;
use crate::payload::Payload;
use http::HeaderValue;
use redan_policy::grant::{EffectiveGrant, HttpRule, Roots};
use redan_protocol::Code;
use redan_protocol::ipc::SecretValue;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Values of a workload's secrets, by handle. Like all payload they cannot be printed, logged or serialised from here on.
#[derive(Default)]
pub struct Secrets(BTreeMap<String, Payload<HeaderValue>>);

impl Secrets {
    /// Takes what the agent handed over. A value that is none of a header field is no value.
    pub fn new(values: Vec<(String, SecretValue)>) -> Self {
        let values = values.into_iter().filter_map(|(handle, value)| {
            let mut field = HeaderValue::from_bytes(value.bytes()).ok()?;
            // What prints header fields all the same prints this one as `Sensitive`, and compression would not index it.
            field.set_sensitive(true);
            Some((handle, Payload::new(field)))
        });
        Self(values.collect())
    }

    /// The value behind a handle.
    pub(super) fn get(&self, handle: &str) -> Option<&HeaderValue> {
        self.0.get(handle).map(Payload::expose)
    }
}

/// What all versions of a workload reach the outside with.
#[derive(Clone)]
pub struct Outside {
    /// Where connected sockets come from.
    pub dial: Arc<dyn Dial>,
    /// The public roots.
    pub public: Arc<rustls::ClientConfig>,
    /// Its secrets.
    pub secrets: Arc<Secrets>,
}

impl Outside {
    /// Whom a rule believes, resolved once.
    pub(super) fn tls(
        &self,
        rule: &HttpRule,
        grant: &EffectiveGrant,
    ) -> Result<Arc<rustls::ClientConfig>, Code> {
        let Roots::Bundle(name) = &rule.roots else {
            return Ok(Arc::clone(&self.public));
        };
        let certificates = grant.bundles.get(name).into_iter().flatten();
        let pem: String = certificates
            .map(|certificate| redan_policy::pem::text(certificate))
            .collect();
        tls_of(pem.as_bytes()).ok_or(Code::PolicyInvalid)
    }

    /// Whether every secret of a grant has a value here.
    pub(super) fn has_all(&self, grant: &EffectiveGrant) -> bool {
        grant
            .secrets
            .iter()
            .all(|inject| self.secrets.get(&inject.secret).is_some())
    }
}

/// Public roots (the Mozilla set), TLS 1.3 only.
pub fn public_tls() -> Result<Arc<rustls::ClientConfig>, rustls::Error> {
    let roots = rustls::RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    tls_with(roots)
}

/// The same with the certificates of a PEM text as roots. `None`: one of them is none.
pub fn tls_of(pem: &[u8]) -> Option<Arc<rustls::ClientConfig>> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        roots.add(certificate.ok()?).ok()?;
    }
    tls_with(roots).ok()
}

fn tls_with(roots: rustls::RootCertStore) -> Result<Arc<rustls::ClientConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider);
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13])?;
    Ok(Arc::new(
        builder.with_root_certificates(roots).with_no_client_auth(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_printed_by_what_prints_header_fields() {
        let secrets = Secrets::new(vec![(
            "token".to_owned(),
            SecretValue::new(b"Bearer s3cret".to_vec()),
        )]);
        let mut headers = http::HeaderMap::new();
        headers.insert("authorization", secrets.get("token").unwrap().clone());
        assert!(!format!("{headers:?}").contains("s3cret"));
        assert!(!format!("{:?}", SecretValue::new(b"s3cret".to_vec())).contains("s3cret"));
    }

    #[test]
    fn what_is_no_value_of_a_header_field_is_no_secret() {
        let split = SecretValue::new(b"a\r\nhost: elsewhere".to_vec());
        assert!(
            Secrets::new(vec![("token".to_owned(), split)])
                .get("token")
                .is_none()
        );
    }
}
