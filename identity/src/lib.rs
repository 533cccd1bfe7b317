//! SPIFFE identities, the certificate profile, EST bodies, keys, and the only platform TLS set-up.
//!
//! What it is: everything between a private key and "this connection is press-7 of fleet plant.example". Shared by control,
//! agent, ceremony and command line, so that issuer and verifier cannot drift.
//!
//! Whom it believes: the root certificates of the fleet at hand that its root custodians list ([`Anchors`], usually one), and whom
//! each leads to by a chain of exactly one issuer that follows the profile. Not the common name, not the wall clock of a device.
//!
//! Invariants: a [`VerifiedIdentity`] comes out of [`profile::check`] only; TLS is 1.3 with both sides authenticated and never
//! resumed; a key file is readable by its owner alone.
//!
//! Absent on purpose: sockets (the caller dials), TLS 1.2, session tickets, OCSP, plain HTTP.
//!
//! Start reading at [`profile`], then [`tls`].
#![forbid(unsafe_code)]

pub mod anchor;
pub mod anchors;
pub mod ca;
pub mod client;
pub mod crl;
pub mod error;
pub mod est;
pub mod join;
pub mod key;
pub mod pem;
pub mod profile;
pub mod tls;

pub use anchor::FleetAnchor;
pub use anchors::Anchors;
pub use ca::{FleetCa, Issuer};
pub use error::{IdentityError, ProfileFault};
pub use key::{KeyFile, KeyProvider, TokenKey, TpmKey};
pub use profile::{IssuerKind, VerifiedIdentity};
pub use redan_token::{Pin, TokenError, Uri as TokenUri};
pub use redan_tpm as tpm;
pub use rustls::pki_types::CertificateDer;
pub use tls::Peer;
pub use zeroize::Zeroizing;
