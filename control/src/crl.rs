//! The revocation list of the device issuer, for whoever judges devices without this server (20-identity). Made here, since the issuer's
//! key is here; what makes it believed is that policy signers publish it as a target.

use crate::error::Refused;
use crate::fleet::{DeviceRow, Fleet};
use crate::operator::Operator;
use crate::store::Put;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use redan_identity::CertificateDer;
use redan_identity::crl::{RevokedSerial, serial_of};
use redan_identity::profile::{presented_spki, valid_between};
use redan_protocol::audit::Action;
use redan_protocol::{Code, Digest, Seconds, UnixSeconds};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// How long a list is good: as long as the leaves it is about.
const CRL_LIFE: Seconds = Seconds::new(30 * 86_400);
/// Most leaves of one device that have not expired: each has to stay listed until it has. Tripped by
/// `a_device_that_enrols_in_a_loop_is_told_to_wait`.
const LEAVES_MAX: usize = 64;

/// A leaf that was issued and has not expired.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leaf {
    /// Its serial number, as in the certificate.
    pub serial: Vec<u8>,
    /// For which key.
    pub spki: Digest,
    /// Its last second.
    pub until: UnixSeconds,
    /// When it was first listed as revoked.
    #[serde(default)]
    pub listed: Option<UnixSeconds>,
}

impl DeviceRow {
    /// Remembers a leaf that is about to be handed out, so that it can be listed later.
    pub(crate) fn remember(&mut self, chain: &[CertificateDer<'_>], now: UnixSeconds) -> Result<(), Refused> {
        self.leaves.retain(|leaf| now <= leaf.until);
        if self.leaves.len() >= LEAVES_MAX {
            return Err(Refused::plain(Code::Overloaded));
        }
        let leaf = chain.first().ok_or_else(|| Refused::plain(Code::Internal))?;
        self.leaves.push(Leaf {
            serial: serial_of(leaf)?,
            spki: presented_spki(leaf)?,
            until: valid_between(leaf)?.1,
            listed: None,
        });
        Ok(())
    }

    /// Leaves that nobody may use any more, though they have not expired.
    fn taken_back(&mut self, now: UnixSeconds) -> Vec<RevokedSerial> {
        let (revoked, keys) = (self.revoked, self.keys.clone());
        let gone = self
            .leaves
            .iter_mut()
            .filter(|leaf| now <= leaf.until && (revoked || !keys.contains(&leaf.spki)));
        gone.map(|leaf| RevokedSerial {
            at: *leaf.listed.get_or_insert(now),
            serial: leaf.serial.clone(),
        })
        .collect()
    }
}

impl Operator<'_> {
    /// Makes the next list.
    pub(crate) async fn crl(&self) -> Result<Value, Refused> {
        let fleet: &Fleet = self.fleet;
        let mut state = fleet.state.lock().await;
        let number = state.crl_number.saturating_add(1);
        let mut revoked = BTreeSet::new();
        let mut changed = Vec::new();
        for (id, row) in &state.devices {
            let mut after = row.clone();
            revoked.extend(after.taken_back(self.now));
            if after.leaves != row.leaves {
                changed.push((id.clone(), after));
            }
        }
        let held = fleet.held();
        let list = held.issuer.crl(number, &revoked, self.now, CRL_LIFE)?;
        let mut puts = vec![Put::json("crl", "number", &number)?];
        for (id, row) in &changed {
            puts.push(Put::json("device", id.as_str(), row)?);
        }
        let subject = format!("crl {number} {}", Digest::of(&list));
        self.commit(&mut state, puts, Action::CrlMade, subject).await?;
        state.crl_number = number;
        state.devices.extend(changed);
        Ok(json!({
            "number": number,
            "revoked": revoked.len(),
            "crl": STANDARD.encode(&list),
            "issuer": redan_identity::pem::write_chain(&[held.issuer.certificate().clone()]),
        }))
    }
}
