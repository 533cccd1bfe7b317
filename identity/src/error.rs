//! What can be wrong with an identity.

use redan_protocol::{Code, Digest, FleetId, NameError, SpiffeId, UnixSeconds};
use redan_token::TokenError;
use redan_tpm::TpmError;

/// Why a key, a certificate or a request is not taken.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum IdentityError {
    /// The certificate breaks a line of the fleet's profile.
    #[error("the certificate does not follow the fleet's profile: {0}")]
    Profile(#[from] ProfileFault),
    /// The certificate's issuer breaks it.
    #[error("the certificate's issuer does not follow the fleet's profile: {0}")]
    Issuer(ProfileFault),
    /// The fleet's root certificate breaks it, or is not signed by its own key.
    #[error("the fleet's root certificate does not follow the profile: {0}")]
    Root(ProfileFault),
    /// A key that is not the one in the certificate.
    #[error("the private key is not the certificate's")]
    KeyMismatch,
    /// The chain does not end in this fleet's root.
    #[error("the certificate's chain does not end in the root of fleet {fleet}")]
    Foreign {
        /// The fleet whose root it should end in.
        fleet: FleetId,
    },
    /// The chain ends in an authority that the fleet's root custodians revoked.
    #[error("authority {authority} of fleet {fleet}, which the certificate is under, was revoked")]
    Revoked {
        /// The fleet.
        fleet: FleetId,
        /// SHA-256 of the authority's certificate.
        authority: Digest,
    },
    /// Two authorities with one key.
    #[error("two authorities of the fleet have the same key")]
    SameKey,
    /// The trust domain is another fleet's.
    #[error("{found} is not of fleet {fleet}")]
    WrongFleet {
        /// The fleet whose root signed it.
        fleet: FleetId,
        /// Whom it names.
        found: SpiffeId,
    },
    /// Not valid now.
    #[error("the certificate is valid from {from} to {to}, it is {now}")]
    NotNow {
        /// First second.
        from: UnixSeconds,
        /// Last second.
        to: UnixSeconds,
        /// Now.
        now: UnixSeconds,
    },
    /// On the revocation list of its issuer.
    #[error("the certificate is on its issuer's revocation list")]
    TakenBack,
    /// Bytes that are not what they should be.
    #[error("{what} does not parse")]
    Malformed {
        /// What it should be.
        what: &'static str,
    },
    /// A certificate request whose signature or key is wrong.
    #[error("the certificate request is not signed by its own P-256 key")]
    Csr,
    /// A key file others can read.
    #[error("{path} can be read by others (mode {mode:o})")]
    KeyMode {
        /// The file.
        path: String,
        /// Its mode.
        mode: u32,
    },
    /// A file that cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// What the system says.
        source: FileFault,
    },
    /// A key in a token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// A key of a TPM.
    #[error(transparent)]
    Tpm(#[from] TpmError),
    /// The cryptographic library refused: a bug or a broken machine.
    #[error("the cryptographic library failed while {doing}")]
    Crypto {
        /// What it was doing.
        doing: &'static str,
    },
}

/// A system error that compares.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{}", std::io::Error::from_raw_os_error(*.0))]
pub struct FileFault(pub i32);

impl FileFault {
    /// No room on the disk, or in its owner's part of it: `ENOSPC`, `EDQUOT` (errno(3)).
    const fn is_full(self) -> bool {
        matches!(self.0, 28 | 122)
    }
}

impl From<&std::io::Error> for FileFault {
    fn from(error: &std::io::Error) -> Self {
        Self(error.raw_os_error().unwrap_or(0))
    }
}

/// Which line of the profile (20-identity).
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ProfileFault {
    /// Leaf and one issuer, no more, no less.
    #[error("the chain is not a leaf and one issuer")]
    ChainLength,
    /// Not X.509 version 3.
    #[error("it is not version 3")]
    Version,
    /// Basic constraints.
    #[error("basic constraints are missing or wrong")]
    BasicConstraints,
    /// Key usage.
    #[error("key usage is not exactly what the profile says")]
    KeyUsage,
    /// Extended key usage.
    #[error("extended key usage is not exactly what the profile says")]
    ExtendedKeyUsage,
    /// Not exactly one URI name.
    #[error("it has not exactly one URI name")]
    UriCount,
    /// The URI name is no SPIFFE ID of the wanted kind.
    #[error("its URI name is not a SPIFFE ID of the wanted kind")]
    Uri,
    /// The DNS names are not those of the SPIFFE ID.
    #[error("its DNS names are not those of its SPIFFE ID")]
    DnsNames,
    /// Names of another kind.
    #[error("it has names of a kind the profile does not know")]
    OtherNames,
    /// The key's algorithm.
    #[error("its key is not of an allowed algorithm")]
    KeyAlgorithm,
    /// Longer valid than allowed or than its issuer, or not at all.
    #[error("its lifetime is not within the profile")]
    Lifetime,
    /// Serial number.
    #[error("its serial number is not positive with 8 to 20 bytes")]
    Serial,
    /// Not signed by the key it should be.
    #[error("its signature is not by the key it should be by")]
    Signature,
    /// The one permitted DNS subtree of an issuer.
    #[error("its name constraint is not the one of this kind of issuer")]
    NameConstraint,
    /// Subject and authority key identifier.
    #[error("its key identifiers are missing, or not its issuer's")]
    KeyIdentifiers,
    /// An extension that must be understood is not marked so.
    #[error("an extension is not critical that must be")]
    NotCritical,
    /// An extension the profile does not know.
    #[error("it has an extension the profile does not know")]
    UnknownExtension,
}

impl IdentityError {
    /// The code of the refusal.
    pub const fn code(&self) -> Code {
        match self {
            Self::Profile(_)
            | Self::Issuer(_)
            | Self::Root(_)
            | Self::KeyMismatch
            | Self::SameKey
            | Self::Malformed { .. } => Code::CertificateProfile,
            Self::Revoked { .. } => Code::AuthorityRevoked,
            Self::Foreign { .. } | Self::WrongFleet { .. } => Code::ForeignCertificate,
            Self::NotNow { .. } => Code::CertificateExpired,
            Self::TakenBack => Code::CertificateRevoked,
            Self::Csr => Code::CsrInvalid,
            Self::File { source, .. } if source.is_full() => Code::DiskFull,
            Self::KeyMode { .. } | Self::File { .. } => Code::DiskFailed,
            Self::Token(error) => error.code(),
            Self::Tpm(error) => error.code(),
            Self::Crypto { .. } => Code::Internal,
        }
    }

    /// What to do.
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::KeyMismatch => "keep a key together with the certificate that was issued for it",
            Self::KeyMode { .. } => "make the file readable by its owner alone: chmod 600",
            Self::File { source, .. } if source.is_full() => Code::DiskFull.remedy(),
            Self::File { .. } => "check that the file exists and may be read or written",
            Self::Token(error) => error.remedy(),
            Self::Tpm(error) => error.remedy(),
            other => other.code().remedy(),
        }
    }
}

impl From<NameError> for IdentityError {
    fn from(_: NameError) -> Self {
        Self::Profile(ProfileFault::Uri)
    }
}
