//! Reaching the control server as an operator.

use crate::error::CliError;
use crate::witness::{self, Witness};
use bytes::Bytes;
use clap::Args;
use redan_identity::client::Connection;
use redan_identity::profile;
use redan_identity::{Anchors, FleetAnchor, pem};
use redan_protocol::audit::{AuditEntry, AuditFault, Head, Walk};
use redan_protocol::wire::{AUDIT_PAGE_MAX, control_host};
use redan_protocol::{ByteCount, Digest, FleetId, UnixSeconds};
use redan_trust::lookup::LookupStep;
use redan_trust::metadata::{TargetEntry, file_name};
use redan_trust::{Answer, Refresh, Repository, Step, Target, Trusted, TufError, rehearse};
use rustls_pki_types::CertificateDer;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::net::TcpStream;

/// Most pages of an audit log: a hundred thousand devices fill them in years, and who makes up entries without end gives up first.
const PAGES_MAX: u32 = 16_384;
/// Longest answer.
const ANSWER_MAX: ByteCount = ByteCount::mib(64);

/// Which fleet, who, and where.
#[derive(Args, Clone, Debug)]
pub struct Access {
    /// The fleet's public/ folder, as the ceremony wrote it: pins the CA and the roots.
    #[arg(long, global = true, env = "REDAN_FLEET_DIR")]
    pub fleet_dir: Option<PathBuf>,
    /// Your operator key and certificate, PEM; in the place of the key may be the pkcs11: URI of one in a token.
    #[arg(long, global = true, env = "REDAN_OPERATOR")]
    pub operator: Option<PathBuf>,
    /// Where the control server listens, host:port.
    #[arg(long, global = true, env = "REDAN_SERVER")]
    pub server: Option<String>,
    /// Where this machine keeps what it saw of each fleet's audit log; else a folder redan/ where this user's programs keep their state.
    #[arg(long, global = true, env = "REDAN_STATE")]
    pub state_dir: Option<PathBuf>,
}

/// A connection to the fleet's server.
#[derive(Debug)]
pub struct Server {
    connection: Connection,
    /// The fleet.
    pub fleet: FleetId,
    address: String,
    root: Vec<u8>,
    witness: Witness,
    /// Whom the audit log names for what is asked here.
    own: String,
}

/// The time by this machine's clock.
pub fn now() -> UnixSeconds {
    UnixSeconds::new(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs()),
    )
}

/// Reads a text file.
pub fn read_text(path: &Path) -> Result<String, CliError> {
    std::fs::read_to_string(path).map_err(|error| CliError::file(path, &error))
}

fn missing(option: &'static str) -> CliError {
    CliError::Usage {
        what: format!("{option} is missing"),
        remedy: "give --fleet-dir, --operator and --server, or set REDAN_FLEET_DIR, REDAN_OPERATOR and REDAN_SERVER",
    }
}

impl Access {
    /// The fleet's trust anchors, from its folder: what the newest release root lists that the first one leads to, and before there is
    /// such a list the CA of the founding.
    pub fn anchors(&self) -> Result<Anchors, CliError> {
        let folder = self.fleet_dir.as_ref().ok_or_else(|| missing("--fleet-dir"))?;
        let described: Value = serde_json::from_str(&read_text(&folder.join("fleet.json"))?)
            .map_err(|_| CliError::Answer("the fleet's description"))?;
        let fleet = described.get("fleet").and_then(Value::as_str).unwrap_or_default();
        let fleet = FleetId::parse(fleet).map_err(|_| CliError::Answer("the fleet's description"))?;
        let release = folder.join("release");
        let file = |name: String| std::fs::read(release.join(name)).ok();
        let first = read_text(&release.join(file_name("root", Some(1))))?;
        let root = rehearse::roots(
            first.into_bytes(),
            |name| file(name.to_owned()),
            UnixSeconds::new(0),
        );
        match &root.map_err(CliError::from)?.get().authorities {
            Some(listed) => Ok(Anchors::of(&fleet, listed)?),
            None => Ok(FleetAnchor::from_pem(fleet, &read_text(&folder.join("ca.pem"))?)?.into()),
        }
    }

    /// Connects, and holds the server's audit log to what this machine has seen of it: nothing is asked of one that has another.
    pub async fn connect(&self) -> Result<Server, CliError> {
        let mut server = self.connect_with(Witness::open).await?;
        server.watch().await?;
        Ok(server)
    }

    /// Connects whatever the audit log is, for whoever looks into that.
    pub async fn connect_unseen(&self) -> Result<Server, CliError> {
        self.connect_with(|folder, fleet, root| Ok(Witness::fresh(folder, fleet, root)))
            .await
    }

    async fn connect_with(
        &self,
        witness: impl FnOnce(&Path, &FleetId, &[u8]) -> Result<Witness, CliError>,
    ) -> Result<Server, CliError> {
        let folder = self.fleet_dir.as_ref().ok_or_else(|| missing("--fleet-dir"))?;
        let operator = self.operator.as_ref().ok_or_else(|| missing("--operator"))?;
        let address = self.server.clone().ok_or_else(|| missing("--server"))?;
        let anchors = self.anchors()?;
        let fleet = anchors.fleet().clone();
        let held = pem::read_held(&redan_identity::Zeroizing::new(read_text(operator)?));
        let (key, chain) = held.map_err(|source| CliError::Operator {
            file: operator.display().to_string(),
            source,
        })?;
        let own = hold_own(&anchors, &chain, operator, now())?;
        let config = redan_identity::tls::device_client(&anchors, chain, key.as_ref(), now())?;
        let root = read_text(&folder.join("release/1.root.json"))?.into_bytes();
        let state = self.state_dir.clone().map_or_else(witness::folder, Ok)?;
        let witness = witness(&state, &fleet, &root)?;
        let stream = TcpStream::connect(&address)
            .await
            .map_err(|error| CliError::Unreachable {
                address: address.clone(),
                what: error.to_string(),
            })?;
        let failed = |source| CliError::Connection {
            address: address.clone(),
            source,
        };
        let connection = Connection::open(stream, config, &control_host(&fleet))
            .await
            .map_err(failed)?;
        Ok(Server {
            connection,
            fleet,
            address,
            root,
            witness,
            own,
        })
    }
}

/// Holds one's own certificate against the profile before anybody else does: the server would only say "no". Gives whose it is.
fn hold_own(
    anchors: &Anchors,
    chain: &[CertificateDer<'_>],
    file: &Path,
    now: UnixSeconds,
) -> Result<String, CliError> {
    let known = anchors.check(chain, profile::Purpose::Client, now);
    known
        .map(|known| known.id().to_string())
        .map_err(|source| CliError::Operator {
            file: file.display().to_string(),
            source,
        })
}

impl Server {
    async fn send(&mut self, method: &str, path: &str, body: Bytes) -> Result<(u16, Bytes), CliError> {
        let answer = self.exchange(method, path, body).await?;
        if answer.0 == 200 && method != "GET" {
            self.hear().await?;
        }
        Ok(answer)
    }

    /// Looks at the audit log before anything is asked.
    async fn watch(&mut self) -> Result<(), CliError> {
        let at = now();
        let (walk, whole) = self.witness.walk(at);
        let (head, _) = self.walked(walk).await?;
        match head {
            Some(head) => self.witness.keep(head, whole.then_some(at)),
            None => Ok(()),
        }
    }

    /// Looks for what was just done. A line that fails now is no reason to call it undone: the next command looks again.
    async fn hear(&mut self) -> Result<(), CliError> {
        let seen = self.witness.head();
        let walk = seen.map_or(Walk::whole(None), Walk::from);
        let (head, own) = match self.walked(walk).await {
            Err(error @ CliError::Audit(_)) => return Err(error),
            Err(_) => return Ok(()),
            Ok(walked) => walked,
        };
        let told = own.is_some_and(|own| seen.is_none_or(|seen| own > seen.index));
        if let Some(head) = head {
            self.witness.keep(head, None)?;
        }
        if told {
            Ok(())
        } else {
            Err(AuditFault::Untold.into())
        }
    }

    /// Walks the log to its end, without keeping anything: its head, and the newest entry that names who asks here.
    pub(crate) async fn walked(&mut self, mut walk: Walk) -> Result<(Option<Head>, Option<u64>), CliError> {
        let mut own = None;
        for _ in 0..PAGES_MAX {
            let path = format!("/v1/audit/{}", walk.next());
            let (status, body) = self.exchange("GET", &path, Bytes::new()).await?;
            if status != 200 {
                return Err(problem(&body));
            }
            let page: Vec<AuditEntry> =
                serde_json::from_slice(&body).map_err(|_| CliError::Answer("a page of the audit log"))?;
            walk.take(&page)?;
            let named = page.iter().rev().find(|entry| entry.actor == self.own);
            own = named.map(|entry| entry.index).or(own);
            if u64::try_from(page.len()).unwrap_or(u64::MAX) < AUDIT_PAGE_MAX {
                return Ok((walk.end()?, own));
            }
        }
        Err(CliError::Answer("an audit log that ends"))
    }

    /// What this machine keeps of the log.
    pub(crate) fn witness(&mut self) -> &mut Witness {
        &mut self.witness
    }

    async fn exchange(&mut self, method: &str, path: &str, body: Bytes) -> Result<(u16, Bytes), CliError> {
        let kind = [("content-type", "application/json")];
        let answer = self
            .connection
            .request(method, path, &kind, body, ANSWER_MAX)
            .await;
        let answer = answer.map_err(|source| CliError::Connection {
            address: self.address.clone(),
            source,
        })?;
        Ok((answer.status, answer.body))
    }

    /// One request with a JSON answer.
    pub async fn call<T: DeserializeOwned>(
        &mut self,
        method: &str,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Result<T, CliError> {
        let (status, body) = self.send(method, path, body.into()).await?;
        if status != 200 {
            return Err(problem(&body));
        }
        serde_json::from_slice(&body).map_err(|_| CliError::Answer("JSON"))
    }

    /// The same with a JSON body.
    pub async fn post(&mut self, path: &str, body: &Value) -> Result<Value, CliError> {
        self.call("POST", path, body.to_string()).await
    }

    /// Plain text.
    pub async fn text(&mut self, path: &str) -> Result<String, CliError> {
        let (status, body) = self.send("GET", path, Bytes::new()).await?;
        if status != 200 {
            return Err(problem(&body));
        }
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// An artifact's bytes.
    pub async fn artifact(&mut self, target: &Target) -> Result<Bytes, CliError> {
        let digest = target.sha256().ok_or(CliError::Answer("a target with SHA-256"))?;
        let (status, body) = self
            .send("GET", &format!("/v1/artifacts/{digest}"), Bytes::new())
            .await?;
        if status != 200 {
            return Err(problem(&body));
        }
        Ok(body)
    }

    /// A signed document's text, once its bytes have the signed digest.
    pub(crate) async fn document(&mut self, entry: &TargetEntry) -> Result<String, CliError> {
        let unlike = || CliError::Answer("the document that is signed");
        let digest = entry.sha256().ok_or_else(unlike)?;
        let path = format!("/v1/artifacts/{digest}");
        let (status, body) = self.send("GET", &path, Bytes::new()).await?;
        if status != 200 {
            return Err(problem(&body));
        }
        if Digest::of(&body) != digest {
            return Err(unlike());
        }
        String::from_utf8(body.to_vec()).map_err(|_| unlike())
    }

    /// A file of the release repository; `None`: there is none.
    pub(crate) async fn release_file(&mut self, name: &str) -> Result<Option<Vec<u8>>, CliError> {
        let (status, body) = self
            .send("GET", &format!("/v1/release/{name}"), Bytes::new())
            .await?;
        match status {
            200 => Ok(Some(body.to_vec())),
            404 => Ok(None),
            _ => Err(problem(&body)),
        }
    }

    async fn fetch(&mut self, step: Step) -> Result<Answer, CliError> {
        Ok(match step {
            Step::Fetch { path, .. } => self
                .release_file(&path)
                .await?
                .map_or(Answer::Absent, Answer::Bytes),
            _ => Answer::Stored,
        })
    }

    /// The release repository, verified from the pinned root as a device would. What has expired is read all the same: signing it again
    /// is the way out, and it is signed over what is there. Nothing old comes back by that: devices and the server hold to the
    /// versions they have seen.
    pub async fn release(&mut self) -> Result<Repository, CliError> {
        match self.release_at(now()).await {
            Err(CliError::Metadata(TufError::Expired { .. })) => {
                self.release_at(UnixSeconds::default()).await
            }
            other => other,
        }
    }

    async fn release_at(&mut self, now: UnixSeconds) -> Result<Repository, CliError> {
        let trusted = Trusted {
            root: self.root.clone(),
            ..Trusted::default()
        };
        let mut refresh = Refresh::new(trusted, now)?;
        let mut answer = None;
        loop {
            match refresh.step(answer.take())? {
                Step::Done => return Ok(refresh.finish()?),
                step => answer = Some(self.fetch(step).await?),
            }
        }
    }

    /// A target, through its delegations.
    pub async fn target(&mut self, release: &mut Repository, path: &str) -> Result<Option<Target>, CliError> {
        let mut lookup = release.lookup(path);
        let mut answer = None;
        loop {
            match lookup.step(answer.take())? {
                LookupStep::Found(target) => return Ok(Some(target)),
                LookupStep::NotFound => return Ok(None),
                LookupStep::Do(step) => answer = Some(self.fetch(step).await?),
            }
        }
    }

    /// The file a role has now, by the verified snapshot.
    pub async fn role(&mut self, release: &Repository, role: &str) -> Result<(u64, Vec<u8>), CliError> {
        let unlisted = || {
            CliError::Metadata(TufError::Unlisted {
                role: role.to_owned(),
            })
        };
        let version = release
            .snapshot()
            .meta
            .get(&format!("{role}.json"))
            .ok_or_else(unlisted)?
            .version;
        let name = redan_trust::metadata::file_name(role, Some(version));
        Ok((version, self.release_file(&name).await?.ok_or_else(unlisted)?))
    }
}

fn problem(body: &[u8]) -> CliError {
    serde_json::from_slice(body).map_or(CliError::Answer("a problem document"), CliError::Server)
}

#[cfg(test)]
mod tests {
    use super::*;
    use redan_identity::{FleetCa, IssuerKind, KeyFile};
    use redan_protocol::{OperatorName, SpiffeId};

    #[test]
    fn an_expired_operator_certificate_is_said_to_be_expired_before_anybody_is_asked() {
        let fleet = FleetId::parse("plant.example").unwrap();
        let founded = UnixSeconds::new(1_800_000_000);
        let ca = FleetCa::found(fleet.clone(), founded).unwrap();
        let issuer = ca.issuer(IssuerKind::Operator, founded).unwrap();
        let id = SpiffeId::Operator(fleet, OperatorName::parse("alice").unwrap());
        let key = KeyFile::generate().unwrap();
        let chain = issuer.issue_for(&id, &key, founded).unwrap();
        let anchors = Anchors::from(ca.anchor().unwrap());
        let at = |days: u64| {
            let now = UnixSeconds::new(founded.get() + days * 86_400);
            hold_own(&anchors, &chain, Path::new("alice.pem"), now)
        };
        assert!(at(6).is_ok());
        let error = at(8).unwrap_err();
        assert_eq!(error.because(), "certificate-expired");
        assert!(error.to_string().contains("alice.pem"), "{error}");
        assert!(
            error.remedy().contains("redan-ceremony issue"),
            "{}",
            error.remedy()
        );
    }
}
