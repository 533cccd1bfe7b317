//! The check-in: the closed report out, a signed statement back. Runs beside the main loop and changes nothing; the outcome is
//! for the main loop to act on.

use crate::link::Link;
use crate::main_loop::Event;
use crate::patience::request;
use crate::refresh::Files;
use crate::session::Decided;
use bytes::Bytes;
use redan_policy::DeviceCeiling;
use redan_protocol::report::Report;
use redan_protocol::wire::{CHECKIN, CheckIn, CheckInReply, Nonce, Statement};
use redan_protocol::{ByteCount, Code, Seconds, SpiffeId, UnixSeconds, Version64};
use redan_trust::TrustRecord;
use tokio::sync::mpsc;

/// Largest answer to a check-in, bytes.
const REPLY_LEN_MAX: ByteCount = ByteCount::kib(16);

/// What a session starts with.
pub(crate) struct Session {
    pub(crate) link: Link,
    pub(crate) id: SpiffeId,
    pub(crate) nonce: Nonce,
    pub(crate) report: Report,
    /// `None`: the state is lost; nothing is adopted.
    pub(crate) record: Option<TrustRecord>,
    /// The versions of a settled direction: nothing to do while the server names the same.
    pub(crate) settled: Option<(Version64, Version64)>,
    /// How long the plan of the record is known.
    pub(crate) plan_known: Seconds,
    pub(crate) now: UnixSeconds,
    pub(crate) ceiling: DeviceCeiling,
    pub(crate) release: Files,
    pub(crate) director: Files,
    pub(crate) events: mpsc::UnboundedSender<Event>,
}

/// What came out.
pub(crate) struct Reached {
    pub(crate) interval: Seconds,
    /// `None`: nothing new.
    pub(crate) verdict: Option<Decided>,
}

impl Session {
    /// Checks in, and follows up. An error means that the server was not reached or not believed at all.
    pub(crate) async fn run(self) -> Result<Reached, Code> {
        let mut connection = self.link.open().await?;
        let check_in = CheckIn {
            nonce: self.nonce,
            report: self.report.clone(),
        };
        let body = serde_json::to_vec(&check_in).map_err(|_| Code::Internal)?;
        let headers = [("content-type", "application/json")];
        let body = Bytes::from(body);
        let response = request(&mut connection, "POST", CHECKIN, &headers, body, REPLY_LEN_MAX)
            .await
            .map_err(|error| error.code())?;
        if response.status != 200 {
            return Err(Code::Unreachable);
        }
        let reply: CheckInReply =
            serde_json::from_slice(&response.body).map_err(|_| Code::MetadataInvalid)?;
        let verdict = match &self.record {
            Some(record) if !self.nothing_new(&reply) => {
                Some(self.follow(record, &mut connection, &reply).await?)
            }
            _ => None,
        };
        Ok(Reached {
            interval: reply.interval,
            verdict,
        })
    }

    /// Whether an unverified statement names the versions we settled on. A lie only means that we look later or once more:
    /// what a liar could hold back this way he can hold back by not answering.
    fn nothing_new(&self, reply: &CheckInReply) -> bool {
        let claimed = reply.statement.get("signed").cloned();
        let claimed = claimed.and_then(|signed| serde_json::from_value::<Statement>(signed).ok());
        claimed.is_some_and(|claimed| self.settled == Some((claimed.release, claimed.director)))
    }
}
