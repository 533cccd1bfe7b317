//! Registering a fleet with this server, on its own host and never over the network.

use crate::config::Config;
use crate::error::ServerError;
use crate::fleet::Fleet;
use crate::server::now;
use redan_identity::key::write_private;
use redan_protocol::FleetId;
use serde::Deserialize;
use std::path::{Path, PathBuf};

#[derive(Deserialize)]
struct FleetFile {
    fleet: FleetId,
}

/// Copies the online keys and the public metadata of a ceremony, opens the fleet once to prove that everything fits, and only then
/// gives it its place.
pub async fn add(config: &Config, online: &Path, public: &Path) -> Result<FleetId, ServerError> {
    let fleet = named_fleet(public)?;
    let fleets = config.state.join("fleets");
    let place = fleets.join(fleet.as_str());
    if place.exists() {
        return Err(ServerError::FleetExists(fleet.to_string()));
    }
    // No fleet's name begins with a dot.
    let half = fleets.join(format!(".{fleet}.unfinished"));
    if half.exists() {
        std::fs::remove_dir_all(&half).map_err(|error| ServerError::file(&half, &error))?;
    }
    std::fs::create_dir_all(&half).map_err(|error| ServerError::file(&half, &error))?;
    let added = async {
        copy(online, &half.join("online"), true)?;
        copy(public, &half.join("public"), false)?;
        Fleet::open(&half, fleet.clone(), now()).await.map(drop)
    };
    if let Err(error) = added.await {
        drop(std::fs::remove_dir_all(&half));
        return Err(error);
    }
    std::fs::rename(&half, &place).map_err(|error| ServerError::file(&place, &error))?;
    Ok(fleet)
}

/// Takes a fleet out of this server's hands: its folder is set aside, whole and in one step, and nothing of another fleet is touched. A
/// server that runs drops it when it is told to look again (SIGHUP). Gives where everything is kept.
pub fn remove(config: &Config, fleet: &FleetId) -> Result<PathBuf, ServerError> {
    let place = config.state.join("fleets").join(fleet.as_str());
    if !place.is_dir() {
        return Err(ServerError::NoSuchFleet(fleet.to_string()));
    }
    let removed = config.state.join("removed");
    std::fs::create_dir_all(&removed).map_err(|error| ServerError::file(&removed, &error))?;
    let aside = removed.join(format!("{fleet}.{}", now().get()));
    std::fs::rename(&place, &aside).map_err(|error| ServerError::file(&place, &error))?;
    Ok(aside)
}

/// The fleet that a ceremony's public folder is of.
pub(crate) fn named_fleet(public: &Path) -> Result<FleetId, ServerError> {
    let named = public.join("fleet.json");
    let text = std::fs::read(&named).map_err(|error| ServerError::file(&named, &error))?;
    let FleetFile { fleet } = serde_json::from_slice(&text).map_err(|error| ServerError::Config {
        path: named.display().to_string(),
        what: error.to_string(),
    })?;
    Ok(fleet)
}

fn copy(from: &Path, to: &Path, private: bool) -> Result<(), ServerError> {
    std::fs::create_dir_all(to).map_err(|error| ServerError::file(to, &error))?;
    for entry in std::fs::read_dir(from).map_err(|error| ServerError::file(from, &error))? {
        let path = entry.map_err(|error| ServerError::file(from, &error))?.path();
        let Some(name) = path.file_name() else { continue };
        let target = to.join(name);
        if path.is_dir() {
            copy(&path, &target, private)?;
            continue;
        }
        let bytes = std::fs::read(&path).map_err(|error| ServerError::file(&path, &error))?;
        if private {
            let fault = |source| ServerError::Identity {
                path: target.display().to_string(),
                source,
            };
            write_private(&target, &bytes).map_err(fault)?;
        } else {
            std::fs::write(&target, &bytes).map_err(|error| ServerError::file(&target, &error))?;
        }
    }
    Ok(())
}
