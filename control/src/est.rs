//! Enrolment over EST (RFC 7030 §4.1, §4.2): a key that an operator admitted gets a leaf with the voucher's name.

use crate::error::Refused;
use crate::fleet::Fleet;
use crate::store::Put;
use redan_identity::est::{decode_csr, encode_certs_only};
use redan_protocol::audit::Action;
use redan_protocol::{Code, DeviceId, Digest, SpiffeId, UnixSeconds};

/// `cacerts`: the fleet's root.
pub fn cacerts(fleet: &Fleet) -> Result<String, Refused> {
    Ok(encode_certs_only(&[fleet.anchor.root().clone()])?)
}

/// `simpleenroll`: the connection's key must be the request's key, and an operator must have admitted it. Asking twice gives another
/// leaf for the same name and key: harmless.
pub async fn enroll(fleet: &Fleet, spki: Digest, body: &str, now: UnixSeconds) -> Result<String, Refused> {
    let request = decode_csr(body)?;
    if Digest::of(&request) != spki {
        return Err(Refused::plain(Code::CsrInvalid));
    }
    let mut state = fleet.state.lock().await;
    let admitted = state
        .devices
        .iter()
        .find(|(_, row)| row.keys.contains(&spki) && !row.revoked);
    let Some((device, row)) = admitted.map(|(device, row)| (device.clone(), row.clone())) else {
        return Err(Refused::plain(Code::NotAdmitted));
    };
    if row.enrolled.is_none() && now > row.voucher_expires {
        return Err(Refused::plain(Code::VoucherInvalid));
    }
    let id = SpiffeId::Device(fleet.id.clone(), device.clone());
    let chain = fleet.issuer.issue(&id, &request, now)?;
    let mut row = row;
    row.enrolled.get_or_insert(now);
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

/// `simplereenroll`: a device with a valid certificate gets one for a new key. Both keys count until the new one is used.
pub async fn reenroll(
    fleet: &Fleet,
    device: &DeviceId,
    body: &str,
    now: UnixSeconds,
) -> Result<String, Refused> {
    let request = decode_csr(body)?;
    let next = Digest::of(&request);
    let mut state = fleet.state.lock().await;
    let taken = state
        .devices
        .iter()
        .any(|(other, row)| other != device && row.keys.contains(&next));
    let Some(mut row) = state
        .devices
        .get(device)
        .cloned()
        .filter(|row| !row.revoked && !taken)
    else {
        return Err(Refused::plain(Code::CertificateRevoked));
    };
    let id = SpiffeId::Device(fleet.id.clone(), device.clone());
    let chain = fleet.issuer.issue(&id, &request, now)?;
    // A next key that was never used is forgotten: the device lost it, or the answer never reached it.
    row.keys.truncate(1);
    if !row.keys.contains(&next) {
        row.keys.push(next);
    }
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
    Ok(encode_certs_only(&chain)?)
}
