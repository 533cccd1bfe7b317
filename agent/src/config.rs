//! `device.toml`: where the state is, where the ceiling is, and which server.

use crate::AgentError;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// What `redan-device run --config device.toml` reads. Unknown keys are errors.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The state folder; relative paths are relative to the file.
    pub state: PathBuf,
    /// The device ceiling, a `redan.policy/1` document of kind `device`.
    pub ceiling: PathBuf,
    /// `host:port` of the control server, instead of the one in the voucher.
    #[serde(default)]
    pub server: Option<String>,
    /// Names of environment variables the agent's PKCS#11 module needs, such as `SOFTHSM2_CONF`. The agent gets these, and no other
    /// process of the device.
    #[serde(default)]
    pub module_environment: Vec<String>,
}

impl Config {
    /// Reads the file and makes its paths absolute.
    pub fn load(path: &Path) -> Result<Self, AgentError> {
        let text = std::fs::read_to_string(path).map_err(|source| AgentError::NoConfig {
            path: path.to_owned(),
            source,
        })?;
        let mut config: Self = toml::from_str(&text).map_err(|source| AgentError::Config {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        let folder = std::path::absolute(path)
            .map_err(|source| AgentError::file("find", path, source))?
            .parent()
            .map(Path::to_owned)
            .unwrap_or_default();
        config.state = folder.join(&config.state);
        config.ceiling = folder.join(&config.ceiling);
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_relative_to_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("device.toml");
        std::fs::write(&file, "state = \"state\"\nceiling = \"/etc/ceiling.toml\"\n").unwrap();
        let config = Config::load(&file).unwrap();
        assert_eq!(config.state, folder.path().join("state"));
        assert_eq!(config.ceiling, PathBuf::from("/etc/ceiling.toml"));
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("device.toml");
        std::fs::write(&file, "state = \"s\"\nceiling = \"c\"\nverify = false\n").unwrap();
        let error = Config::load(&file).unwrap_err();
        let text = format!("{error}: {}", std::error::Error::source(&error).unwrap());
        assert!(text.contains("unknown field `verify`"), "{text}");
    }
}
