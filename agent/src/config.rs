//! `device.toml`: where the state is, where the ceiling is, and which server.

use crate::AgentError;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::fmt;
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
    pub server: Option<ServerAddress>,
    /// Further addresses of the same control server, at most seven: asked in turn when one fails or lies.
    #[serde(default)]
    pub servers: Servers,
    /// Names of environment variables the agent's PKCS#11 module needs, such as `SOFTHSM2_CONF`. The agent gets these, and no other
    /// process of the device.
    #[serde(default)]
    pub module_environment: Vec<String>,
}

/// Most further addresses of the server. Tripped by `an_address_too_many_is_an_error`.
pub(crate) const SERVERS_MAX: usize = 7;

/// `host:port`: a name, an IPv4 address or an IPv6 address in brackets, and a port that is not 0.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Deserialize)]
#[serde(try_from = "String")]
pub struct ServerAddress(String);

impl ServerAddress {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for ServerAddress {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        let wrong = "an address of the server is written host:port";
        let (host, port) = text.rsplit_once(':').ok_or(wrong)?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let good = if let Some(v6) = bracketed {
            v6.parse::<std::net::Ipv6Addr>().is_ok()
        } else {
            let of_names = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            !host.is_empty() && host.len() <= 253 && host.bytes().all(of_names)
        };
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        match port.parse::<u16>() {
            Ok(1..) if good && digits => Ok(Self(text)),
            _ => Err(wrong),
        }
    }
}

/// Further addresses of the server: few, and none twice.
#[derive(Clone, Debug, Default, Eq, PartialEq, Deserialize)]
#[serde(try_from = "Vec<ServerAddress>")]
pub struct Servers(Vec<ServerAddress>);

impl Servers {
    /// In the order they are asked.
    pub fn iter(&self) -> impl Iterator<Item = &ServerAddress> {
        self.0.iter()
    }
}

impl TryFrom<Vec<ServerAddress>> for Servers {
    type Error = &'static str;
    fn try_from(all: Vec<ServerAddress>) -> Result<Self, Self::Error> {
        if all.len() > SERVERS_MAX {
            return Err("more than 7 further addresses of the server");
        }
        if all.iter().collect::<BTreeSet<_>>().len() != all.len() {
            return Err("an address of the server is named twice");
        }
        Ok(Self(all))
    }
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

    fn reading(lines: &str) -> Result<Config, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("device.toml");
        std::fs::write(&file, format!("state = \"s\"\nceiling = \"c\"\n{lines}\n")).unwrap();
        Config::load(&file)
            .map_err(|error| format!("{error}: {}", std::error::Error::source(&error).unwrap()))
    }

    #[test]
    fn further_addresses_of_the_server_are_read_in_their_order() {
        let config =
            reading("servers = [\"b.example:1\", \"10.0.0.7:443\", \"[fd00::7]:65535\", \"a_1:8443\"]")
                .unwrap();
        let read: Vec<_> = config.servers.iter().map(ServerAddress::as_str).collect();
        assert_eq!(
            read,
            ["b.example:1", "10.0.0.7:443", "[fd00::7]:65535", "a_1:8443"]
        );
        assert_eq!(config.server, None);
    }

    #[test]
    fn what_is_no_address_of_a_server_is_an_error() {
        for wrong in [
            "",
            "host",
            "host:",
            ":443",
            "host:0",
            "host:65536",
            "host:+1",
            "host:-1",
            "host:4 43",
            "https://host:443",
            "host/path:443",
            "ho st:443",
            "a:b:443",
            "fd00::7:443",
            "[fd00::7]",
            "[host]:443",
            "u@host:443",
        ] {
            for key in [
                format!("server = \"{wrong}\""),
                format!("servers = [\"{wrong}\"]"),
            ] {
                let error = reading(&key).unwrap_err();
                assert!(error.contains("is written host:port"), "{key}: {error}");
            }
        }
        for wrong in ["servers = \"host:443\"", "servers = [443]", "servers = {}"] {
            assert!(reading(wrong).unwrap_err().contains("invalid type"), "{wrong}");
        }
        let twice = reading("servers = [\"a:1\", \"b:1\", \"a:1\"]").unwrap_err();
        assert!(twice.contains("named twice"), "{twice}");
    }

    #[test]
    fn an_address_too_many_is_an_error() {
        let servers = |count: usize| {
            let all: Vec<String> = (0..count).map(|at| format!("\"host-{at}:443\"")).collect();
            reading(&format!("servers = [{}]", all.join(", ")))
        };
        assert_eq!(servers(SERVERS_MAX).unwrap().servers.iter().count(), SERVERS_MAX);
        let error = servers(SERVERS_MAX + 1).unwrap_err();
        assert!(error.contains("more than 7 further addresses"), "{error}");
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
