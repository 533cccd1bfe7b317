//! What can go wrong in a ceremony, and what to do then.

use crate::present::RepositoryName;
use redan_identity::IdentityError;
use redan_identity::crl::CrlFault;
use redan_protocol::authority::{AuthoritiesError, StepError};
use redan_protocol::{Code, ComponentName, UnixSeconds};
use redan_publish::PublishError;
use redan_trust::TufError;
use redan_trust::claimed::TooFewSignatures;
use redan_trust::metadata::Malformed;
use redan_trust::recovery::RecoveryError;
use std::path::Path;

/// Why the ceremony stopped. Nothing is half-applied.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CeremonyError {
    /// The folder to found in is there already.
    #[error("{path} exists already")]
    Exists {
        /// Which.
        path: String,
    },
    /// A component of a publisher who was not named.
    #[error("{component} is not of a publisher named with --publisher")]
    Publisher {
        /// Which.
        component: ComponentName,
    },
    /// A production fleet with a threshold of one.
    #[error("a production fleet needs a threshold of at least 2")]
    Threshold,
    /// A production fleet whose offline keys would lie about.
    #[error("a production fleet keeps its offline keys under passphrases")]
    PlainKeys,
    /// Nothing to wrap a key with.
    #[error("no passphrase was given, and standard input is no terminal to ask at")]
    NoPassphrase,
    /// Neither one passphrase nor one for each holder.
    #[error("there is neither one passphrase for all holders nor one for each")]
    Passphrases,
    /// Typed differently the second time.
    #[error("the two passphrases differ")]
    Mistyped,
    /// A token's key for a holder there is none of.
    #[error("the founding has no holder {purpose}")]
    NoSuchHolder {
        /// Which.
        purpose: String,
    },
    /// A key's purpose that cannot be a file's name.
    #[error("a key's purpose is written in small letters, digits, dots and dashes, such as release.root-4")]
    Purpose,
    /// Something else than a request.
    #[error("{path} is not a request of this version")]
    Request {
        /// Which.
        path: String,
    },
    /// Something else than a signature.
    #[error("{path} is not a signature of this version")]
    Signature {
        /// Which.
        path: String,
    },
    /// A file longer than any of ours.
    #[error("{path} is longer than any file of a ceremony")]
    TooLong {
        /// Which.
        path: String,
    },
    /// Another fleet, profile, CA or repository than here.
    #[error("the fleet, its profile, its CA or the repository is not that of this public folder")]
    OtherFleet,
    /// Authorities of another form than that of a list.
    #[error(transparent)]
    Authorities(#[from] AuthoritiesError),
    /// A step that no authority takes.
    #[error(transparent)]
    Step(#[from] StepError),
    /// A name that is no listed authority's.
    #[error("{name} does not name one of the fleet's authorities by at least 8 characters")]
    NoAuthority {
        /// How its digest would begin.
        name: String,
    },
    /// A role that people do not sign.
    #[error("the control server signs role {role} of the {repository} repository")]
    Online {
        /// The repository.
        repository: RepositoryName,
        /// The role.
        role: String,
    },
    /// A role that the server does not sign.
    #[error("role {role} of the {repository} repository is not the control server's")]
    Offline {
        /// The repository.
        repository: RepositoryName,
        /// The role.
        role: String,
    },
    /// A role nobody has.
    #[error("there is no role {role}")]
    Role {
        /// Which.
        role: String,
    },
    /// No holder, or several, or too short a beginning.
    #[error("{key} does not name one holder of {role} by at least 8 characters")]
    NoHolder {
        /// The role.
        role: String,
        /// How its id would begin.
        key: String,
    },
    /// A role that is delegated already.
    #[error("{role} is delegated already")]
    Delegated {
        /// Which.
        role: String,
    },
    /// A public key twice: in a role, under two ids, or by two signatures.
    #[error("key {key} is there twice")]
    Twice {
        /// Which.
        key: String,
    },
    /// A key of the control server that would sign offline roles, or the other way round.
    #[error("key {key} would be the control server's and a person's at once")]
    Shared {
        /// Which.
        key: String,
    },
    /// A threshold nobody can meet.
    #[error("{role} would have {holders} holders and a threshold of {threshold}")]
    Holders {
        /// The role.
        role: String,
        /// Keys.
        holders: u32,
        /// How many must sign.
        threshold: u32,
    },
    /// A payload that is no metadata of its role.
    #[error("the request's payload is no {role} metadata: {source}")]
    Payload {
        /// The role.
        role: String,
        /// What is wrong.
        source: Malformed,
    },
    /// Not the next version.
    #[error("the request is for version {offered} of {role}, and here is version {there}")]
    Version {
        /// The role.
        role: String,
        /// The newest version here.
        there: u64,
        /// The request's.
        offered: u64,
    },
    /// Expired before it was signed.
    #[error("what is requested for {role} expired at {expires}")]
    Expired {
        /// The role.
        role: String,
        /// When.
        expires: UnixSeconds,
    },
    /// Another digest was typed than the payload's.
    #[error("what was typed does not begin the digest of what would be signed")]
    Confirm,
    /// Nothing was typed.
    #[error("nobody confirmed the digest of what would be signed")]
    Unconfirmed,
    /// A key that may not sign this.
    #[error("key {key} is not a holder of {role}, neither present nor new")]
    NotNamed {
        /// The key.
        key: String,
        /// The role.
        role: String,
    },
    /// A signature over something else.
    #[error("{path} signs another payload than the request's")]
    OtherPayload {
        /// Which file.
        path: String,
    },
    /// A signature that does not verify.
    #[error("the signature in {path} is not its key's")]
    BadSignature {
        /// Which file.
        path: String,
    },
    /// Too few signers.
    #[error("{role}: {source}, counting the holders {whose} names")]
    TooFew {
        /// The role.
        role: String,
        /// Whose holders.
        whose: &'static str,
        /// The count.
        source: TooFewSignatures,
    },
    /// A device would not walk this folder.
    #[error("a device refuses the {repository} repository: {source}")]
    Walk {
        /// The repository.
        repository: RepositoryName,
        /// Why.
        source: TufError,
    },
    /// A recovery with other roots than the signer's.
    #[error(
        "the request names another newest root of the {repository} repository than this public folder has"
    )]
    OtherRoot {
        /// The repository.
        repository: RepositoryName,
    },
    /// The device would not take it.
    #[error("the device refuses the recovery: {0}")]
    Recovery(#[from] RecoveryError),
    /// The transcript was changed.
    #[error("line {line} of {path} was changed or does not follow the line before it")]
    Transcript {
        /// Which file.
        path: String,
        /// The first bad line, from 1.
        line: usize,
    },
    /// A folder that is no fleet's.
    #[error("fleet.json does not describe a fleet")]
    Fleet,
    /// A list of the device issuer that the server has.
    #[error("the control server makes the list of the active authority's device issuer")]
    ServersList,
    /// A bundle without a certificate.
    #[error("the issuer's file holds no certificate")]
    Issuer,
    /// A file that cannot be read or written.
    #[error("{path}: {what}")]
    File {
        /// Which.
        path: String,
        /// What the system says.
        what: String,
    },
    /// Keys and metadata.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// Certificates.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A revocation list.
    #[error(transparent)]
    Crl(#[from] CrlFault),
    /// A bug of ours.
    #[error("a bug in redan-ceremony")]
    Bug,
}

impl CeremonyError {
    pub(crate) fn file(path: &Path, error: &std::io::Error) -> Self {
        Self::File {
            path: path.display().to_string(),
            what: error.to_string(),
        }
    }

    /// The code.
    pub const fn code(&self) -> Code {
        match self {
            Self::Exists { .. } | Self::Version { .. } | Self::OtherRoot { .. } => Code::Conflict,
            Self::File { .. } => Code::DiskFailed,
            Self::OtherFleet => Code::WrongFleet,
            Self::Authorities(_) | Self::Step(_) => Code::AuthorityStep,
            Self::Recovery(error) => error.code(),
            Self::Payload { .. } | Self::BadSignature { .. } | Self::OtherPayload { .. } => {
                Code::MetadataInvalid
            }
            Self::Expired { .. } => Code::MetadataExpired,
            Self::TooFew { .. } => Code::ThresholdNotMet,
            Self::NotNamed { .. } | Self::Confirm | Self::Unconfirmed => Code::NotAuthorised,
            Self::Transcript { .. } => Code::DigestMismatch,
            Self::Walk { source, .. } => source.code(),
            Self::Publish(error) => error.code(),
            Self::Identity(error) => error.code(),
            Self::Crl(fault) => fault.code(),
            Self::Bug => Code::Internal,
            _ => Code::BadRequest,
        }
    }

    /// What to do.
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::Exists { .. } => "name another with --out; nothing is ever written over",
            Self::ServersList => {
                "make it there: redan crl publish; here are those of authorities that are prepared, old or tainted"
            }
            Self::Fleet => "name the public/ folder that redan-ceremony init wrote",
            Self::Issuer => {
                "name operator-issuer.pem or server-issuer.pem of the fleet's offline/ folder, or for a device issuer fleet-ca.key.pem"
            }
            Self::Publisher { .. } => "add its publisher with --publisher",
            Self::Threshold => "use --holders 3 --threshold 2, or --profile development",
            Self::PlainKeys => {
                "leave --plain-keys out; give --passphrase-file, once or for each holder, or type them"
            }
            Self::NoPassphrase => {
                "give --passphrase-file, or run at a terminal; keys that sign unattended: --plain-keys"
            }
            Self::Passphrases => {
                "give --passphrase-file once, or once for each holder, in the holders' order"
            }
            Self::NoSuchHolder { .. } => {
                "name role and holder as init does, for example release.root-1; --holders says how many there are"
            }
            Self::Mistyped => "run it again and type the same twice",
            Self::Purpose => "give --purpose as in redan-ceremony key --help",
            Self::Request { .. } => "name a file made by redan-ceremony request",
            Self::Signature { .. } => "name a file made by redan-ceremony sign",
            Self::TooLong { .. } => "check that the right file was named",
            Self::OtherFleet => {
                "use the public folder of the fleet the request is for; fleet and profile of a root never change, and its CA by `ca` alone"
            }
            Self::Authorities(_) | Self::Step(_) => Code::AuthorityStep.remedy(),
            Self::NoAuthority { .. } => {
                "read the authorities with redan-ceremony verify, and give more of one; a new one is prepared first"
            }
            Self::Online { .. } => {
                "leave it to the server; to replace its keys: redan-ceremony request revoke-online"
            }
            Self::Offline { .. } => {
                "change the holders of roles people sign with add-holder and remove-holder"
            }
            Self::Role { .. } => {
                "name root, targets, snapshot, plan, direction, policy or component.<publisher>.<workload>"
            }
            Self::NoHolder { .. } => {
                "read the key ids with redan-ceremony inspect or in the root, and give more of one"
            }
            Self::Delegated { .. } => "change its holders with add-holder and remove-holder",
            Self::Twice { .. } => "name each holder's key once: one person must never count as two",
            Self::Shared { .. } => "make a new key for one of the two: redan-ceremony key",
            Self::Holders { .. } => "name more keys, or give a lower --threshold",
            Self::Payload { .. } => "make the request again: redan-ceremony request",
            Self::Version { .. } => {
                "bring the present metadata into the public folder, then make the request again"
            }
            Self::Expired { .. } => "check this machine's clock; then make the request again",
            Self::Confirm => {
                "run inspect, compare the digest with the other signers', and type its first 8 characters; if it was right \
                 before, the request was changed on its way"
            }
            Self::Unconfirmed => "run inspect, then give the first 8 characters of the digest with --confirm",
            Self::NotNamed { .. } => "sign with a key of the role: inspect lists their ids",
            Self::OtherPayload { .. } => {
                "have its signer sign this request, or assemble the request that was signed"
            }
            Self::BadSignature { .. } => "take another copy of the file, or have its signer sign again",
            Self::OtherRoot { .. } => {
                "compare the roots: whichever side is older takes the newer ones over; then make the request again"
            }
            Self::Recovery(RecoveryError::Signatures(_)) | Self::TooFew { .. } => {
                "find the missing signature files, or have more holders sign; give each with --signature"
            }
            Self::Walk { source, .. } => match source {
                TufError::Expired { .. } => {
                    "check this machine's clock; what has expired is signed again first: request rotate"
                }
                TufError::Unavailable { .. } | TufError::Unlisted { .. } => {
                    "bring the named file into the public folder, or sign it: redan-ceremony request"
                }
                _ => "take the public folder from somebody who can verify it; do not sign on this one",
            },
            Self::Recovery(_) => {
                "take the public folder from somebody who can verify it; then make the request again"
            }
            Self::Transcript { .. } => {
                "compare it with another custodian's copy; nothing is written on until it is whole"
            }
            Self::File { .. } => {
                "check the path, that what is read is there, and that the folder written to has room and may be written"
            }
            Self::Publish(error) => error.remedy(),
            Self::Identity(error) => error.remedy(),
            Self::Crl(_) => {
                "give --previous the file that is published now, of the same kind of certificates"
            }
            Self::Bug => Code::Internal.remedy(),
        }
    }

    /// Exit code (style §5).
    pub const fn exit(&self) -> u8 {
        match self {
            Self::File { .. }
            | Self::Publish(PublishError::File { .. })
            | Self::Identity(IdentityError::File { .. }) => 3,
            Self::Bug => 70,
            Self::OtherFleet
            | Self::Authorities(_)
            | Self::Step(_)
            | Self::Twice { .. }
            | Self::Shared { .. }
            | Self::Holders { .. }
            | Self::Payload { .. }
            | Self::Version { .. }
            | Self::Expired { .. }
            | Self::Confirm
            | Self::NotNamed { .. }
            | Self::OtherPayload { .. }
            | Self::BadSignature { .. }
            | Self::TooFew { .. }
            | Self::Walk { .. }
            | Self::OtherRoot { .. }
            | Self::Recovery(_)
            | Self::Transcript { .. }
            | Self::Publish(_)
            | Self::Identity(_)
            | Self::Crl(_) => 1,
            _ => 2,
        }
    }
}
