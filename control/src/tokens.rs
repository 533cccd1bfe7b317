//! Join tokens: made by operators, used by devices that nobody has admitted by hand (decision 0009).

use crate::error::Refused;
use crate::fleet::{DeviceRow, Fleet, State};
use crate::issuing::{Kind, Source};
use crate::operator::Operator;
use crate::store::Put;
use redan_identity::est::{decode_csr, encode_certs_only};
use redan_identity::join::{Asked, Binding, token_id};
use redan_protocol::audit::Action;
use redan_protocol::join::{Claim, DevicePrefix, JoinToken, TokenId, TokenSchema};
use redan_protocol::{Code, DeviceId, Digest, OperatorName, Seconds, SpiffeId, UnixSeconds};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Longest life of a token (attacks.md E01). Tripped by `a_token_beyond_the_limits_is_not_made`.
pub const LIFE_MAX: Seconds = Seconds::new(86_400);
/// Most uses of a token: one hall of a plant. Tripped by `a_token_beyond_the_limits_is_not_made`.
pub const USES_MAX: u32 = 1_000;
/// Most tokens at once that can still be used. Tripped by `a_fleet_has_no_more_open_tokens_than_the_limit`.
pub const OPEN_MAX: usize = 32;
/// Longest label, bytes. Tripped by `a_token_beyond_the_limits_is_not_made`.
const LABEL_LEN_MAX: usize = 100;

/// A token as the server keeps it: nothing here helps to use it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRow {
    /// What it is for, in its maker's words.
    pub label: String,
    /// How the names begin that it gives.
    pub prefix: DevicePrefix,
    /// So many devices may use it.
    pub uses: u32,
    /// So many have.
    pub used: u32,
    /// Who made it.
    pub by: OperatorName,
    /// When.
    pub made: UnixSeconds,
    /// Its last second.
    pub expires: UnixSeconds,
    /// Revoked.
    pub revoked: bool,
}

impl TokenRow {
    /// Why it cannot be used now, by a device that has not used it before.
    fn usable(&self, now: UnixSeconds) -> Result<(), Code> {
        if self.revoked {
            Err(Code::TokenRevoked)
        } else if now > self.expires {
            Err(Code::TokenExpired)
        } else if self.used >= self.uses {
            Err(Code::TokenUsedUp)
        } else {
            Ok(())
        }
    }
}

/// `POST /v1/tokens`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Make {
    uses: u32,
    expires_in_seconds: Seconds,
    #[serde(default)]
    label: String,
    #[serde(default)]
    prefix: DevicePrefix,
    /// Where devices reach the server, when that is not where this request did.
    #[serde(default)]
    server: Option<String>,
}

impl Operator<'_> {
    /// Makes a token. The answer is the only time its secret is said.
    pub async fn make_token(&self, make: Make, server: &str) -> Result<JoinToken, Refused> {
        let refuse = |what: String| Err(Refused::because(Code::BadRequest, what));
        if make.uses == 0 || make.uses > USES_MAX {
            return refuse(format!("a token has 1 to {USES_MAX} uses"));
        }
        let life = make.expires_in_seconds;
        if life.get() == 0 || life > LIFE_MAX {
            return refuse(format!("a token lives 1 to {} seconds", LIFE_MAX.get()));
        }
        if make.label.len() > LABEL_LEN_MAX {
            return refuse(format!("a label has at most {LABEL_LEN_MAX} bytes"));
        }
        let mut state = self.fleet.state.lock().await;
        let open = state.tokens.values();
        if open.filter(|row| row.usable(self.now).is_ok()).count() >= OPEN_MAX {
            let detail = format!("{OPEN_MAX} tokens can be used; revoke one first");
            return Err(Refused::because(Code::QuotaReached, detail));
        }
        let token = token_id()?;
        let row = TokenRow {
            label: make.label,
            prefix: make.prefix,
            uses: make.uses,
            used: 0,
            by: self.name.clone(),
            made: self.now,
            expires: self.now.after(life),
            revoked: false,
        };
        let put = Put::json("token", token.to_string(), &row)?;
        let subject = format!("{token} {} uses", row.uses);
        self.commit(&mut state, vec![put], Action::TokenMade, subject)
            .await?;
        let whole = JoinToken {
            schema: TokenSchema::V1,
            fleet: self.fleet.id.clone(),
            token: token.clone(),
            secret: self.fleet.join_key.secret(&self.fleet.id, &token),
            prefix: row.prefix.clone(),
            ca: self.fleet.held().anchors.carry(),
            release_root: self.fleet.release_root.clone(),
            director_root: self.fleet.director_root.clone(),
            server: make.server.unwrap_or_else(|| server.to_owned()),
            expires: row.expires,
        };
        state.tokens.insert(token, row);
        Ok(whole)
    }

    /// All tokens, also those that can be used no longer.
    pub async fn tokens(&self) -> Value {
        let state = self.fleet.state.lock().await;
        let view = |(token, row): (&TokenId, &TokenRow)| {
            let why_not = row.usable(self.now).err().map(Code::name);
            json!({
                "token": token, "label": row.label, "prefix": row.prefix, "uses": row.uses, "used": row.used,
                "by": row.by, "made": row.made, "expires": row.expires, "ended": why_not,
            })
        };
        state.tokens.iter().map(view).collect()
    }

    /// Revokes a token. Devices that have enrolled with it stay enrolled.
    pub async fn revoke_token(&self, token: &TokenId) -> Result<Value, Refused> {
        let mut state = self.fleet.state.lock().await;
        let missing = || Refused::because(Code::NotFound, format!("there is no token {token} in this fleet"));
        let mut row = state.tokens.get(token).cloned().ok_or_else(missing)?;
        row.revoked = true;
        let put = Put::json("token", token.to_string(), &row)?;
        self.commit(&mut state, vec![put], Action::TokenRevoked, token.to_string())
            .await?;
        state.tokens.insert(token.clone(), row);
        Ok(json!({"token": token, "revoked": true}))
    }
}

/// `simpleenroll` with a token. Checked, counted and issued under the fleet's one lock and in one transaction: of a hundred devices
/// that use the last use at once, one enrols. The same key asks again, for an answer that was lost, without another use.
pub async fn join(
    fleet: &Fleet,
    (spki, binding): (Digest, &Binding),
    claim: &Claim,
    csr: &str,
    now: UnixSeconds,
) -> Result<String, Refused> {
    let asked = Asked {
        fleet: &fleet.id,
        token: &claim.token,
        device: &claim.device,
        csr,
    };
    // Before anything is looked up: whoever does not know the secret learns nothing, not even whether there is such a token.
    let secret = fleet.join_key.secret(&fleet.id, &claim.token);
    let proven = asked.proven(&secret, binding, &claim.proof);
    let mut state = fleet.state.lock().await;
    let row = state.tokens.get(&claim.token).cloned();
    let Some(mut token) = row.filter(|_| proven) else {
        return Err(Refused::plain(Code::TokenInvalid));
    };
    let request = decode_csr(csr)?;
    if Digest::of(&request) != spki {
        return Err(Refused::plain(Code::CsrInvalid));
    }
    let before = state.devices.get(&claim.device).cloned();
    let again = before.filter(|row| {
        row.token.as_ref() == Some(&claim.token) && row.keys.first() == Some(&spki) && !row.revoked
    });
    let mut device = if let Some(row) = again {
        match token.usable(now) {
            Ok(()) | Err(Code::TokenUsedUp) => row,
            Err(code) => return Err(Refused::plain(code)),
        }
    } else {
        token.usable(now).map_err(Refused::plain)?;
        let who = "a key that enrols";
        let asked = (&claim.device, spki);
        if fleet.is_anothers(&mut state, who, asked, now).await?.is_some() {
            return Err(Refused::plain(Code::NameRefused));
        }
        if !token.prefix.fits(&claim.device) || taken(&state, &claim.device, spki) {
            return Err(Refused::plain(Code::NameRefused));
        }
        if state.admitted() >= fleet.settings.devices_max {
            return Err(Refused::plain(Code::QuotaReached));
        }
        token.used = token.used.saturating_add(1);
        fresh(claim.token.clone(), spki, token.expires, now)
    };
    let id = SpiffeId::Device(fleet.id.clone(), claim.device.clone());
    // Before its use counts: who has to wait has lost none.
    let own = (Kind::Enrolment, Source::Token(claim.token.clone()));
    fleet.paced(&mut state, own, &id.to_string(), now).await?;
    let chain = fleet.held().issuer.issue(&id, &request, now)?;
    let answer = encode_certs_only(&chain)?;
    device.remember(&chain, now)?;
    let puts = vec![
        Put::json("device", claim.device.as_str(), &device)?,
        Put::json("token", claim.token.to_string(), &token)?,
    ];
    let action = (
        Action::DeviceEnrolled,
        format!("{} token {}", claim.device, claim.token),
    );
    fleet
        .commit(&mut state, now, &id.to_string(), puts, &[action])
        .await?;
    state.devices.insert(claim.device.clone(), device);
    state.tokens.insert(claim.token.clone(), token);
    Ok(answer)
}

/// A name that was ever a device's stays its own; a key that was ever used is somebody's.
fn taken(state: &State, device: &DeviceId, spki: Digest) -> bool {
    let known = |row: &DeviceRow| row.keys.contains(&spki) || row.superseded.contains(&spki);
    state.devices.contains_key(device) || state.devices.values().any(known)
}

fn fresh(token: TokenId, spki: Digest, expires: UnixSeconds, now: UnixSeconds) -> DeviceRow {
    DeviceRow {
        keys: vec![spki],
        superseded: Vec::new(),
        renewal: None,
        renewed: Vec::new(),
        clone_alarm: None,
        labels: BTreeMap::new(),
        voucher_expires: expires,
        token: Some(token),
        enrolled: Some(now),
        leaves: Vec::new(),
        revoked: false,
        ordered: None,
        last_seen: None,
        authority: None,
        report: None,
        nonce: None,
    }
}
