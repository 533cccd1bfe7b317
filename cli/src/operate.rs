//! Operating a fleet: devices, rollouts, audit.

use crate::access::{Access, now, read_text};
use crate::error::CliError;
use redan_identity::key::write_private;
use redan_protocol::audit::{AuditEntry, Walk, verify_chain};
use redan_protocol::wire::AdmissionRequest;
use redan_protocol::{DeviceId, Digest, Permille, Seconds, SetId};
use serde_json::{Value, json};
use std::path::Path;

/// One wave of a rollout: `name=device[,device…]` or `name=500permille`.
#[derive(Clone, Debug)]
pub struct WaveArgument(Value);

impl std::str::FromStr for WaveArgument {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let form = "a wave is written name=device,device or name=500permille";
        let (name, who) = text.split_once('=').ok_or(form)?;
        if let Some(share) = who.strip_suffix("permille") {
            let share = share
                .parse()
                .ok()
                .and_then(Permille::new)
                .ok_or("a share is at most 1000permille")?;
            return Ok(Self(json!({"name": name, "permille": share})));
        }
        let devices: Result<Vec<DeviceId>, _> = who.split(',').map(DeviceId::parse).collect();
        let devices = devices.map_err(|error| error.to_string())?;
        Ok(Self(json!({"name": name, "devices": devices})))
    }
}

/// Admits a device's key and writes its voucher.
pub async fn admit(
    access: &Access,
    request: &Path,
    offline: bool,
    labels: &[(String, String)],
    out: &Path,
) -> Result<Value, CliError> {
    let request: AdmissionRequest =
        serde_json::from_str(&read_text(request)?).map_err(|_| CliError::Usage {
            what: format!("{} is not an admission request", request.display()),
            remedy: "use the file that `redan-device init` wrote",
        })?;
    if offline && request.csr.is_none() {
        return Err(CliError::Usage {
            what: "the admission request holds no certificate request".to_owned(),
            remedy: "make it with `redan-device init --offline`",
        });
    }
    let csr = request.csr.filter(|_| offline);
    let mut server = access.connect().await?;
    let labels: serde_json::Map<String, Value> = labels
        .iter()
        .map(|(name, value)| (name.clone(), value.clone().into()))
        .collect();
    let body = json!({"device": request.device, "spki": request.spki, "labels": labels, "csr": csr});
    let voucher = server.post("/v1/devices/admit", &body).await?;
    std::fs::write(out, voucher.to_string()).map_err(|error| CliError::file(out, &error))?;
    Ok(json!({"device": request.device, "voucher": out.display().to_string()}))
}

/// Makes a join token and writes it where its owner alone can read it; the secret is in that file and nowhere else.
pub async fn token(access: &Access, body: &Value, out: &Path) -> Result<Value, CliError> {
    let made = access.connect().await?.post("/v1/tokens", body).await?;
    write_private(out, made.to_string().as_bytes())?;
    let out = out.display().to_string();
    Ok(json!({"token": made.get("token"), "expires": made.get("expires"), "file": out}))
}

/// `GET` of anything.
pub async fn get(access: &Access, path: &str) -> Result<Value, CliError> {
    access.connect().await?.call("GET", path, "").await
}

/// `POST` without a body.
pub async fn post(access: &Access, path: &str) -> Result<Value, CliError> {
    send(access, path, &json!({})).await
}

/// `POST` of a document.
pub async fn send(access: &Access, path: &str, body: &Value) -> Result<Value, CliError> {
    access.connect().await?.post(path, body).await
}

/// How a rollout goes on.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// So many failures halt it.
    pub failure_threshold: u32,
    /// How long a wave is watched.
    pub soak: Seconds,
    /// A device that has not committed by then has failed.
    pub deadline: Seconds,
    /// A second person must agree beyond the first wave.
    pub approve: bool,
}

/// Starts a rollout.
pub async fn start(
    access: &Access,
    set: &SetId,
    waves: &[WaveArgument],
    rules: Rules,
    unblock: &[Digest],
) -> Result<Value, CliError> {
    let waves: Vec<&Value> = waves.iter().map(|wave| &wave.0).collect();
    let body = json!({
        "set": set,
        "waves": waves,
        "failure_threshold": rules.failure_threshold,
        "soak_seconds": rules.soak,
        "deadline_seconds": rules.deadline,
        "approve": rules.approve,
        "unblock": unblock,
    });
    access.connect().await?.post("/v1/rollouts", &body).await
}

/// Fetches the audit log and checks its chain here, not there. `head`: a hash noted before, which must still be in it.
pub async fn verify_audit(access: &Access, head: Option<&str>) -> Result<Value, CliError> {
    let entries: Vec<AuditEntry> = access.connect().await?.call("GET", "/v1/audit", "").await?;
    let newest = verify_chain(&entries)?;
    if let Some(head) = head
        && !entries.iter().any(|entry| entry.hash.to_string() == head)
    {
        let at = u64::try_from(entries.len()).unwrap_or(u64::MAX);
        return Err(redan_protocol::audit::AuditFault::Order { at }.into());
    }
    Ok(json!({"entries": entries.len(), "head": newest}))
}

/// Takes the server's log as it is now for the one to hold it to, whatever was kept before; that stays beside it. `head`: the log's
/// newest hash, as whoever looked into it read it with other eyes than this command's.
pub async fn accept_audit(access: &Access, head: Digest) -> Result<Value, CliError> {
    let mut server = access.connect_unseen().await?;
    let (newest, _) = server.walked(Walk::whole(None)).await?;
    let Some(newest) = newest.filter(|newest| newest.hash == head) else {
        return Err(CliError::Usage {
            what: "the hash given is not that of the log's newest entry".to_owned(),
            remedy: "read it with `redan audit list`, which shows the log as the server has it",
        });
    };
    let before = server.witness().replace(newest, now())?;
    let before = before.map(|path| path.display().to_string());
    Ok(json!({"head": newest, "kept_before": before}))
}

/// The log as the server has it, held to nothing.
pub async fn list_audit(access: &Access) -> Result<Value, CliError> {
    access.connect_unseen().await?.call("GET", "/v1/audit", "").await
}
