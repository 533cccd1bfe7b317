//! How fast this server signs certificates (attack E06): so many in a minute for devices that enrol, half of them for one token, voucher or
//! operator, and as a share of their own so many for devices that renew.
//!
//! Asked last, right before the signature: whoever would be refused for another reason takes nothing from anybody. An address is no source
//! here: it proves nothing, a whole hall has one, and none gets this far without a token's secret, an admitted key or a certificate.

use crate::config::FleetSettings;
use crate::error::Refused;
use crate::fleet::{Fleet, State};
use redan_control_core::Pace;
use redan_protocol::audit::Action;
use redan_protocol::join::TokenId;
use redan_protocol::{Code, DeviceId, Digest, OperatorName, Seconds, UnixSeconds};
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The audit log is told no more often than this that certificates were asked for too fast; each time is counted.
const AUDITED_EVERY: Seconds = Seconds::new(3_600);

/// Which share a certificate is from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// A device that enrols.
    Enrolment,
    /// A device that has enrolled.
    Renewal,
}

/// By whose doing a certificate is signed.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub(crate) enum Source {
    /// Who has this token's secret.
    Token(TokenId),
    /// Who has a key that was admitted.
    Key(Digest),
    /// An operator who has certificates made for devices without a network.
    Operator(OperatorName),
    /// A device.
    Device(DeviceId),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(token) => write!(f, "token {token}"),
            Self::Key(spki) => write!(f, "key {spki}"),
            Self::Operator(name) => write!(f, "operator {name}"),
            Self::Device(device) => write!(f, "device {device}"),
        }
    }
}

/// What was signed of late.
#[derive(Debug)]
pub(crate) struct Issuing {
    began: Instant,
    shares: Mutex<Shares>,
}

#[derive(Debug)]
struct Shares {
    enrolments: Pace<Source>,
    renewals: Pace<Source>,
    refused: u64,
    /// When the audit log was last told, of enrolments and of renewals.
    told: [Option<UnixSeconds>; 2],
}

/// How long to wait, and whether the audit log is due.
#[derive(Debug)]
struct Wait {
    wait: Duration,
    tell: bool,
}

impl Issuing {
    pub(crate) fn new(settings: &FleetSettings) -> Self {
        Self {
            began: Instant::now(),
            shares: Mutex::new(Shares {
                enrolments: Pace::new(settings.enrolments_per_minute_max),
                renewals: Pace::new(settings.renewals_per_minute_max),
                refused: 0,
                told: [None, None],
            }),
        }
    }

    /// How often somebody was told to wait, since the start.
    pub(crate) fn refused(&self) -> u64 {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner).refused
    }

    fn take(&self, kind: Kind, source: Source, now: UnixSeconds) -> Result<(), Wait> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        let Shares {
            enrolments,
            renewals,
            refused,
            told: [of_enrolments, of_renewals],
        } = &mut *shares;
        let (pace, told) = match kind {
            Kind::Enrolment => (enrolments, of_enrolments),
            Kind::Renewal => (renewals, of_renewals),
        };
        // Not the wall clock, which may be set back.
        let wait = match pace.take(source, self.began.elapsed()) {
            Ok(()) => return Ok(()),
            Err(wait) => wait,
        };
        *refused = refused.saturating_add(1);
        let tell = told.is_none_or(|told| now >= told.after(AUDITED_EVERY));
        if tell {
            *told = Some(now);
        }
        Err(Wait { wait, tell })
    }
}

impl Fleet {
    /// One certificate of a share, for a source; if there is none now, whoever asked is told when.
    pub(crate) async fn paced(
        &self,
        state: &mut State,
        (kind, source): (Kind, Source),
        who: &str,
        now: UnixSeconds,
    ) -> Result<(), Refused> {
        let told = source.to_string();
        let Err(Wait { wait, tell }) = self.issuing.take(kind, source, now) else {
            return Ok(());
        };
        if tell {
            tracing::warn!(fleet = %self.id, source = told, ?kind, "certificates are asked for faster than they are signed");
            let action = (Action::IssuingPaced, told);
            self.commit(state, now, who, Vec::new(), &[action]).await?;
        }
        // Up, and never zero: who comes a moment early comes for nothing.
        let seconds = wait.as_secs().saturating_add(1);
        Err(Refused::later(Code::IssuingPaced, Seconds::new(seconds)))
    }
}
