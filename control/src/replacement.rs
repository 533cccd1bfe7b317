//! Replacing a fleet's online keys, certificates and roots while its server runs: what custodians bring is proven beside the fleet's
//! own files, and then takes their places all together.
//!
//! `replacement.unfinished` is written, proven, and renamed to `replacement`. With the rename the change is decided: whoever opens the
//! fleet's folder next finishes it. A power cut before leaves the old keys, one after it the new ones.

use crate::authorities::{anchors, file_under};
use crate::config::{Config, FleetSettings};
use crate::error::ServerError;
use crate::fleet::DATABASE;
use crate::held::{Folder, Held, is_public_half, listed};
use crate::register::named_fleet;
use crate::release::{Files, Signing, accept};
use crate::server::now;
use crate::store::Store;
use redan_identity::{Zeroizing, pem};
use redan_protocol::FleetId;
use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

const UNFINISHED: &str = "replacement.unfinished";
const DECIDED: &str = "replacement";
/// What may be replaced. Private files first.
const PARTS: [&str; 3] = ["online", "public/release", "public/director"];

/// What was replaced.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Replaced {
    /// Of which fleet.
    pub fleet: FleetId,
    /// Files, below the fleet's folder.
    pub files: Vec<String>,
}

/// Brings new keys and certificates, and the custodians' new roots of both repositories, into a registered fleet's folder. Everything
/// a start checks is checked first, and a check that fails changes nothing. A server that runs is not told here.
pub async fn replace(config: &Config, online: Option<&Path>, public: &Path) -> Result<Replaced, ServerError> {
    let fleet = named_fleet(public)?;
    let fleets = config.state.join("fleets");
    let own = fleets.join(fleet.as_str());
    if !own.exists() {
        return Err(ServerError::NoFleet);
    }
    // One replacement at a time; the lock goes with the process. No fleet's name begins with a dot.
    let lock = fleets.join(format!(".{fleet}.lock"));
    let fault = |error: std::io::Error| ServerError::file(&lock, &error);
    let locked = File::create(&lock).map_err(fault)?;
    locked
        .try_lock()
        .map_err(|_| ServerError::Busy(fleet.to_string()))?;
    finish(&own)?;

    let mut files = changed(&own, online, public)?;
    if files.is_empty() {
        let folder = public.display().to_string();
        return Err(ServerError::NothingNew { folder });
    }
    let store = Store::open(&own.join(DATABASE)).await?;
    let served: Files = store.all_bytes("release").await?.into_iter().collect();
    // First where custodians laid it, so that what is wrong is named as they know it; then the very bytes that will be used.
    let mut brought = Folder::new(&own).with_public(public);
    if let Some(online) = online {
        brought = brought.with_online(online);
    }
    prove(&fleet, &brought, &served)?;
    retain(&own, &fleet, &brought, &served, &mut files)?;
    let unfinished = own.join(UNFINISHED);
    let decided = lay(&unfinished, &files).and_then(|()| {
        let staged = Folder::new(&own)
            .with_online(&unfinished.join("online"))
            .with_public(&unfinished.join("public"));
        prove(&fleet, &staged, &served)?;
        let decided = own.join(DECIDED);
        std::fs::rename(&unfinished, &decided).map_err(|error| ServerError::file(&decided, &error))?;
        durable(&own)
    });
    if let Err(error) = decided {
        remove(&unfinished)?;
        return Err(error);
    }
    finish(&own)?;
    let files = files.into_keys().collect();
    Ok(Replaced { fleet, files })
}

/// Finishes a replacement that was decided, from wherever the power cut left it. Nothing to do when there is none.
pub(crate) fn finish(fleet: &Path) -> Result<(), ServerError> {
    let decided = fleet.join(DECIDED);
    let there = decided.try_exists();
    if !there.map_err(|error| ServerError::file(&decided, &error))? {
        return Ok(());
    }
    for part in PARTS {
        let (from, to) = (decided.join(part), fleet.join(part));
        for name in listed(&from)? {
            match std::fs::rename(from.join(&name), to.join(&name)) {
                // Another process finishes the same.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                moved => moved.map_err(|error| ServerError::file(&to.join(&name), &error))?,
            }
        }
        durable(&to)?;
    }
    remove(&decided)?;
    durable(fleet)
}

/// Holds what there would be to everything a start holds it to, and a new release root to a device's walk.
fn prove(fleet: &FleetId, folder: &Folder, served: &Files) -> Result<(), ServerError> {
    // Whatever the fleet's settings say of key exchange: that is no property of the keys.
    let exchange = FleetSettings::default().key_exchange.into();
    let (held, _) = Held::read(exchange, fleet, folder, served, now())?;
    let roots = held.new_roots(served);
    if roots.is_empty() {
        return Ok(());
    }
    let first = folder.public("release/1.root.json");
    let first_root = std::fs::read_to_string(&first).map_err(|error| ServerError::file(&first, &error))?;
    let by = Signing {
        first_root: &first_root,
        timestamp: &held.keys.release_timestamp,
    };
    let walked = accept(by, served, roots, now());
    walked.map(drop).map_err(|refused| ServerError::Unwalkable {
        path: folder.public("release").display().to_string(),
        code: refused.code,
        what: refused.detail.unwrap_or_else(|| refused.code.to_string()),
    })
}

/// The server's certificate whose place is taken by one under another authority stays beside it, as long as devices may know no other
/// authority.
fn retain(
    own: &Path,
    fleet: &FleetId,
    brought: &Folder,
    served: &Files,
    files: &mut BTreeMap<String, Vec<u8>>,
) -> Result<(), ServerError> {
    let path = own.join("online/server.pem");
    if !files.contains_key("online/server.pem") {
        return Ok(());
    }
    let present = std::fs::read(&path).map_err(|error| ServerError::file(&path, &error))?;
    let present = Zeroizing::new(present);
    let chain = std::str::from_utf8(&present)
        .ok()
        .and_then(|text| pem::read_chain(text).ok());
    let anchors = anchors(brought, fleet, served)?;
    let above = chain.as_deref().and_then(|chain| anchors.above(chain));
    if let Some(anchor) = above.filter(|anchor| anchor.sha256() != anchors.active().sha256()) {
        let place = format!("online/{}", file_under(anchor.sha256()));
        files.entry(place).or_insert_with(|| present.to_vec());
    }
    Ok(())
}

/// What is new, by its place below the fleet's folder.
fn changed(
    own: &Path,
    online: Option<&Path>,
    public: &Path,
) -> Result<BTreeMap<String, Vec<u8>>, ServerError> {
    let read = |path: &Path| std::fs::read(path).map_err(|error| ServerError::file(path, &error));
    let differs = |path: PathBuf| ServerError::Differs {
        path: path.display().to_string(),
    };
    if read(&public.join("ca.pem"))? != read(&own.join("public/ca.pem"))? {
        return Err(differs(public.join("ca.pem")));
    }
    let mut files = BTreeMap::new();
    for repository in ["release", "director"] {
        let from = public.join(repository);
        for name in listed(&from)?.iter().filter(|name| name.ends_with(".root.json")) {
            let bytes = read(&from.join(name))?;
            let place = format!("public/{repository}/{name}");
            match std::fs::read(own.join(&place)) {
                Ok(present) if present == bytes => {}
                // What was signed under a version never changes.
                Ok(_) => return Err(differs(from.join(name))),
                Err(_) => drop(files.insert(place, bytes)),
            }
        }
    }
    if let Some(online) = online {
        for name in listed(online)?.iter().filter(|name| !is_public_half(name)) {
            let bytes = read(&online.join(name))?;
            let place = format!("online/{name}");
            if std::fs::read(own.join(&place)).ok().as_ref() != Some(&bytes) {
                files.insert(place, bytes);
            }
        }
    }
    Ok(files)
}

/// Writes files into a new folder, each its owner's alone, all of it durably.
fn lay(folder: &Path, files: &BTreeMap<String, Vec<u8>>) -> Result<(), ServerError> {
    remove(folder)?;
    for part in PARTS {
        let place = folder.join(part);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&place);
        made.map_err(|error| ServerError::file(&place, &error))?;
    }
    for (name, bytes) in files {
        let path = folder.join(name);
        let written = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
        written.map_err(|error| ServerError::file(&path, &error))?;
    }
    for part in PARTS {
        durable(&folder.join(part))?;
    }
    durable(&folder.join("public"))?;
    durable(folder)
}

fn remove(folder: &Path) -> Result<(), ServerError> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(ServerError::file(folder, &error)),
        _ => Ok(()),
    }
}

fn durable(folder: &Path) -> Result<(), ServerError> {
    File::open(folder)
        .and_then(|opened| opened.sync_all())
        .map_err(|error| ServerError::file(folder, &error))
}
