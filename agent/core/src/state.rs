//! Where an update stands.

use crate::SetRecord;
use redan_protocol::report::Phase;
use redan_protocol::{Code, Digest};
use serde::{Deserialize, Serialize};

/// Where the update stands. Persisted: append only.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub enum State {
    /// Nothing was ever offered.
    #[default]
    Idle,
    /// A direction was read; `decide()` is asked.
    Offered,
    /// `decide()` said yes.
    Decided(Box<SetRecord>),
    /// The bytes of the member at this place of the set are on their way.
    Fetching(Box<SetRecord>, usize),
    /// All bytes are here and verified; they are compiled, linked and probed beside what runs.
    Stored(Box<SetRecord>),
    /// After a transient fault, until the next try.
    Waiting(Box<SetRecord>, Code),
    /// Every member is linked and answered its first probe well.
    Prepared(Box<SetRecord>),
    /// Serving on trial, for the n-th time.
    Trial(Box<SetRecord>, u32),
    /// The committed set serves for good.
    Committed,
    /// Going back to the committed set.
    Reverting(Box<SetRecord>, Fault),
    /// Back on the committed set.
    Reverted,
}

/// Why a set goes back, and which digests are to blame.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Why.
    pub code: Code,
    /// Digests that will not be tried again.
    pub blame: Vec<Digest>,
}

impl State {
    /// The word of the report.
    pub fn phase(&self) -> Phase {
        match self {
            Self::Idle => Phase::Idle,
            Self::Offered => Phase::Offered,
            Self::Decided(_) => Phase::Decided,
            Self::Fetching(..) => Phase::Fetching,
            Self::Stored(_) => Phase::Stored,
            Self::Waiting(..) => Phase::Waiting,
            Self::Prepared(_) => Phase::Prepared,
            Self::Trial(..) => Phase::Trial,
            Self::Committed => Phase::Committed,
            Self::Reverting(..) => Phase::Reverting,
            Self::Reverted => Phase::Reverted,
        }
    }

    /// Whether side effects follow it, so that it must be on disk first.
    pub(crate) fn announces(&self) -> bool {
        match self {
            Self::Decided(_) | Self::Stored(_) | Self::Trial(..) | Self::Reverting(..) => true,
            Self::Idle
            | Self::Offered
            | Self::Fetching(..)
            | Self::Waiting(..)
            | Self::Prepared(_)
            | Self::Committed
            | Self::Reverted => false,
        }
    }

    /// The set an update is about.
    pub(crate) fn set(&self) -> Option<&SetRecord> {
        match self {
            Self::Decided(set)
            | Self::Fetching(set, _)
            | Self::Stored(set)
            | Self::Waiting(set, _)
            | Self::Prepared(set)
            | Self::Trial(set, _)
            | Self::Reverting(set, _) => Some(set),
            Self::Idle | Self::Offered | Self::Committed | Self::Reverted => None,
        }
    }
}
