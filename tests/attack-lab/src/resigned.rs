//! T02: the attacker holds every key of the control server, and runs that server with metadata it signed itself.

use crate::guinea::Guinea;
use anyhow::{Context, Result, ensure};
use redan_kit::stage::FLEET;
use redan_kit::{Process, Stage};
use redan_protocol::{Code, UnixSeconds};
use redan_publish::SigningKey;
use redan_publish::metadata::{sign, timestamp};
use serde_json::{Value, json};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _, Row as _};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// For a device to fetch metadata and say what it thinks of it.
const REFUSAL_WITHIN: Duration = Duration::from_secs(30);

/// Release metadata by file name.
type Files = BTreeMap<String, Vec<u8>>;

/// Forges one role with the server's own keys. Gets the honest files and the folder of the online keys.
type Forgery = fn(&Files, &Path) -> Result<Files>;

/// For one update of one device on a busy machine.
const UPDATE_WITHIN: Duration = Duration::from_mins(1);
/// The set every stage publishes first.
const SET: &str = "plant-1";

const FORGERIES: &[(&str, Forgery)] = &[
    ("snapshot", snapshot_by_online_keys),
    ("root", root_by_online_keys),
];

/// The attacker's server has the stolen TLS key, the stolen timestamp and director keys, and a copy of the database in which one
/// role is signed with them: each is refused, and the device keeps what it runs. Positive control: before, the same device has
/// adopted the same repository as the honest server serves it.
pub fn metadata_signed_with_the_servers_own_keys(stage: &Stage) -> Result<String> {
    let honest = stage.control_state().join("fleets").join(FLEET);
    for (role, forge) in FORGERIES {
        let mut guinea = Guinea::enrol(stage, &format!("attacked-t02-{role}"))?;
        guinea.start(stage.server()?)?;
        let rollout = stage.start_rollout(SET, &[&format!("control={}", guinea.id())])?;
        guinea.await_set(SET, UPDATE_WITHIN).context("positive control")?;
        stage.await_rollout(&rollout, &["complete"], UPDATE_WITHIN)?;
        guinea.stop()?;

        let folder = tempfile::tempdir()?;
        let mut evil = EvilServer::prepare(&honest, folder.path())?;
        evil.forge(*forge)?;
        guinea.start(evil.start(stage)?)?;
        let code = guinea
            .await_refusal(REFUSAL_WITHIN)
            .with_context(|| format!("a forged {role}"))?;
        ensure!(
            code == Code::ThresholdNotMet.name(),
            "a forged {role} was refused as {code}"
        );
        guinea.await_kept(SET, REFUSAL_WITHIN)?;
        guinea.stop()?;
        evil.stop()?;
    }
    Ok(Code::ThresholdNotMet.name().to_owned())
}

/// The next snapshot, signed by the timestamp key, and a correct timestamp that points to it.
fn snapshot_by_online_keys(honest: &Files, online: &Path) -> Result<Files> {
    let key = SigningKey::load(&online.join("release.timestamp.key.json"))?;
    let (version, _) = newest_snapshot(honest)?;
    let mut signed = signed(honest, &format!("{version}.snapshot.json"))?;
    let next = version + 1;
    put(&mut signed, "version", json!(next))?;
    let forged = sign(&signed, &[&key])?;
    Ok(Files::from([
        (
            "timestamp.json".into(),
            newer_timestamp(honest, &key, (next, &forged))?,
        ),
        (format!("{next}.snapshot.json"), forged),
    ]))
}

/// A newer timestamp, which the attacker can sign: it makes devices look.
fn newer_timestamp(honest: &Files, key: &SigningKey, snapshot: (u64, &[u8])) -> Result<Vec<u8>> {
    let old = signed(honest, "timestamp.json")?;
    let version = old
        .get("version")
        .and_then(Value::as_u64)
        .context("the timestamp's version")?;
    Ok(sign(&timestamp(version + 1, tomorrow(), snapshot)?, &[key])?)
}

/// Version and bytes of the newest snapshot.
fn newest_snapshot(honest: &Files) -> Result<(u64, &[u8])> {
    let versions = honest.iter().filter_map(|(name, bytes)| {
        let version = name.strip_suffix(".snapshot.json")?.parse::<u64>().ok()?;
        Some((version, bytes.as_slice()))
    });
    versions
        .max_by_key(|(version, _)| *version)
        .context("no snapshot")
}

/// A second root that hands every offline role to a key the attacker made, signed by the timestamp key and by that key. The timestamp
/// stays with the stolen key: the product's server would not start over a root that names another.
fn root_by_online_keys(honest: &Files, online: &Path) -> Result<Files> {
    let stolen = SigningKey::load(&online.join("release.timestamp.key.json"))?;
    let made = SigningKey::generate("attacker")?;
    let mut signed = signed(honest, "1.root.json")?;
    put(&mut signed, "version", json!(2))?;
    let public = made.public();
    let keys = signed.get_mut("keys").context("the root's keys")?;
    put(keys, &public.id, public.tuf())?;
    let roles = signed.get_mut("roles").context("the root's roles")?;
    for role in ["root", "targets", "snapshot"] {
        put(roles, role, json!({"keyids": [public.id], "threshold": 1}))?;
    }
    Ok(Files::from([
        ("2.root.json".into(), sign(&signed, &[&stolen, &made])?),
        (
            "timestamp.json".into(),
            newer_timestamp(honest, &stolen, newest_snapshot(honest)?)?,
        ),
    ]))
}

fn signed(files: &Files, name: &str) -> Result<Value> {
    let bytes = files.get(name).with_context(|| format!("no {name}"))?;
    let file: Value = serde_json::from_slice(bytes)?;
    file.get("signed").cloned().context("no signed part")
}

pub(crate) fn put(object: &mut Value, name: &str, value: Value) -> Result<()> {
    object
        .as_object_mut()
        .context("not an object")?
        .insert(name.to_owned(), value);
    Ok(())
}

fn tomorrow() -> UnixSeconds {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    UnixSeconds::new(now.as_secs() + 24 * 3600)
}

/// The product's own server program over a stolen and doctored state folder.
struct EvilServer {
    folder: PathBuf,
    process: Option<Process>,
}

impl EvilServer {
    /// Copies keys, public files, artifacts and database.
    fn prepare(honest: &Path, folder: &Path) -> Result<Self> {
        let stolen = folder.join("state/fleets").join(FLEET);
        copy(honest, &stolen)?;
        let database = stolen.join("fleet.sqlite");
        let into = database.to_string_lossy().into_owned();
        run(&honest.join("fleet.sqlite"), async |connection| {
            sqlx::query("VACUUM INTO ?")
                .bind(into)
                .execute(connection)
                .await?;
            Ok(())
        })?;
        Ok(Self {
            folder: folder.to_owned(),
            process: None,
        })
    }

    fn fleet(&self) -> PathBuf {
        self.folder.join("state/fleets").join(FLEET)
    }

    fn forge(&mut self, forge: Forgery) -> Result<()> {
        let online = self.fleet().join("online");
        run(&self.fleet().join("fleet.sqlite"), async |connection| {
            let honest = release_files(connection).await?;
            for (name, bytes) in forge(&honest, &online)? {
                sqlx::query("INSERT OR REPLACE INTO documents (kind, id, body) VALUES ('release', ?, ?)")
                    .bind(name)
                    .bind(bytes)
                    .execute(&mut *connection)
                    .await?;
            }
            Ok(())
        })
    }

    fn start(&mut self, stage: &Stage) -> Result<SocketAddr> {
        let config = self.folder.join("control.toml");
        let kept = self.folder.join("state");
        let text = format!(
            "state = '{}'\nlisten = \"127.0.0.1:0\"\ncheckin_interval_seconds = 1\n",
            kept.display()
        );
        std::fs::write(&config, text)?;
        let mut serve = Command::new(&stage.programs.control);
        serve.args(["serve", "--config"]).arg(&config);
        let mut process = Process::start("evil redan-control", &mut serve, &self.folder.join("control.log"))?;
        let address = process.ready("redan-control: listening on ")?.parse()?;
        self.process = Some(process);
        Ok(address)
    }

    fn stop(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.stop()?;
        }
        Ok(())
    }
}

/// The release metadata a server's database holds.
pub(crate) fn published(database: &Path) -> Result<Files> {
    documents(database, "release")
}

/// The documents of a kind that a server's database holds.
pub(crate) fn documents(database: &Path, kind: &str) -> Result<Files> {
    let mut files = Files::new();
    run(database, async |connection| {
        files = documents_of(connection, kind).await?;
        Ok(())
    })?;
    Ok(files)
}

async fn release_files(connection: &mut SqliteConnection) -> Result<Files> {
    documents_of(connection, "release").await
}

async fn documents_of(connection: &mut SqliteConnection, kind: &str) -> Result<Files> {
    let rows = sqlx::query("SELECT id, body FROM documents WHERE kind = ?").bind(kind);
    let mut files = Files::new();
    for row in rows.fetch_all(connection).await? {
        files.insert(row.try_get("id")?, row.try_get("body")?);
    }
    Ok(files)
}

/// Everything but the database, which its own engine copies.
fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_string_lossy().starts_with("fleet.sqlite") {
            continue;
        }
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to.join(name))?;
        } else {
            std::fs::copy(entry.path(), to.join(name))?;
        }
    }
    Ok(())
}

/// One connection to a database, for a few statements.
fn run(database: &Path, work: impl AsyncFnOnce(&mut SqliteConnection) -> Result<()>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut connection = SqliteConnectOptions::new().filename(database).connect().await?;
        work(&mut connection).await?;
        connection.close().await?;
        Ok(())
    })
}
