//! Errors of the server: problem documents for requests (RFC 9457), plain words for whoever starts it.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use redan_identity::IdentityError;
use redan_protocol::wire::Problem;
use redan_protocol::{Code, Digest, Seconds};
use redan_publish::PublishError;
use std::path::Path;

/// How long whoever was told to come again should wait, when nothing says better: longer than a lock is held, shorter than devices'
/// back-off.
const RETRY_AFTER: Seconds = Seconds::new(10);

/// Why a request is refused. The code says which rule; the detail is for operators only.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refused {
    /// Which rule.
    pub code: Code,
    /// More, for operators.
    pub detail: Option<String>,
    /// When to come again, if that is known.
    pub wait: Option<Seconds>,
}

impl Refused {
    /// A refusal that says no more than its code.
    pub fn plain(code: Code) -> Self {
        let (detail, wait) = (None, None);
        Self { code, detail, wait }
    }

    /// A refusal for now: it would be another answer after this time.
    pub fn later(code: Code, wait: Seconds) -> Self {
        let wait = Some(wait);
        Self {
            wait,
            ..Self::plain(code)
        }
    }

    /// A refusal that explains itself to an operator.
    pub fn because(code: Code, detail: impl Into<String>) -> Self {
        let detail = Some(detail.into());
        Self {
            detail,
            ..Self::plain(code)
        }
    }

    fn status(&self) -> StatusCode {
        match self.code {
            Code::NotFound | Code::ArtifactMissing => StatusCode::NOT_FOUND,
            Code::TooLarge | Code::ComponentTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Code::WrongMethod => StatusCode::METHOD_NOT_ALLOWED,
            Code::WrongContentType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Code::RangeInvalid => StatusCode::RANGE_NOT_SATISFIABLE,
            Code::Overloaded | Code::IssuingPaced | Code::StoreFailed => StatusCode::SERVICE_UNAVAILABLE,
            Code::Conflict | Code::WrongState => StatusCode::CONFLICT,
            Code::MisdirectedRequest => StatusCode::MISDIRECTED_REQUEST,
            Code::NotAuthorised
            | Code::CertificateRevoked
            | Code::CertificateExpired
            | Code::RenewalTooLate
            | Code::KeySuperseded
            | Code::Decommissioned
            | Code::NotAdmitted
            | Code::OwnRollout
            | Code::OwnAccount
            | Code::QuotaReached
            | Code::TokenInvalid
            | Code::TokenExpired
            | Code::TokenUsedUp
            | Code::TokenRevoked
            | Code::NameRefused
            | Code::VoucherInvalid => StatusCode::FORBIDDEN,
            Code::Internal | Code::DiskFailed | Code::DiskFull => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = self.status();
        let problem = Problem {
            kind: format!("urn:redan:code:{}", self.code.name()),
            title: self.code.name().to_owned(),
            status: status.as_u16(),
            code: self.code,
            detail: self.detail,
            remedy: self.code.remedy().to_owned(),
        };
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let kind = HeaderValue::from_static("application/problem+json");
        let mut response = (status, [(header::CONTENT_TYPE, kind)], body).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            let wait = self.wait.unwrap_or(RETRY_AFTER).get();
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(wait));
        }
        response
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "the store failed");
        Self::plain(match error {
            // Nothing was changed, and it may be over soon: a disk that is full, a lock that somebody else holds.
            StoreError::Database(_) | StoreError::Artifacts(_) => Code::StoreFailed,
            StoreError::Document { .. } => Code::Internal,
        })
    }
}

impl From<PublishError> for Refused {
    fn from(error: PublishError) -> Self {
        Self::because(error.code(), error.to_string())
    }
}

impl From<IdentityError> for Refused {
    fn from(error: IdentityError) -> Self {
        Self::because(error.code(), error.to_string())
    }
}

/// The database or the artifact store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
    /// The artifacts.
    #[error("the artifact store failed: {0}")]
    Artifacts(#[from] object_store::Error),
    /// A stored document does not read back.
    #[error("the stored {kind} {id} does not read back")]
    Document {
        /// Its kind.
        kind: &'static str,
        /// Its id.
        id: String,
    },
}

/// Why the server does not start, or stops.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The configuration.
    #[error("{path}: {what}")]
    Config {
        /// The file.
        path: String,
        /// What is wrong, with the line.
        what: String,
    },
    /// A file that cannot be read or written.
    #[error("{path}: {what}")]
    File {
        /// The file.
        path: String,
        /// What the system says.
        what: String,
    },
    /// The address.
    #[error("cannot listen on {address}: {what}")]
    Listen {
        /// Which.
        address: std::net::SocketAddr,
        /// What the system says.
        what: String,
    },
    /// The fleet is registered already.
    #[error("fleet {0} is registered already")]
    FleetExists(String),
    /// A fleet that is not registered here.
    #[error("fleet {0} is not registered with this server")]
    NoSuchFleet(String),
    /// No fleet.
    #[error("no fleet is registered with this server")]
    NoFleet,
    /// A key the server must never hold.
    #[error("{path} is a key of {role}, which signs offline; this server must not hold it")]
    OfflineKey {
        /// The file.
        path: String,
        /// The role.
        role: String,
    },
    /// A file in the folder of online keys that the server has no use for.
    #[error("{path} is no key this server needs; it holds those and nothing else")]
    StrayKey {
        /// The file.
        path: String,
    },
    /// A key the fleet's root does not name for what the server would sign with it.
    #[error("{path} is not the key that the fleet's root names for {role}")]
    WrongKey {
        /// The file.
        path: String,
        /// The role.
        role: String,
    },
    /// A certificate under an authority that issues nothing now.
    #[error("{path} is under authority {authority}, which is not the active one")]
    Inactive {
        /// The file.
        path: String,
        /// SHA-256 of the authority's certificate.
        authority: Digest,
    },
    /// A root of another fleet, or with another certificate authority.
    #[error("the {repository} root is not of this fleet and its certificate authority")]
    OtherFleet {
        /// `release` or `director`.
        repository: &'static str,
    },
    /// A file that has another content here under the same name.
    #[error("{path} is not what this server has under that name")]
    Differs {
        /// The file.
        path: String,
    },
    /// Nothing that is not here already.
    #[error("the server has every key and root that is in {folder}")]
    NothingNew {
        /// The ceremony's public folder.
        folder: String,
    },
    /// Roots that devices would not take.
    #[error("{path}: {what}")]
    Unwalkable {
        /// The folder.
        path: String,
        /// Which rule.
        code: Code,
        /// What is wrong.
        what: String,
    },
    /// Somebody else replaces keys of the same fleet now.
    #[error("keys of fleet {0} are being replaced by another process")]
    Busy(String),
    /// Another server on the same folder.
    #[error("a server runs on {state} already")]
    Running {
        /// The state folder.
        state: String,
    },
    /// A running server that could not be told.
    #[error("the server that runs on {state} could not be told")]
    Untold {
        /// The state folder.
        state: String,
    },
    /// A running server that goes on with what it had.
    #[error("the running server goes on with the keys it had: {what}")]
    NotTaken {
        /// Which rule.
        code: Code,
        /// What it says.
        what: String,
    },
    /// Keys and metadata.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// Certificates.
    #[error("{path}: {source}")]
    Identity {
        /// The file.
        path: String,
        /// What is wrong.
        source: IdentityError,
    },
    /// Metadata that does not verify.
    #[error("the fleet's metadata does not verify: {0}")]
    Metadata(#[from] redan_trust::TufError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ServerError {
    pub(crate) fn file(path: &Path, error: &std::io::Error) -> Self {
        Self::File {
            path: path.display().to_string(),
            what: error.to_string(),
        }
    }

    /// The code.
    pub const fn code(&self) -> Code {
        match self {
            Self::Config { .. } => Code::BadRequest,
            Self::File { .. } | Self::Store(_) => Code::DiskFailed,
            Self::Listen { .. } | Self::Untold { .. } => Code::Unreachable,
            Self::FleetExists(_)
            | Self::Differs { .. }
            | Self::NothingNew { .. }
            | Self::Busy(_)
            | Self::Running { .. } => Code::Conflict,
            Self::Unwalkable { code, .. } | Self::NotTaken { code, .. } => *code,
            Self::NoFleet | Self::NoSuchFleet(_) => Code::NotFound,
            Self::OfflineKey { .. } | Self::StrayKey { .. } | Self::WrongKey { .. } => Code::NotAuthorised,
            Self::OtherFleet { .. } => Code::WrongFleet,
            Self::Inactive { .. } => Code::AuthorityInactive,
            Self::Publish(error) => error.code(),
            Self::Identity { source, .. } => source.code(),
            Self::Metadata(error) => error.code(),
        }
    }

    /// What to do.
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::Config { .. } => "correct the named line; docs/control.md lists every key",
            Self::File { .. } => "check that the file exists and may be read or written",
            Self::Listen { .. } => {
                "stop the program that listens there, or name another address with `listen`"
            }
            Self::FleetExists(_) => "a fleet is registered once; to start over, name another `state` folder",
            Self::NoSuchFleet(_) => "the registered ones are the folders below fleets/ of the `state` folder",
            Self::NoFleet => "register one: redan-control fleet add --config … --online … --public …",
            Self::OfflineKey { .. } => {
                "take the key off this machine; if it has been here, replace it in a ceremony"
            }
            Self::StrayKey { .. } => {
                "take the file off this machine; the ceremony's online/ folder has what is needed"
            }
            Self::WrongKey { .. } | Self::OtherFleet { .. } => {
                "take online/ and public/ from one and the same ceremony"
            }
            Self::Inactive { .. } => Code::AuthorityInactive.remedy(),
            Self::Differs { .. } => {
                "take public/ from the fleet's own custodians; what was signed under a version never changes"
            }
            Self::NothingNew { .. } => "name the folders that the ceremony wrote the new keys and roots to",
            Self::Unwalkable { .. } => {
                "verify the folder with redan-ceremony verify; take the roots of both repositories"
            }
            Self::Busy(_) => "wait until the other process ends",
            Self::Running { .. } => "stop that server, or name another `state` folder",
            Self::Untold { .. } => "the files are in place: send the server SIGHUP, or restart it",
            Self::NotTaken { .. } => {
                "the files are in place: correct what is named, then send the server SIGHUP"
            }
            Self::Publish(error) => error.remedy(),
            Self::Identity { source, .. } => source.remedy(),
            Self::Metadata(error) => error.code().remedy(),
            Self::Store(_) => "check the state folder's disk: space, permissions, health",
        }
    }

    /// Exit code (style §5).
    pub const fn exit(&self) -> u8 {
        match self {
            Self::Config { .. }
            | Self::FleetExists(_)
            | Self::NoFleet
            | Self::NoSuchFleet(_)
            | Self::NothingNew { .. }
            | Self::Busy(_)
            | Self::Running { .. } => 2,
            Self::File { .. }
            | Self::Listen { .. }
            | Self::Untold { .. }
            | Self::Store(_)
            | Self::Publish(PublishError::File { .. }) => 3,
            Self::OfflineKey { .. }
            | Self::StrayKey { .. }
            | Self::WrongKey { .. }
            | Self::OtherFleet { .. }
            | Self::Inactive { .. }
            | Self::Differs { .. }
            | Self::Unwalkable { .. }
            | Self::NotTaken { .. }
            | Self::Publish(_)
            | Self::Identity { .. }
            | Self::Metadata(_) => 1,
        }
    }
}
