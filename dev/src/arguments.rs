//! The command line.

use crate::fault::Fault;
use clap::Parser;
use redan_protocol::ComponentName;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Run a component here, as a device would run it. Nothing is verified, and nothing leaves this machine signed.
///
/// Without --ask it is given everything this runtime offers; with --ask exactly what a device would give it.
#[derive(Debug, Parser)]
#[command(name = "redan dev", bin_name = "redan dev", version)]
pub(crate) struct Arguments {
    /// The component.
    pub(crate) component: PathBuf,
    /// Its ask: grant what it names, and nothing else.
    #[arg(long)]
    pub(crate) ask: Option<PathBuf>,
    /// A fleet policy to hold the ask against [default: one that admits it].
    #[arg(long, requires = "ask")]
    pub(crate) fleet: Option<PathBuf>,
    /// A device ceiling to hold the ask against [default: one that admits it].
    #[arg(long, requires = "ask")]
    pub(crate) device: Option<PathBuf>,
    /// Offer everything, note what is used, and write the smallest ask for that here; must not exist.
    #[arg(long, conflicts_with = "ask")]
    pub(crate) learn: Option<PathBuf>,
    /// The component's name in a learned ask [default: dev/FILE].
    #[arg(long)]
    name: Option<ComponentName>,
    /// An environment variable; without a value, this shell's. May be given several times.
    #[arg(long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// A configuration value. May be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    config: Vec<String>,
    /// A folder of this machine; with an ask, the place of the volume the guest sees there. May be given several times.
    #[arg(long, value_name = "HOST[::GUEST[::ro]]")]
    dir: Vec<String>,
    /// Let it send HTTP requests anywhere, this machine included. An ask has its own rules.
    #[arg(long, conflicts_with_all = ["ask", "learn"])]
    pub(crate) allow_http: bool,
    /// Dial this address for a host and port, whatever its name resolves to. May be given several times.
    #[arg(long, value_name = "HOST:PORT=ADDRESS")]
    resolve: Vec<String>,
    /// Where a service listens: a loopback address; port 0 is any free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub(crate) listen: SocketAddr,
    /// An argument for the program, before those after `--`. May be given several times.
    #[arg(long = "arg", allow_hyphen_values = true)]
    arg: Vec<String>,
    /// Keep buckets and volumes in this folder [default: a folder that goes with this run].
    #[arg(long)]
    pub(crate) data: Option<PathBuf>,
    /// Say nothing but errors: for scripts that compare standard error.
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// Arguments for the program.
    #[arg(last = true)]
    more: Vec<String>,
}

/// A folder lent to a guest.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Folder {
    pub(crate) host: PathBuf,
    pub(crate) guest: String,
    pub(crate) write: bool,
}

/// The command line, its texts read.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) given: Arguments,
    pub(crate) name: ComponentName,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) config: BTreeMap<String, String>,
    pub(crate) folders: Vec<Folder>,
    pub(crate) resolve: BTreeMap<(String, u16), SocketAddr>,
    pub(crate) arguments: Vec<String>,
}

impl Arguments {
    pub(crate) fn checked(mut self) -> Result<Checked, Fault> {
        if !self.listen.ip().is_loopback() {
            return Err(usage(
                format!("{} is no loopback address", self.listen),
                "listen on 127.0.0.1 or [::1]: nothing here was verified, and others must not reach it",
            ));
        }
        if let Some(learn) = self.learn.as_ref().filter(|learn| learn.exists()) {
            return Err(usage(
                format!("{} is there already", learn.display()),
                "name a new file, so that no ask is lost",
            ));
        }
        // Before the run: what it showed would be lost.
        let below = self.learn.as_ref().and_then(|learn| learn.parent());
        if let Some(folder) = below.filter(|folder| *folder != Path::new("") && !folder.is_dir()) {
            return Err(usage(
                format!("{} is no folder", folder.display()),
                "name a file in a folder that exists",
            ));
        }
        let env = self.env.iter().filter_map(|text| match text.split_once('=') {
            Some((name, value)) => Some((name.to_owned(), value.to_owned())),
            None => Some((text.clone(), std::env::var(text).ok()?)),
        });
        let env = env.collect();
        let config = self.config.iter().map(|text| {
            let pair = text.split_once('=').ok_or_else(|| {
                usage(
                    format!("`{text}` has no value"),
                    "write a configuration value KEY=VALUE",
                )
            });
            pair.map(|(key, value)| (key.to_owned(), value.to_owned()))
        });
        let config = config.collect::<Result<_, _>>()?;
        let folders = self.dir.iter().map(|text| folder(text));
        let folders = folders.collect::<Result<_, _>>()?;
        let resolve = self.resolve.iter().map(|text| {
            resolved(text).ok_or_else(|| {
                usage(
                    format!("`{text}` names no address"),
                    "write it HOST:PORT=127.0.0.1:8080",
                )
            })
        });
        let resolve = resolve.collect::<Result<_, _>>()?;
        let name = match self.name.take() {
            Some(name) => name,
            None => default_name(&self.component)?,
        };
        let arguments = [std::mem::take(&mut self.arg), std::mem::take(&mut self.more)].concat();
        Ok(Checked {
            given: self,
            name,
            env,
            config,
            folders,
            resolve,
            arguments,
        })
    }
}

pub(crate) fn usage(what: String, remedy: &'static str) -> Fault {
    Fault::Usage { what, remedy }
}

fn folder(text: &str) -> Result<Folder, Fault> {
    let mut parts = text.split("::");
    let host = Path::new(parts.next().unwrap_or_default());
    let guest = parts
        .next()
        .unwrap_or_else(|| text.split("::").next().unwrap_or_default());
    let write = match parts.next() {
        None => true,
        Some("ro") => false,
        Some(other) => {
            return Err(usage(
                format!("`{other}` is no mode of a folder"),
                "write HOST::GUEST or HOST::GUEST::ro",
            ));
        }
    };
    let found = host.canonicalize().map_err(Fault::file(host))?;
    if !found.is_dir() {
        return Err(usage(format!("{} is no folder", host.display()), "name a folder"));
    }
    Ok(Folder {
        host: found,
        guest: guest.to_owned(),
        write,
    })
}

fn resolved(text: &str) -> Option<((String, u16), SocketAddr)> {
    let (name, address) = text.split_once('=')?;
    let (host, port) = name.rsplit_once(':')?;
    Some((
        (host.to_ascii_lowercase(), port.parse().ok()?),
        address.parse().ok()?,
    ))
}

/// `dev/` and the file's name, in the letters of a name.
fn default_name(component: &Path) -> Result<ComponentName, Fault> {
    let stem = component.file_stem().unwrap_or_default().to_string_lossy();
    let letters: String = stem
        .to_ascii_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(63)
        .collect();
    let name = format!("dev/{}", letters.trim_matches('-'));
    ComponentName::parse(&name).map_err(|_| {
        usage(
            format!("{name} is no name"),
            "give one with --name publisher/workload",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Result<Checked, Fault> {
        Arguments::try_parse_from([&["redan dev"], words].concat())
            .unwrap()
            .checked()
    }

    #[test]
    fn arguments_reach_the_program_in_their_order() {
        let words = ["a_b.wasm", "--arg", "-x", "--env", "A=b=c", "--", "--help", "y"];
        let checked = parsed(&words).unwrap();
        assert_eq!(checked.arguments, ["-x", "--help", "y"]);
        assert_eq!(checked.env["A"], "b=c");
        assert_eq!(checked.name.to_string(), "dev/a-b");
    }

    #[test]
    fn an_unverified_component_is_never_offered_to_other_machines() {
        for address in ["0.0.0.0:0", "192.168.1.1:80", "[::]:80"] {
            let refused = parsed(&["a.wasm", "--listen", address]).unwrap_err();
            assert!(
                refused.to_string().ends_with("is no loopback address"),
                "{refused}"
            );
        }
        assert!(parsed(&["a.wasm", "--listen", "[::1]:0"]).is_ok());
    }

    #[test]
    fn an_ask_that_is_there_is_not_written_over() {
        let refused = parsed(&["a.wasm", "--learn", "Cargo.toml"]).unwrap_err();
        assert_eq!(refused.to_string(), "Cargo.toml is there already");
        assert_eq!(refused.exit(), 2);
    }

    #[test]
    fn an_ask_that_could_not_be_written_is_refused_before_the_run() {
        let refused = parsed(&["a.wasm", "--learn", "nowhere/ask.toml"]).unwrap_err();
        assert_eq!(refused.to_string(), "nowhere is no folder");
        assert!(parsed(&["a.wasm", "--learn", "src/ask.toml"]).is_ok());
        assert!(parsed(&["a.wasm", "--learn", "ask.toml"]).is_ok());
    }

    #[test]
    fn a_folder_is_seen_where_it_is_said_to_be() {
        let checked = parsed(&[
            "a.wasm",
            "--dir",
            "src::/var",
            "--dir",
            "src",
            "--dir",
            "src::x::ro",
        ])
        .unwrap();
        let seen: Vec<_> = checked
            .folders
            .iter()
            .map(|f| (f.guest.as_str(), f.write))
            .collect();
        assert_eq!(seen, [("/var", true), ("src", true), ("x", false)]);
        assert!(parsed(&["a.wasm", "--dir", "src::/var::wx"]).is_err());
    }
}
