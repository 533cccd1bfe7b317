//! What operators ask for. Every write names who (the certificate) and what, in one transaction with its audit entry.

use crate::director::set_document;
use crate::error::Refused;
use crate::fleet::{DeviceRow, Fleet, State};
use crate::issuing::{Kind, Source};
use crate::release::{FILES_MAX, Files, accept, current_role};
use crate::store::Put;
use crate::view::{device_view, rollout_view};
use crate::waves::{WaveSpec, canary_is_small, waves};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use redan_control_core::rollout::{UNBLOCKED_MAX, WAVES_MAX};
use redan_control_core::{Input, NoApproval, Rollout, Rules};
use redan_identity::Anchors;
use redan_identity::est::decode_csr;
use redan_protocol::audit::{Action, AuditEntry};
use redan_protocol::wire::{Voucher, VoucherSchema};
use redan_protocol::{Code, DeviceId, Digest, OperatorName, Role, Seconds, SetId, SpiffeId, UnixSeconds};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// A voucher's life: long enough to carry it to a plant, short enough to be forgotten safely.
const VOUCHER_LIFE: Seconds = Seconds::new(7 * 86_400);

/// Who asks, of which fleet.
#[derive(Clone, Copy, Debug)]
pub struct Operator<'a> {
    /// The fleet.
    pub fleet: &'a Fleet,
    /// The operator, from the certificate.
    pub name: &'a OperatorName,
    /// Last second of that certificate.
    pub expires: UnixSeconds,
    /// The role that what is asked needs.
    pub needs: Role,
    /// Now.
    pub now: UnixSeconds,
}

/// `POST /v1/devices/admit`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admit {
    device: DeviceId,
    spki: Digest,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    /// A request of the key, from a device that cannot enrol over the network: its certificate comes in the voucher.
    #[serde(default)]
    csr: Option<String>,
    /// Where devices reach the server, when that is not where this request did.
    #[serde(default)]
    server: Option<String>,
}

/// `POST /v1/release`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upload {
    files: BTreeMap<String, String>,
}

/// `POST /v1/rollouts`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    set: SetId,
    waves: Vec<WaveSpec>,
    failure_threshold: u32,
    soak_seconds: Seconds,
    deadline_seconds: Seconds,
    /// Nothing beyond the first wave before a second person agrees.
    #[serde(default)]
    approve: bool,
    /// Members of the set that devices may try again after a failed trial.
    #[serde(default)]
    unblock: BTreeSet<Digest>,
}

/// Reads a JSON body.
pub fn parse<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T, Refused> {
    serde_json::from_slice(body).map_err(|error| Refused::because(Code::BadRequest, error.to_string()))
}

impl Operator<'_> {
    fn actor(&self) -> String {
        SpiffeId::Operator(self.fleet.id.clone(), self.name.clone()).to_string()
    }

    pub(crate) async fn commit(
        &self,
        state: &mut State,
        puts: Vec<Put>,
        action: Action,
        subject: String,
    ) -> Result<(), Refused> {
        self.commit_all(state, puts, &[(action, subject)]).await
    }

    async fn commit_all(
        &self,
        state: &mut State,
        puts: Vec<Put>,
        actions: &[(Action, String)],
    ) -> Result<(), Refused> {
        // Once more, now that nobody else writes: who was removed while the request was under way changes nothing.
        if state.role(self.name, self.expires) < Some(self.needs) {
            return Err(Refused::plain(Code::NotAuthorised));
        }
        Ok(self
            .fleet
            .commit(state, self.now, &self.actor(), puts, actions)
            .await?)
    }

    /// Admits a key under a name; the answer is the voucher to carry to the device.
    pub async fn admit(&self, request: Admit, server: &str) -> Result<Voucher, Refused> {
        let mut state = self.fleet.state.lock().await;
        let asked = (&request.device, request.spki);
        let (fleet, who) = (self.fleet, self.actor());
        if let Some(other) = fleet.is_anothers(&mut state, &who, asked, self.now).await? {
            return Err(Refused::because(
                Code::Conflict,
                format!("this key is, or was, the key of {other}"),
            ));
        }
        if let Some(row) = state.devices.get(&request.device)
            && !row.revoked
            && !row.keys.contains(&request.spki)
        {
            let detail = format!("{} is admitted with another key; revoke it first", request.device);
            return Err(Refused::because(Code::Conflict, detail));
        }
        let counted = state.devices.get(&request.device);
        if counted.is_none_or(|row| row.revoked) && state.admitted() >= self.fleet.settings.devices_max {
            let detail = format!("the fleet has {} devices", state.admitted());
            return Err(Refused::because(Code::QuotaReached, detail));
        }
        let expires = self.now.after(VOUCHER_LIFE);
        let fresh = DeviceRow {
            keys: vec![request.spki],
            superseded: Vec::new(),
            renewal: None,
            renewed: Vec::new(),
            clone_alarm: None,
            labels: BTreeMap::new(),
            token: None,
            voucher_expires: expires,
            enrolled: None,
            revoked: false,
            ordered: None,
            // Those of whoever had the name before stay listed until they expire.
            leaves: state
                .devices
                .get(&request.device)
                .map_or_else(Vec::new, |row| row.leaves.clone()),
            authority: None,
            last_seen: None,
            report: None,
            nonce: None,
        };
        // The same key once more: another voucher and other labels for the device that is there, which stays what it is.
        let known = state.devices.get(&request.device).filter(|row| !row.revoked);
        let mut row = DeviceRow {
            labels: request.labels,
            voucher_expires: expires,
            ..known.cloned().unwrap_or(fresh)
        };
        let subject = format!("{} {}", request.device, request.spki);
        let mut actions = vec![(Action::DeviceAdmitted, subject)];
        let mut chain = None;
        if let Some(csr) = &request.csr {
            // What the connection proves at enrolment over the network, the request's own signature proves here.
            let key = decode_csr(csr)?;
            if Digest::of(&key) != request.spki {
                return Err(Refused::plain(Code::CsrInvalid));
            }
            let id = SpiffeId::Device(self.fleet.id.clone(), request.device.clone());
            let own = (Kind::Enrolment, Source::Operator(self.name.clone()));
            fleet.paced(&mut state, own, &who, self.now).await?;
            let issued = self.fleet.held().issuer.issue(&id, &key, self.now)?;
            row.enrolled.get_or_insert(self.now);
            row.remember(&issued, self.now)?;
            actions.push((Action::DeviceEnrolled, request.device.to_string()));
            chain = Some(redan_identity::pem::write_chain(&issued));
        }
        let put = Put::json("device", request.device.as_str(), &row)?;
        self.commit_all(&mut state, vec![put], &actions).await?;
        state.devices.insert(request.device.clone(), row);
        Ok(Voucher {
            schema: VoucherSchema::V1,
            fleet: self.fleet.id.clone(),
            device: request.device,
            spki: request.spki,
            ca: self.fleet.held().anchors.carry(),
            release_root: self.fleet.release_root.clone(),
            director_root: self.fleet.director_root.clone(),
            server: request.server.unwrap_or_else(|| server.to_owned()),
            expires,
            chain,
        })
    }

    /// Revokes a device: from the next request on, none is answered, and when this returns its open connections are closed.
    pub async fn revoke(&self, device: &DeviceId) -> Result<Value, Refused> {
        self.write_revoked(device).await?;
        let id = SpiffeId::Device(self.fleet.id.clone(), device.clone());
        self.fleet.live.cut(&id).await;
        Ok(json!({"device": device, "revoked": true}))
    }

    async fn write_revoked(&self, device: &DeviceId) -> Result<(), Refused> {
        let mut state = self.fleet.state.lock().await;
        let mut row = state
            .devices
            .get(device)
            .cloned()
            .ok_or_else(|| no_device(device))?;
        row.revoked = true;
        let put = Put::json("device", device.as_str(), &row)?;
        self.commit(&mut state, vec![put], Action::DeviceRevoked, device.to_string())
            .await?;
        state.devices.insert(device.clone(), row);
        Ok(())
    }

    /// All devices, or one.
    pub async fn devices(&self, only: Option<&DeviceId>) -> Result<Value, Refused> {
        let state = self.fleet.state.lock().await;
        let anchors = self.fleet.held().anchors.clone();
        let view = |(id, row): (&DeviceId, &DeviceRow)| device_view(id, row, (&state, &anchors), self.now);
        match only {
            Some(id) => {
                let found = state.devices.get_key_value(id);
                let (id, row) = found.ok_or_else(|| no_device(id))?;
                let mut shown = view((id, row));
                // All keys it has had: who decommissions it names them.
                let keys: BTreeSet<&Digest> = row.keys.iter().chain(&row.superseded).collect();
                if let Some(fields) = shown.as_object_mut() {
                    fields.insert("keys".to_owned(), json!(keys));
                }
                Ok(shown)
            }
            None => Ok(state.devices.iter().map(view).collect()),
        }
    }

    /// Accepts signed metadata, all or none.
    pub async fn release(&self, upload: Upload) -> Result<Value, Refused> {
        if upload.files.len() > FILES_MAX {
            return Err(Refused::plain(Code::TooLarge));
        }
        let mut files = Files::new();
        for (name, text) in upload.files {
            let bytes = STANDARD
                .decode(text)
                .map_err(|_| Refused::because(Code::BadRequest, format!("{name} is not base64")))?;
            files.insert(name, bytes);
        }
        let mut state = self.fleet.state.lock().await;
        let accepted = {
            let held = self.fleet.held();
            accept(self.fleet.signing(&held.keys), &state.release, files, self.now)?
        };
        let mut merged = state.release.clone();
        merged.extend(accepted.clone());
        self.same_authorities(&merged)?;
        self.artifacts_are_here(&merged, &accepted).await?;
        let lists = self.fleet.operator_lists(&state, &merged, self.now).await?;
        let mut puts: Vec<Put> = accepted
            .iter()
            .map(|(name, bytes)| Put::bytes("release", name, bytes.clone()))
            .collect();
        if let Some(lists) = &lists {
            puts.push(Put::bytes("revocations", "operators", lists.keep().into_bytes()));
        }
        let names: Vec<String> = accepted.keys().cloned().collect();
        self.commit(&mut state, puts, Action::ReleasePublished, names.join(" "))
            .await?;
        state.release = merged;
        if let Some(lists) = lists {
            state.operator_lists = lists;
        }
        Ok(json!({"accepted": names}))
    }

    /// A root that changes the authorities needs certificates beside it, which are on the server's host.
    fn same_authorities(&self, files: &Files) -> Result<(), Refused> {
        let newest = crate::keys::newest_root(files).map_err(|_| Refused::plain(Code::MetadataInvalid))?;
        let Some(listed) = newest.authorities else {
            return Ok(());
        };
        let known = Anchors::of(&self.fleet.id, &listed);
        match known {
            Ok(known) if known.same_as(&self.fleet.held().anchors) => Ok(()),
            _ => Err(Refused::plain(Code::AuthorityOnHost)),
        }
    }

    /// Metadata that names bytes nobody can fetch would stop every device at once.
    async fn artifacts_are_here(&self, files: &Files, accepted: &Files) -> Result<(), Refused> {
        let roles: BTreeSet<&str> = accepted
            .keys()
            .filter_map(|name| {
                name.trim_end_matches(".json")
                    .split_once('.')
                    .map(|(_, role)| role)
            })
            .collect();
        for role in roles
            .into_iter()
            .filter(|role| *role != "snapshot" && *role != "root")
        {
            let Some((_, targets)) = current_role(files, role) else {
                continue;
            };
            for (path, entry) in targets.targets.iter() {
                let stored = match entry.sha256() {
                    Some(digest) => self.fleet.artifacts.length(digest).await?,
                    None => None,
                };
                if stored != Some(entry.length) {
                    let detail =
                        format!("{path} is signed but its bytes are not in the store; upload them first");
                    return Err(Refused::because(Code::ArtifactMissing, detail));
                }
            }
        }
        Ok(())
    }

    /// Stores an artifact.
    pub async fn put_artifact(&self, digest: Digest, bytes: Bytes) -> Result<Value, Refused> {
        let length = bytes.len();
        let new = self.reserve(digest, length).await?;
        let stored = self.fleet.artifacts.put(digest, bytes).await;
        let mut state = self.fleet.state.lock().await;
        if new && stored.is_err() {
            state.artifacts.remove(&digest);
        }
        stored?;
        state
            .artifacts
            .insert(digest, u64::try_from(length).unwrap_or(u64::MAX));
        self.commit(&mut state, Vec::new(), Action::ArtifactStored, digest.to_string())
            .await?;
        Ok(json!({"sha256": digest, "length": length}))
    }

    /// Makes room for an artifact within the fleet's quota; says whether it is a new one.
    async fn reserve(&self, digest: Digest, length: usize) -> Result<bool, Refused> {
        let mut state = self.fleet.state.lock().await;
        if state.artifacts.contains_key(&digest) {
            return Ok(false);
        }
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        let held = state.artifacts.values();
        let held = held.fold(0, |sum: u64, length| sum.saturating_add(*length));
        let most = self.fleet.settings.artifacts_bytes_max;
        if held.saturating_add(length) > most.get() {
            let detail = format!("the fleet's artifacts may have {most}, and have {held} bytes");
            return Err(Refused::because(Code::QuotaReached, detail));
        }
        state.artifacts.insert(digest, length);
        Ok(true)
    }

    /// Starts a rollout of a published set. Pre-flight refuses what could never succeed.
    pub async fn start(&self, request: Start) -> Result<Value, Refused> {
        let mut state = self.fleet.state.lock().await;
        let preflight = |what: String| Refused::because(Code::PreflightRefused, what);
        let Some((document, _)) = set_document(self.fleet, &state, &request.set).await? else {
            return Err(preflight(format!("release set {} is not published", request.set)));
        };
        if request.unblock.len() > UNBLOCKED_MAX {
            let most = format!("a rollout unblocks at most {UNBLOCKED_MAX} digests");
            return Err(preflight(most));
        }
        let member = |digest: &Digest| document.members.iter().any(|member| member.digest == *digest);
        if let Some(other) = request.unblock.iter().find(|digest| !member(digest)) {
            let what = format!("{other} is no member of release set {}", request.set);
            return Err(preflight(what));
        }
        if request.waves.is_empty() || request.waves.len() > WAVES_MAX {
            return Err(preflight(format!("a rollout has 1 to {WAVES_MAX} waves")));
        }
        refuse_second(&state.rollouts)?;
        let waves = waves(&state, request.waves)?;
        let id = state.rollouts.last().map_or(1, |last| last.id.saturating_add(1));
        let rules = Rules {
            failure_threshold: request.failure_threshold,
            soak: request.soak_seconds,
            deadline: request.deadline_seconds,
        };
        let unblocks = request.unblock.iter().map(|digest| format!(" unblocks {digest}"));
        let subject = format!("rollout {id} {}{}", request.set, unblocks.collect::<String>());
        let rollout = Rollout::start(id, request.set.clone(), waves, rules, self.now);
        let mut rollout = rollout.unblocking(request.unblock);
        if request.approve || self.fleet.settings.second_approver {
            rollout = rollout.asking(self.name.clone());
            canary_is_small(&state, &rollout)?;
        }
        let put = Put::json("rollout", id.to_string(), &rollout)?;
        self.commit(&mut state, vec![put], Action::RolloutStarted, subject)
            .await?;
        let view = rollout_view(&rollout);
        state.rollouts.push(rollout);
        Ok(view)
    }

    /// Rollouts, or one.
    pub async fn rollouts(&self, only: Option<u64>) -> Result<Value, Refused> {
        let state = self.fleet.state.lock().await;
        match only {
            Some(id) => {
                let found = state.rollouts.iter().find(|rollout| rollout.id == id);
                found.map(rollout_view).ok_or_else(|| no_rollout(id))
            }
            None => Ok(state.rollouts.iter().map(rollout_view).collect()),
        }
    }

    /// Pauses, resumes or aborts.
    pub async fn steer(&self, id: u64, verb: &str) -> Result<Value, Refused> {
        let (input, action) = match verb {
            "pause" => (Input::Pause, Action::RolloutPaused),
            "resume" => (Input::Resume, Action::RolloutResumed),
            "abort" => (Input::Abort, Action::RolloutAborted),
            _ => return Err(Refused::plain(Code::NotFound)),
        };
        let mut state = self.fleet.state.lock().await;
        let place = state.rollouts.iter().position(|rollout| rollout.id == id);
        let mut rollout = place
            .and_then(|at| state.rollouts.get(at))
            .cloned()
            .ok_or_else(|| no_rollout(id))?;
        rollout
            .step(self.now, input)
            .map_err(|error| Refused::because(Code::WrongState, error.to_string()))?;
        if matches!(input, Input::Resume) {
            refuse_second(&state.rollouts)?;
        }
        let put = Put::json("rollout", id.to_string(), &rollout)?;
        self.commit(&mut state, vec![put], action, format!("rollout {id}"))
            .await?;
        let view = rollout_view(&rollout);
        if let Some(old) = state.rollouts.iter_mut().find(|rollout| rollout.id == id) {
            *old = rollout;
        }
        Ok(view)
    }

    /// Agrees to what somebody else started.
    pub async fn approve(&self, id: u64) -> Result<Value, Refused> {
        let mut state = self.fleet.state.lock().await;
        let found = state.rollouts.iter().find(|rollout| rollout.id == id);
        let mut rollout = found.cloned().ok_or_else(|| no_rollout(id))?;
        rollout.approve(self.name).map_err(|error| match error {
            NoApproval::Own => Refused::plain(Code::OwnRollout),
            NoApproval::NotAsked | NoApproval::Ended(_) => {
                Refused::because(Code::WrongState, error.to_string())
            }
        })?;
        let put = Put::json("rollout", id.to_string(), &rollout)?;
        let subject = format!("rollout {id} {}", rollout.set);
        self.commit(&mut state, vec![put], Action::RolloutApproved, subject)
            .await?;
        let view = rollout_view(&rollout);
        if let Some(old) = state.rollouts.iter_mut().find(|rollout| rollout.id == id) {
            *old = rollout;
        }
        Ok(view)
    }

    /// The audit log.
    pub async fn audit(&self) -> Result<Vec<AuditEntry>, Refused> {
        Ok(self.fleet.audit(0).await?)
    }

    /// A page of it, from an entry on.
    pub async fn audit_from(&self, entry: u64) -> Result<Vec<AuditEntry>, Refused> {
        Ok(self.fleet.audit_page(entry).await?)
    }
}

fn no_device(id: &DeviceId) -> Refused {
    Refused::because(Code::NotFound, format!("there is no device {id} in this fleet"))
}

fn no_rollout(id: u64) -> Refused {
    Refused::because(Code::NotFound, format!("there is no rollout {id} in this fleet"))
}

/// One rollout runs at a time: which of two a device followed would depend on the order they were started in.
fn refuse_second(rollouts: &[Rollout]) -> Result<(), Refused> {
    let running = |rollout: &&Rollout| rollout.state == redan_control_core::State::Running;
    let Some(busy) = rollouts.iter().find(running) else {
        return Ok(());
    };
    let detail = format!(
        "rollout {} of {} is running; wait for it or abort it",
        busy.id, busy.set
    );
    Err(Refused::because(Code::Conflict, detail))
}
