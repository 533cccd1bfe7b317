//! The life of this device's certificate: when a new one is due, how it is got, and what happens when that fails
//! (20-identity, life of a certificate).
//!
//! A renewal never stops what runs: it is a task beside the main loop, and the link presents the new certificate from the next
//! connection on. No check-in is made between the moment the new key speaks for the first time and the moment its answer is
//! known.

use crate::AgentError;
use crate::again::{wait, wait_named_by};
use crate::authorities::{Believed, Listed};
use crate::clock::Proven;
use crate::disk::RealDisk;
use crate::enrol::{refused, request};
use crate::held::Tokens;
use crate::link::Link;
use crate::main_loop::{Agent, Event};
use crate::next::{self, Next};
use crate::patience;
use crate::store::{Identity, random};
use bytes::Bytes;
use redan_identity::{KeyProvider as _, est, tls};
use redan_protocol::wire::{EST_CACERTS, EST_ENROLL, EST_REENROLL, enrol_host};
use redan_protocol::{AuthorityState, ByteCount, Code, Digest, UnixSeconds};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::Instant;

/// The shortest time between two renewals that succeed: at half of its life a certificate has days left.
const RENEWED_FOR: Duration = Duration::from_hours(1);
/// Largest answer to the first request of a new key, bytes: the fleet's root.
const ANSWER_LEN_MAX: ByteCount = ByteCount::kib(64);

/// Where the device stands with its certificate.
pub(crate) struct Renewal {
    pub(crate) identity: Rc<Identity>,
    /// A new one is due or under way.
    pub(crate) pending: bool,
    pub(crate) running: bool,
    /// The authority of the present certificate is believed no more, here or by the server: only the key is left to speak for the device.
    reissue: bool,
    pub(crate) failures: u32,
    /// Why the last try failed.
    pub(crate) failed: Option<Code>,
    next: Instant,
}

/// Why there is no new certificate yet.
pub(crate) type Outcome = Result<Identity, AgentError>;

impl Renewal {
    /// `begun`: an earlier start of the agent was in the middle of a renewal.
    pub(crate) fn new(identity: Identity, begun: bool) -> Self {
        let reissue = identity.authority.is_none();
        let tainted = identity.authority_state() == Some(AuthorityState::Tainted);
        Self {
            identity: Rc::new(identity),
            pending: begun || reissue || tainted,
            reissue,
            running: false,
            failures: 0,
            failed: None,
            next: Instant::now(),
        }
    }

    /// When to try next; `None`: no renewal waits for a time.
    pub(crate) fn next(&self) -> Option<Instant> {
        (self.pending && !self.running).then_some(self.next)
    }

    /// The server's clock, which is the one that judges this certificate, says what time it is. A lie makes a renewal early or
    /// late, and the liar could issue or refuse as well.
    pub(crate) fn told(&mut self, time: UnixSeconds) {
        let leaf = self.identity.chain.first();
        let spread = leaf.map_or(0, |leaf| spread(Digest::of(leaf)));
        self.pending |= time >= due(self.identity.valid, spread);
    }

    /// The server refuses this certificate for its age.
    pub(crate) fn expired(&mut self) {
        self.pending = true;
    }

    /// The server believes the authority of this certificate no more. It is asked for another by its other name, where the key alone
    /// speaks: a server that says so falsely, and is one, could as well refuse everything.
    pub(crate) fn revoked(&mut self) {
        self.pending = true;
        self.reissue = true;
    }

    /// The fleet's authorities changed. A certificate under one that is tainted, or gone, is replaced at once.
    pub(crate) fn believe(&mut self, believed: Believed) {
        let under = Self::new(self.identity.under(believed), false);
        self.identity = under.identity;
        self.reissue = under.reissue;
        if under.pending {
            self.pending = true;
            self.failures = 0;
            self.next = Instant::now();
        }
    }

    fn succeeded(&mut self, identity: Identity, now: Instant) {
        *self = Self::new(identity, false);
        self.next = now.checked_add(RENEWED_FOR).unwrap_or(now);
    }

    /// `named`: how long the server asks for.
    fn failed(&mut self, (code, named): (Code, Option<Duration>), now: Instant, random: u8) {
        self.running = false;
        self.pending = true;
        self.failed = Some(code);
        let wait = wait(self.failures, named, random);
        self.failures = self.failures.saturating_add(1);
        self.next = now.checked_add(wait).unwrap_or(now);
    }
}

/// When a certificate is renewed: at half of its life and up to a tenth of it later, so that devices that enrolled together do not
/// come together. `spread` is the certificate's own: the same after a restart.
fn due((from, to): (UnixSeconds, UnixSeconds), spread: u16) -> UnixSeconds {
    let life = to.get().saturating_sub(from.get());
    let later = life.saturating_mul(u64::from(spread)).checked_div(655_360);
    let half = life.checked_div(2).unwrap_or_default();
    UnixSeconds::new(
        from.get()
            .saturating_add(half)
            .saturating_add(later.unwrap_or_default()),
    )
}

fn spread(leaf: Digest) -> u16 {
    let [high, low, ..] = leaf.as_bytes();
    u16::from_be_bytes([*high, *low])
}

impl Agent {
    /// What a root lists that was verified and is durable: believed from the next connection on.
    pub(crate) fn believe(&mut self, listed: &Listed) {
        let believed = match listed.believed(self.id.fleet()) {
            Ok(believed) => believed,
            // Their root custodians' tools refuse such a list; this device stays with what it has.
            Err(error) => {
                tracing::error!(code = error.code().name(), "the fleet's authorities: {error}");
                return;
            }
        };
        // Should that fail, the next start writes it from the trust record.
        if let Err(error) = listed.keep(&RealDisk, &self.identity_folder) {
            tracing::error!(code = error.code().name(), "{error}");
        }
        if believed.anchors.same_as(&self.renewal.identity.believed.anchors) {
            return;
        }
        for (state, anchor) in believed.anchors.iter() {
            tracing::info!(authority = %anchor.sha256(), %state, "believed from now on");
        }
        self.link.trust(&believed.anchors);
        self.revoked.borrow_mut().under(&believed.anchors);
        self.renewal.believe(believed);
        if let Err(error) = self.present() {
            tracing::error!(code = error.code().name(), "{error}");
        }
    }

    /// Presents the certificate that speaks now, to whom is believed now: the next one, from when it is whole.
    fn present(&self) -> Result<(), AgentError> {
        let own = &self.renewal.identity;
        let next = match next::settle(&RealDisk, &Tokens, &self.identity_folder)? {
            Next::Whole(key, chain) => own.with_own(key, chain).ok(),
            _ => None,
        };
        self.link
            .present(next.as_ref().unwrap_or(own).speaks(&self.proven)?);
        Ok(())
    }

    /// Starts a renewal when one is due and nothing is being asked of the server.
    pub(crate) fn renew_if_due(&mut self) {
        let due = self.renewal.next().is_some_and(|next| Instant::now() >= next);
        if !due || self.running {
            return;
        }
        self.renewal.running = true;
        let (link, identity) = (self.link.clone(), Rc::clone(&self.renewal.identity));
        let (folder, proven) = (self.identity_folder.clone(), self.proven.clone());
        let events = self.around.events.clone();
        let reissue = self.renewal.reissue;
        tokio::task::spawn_local(async move {
            let turn = link.turn();
            let renewed = if reissue {
                issue_anew(&link, &folder, &identity, &proven).await
            } else {
                renew(&link, &folder, &identity, &proven).await
            };
            if renewed.is_err() {
                link.pass(turn);
            }
            drop(events.send(Event::Renewed(Box::new(renewed))));
        });
    }

    pub(crate) fn renewed(&mut self, renewed: Outcome) {
        match renewed {
            Ok(identity) => {
                tracing::info!(expires = %crate::status::date(identity.valid.1), "the certificate was renewed");
                self.renewal.succeeded(identity, Instant::now());
                self.cadence.soon();
            }
            Err(error) => {
                let code = error.code();
                tracing::warn!(
                    code = code.name(),
                    remedy = error.remedy(),
                    failures = self.renewal.failures.saturating_add(1),
                    expires = %crate::status::date(self.renewal.identity.valid.1),
                    "the certificate was not renewed: {error}; what runs goes on, and it is tried again"
                );
                let [byte] = random::<1>().unwrap_or_default();
                self.renewal
                    .failed((code, wait_named_by(&error)), Instant::now(), byte);
            }
        }
    }
}

/// Gets a certificate for a new key and puts both in the place of the present ones, from wherever an earlier try broke off.
async fn renew(link: &Link, folder: &Path, own: &Identity, proven: &Proven) -> Outcome {
    let next = match next::settle(&RealDisk, &Tokens, folder)? {
        Next::Whole(key, chain) => match own.with(key, chain) {
            Ok(next) => next,
            Err(rotten) => {
                next::forget(&RealDisk, &Tokens, folder)?;
                return Err(rotten);
            }
        },
        part => {
            let key = match part {
                Next::Key(key) => key,
                _ => next::make_key(&RealDisk, &Tokens, folder)?,
            };
            let answer = request(link, EST_REENROLL, est::csr(&key)?).await?;
            let chain = est::decode_certs_only(&answer)?;
            let next = own.with(key, chain)?;
            next::keep_chain(&RealDisk, folder, &next.chain)?;
            next
        }
    };
    link.present(next.speaks(proven)?);
    match introduce(link).await {
        Ok(()) => {}
        Err(error) if unknown(error.code()) => {
            link.present(own.speaks(proven)?);
            next::forget(&RealDisk, &Tokens, folder)?;
            return Err(error);
        }
        // Perhaps the server has heard the new key: from here on the old one must be silent.
        Err(error) => return Err(error),
    }
    next::take_place(&RealDisk, &Tokens, folder, &next.key, &next.chain)?;
    Ok(next)
}

/// Gets a certificate for a key that the server knows, where the one there is counts no longer: as at enrolment, the key alone speaks
/// (decision 0014). The next key first, if there is one: once it has been heard the present one counts no longer either.
async fn issue_anew(link: &Link, folder: &Path, own: &Identity, proven: &Proven) -> Outcome {
    let mut keys = match next::settle(&RealDisk, &Tokens, folder)? {
        Next::Whole(key, _) | Next::Key(key) => vec![key],
        Next::Nothing => Vec::new(),
    };
    keys.push(own.key.clone());
    let mut refused = None;
    for key in keys {
        let speaks = tls::enrolment_client(&own.believed.anchors, &key, proven.floor())?;
        let enrol = link.named(enrol_host(own.id.fleet()), speaks);
        let answer = match request(&enrol, EST_ENROLL, est::csr(&key)?).await {
            Err(error) if error.code() == Code::NotAdmitted => {
                refused = Some(error);
                continue;
            }
            answer => answer?,
        };
        let anew = own.with(key, est::decode_certs_only(&answer)?)?;
        if anew.key.spki_sha256() == own.key.spki_sha256() {
            next::replace_chain(&RealDisk, folder, &anew.chain)?;
        } else {
            next::keep_chain(&RealDisk, folder, &anew.chain)?;
            next::take_place(&RealDisk, &Tokens, folder, &anew.key, &anew.chain)?;
        }
        link.present(anew.speaks(proven)?);
        return Ok(anew);
    }
    Err(refused.unwrap_or(AgentError::Unasked))
}

/// The first request of a new key. With its answer the server has put the old one aside.
async fn introduce(link: &Link) -> Result<(), AgentError> {
    let failed = |code| AgentError::Server {
        server: link.server(),
        code,
    };
    let mut connection = link.open().await.map_err(failed)?;
    let answer = patience::request(
        &mut connection,
        "GET",
        EST_CACERTS,
        &[],
        Bytes::new(),
        ANSWER_LEN_MAX,
    )
    .await
    .map_err(|error| failed(error.code()))?;
    if answer.status == 200 {
        return Ok(());
    }
    match refused(&answer) {
        // It knows the key; the certificate waited too long on this disk. It takes its place and is renewed in its turn.
        AgentError::Answer {
            code: Code::CertificateExpired,
            ..
        } => Ok(()),
        error => Err(error),
    }
}

/// Whether this is the word of a server to which the key that spoke is nobody's.
fn unknown(code: Code) -> bool {
    matches!(
        code,
        Code::CertificateRevoked | Code::KeySuperseded | Code::CertificateProfile | Code::ForeignCertificate
    )
}

#[cfg(test)]
mod tests;
