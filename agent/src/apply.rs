//! A bundle that somebody at the device hands over: judged like everything else, answered to who brought it.

use crate::bundle::Bundle;
use crate::carried::Carried;
use crate::main_loop::{Agent, Event};
use crate::session::{Decided, Verdict};
use crate::status::Applied;
use crate::trust::Trust;
use redan_protocol::{Code, DirectionSequence};
use tokio::sync::oneshot;

impl Agent {
    /// One at a time, and not while a session writes the same metadata.
    pub(crate) fn apply_if_asked(&mut self) {
        if self.asking() {
            return;
        }
        let Some((folder, asked)) = self.bundles.pop_front() else {
            return;
        };
        self.find_trust();
        let Some(record) = self.trust.as_ref().map(Trust::record) else {
            asked.send(refused(Code::StateLost)).ok();
            return;
        };
        let carried = Carried {
            bundle: Bundle::new(folder),
            id: self.id.clone(),
            record,
            plan_known: self.trust.as_ref().map(Trust::plan_known).unwrap_or_default(),
            now: self.proven.now(),
            ceiling: self.ceiling.clone(),
            release: self.release.clone(),
            blobs: self.around.native.blobs.clone(),
            revoked: self.revoked.clone(),
            versions: self.versions,
            events: self.around.events.clone(),
        };
        self.running = true;
        let events = self.around.events.clone();
        tokio::task::spawn_local(async move {
            let decided = carried.run().await;
            drop(events.send(Event::Carried(Box::new(decided), asked)));
        });
    }

    /// Follows it, or says why not; who asked may have left.
    pub(crate) fn carried(&mut self, decided: Decided, asked: oneshot::Sender<Applied>) {
        self.running = false;
        let sequence = decided.sequence.unwrap_or_default();
        let applied = match &decided.verdict {
            Verdict::Planned(_) => {
                self.carried = self.carried.max(sequence);
                Applied {
                    direction: sequence,
                    refusal: None,
                }
            }
            Verdict::Refused(code) => Applied {
                direction: sequence,
                refusal: Some(*code),
            },
            Verdict::Rooted => Applied {
                direction: sequence,
                refusal: None,
            },
            // Said by a server only; orders of the policy signers are looked for in its metadata.
            Verdict::Undirected | Verdict::Moved | Verdict::Decommissioned(_) => refused(Code::Internal),
        };
        // A stick that is refused ends nothing that is under way; its plan counts as seen from now on.
        if matches!(decided.verdict, Verdict::Rooted) {
            // A direction that is under way is another matter; with another authority the server may be reached.
            self.cadence.soon();
        } else if applied.refusal.is_none() {
            self.decided(decided);
        } else if let Some(trust) = &mut self.trust {
            trust.plan(decided.plan);
            trust.save_if_due();
        }
        asked.send(applied).ok();
    }
}

fn refused(code: Code) -> Applied {
    Applied {
        direction: DirectionSequence::default(),
        refusal: Some(code),
    }
}
