//! Keys in PKCS#11 tokens: named by a `pkcs11:` URI (RFC 7512), made there, and never taken out.
//!
//! What it is: the one place that talks to a token. Signing keys of `redan-publish` (ed25519) and identities of `redan-identity`
//! (P-256) are both [`Key`]s; each crate says what the signature is for.
//!
//! Whom it believes: the module it was told to load, which runs inside this process with all its rights. The token it believes
//! nothing about a signature: each is verified under the public key before it is given away.
//!
//! Invariants: a key that the token would hand out is never used (decision 13); a PIN comes from a file of mode 0600 or from a
//! person, and one that was refused is not tried again by this process, because the token counts; a session that was lost is opened
//! again once.
//!
//! Absent on purpose: importing keys, copying keys, PINs in arguments or the environment, a search path for modules.
//!
//! Start reading at [`Key`].
#![forbid(unsafe_code)]

mod error;
mod key;
mod module;
mod pin;
mod uri;

pub use error::{Fault, TokenError};
pub use key::{Key, Kind};
pub use pin::Pin;
pub use uri::Uri;
