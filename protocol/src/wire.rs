//! The device interface: paths, sizes, check-in and enrolment documents. HTTP/1.1 or HTTP/2 over mutual TLS.
//!
//! | method and path | body → answer |
//! |---|---|
//! | `GET /.well-known/est/cacerts` | → certs-only PKCS#7, base64 (RFC 7030 §4.1) |
//! | `POST /.well-known/est/simpleenroll` | PKCS#10, base64 → certs-only PKCS#7 (RFC 7030 §4.2); SNI `enrol.<fleet>` only |
//! | `POST /.well-known/est/simplereenroll` | the same, with the device's own certificate |
//! | `GET /tuf/release/<file>` | → release metadata, bytes as signed |
//! | `GET /tuf/director/<file>` | → director metadata for the calling device |
//! | `GET /artifacts/<sha256>` | → bytes; one `Range`, `ETag` |
//! | `POST /v1/checkin` | [`CheckIn`] → [`CheckInReply`] |

use crate::report::Report;
use crate::{ByteCount, DeviceId, Digest, FleetId, Seconds, SpiffeId, UnixSeconds, Version64};
use serde::{Deserialize, Serialize};

/// Largest check-in, bytes. 40-control. Tripped by `a_checkin_one_byte_over_the_limit_is_refused`.
pub const CHECKIN_LEN_MAX: ByteCount = ByteCount::kib(2);
/// Length of every answer to a check-in that is not a refusal, bytes: several times what one needs. Tripped by
/// `what_does_not_fit_is_not_cut`.
pub const CHECKIN_REPLY_LEN: ByteCount = ByteCount::kib(2);
/// Largest certificate request, bytes: a P-256 request is under 1 KiB in base64.
pub const CSR_LEN_MAX: ByteCount = ByteCount::kib(8);
/// Largest voucher file, bytes: two roots of some signers and a CA certificate.
pub const VOUCHER_LEN_MAX: ByteCount = ByteCount::kib(128);
/// Most entries of the audit log in one answer. Tripped by `a_log_of_more_than_one_page_is_followed_and_an_old_edit_shows_a_day_later`.
pub const AUDIT_PAGE_MAX: u64 = 1_024;
/// Largest component, bytes.
pub const COMPONENT_LEN_MAX: ByteCount = ByteCount::mib(64);
/// Largest plan or policy document, bytes.
pub const DOCUMENT_LEN_MAX: ByteCount = ByteCount::kib(64);
/// ALPN for everything but tests that insist on another (RFC 7301).
pub const ALPN: &[&[u8]] = &[b"h2", b"http/1.1"];

/// EST paths (RFC 7030 §3.2.2).
pub const EST_CACERTS: &str = "/.well-known/est/cacerts";
/// First enrolment.
pub const EST_ENROLL: &str = "/.well-known/est/simpleenroll";
/// Renewal.
pub const EST_REENROLL: &str = "/.well-known/est/simplereenroll";
/// Check-in.
pub const CHECKIN: &str = "/v1/checkin";

/// The DNS name of a fleet's control server: the SNI of every connection but enrolment.
pub fn control_host(fleet: &FleetId) -> String {
    format!("control.{fleet}")
}

/// The DNS name of a fleet's enrolment listener: only EST is served there.
pub fn enrol_host(fleet: &FleetId) -> String {
    format!("enrol.{fleet}")
}

/// A document of exactly `length` bytes, whatever it says: blanks after its end, which a reader of JSON passes over (RFC 8259 §2). Who
/// reads the sizes on the wire learns nothing from them. `None`: it is longer.
pub fn padded(document: &impl Serialize, length: ByteCount) -> Option<Vec<u8>> {
    let length = usize::try_from(length.get()).ok()?;
    let mut text = Vec::with_capacity(length);
    serde_json::to_writer(&mut text, document).ok()?;
    if text.len() > length {
        return None;
    }
    text.resize(length, b' ');
    Some(text)
}

/// What [`padded`] filled up, without most of the blanks at its end: a parser passes over them one by one.
pub fn unpadded(text: &[u8]) -> &[u8] {
    // Many at once.
    const BLANKS: [u8; 32] = [b' '; 32];
    let mut text = text;
    while let Some((before, &BLANKS)) = text.split_last_chunk() {
        text = before;
    }
    text
}

/// 16 random bytes, once.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Nonce(pub [u8; 16]);

impl TryFrom<String> for Nonce {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| "a nonce is 32 hexadecimal digits")?;
        Ok(Self(bytes))
    }
}

impl From<Nonce> for String {
    fn from(nonce: Nonce) -> String {
        hex::encode(nonce.0)
    }
}

/// A device's check-in.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckIn {
    /// Fresh for every check-in; the signed statement repeats it.
    pub nonce: Nonce,
    /// The versions the device has done all with, as long as these are good: while the server has no others, the device looks at no
    /// signature, and is sent none (decision 0023). `None`: it wants a statement that is signed, whatever that says.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub settled: Option<Versions>,
    /// What the device has to say.
    pub report: Report,
}

/// What is current: a version of each repository's timestamp.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Versions {
    /// Of the release repository's.
    pub release: Version64,
    /// Of this device's director repository's.
    pub director: Version64,
}

/// The signed part of a freshness statement: who asked, with which nonce, when, and what is current.
///
/// Signed by the director's timestamp role; the device checks it with the very threshold function of its metadata.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// Always `time-statement`.
    #[serde(rename = "_type")]
    pub kind: StatementKind,
    /// The device that asked.
    pub device: SpiffeId,
    /// Its nonce.
    pub nonce: Nonce,
    /// The server's time.
    pub time: UnixSeconds,
    /// Version of the release timestamp the server serves.
    pub release: Version64,
    /// Version of this device's director timestamp.
    pub director: Version64,
}

impl Statement {
    /// What it says is current.
    pub const fn versions(&self) -> Versions {
        Versions {
            release: self.release,
            director: self.director,
        }
    }
}

/// The one `_type` of a [`Statement`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum StatementKind {
    /// `time-statement`
    #[serde(rename = "time-statement")]
    TimeStatement,
}

/// The answer to a check-in.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckInReply {
    /// TUF envelope `{"signed": Statement, "signatures": [...]}`, kept as received until its signature is checked. Without one for a
    /// device that has [settled](CheckIn::settled) on the versions it names.
    pub statement: serde_json::Value,
    /// How long to wait before the next check-in.
    pub interval: Seconds,
}

/// What a device prints for an operator: the hash of the key it made.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdmissionRequest {
    /// The name the device would like to have.
    pub device: DeviceId,
    /// SHA-256 of the DER-encoded `SubjectPublicKeyInfo`.
    pub spki: Digest,
    /// A certificate request of the key (PKCS#10, base64), from a device that cannot reach the server to prove it has the key.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub csr: Option<String>,
}

/// What a device without a valid trust record asks the holders of the release root for (decision 0006). Carried by hand.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecoveryRequest {
    /// Always `redan.recovery-request/1`.
    pub schema: RecoveryRequestSchema,
    /// The fleet.
    pub fleet: FleetId,
    /// The device.
    pub device: SpiffeId,
    /// Fresh for every request; the answer repeats it.
    pub nonce: Nonce,
}

/// The one schema of a [`RecoveryRequest`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum RecoveryRequestSchema {
    /// Version 1.
    #[serde(rename = "redan.recovery-request/1")]
    V1,
}

/// What a bundle is about (`bundle.json` of a folder that `redan bundle` writes): a hint where to look, signed by nobody.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundleNote {
    /// Always `redan.bundle/1`.
    pub schema: BundleSchema,
    /// The device it is for; none, for one that brings roots alone: it is for every device of the fleet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<SpiffeId>,
    /// The direction's target in the release repository; none, for one that brings roots alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<String>,
}

/// The one schema of a [`BundleNote`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum BundleSchema {
    /// Version 1.
    #[serde(rename = "redan.bundle/1")]
    V1,
}

/// What an operator carries back: who the device will be and everything it must pin (20-identity).
///
/// Secret it is not; authentic it must be: it travels by hand, and is the device's only reason to trust anything.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Voucher {
    /// Always `redan.voucher/1`.
    pub schema: VoucherSchema,
    /// The fleet.
    pub fleet: FleetId,
    /// The device's name in it.
    pub device: DeviceId,
    /// SHA-256 of the DER-encoded `SubjectPublicKeyInfo` the voucher is for.
    pub spki: Digest,
    /// The fleet's root certificate, PEM.
    pub ca: String,
    /// `1.root.json` of the release repository, whole.
    pub release_root: String,
    /// `1.root.json` of the director repository, whole.
    pub director_root: String,
    /// Where the control server listens: `host:port`.
    pub server: String,
    /// No enrolment after this time.
    pub expires: UnixSeconds,
    /// The certificate and its issuer's, PEM, for a device that enrols without a path to the server.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub chain: Option<String>,
}

/// The one schema of a [`Voucher`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum VoucherSchema {
    /// Version 1.
    #[serde(rename = "redan.voucher/1")]
    V1,
}

/// An error of the platform (RFC 9457), with the code in `type`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    /// `urn:redan:code:<name>`
    #[serde(rename = "type")]
    pub kind: String,
    /// What happened, in a sentence.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// Code number.
    pub code: crate::Code,
    /// More, when there is more to say. Never to a device.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub detail: Option<String>,
    /// What to do.
    #[serde(default)]
    pub remedy: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{REPORT_SLOTS_MAX, SlotReport};
    use crate::{Code, ComponentName, ReleaseCounter};

    #[test]
    fn whatever_a_device_reports_its_check_in_has_one_length() {
        let check_in = |sequence, set: Option<&str>| CheckIn {
            nonce: Nonce([1; 16]),
            settled: None,
            report: Report {
                sequence,
                set: set.map(|set| crate::SetId::parse(set).unwrap()),
                ..Report::default()
            },
        };
        for said in [check_in(0, None), check_in(u64::MAX, Some("plant-1"))] {
            let text = padded(&said, CHECKIN_LEN_MAX).unwrap();
            assert_eq!(text.len(), 2048);
            assert_eq!(serde_json::from_slice::<CheckIn>(&text).unwrap(), said);
            assert_eq!(serde_json::from_slice::<CheckIn>(unpadded(&text)).unwrap(), said);
            assert!(unpadded(&text).len() < 1024, "most blanks are gone");
            // Blanks alone are passed over.
            for at in [2047, 2000] {
                let mut more = text.clone();
                more[at] = b'1';
                assert!(serde_json::from_slice::<CheckIn>(unpadded(&more)).is_err());
            }
        }
    }

    #[test]
    fn the_longest_reply_fits_its_length() {
        // A name of the fleet's certificates has at most 253 bytes; one signature.
        let statement = serde_json::json!({
            "signed": {
                "_type": "time-statement", "device": "d".repeat(300), "nonce": "0".repeat(32),
                "time": u64::MAX, "release": u64::MAX, "director": u64::MAX,
            },
            "signatures": [{"keyid": "0".repeat(64), "sig": "0".repeat(256)}],
        });
        let interval = Seconds::new(u64::MAX);
        let reply = padded(&CheckInReply { statement, interval }, CHECKIN_REPLY_LEN).unwrap();
        assert_eq!(reply.len(), 2048);
    }

    #[test]
    fn what_does_not_fit_is_not_cut() {
        let text = |length: usize| padded(&"x".repeat(length - 2), CHECKIN_REPLY_LEN).map(|text| text.len());
        assert_eq!(text(2048), Some(2048));
        assert_eq!(text(2049), None);
    }

    #[test]
    fn the_fullest_report_fits_the_limit() {
        let name = "a".repeat(crate::ids::LABEL_LEN_MAX);
        let slot = SlotReport {
            component: ComponentName::parse(&format!("{name}/{name}")).unwrap(),
            version: [u32::MAX; 3],
            counter: ReleaseCounter::new(u64::MAX),
            digest: Digest::of(b"x"),
            grant: Digest::of(b"y"),
            health: crate::report::Health::Unhealthy,
            code: Some(Code::Internal),
            calls: crate::report::Bucket::of(u64::MAX),
            failures: crate::report::Bucket::of(u64::MAX),
        };
        let report = Report {
            slots: vec![slot; REPORT_SLOTS_MAX],
            ..Report::default()
        };
        let most = Version64::new(u64::MAX);
        let body = serde_json::to_vec(&CheckIn {
            nonce: Nonce([255; 16]),
            settled: Some(Versions {
                release: most,
                director: most,
            }),
            report,
        })
        .unwrap();
        let limit = usize::try_from(CHECKIN_LEN_MAX.get()).unwrap();
        assert!(body.len() <= limit, "{} bytes", body.len());
    }
}
