//! The check-in: the closed report out, a signed statement back. Runs beside the main loop and changes nothing; the outcome is
//! for the main loop to act on.

use crate::clock::Proven;
use crate::enrol::refused;
use crate::link::Link;
use crate::main_loop::Event;
use crate::patience::request;
use crate::refresh::Files;
use crate::revocation::Revoked;
use crate::session::{Decided, Verdict};
use bytes::Bytes;
use redan_policy::DeviceCeiling;
use redan_protocol::report::Report;
use redan_protocol::wire::{
    CHECKIN, CHECKIN_LEN_MAX, CheckIn, CheckInReply, Nonce, Statement, Versions, padded,
};
use redan_protocol::{ByteCount, Code, Digest, Seconds, SpiffeId, UnixSeconds, Version64};
use redan_trust::TrustRecord;
use tokio::sync::mpsc;

/// Largest answer to a check-in, bytes.
const REPLY_LEN_MAX: ByteCount = ByteCount::kib(16);

/// What a session starts with.
pub(crate) struct Session {
    pub(crate) link: Link,
    pub(crate) id: SpiffeId,
    /// Keys the device has had: the one it was admitted with, and the present one.
    pub(crate) keys: Vec<Digest>,
    pub(crate) nonce: Nonce,
    pub(crate) report: Report,
    /// `None`: the state is lost; nothing is adopted.
    pub(crate) record: Option<TrustRecord>,
    /// The direction that is settled, if one is.
    pub(crate) settled: Option<Settled>,
    /// How long the plan of the record is known.
    pub(crate) plan_known: Seconds,
    /// Lower bound of the true time; moved by what the session's own handshake proves.
    pub(crate) now: UnixSeconds,
    pub(crate) proven: Proven,
    pub(crate) ceiling: DeviceCeiling,
    pub(crate) release: Files,
    pub(crate) director: Files,
    pub(crate) revoked: Revoked,
    pub(crate) events: mpsc::UnboundedSender<Event>,
}

/// A direction with which all is done: nothing to do while the server names the same versions, and these are good.
///
/// What names them is not verified, so that without the second half whoever holds the server's TLS key could hold a device back
/// for ever, with no expiry ever looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settled {
    /// Of the release and of the director repository.
    pub(crate) versions: (Version64, Version64),
    /// When the first of their files expires.
    pub(crate) until: UnixSeconds,
}

impl Settled {
    /// The versions while their files are good: what the server is told, and may say that there is nothing newer than.
    fn at(self, now: UnixSeconds) -> Option<Versions> {
        let (release, director) = self.versions;
        (now < self.until).then_some(Versions { release, director })
    }
}

/// What came out.
pub(crate) struct Reached {
    pub(crate) interval: Seconds,
    /// What time the server says it is. Good for one thing: when to renew.
    pub(crate) time: Option<UnixSeconds>,
    /// `None`: nothing new.
    pub(crate) verdict: Option<Decided>,
}

/// Why nothing came out.
pub(crate) enum Unreached {
    /// The server was not reached, or not believed at all.
    Link(Code),
    /// The server refuses this device.
    Refused(Code),
}

impl Unreached {
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Link(code) | Self::Refused(code) => *code,
        }
    }
}

impl From<Code> for Unreached {
    fn from(code: Code) -> Self {
        Self::Link(code)
    }
}

/// What an address is worth after a check-in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Heard {
    /// Something that is signed.
    Good,
    /// That there is nothing new, on its own word.
    Nothing,
    /// Nothing, a refusal, or what the device refuses: it may be true, and another address says the same then.
    Doubtful,
}

impl Heard {
    fn of(reached: &Result<Reached, Unreached>) -> Self {
        let verdict = match reached {
            Err(_) => return Self::Doubtful,
            Ok(reached) => reached.verdict.as_ref().map(|decided| &decided.verdict),
        };
        match verdict {
            None => Self::Nothing,
            Some(Verdict::Refused(_) | Verdict::Moved) => Self::Doubtful,
            Some(
                Verdict::Undirected | Verdict::Planned(_) | Verdict::Decommissioned(_) | Verdict::Rooted,
            ) => Self::Good,
        }
    }
}

impl Session {
    /// Checks in, and follows up. What it cannot follow, it asks the next address about the next time.
    pub(crate) async fn run(self) -> Result<Reached, Unreached> {
        let (link, turn) = (self.link.clone(), self.link.turn());
        let reached = self.ask().await;
        match Heard::of(&reached) {
            Heard::Good => link.proven(),
            Heard::Nothing => link.quiet(turn),
            Heard::Doubtful => link.pass(turn),
        }
        reached
    }

    async fn ask(mut self) -> Result<Reached, Unreached> {
        let mut standing = self.link.standing();
        let mut connection = self.link.open().await?;
        self.now = self.proven.now();
        let settled = self.settled.and_then(|settled| settled.at(self.now));
        let check_in = CheckIn {
            nonce: self.nonce,
            settled,
            report: self.report.clone(),
        };
        let body = padded(&check_in, CHECKIN_LEN_MAX).ok_or(Code::Internal)?;
        let headers = [("content-type", "application/json")];
        let body = Bytes::from(body);
        let response = request(&mut connection, "POST", CHECKIN, &headers, body, REPLY_LEN_MAX)
            .await
            .map_err(|error| error.code())?;
        if response.status != 200 {
            let code = refused(&response).code();
            // The server says so; whether it is so, the policy signers say.
            if code == Code::Decommissioned
                && let Some(record) = &self.record
                && let Some(verdict) = self.last_order(record, &mut connection).await
            {
                return Ok(Reached {
                    interval: Seconds::default(),
                    time: None,
                    verdict: Some(verdict),
                });
            }
            return Err(Unreached::Refused(code));
        }
        let reply: CheckInReply =
            serde_json::from_slice(&response.body).map_err(|_| Code::MetadataInvalid)?;
        let claimed = claimed(&reply);
        let verdict = match &self.record {
            Some(record) if !nothing_new(settled, claimed.as_ref()) => Some(
                self.follow(record, (&mut connection, &mut standing), &reply)
                    .await?,
            ),
            _ => None,
        };
        Ok(Reached {
            interval: reply.interval,
            time: claimed.map(|claimed| claimed.time),
            verdict,
        })
    }
}

/// Whether an unverified statement names the versions we settled on: the one thing it is good for. A lie only means that we look once
/// more, or later: when what we settled on expires.
fn nothing_new(settled: Option<Versions>, claimed: Option<&Statement>) -> bool {
    settled.is_some() && settled == claimed.map(Statement::versions)
}

/// The statement before its signature was checked: what the connection's other end says.
fn claimed(reply: &CheckInReply) -> Option<Statement> {
    serde_json::from_value(reply.statement.get("signed")?.clone()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use redan_protocol::wire::StatementKind;

    fn versions(release: u64, director: u64) -> Versions {
        let [release, director] = [release, director].map(Version64::new);
        Versions { release, director }
    }

    /// The attacker holds the server's TLS key and nothing that signs: it repeats the versions the device settled on.
    #[test]
    fn a_settled_direction_is_looked_at_again_when_its_metadata_expires() {
        let [at, before] = [100, 99].map(UnixSeconds::new);
        let settled = Settled {
            versions: (Version64::new(3), Version64::new(4)),
            until: at,
        };
        assert_eq!(settled.at(before), Some(versions(3, 4)));
        assert_eq!(settled.at(at), None);
    }

    /// The attacker is whoever answers: without a signature it may confirm what the device has done all with, and nothing else.
    #[test]
    fn whoever_signs_nothing_can_only_say_that_there_is_nothing_new() {
        let claimed = |release, director| Statement {
            kind: StatementKind::TimeStatement,
            device: SpiffeId::parse("spiffe://plant.example/device/press-1").unwrap(),
            nonce: Nonce([0; 16]),
            time: UnixSeconds::new(8),
            release: Version64::new(release),
            director: Version64::new(director),
        };
        let settled = Some(versions(3, 4));
        assert!(nothing_new(settled, Some(&claimed(3, 4))), "positive control");
        for (settled, claimed) in [
            (settled, Some(claimed(2, 4))),
            (settled, Some(claimed(3, 5))),
            (settled, None),
            (None, Some(claimed(3, 4))),
            (None, None),
        ] {
            assert!(!nothing_new(settled, claimed.as_ref()), "{settled:?} {claimed:?}");
        }
    }
}
