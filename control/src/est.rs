//! Enrolment over EST (RFC 7030 §4.1, §4.2): a key that an operator admitted gets a leaf with the voucher's name.

use crate::error::Refused;
use crate::fleet::{DeviceRow, Fleet, Issued, State};
use crate::issuing::{Kind, Source};
use crate::store::Put;
use redan_identity::est::{decode_csr, encode_certs_only};
use redan_protocol::audit::Action;
use redan_protocol::{Code, DeviceId, Digest, Seconds, SpiffeId, UnixSeconds};

/// How long the same request for renewal gets the same answer: far less than the life of what is in it.
const SAME_ANSWER: Seconds = Seconds::new(86_400);

/// Most new keys of one device within [`RENEWALS_WITHIN`]. A device needs one in two weeks, and some more on a line that loses answers;
/// a thief with its key would push older keys out of what is remembered (attack E05). Tripped by
/// `a_device_that_renews_in_a_loop_is_told_to_wait`.
const RENEWALS_MAX: usize = 8;
/// How long a renewal counts against that.
const RENEWALS_WITHIN: Seconds = Seconds::new(3_600);

/// `cacerts`: the roots that the fleet believes (RFC 7030 §4.1.3).
pub fn cacerts(fleet: &Fleet) -> Result<String, Refused> {
    let held = fleet.held();
    let roots: Vec<_> = held
        .anchors
        .iter()
        .map(|(_, anchor)| anchor.root().clone())
        .collect();
    Ok(encode_certs_only(&roots)?)
}

/// `simpleenroll`: the connection's key must be the request's key, and an operator must have admitted it. Asking twice gives another
/// leaf for the same name and key: harmless. `shorter`: as for `renewal_grace` of the fleet.
pub async fn enroll(
    fleet: &Fleet,
    spki: Digest,
    body: &str,
    shorter: Option<Seconds>,
    now: UnixSeconds,
) -> Result<String, Refused> {
    let request = decode_csr(body)?;
    if Digest::of(&request) != spki {
        return Err(Refused::plain(Code::CsrInvalid));
    }
    // Without the lock: the grace is in a document of the store. Only who comes late needs it, and that it does not read is their
    // affair alone.
    let late = admitted(&*fleet.state.lock().await, spki).is_some_and(|(_, row)| now > row.voucher_expires);
    let grace = if late {
        Some(fleet.grace(shorter).await?)
    } else {
        None
    };
    let mut state = fleet.state.lock().await;
    let Some((device, row)) = admitted(&state, spki) else {
        return Err(Refused::plain(Code::NotAdmitted));
    };
    // Also for a device that has enrolled: past its voucher it renews, and this is no way around the end of that grace.
    // The one it cannot renew by is that of a revoked authority.
    let anchors = &fleet.held().anchors;
    let late = now > row.voucher_expires;
    if late && !grace.is_some_and(|grace| row.orphaned(anchors, grace, now)) {
        return Err(Refused::plain(Code::VoucherInvalid));
    }
    let id = SpiffeId::Device(fleet.id.clone(), device.clone());
    // Who lost an authority and no more has a device's share: all of a fleet may come at once.
    let (kind, source) = if late {
        (Kind::Renewal, Source::Device(device.clone()))
    } else {
        (Kind::Enrolment, Source::Key(spki))
    };
    fleet
        .paced(&mut state, (kind, source), &id.to_string(), now)
        .await?;
    let chain = fleet.held().issuer.issue(&id, &request, now)?;
    let mut row = row;
    row.enrolled.get_or_insert(now);
    row.remember(&chain, now)?;
    let put = Put::json("device", device.as_str(), &row)?;
    fleet
        .commit(
            &mut state,
            now,
            &id.to_string(),
            vec![put],
            &[(Action::DeviceEnrolled, device.to_string())],
        )
        .await?;
    state.devices.insert(device, row);
    Ok(encode_certs_only(&chain)?)
}

/// The device that a key was admitted for.
fn admitted(state: &State, spki: Digest) -> Option<(DeviceId, DeviceRow)> {
    let mut devices = state.devices.iter();
    let found = devices.find(|(_, row)| row.keys.contains(&spki) && !row.revoked);
    found.map(|(device, row)| (device.clone(), row.clone()))
}

/// `simplereenroll`: a device gets a certificate for a new key. Both keys count until the new one is used. Asking again for the same
/// key, for an answer that was lost, gets the same answer.
pub async fn reenroll(
    fleet: &Fleet,
    device: &DeviceId,
    spki: Digest,
    body: &str,
    now: UnixSeconds,
) -> Result<String, Refused> {
    let request = decode_csr(body)?;
    let next = Digest::of(&request);
    let mut state = fleet.state.lock().await;
    let who = SpiffeId::Device(fleet.id.clone(), device.clone()).to_string();
    let taken = fleet
        .is_anothers(&mut state, &who, (device, next), now)
        .await?
        .is_some();
    // Another request may have come between this one and the question whether its key may speak.
    let asks = |row: &DeviceRow| !row.revoked && !taken && row.keys.first() == Some(&spki);
    let Some(mut row) = state.devices.get(device).cloned().filter(asks) else {
        return Err(Refused::plain(Code::CertificateRevoked));
    };
    if row.superseded.contains(&next) {
        return Err(Refused::plain(Code::KeySuperseded));
    }
    if let Some(issued) = &row.renewal
        && issued.spki == next
        && row.keys.contains(&next)
        && now < issued.until
    {
        return Ok(issued.answer.clone());
    }
    row.renewed.retain(|at| now < at.after(RENEWALS_WITHIN));
    if row.renewed.len() >= RENEWALS_MAX {
        return Err(Refused::plain(Code::Overloaded));
    }
    let own = (Kind::Renewal, Source::Device(device.clone()));
    fleet.paced(&mut state, own, &who, now).await?;
    row.renewed.push(now);
    let id = SpiffeId::Device(fleet.id.clone(), device.clone());
    let chain = fleet.held().issuer.issue(&id, &request, now)?;
    let answer = encode_certs_only(&chain)?;
    row.remember(&chain, now)?;
    // A next key that was never used counts no longer: the device lost it. Whoever speaks with it is not the device.
    let unused: Vec<Digest> = row.keys.drain(1..).filter(|key| *key != next).collect();
    row.supersede(unused);
    if !row.keys.contains(&next) {
        row.keys.push(next);
    }
    row.renewal = Some(Issued {
        spki: next,
        answer: answer.clone(),
        until: now.after(SAME_ANSWER),
    });
    let put = Put::json("device", device.as_str(), &row)?;
    fleet
        .commit(
            &mut state,
            now,
            &id.to_string(),
            vec![put],
            &[(Action::DeviceRenewed, device.to_string())],
        )
        .await?;
    state.devices.insert(device.clone(), row);
    Ok(answer)
}
