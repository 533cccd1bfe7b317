//! Landlock, seccomp, resource limits and re-execution: the `unsafe` before exec.
//!
//! What it is: how the supervisor starts its children ([`spawn()`]), how a child takes the descriptors it inherited
//! ([`inherited`]), and how each kind of process gives up what it does not need ([`confine()`]).
//!
//! Whom it believes: the kernel. What the kernel lacks is reported in [`Isolation`], never hidden.
//!
//! Invariants: confinement is applied before the process has a second thread or has read anything from a peer; a
//! descriptor number becomes an `OwnedFd` at most once.
//!
//! Absent on purpose: policy, paths of its own choosing, a way to undo.
//!
//! Start reading at [`confine()`].
// The one crate beside `runtime/sealed` that may: `pre_exec`, `from_raw_fd`, `prctl`, `mlockall` and `setresuid` have no safe form.
#![allow(unsafe_code, reason = "argued at each block")]

pub mod confine;
mod filter;
mod privileges;
pub mod spawn;

pub use confine::{Folders, Kind, Lent, confine, deny_sockets, keep_out_of_swap};
pub use privileges::may_give_users;
pub use redan_protocol::report::Isolation;
pub use spawn::{Child, Spec, inherited, reserve, spawn};

/// Why a process could not be started or confined.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum JailError {
    /// The descriptor is not open, or was taken before.
    #[error("descriptor {0} was not inherited, or was taken before")]
    Descriptor(i32),
    /// A system call failed.
    #[error("{what} failed: {}", std::io::Error::from_raw_os_error(*.errno))]
    System {
        /// Which.
        what: &'static str,
        /// The error number.
        errno: i32,
    },
}

pub(crate) fn last(what: &'static str) -> JailError {
    JailError::System {
        what,
        errno: std::io::Error::last_os_error().raw_os_error().unwrap_or(0),
    }
}
