//! The bodies of EST (RFC 7030): PKCS#10 requests and certs-only PKCS#7 answers, both base64.

use crate::error::IdentityError;
use crate::key::{ForCertificates, KeyProvider};
use crate::profile::rules::p256_point;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cms::cert::CertificateChoices;
use cms::content_info::{CmsVersion, ContentInfo};
use cms::signed_data::{CertificateSet, EncapsulatedContentInfo, SignedData, SignerInfos};
use der::asn1::{ObjectIdentifier, SetOfVec};
use der::{Any, Decode as _, Encode as _};
use rcgen::{CertificateParams, DistinguishedName};
use redan_protocol::wire::CSR_LEN_MAX;
use rustls::pki_types::CertificateDer;
use x509_cert::request::CertReq;
use x509_cert::spki::AlgorithmIdentifierOwned;

/// RFC 5652 §4: id-data.
const ID_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");
/// RFC 5652 §5.1: id-signedData.
const ID_SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
/// RFC 5758 §3.2: without parameters.
const ECDSA_WITH_SHA256: AlgorithmIdentifierOwned = AlgorithmIdentifierOwned {
    oid: ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2"),
    parameters: None,
};
/// Media type of a request (RFC 7030 §4.2.1).
pub const PKCS10: &str = "application/pkcs10";
/// Media type of an answer (RFC 7030 §4.2.3).
pub const PKCS7: &str = "application/pkcs7-mime; smime-type=certs-only";
/// Most certificates in an answer.
const CERTIFICATES_MAX: usize = 8;

/// A request that names nothing: the server takes only the key out of it.
pub fn csr(key: &dyn KeyProvider) -> Result<String, IdentityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let request = params
        .serialize_request(&ForCertificates::new(key)?)
        .map_err(|_| IdentityError::Crypto {
            doing: "signing a certificate request",
        })?;
    Ok(wrap(request.der()))
}

/// Reads a request and proves that its key signed it (RFC 2986 §3). Gives the DER-encoded `SubjectPublicKeyInfo`; names and
/// extensions in the request are ignored.
pub fn decode_csr(body: &str) -> Result<Vec<u8>, IdentityError> {
    if u64::try_from(body.len()).map_or(true, |length| length > CSR_LEN_MAX.get()) {
        return Err(IdentityError::Csr);
    }
    let der = unwrap(body).ok_or(IdentityError::Csr)?;
    let request = CertReq::from_der(&der).map_err(|_| IdentityError::Csr)?;
    // Written in its one way: a request has no second form with the same signature.
    if request.to_der().ok().as_ref() != Some(&der) || request.algorithm != ECDSA_WITH_SHA256 {
        return Err(IdentityError::Csr);
    }
    let spki = request.info.public_key.to_der().map_err(|_| IdentityError::Csr)?;
    let point = p256_point(&spki).map_err(|_| IdentityError::Csr)?;
    let signed = request.info.to_der().map_err(|_| IdentityError::Csr)?;
    let signature = request.signature.as_bytes().ok_or(IdentityError::Csr)?;
    aws_lc_rs::signature::UnparsedPublicKey::new(&aws_lc_rs::signature::ECDSA_P256_SHA256_ASN1, point)
        .verify(&signed, signature)
        .map_err(|_| IdentityError::Csr)?;
    Ok(spki)
}

/// A certs-only answer.
pub fn encode_certs_only(chain: &[CertificateDer<'_>]) -> Result<String, IdentityError> {
    let failed = || IdentityError::Crypto {
        doing: "writing PKCS#7",
    };
    let mut certificates = Vec::new();
    for certificate in chain {
        let parsed = x509_cert::Certificate::from_der(certificate).map_err(|_| failed())?;
        certificates.push(CertificateChoices::Certificate(parsed));
    }
    let signed = SignedData {
        version: CmsVersion::V1,
        digest_algorithms: SetOfVec::new(),
        encap_content_info: EncapsulatedContentInfo {
            econtent_type: ID_DATA,
            econtent: None,
        },
        certificates: Some(CertificateSet(
            SetOfVec::try_from(certificates).map_err(|_| failed())?,
        )),
        crls: None,
        signer_infos: SignerInfos(SetOfVec::new()),
    };
    let content = Any::encode_from(&signed).map_err(|_| failed())?;
    let info = ContentInfo {
        content_type: ID_SIGNED_DATA,
        content,
    };
    Ok(wrap(&info.to_der().map_err(|_| failed())?))
}

/// Reads a certs-only answer. A set has no order: the leaf is the one that certifies nobody else.
pub fn decode_certs_only(body: &str) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let malformed = || IdentityError::Malformed {
        what: "a certs-only PKCS#7",
    };
    let der = unwrap(body).ok_or_else(malformed)?;
    let info = ContentInfo::from_der(&der).map_err(|_| malformed())?;
    if info.content_type != ID_SIGNED_DATA {
        return Err(malformed());
    }
    let signed: SignedData = info.content.decode_as().map_err(|_| malformed())?;
    let mut chain = Vec::new();
    for choice in signed.certificates.ok_or_else(malformed)?.0.iter() {
        let CertificateChoices::Certificate(certificate) = choice else {
            return Err(malformed());
        };
        let issuer = certificate
            .tbs_certificate
            .extensions
            .iter()
            .flatten()
            .any(|extension| extension.extn_id == KEY_USAGE && is_authority(extension.extn_value.as_bytes()));
        chain.push((
            issuer,
            CertificateDer::from(certificate.to_der().map_err(|_| malformed())?),
        ));
    }
    if chain.is_empty() || chain.len() > CERTIFICATES_MAX {
        return Err(malformed());
    }
    chain.sort_by_key(|(issuer, _)| *issuer);
    Ok(chain.into_iter().map(|(_, certificate)| certificate).collect())
}

/// RFC 5280 §4.2.1.3.
const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");

/// Whether a key usage extension holds keyCertSign (bit 5).
fn is_authority(value: &[u8]) -> bool {
    // BIT STRING: tag, length, unused bits, first byte; bit 5 is 0x04.
    value.get(3).is_some_and(|byte| byte & 0x04 != 0)
}

fn wrap(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<String> = text
        .as_bytes()
        .chunks(76)
        .map(|line| line.iter().map(|byte| char::from(*byte)).collect())
        .collect();
    lines.join("\r\n")
}

fn unwrap(body: &str) -> Option<Vec<u8>> {
    let text: String = body.split_ascii_whitespace().collect();
    STANDARD.decode(text).ok()
}
