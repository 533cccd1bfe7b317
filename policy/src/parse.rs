//! Reading documents, with file, line and a suggestion in every error.

use crate::grant::Mode;
use crate::intersect::amounts::MEMORY_TOTAL;
use crate::place::{Source, line_of};
use crate::schema::{Document, Kind};
use crate::wellformed;
use redan_protocol::{ByteCount, ComponentName, Digest, PublisherName, ReleaseCounter, Seconds, UnixSeconds};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// Largest document read, bytes. `redan_protocol::wire::DOCUMENT_LEN_MAX` on the wire.
pub const DOCUMENT_LEN_MAX: usize = 64 * 1024;

/// Half a year: a machine that stood in a shed over the winter comes back by itself (20-identity). What a fleet gets that publishes
/// no policy, or one that does not say.
pub const RENEWAL_GRACE: Seconds = Seconds::new(180 * 86_400);

/// Why a document was not taken.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PolicyError {
    /// Not TOML, or not of the schema.
    #[error("{file}:{line}: {what}; {}", crate::help::of_syntax(.what, .suggestion.as_deref()))]
    Syntax {
        /// The file as the caller named it.
        file: String,
        /// Line, from 1.
        line: usize,
        /// What the parser says.
        what: String,
        /// The known key or value nearest to an unknown one.
        suggestion: Option<String>,
    },
    /// A key that this kind does not have, or a value that is not what the key takes.
    #[error("{file}:{line}: `{key}` {what}{}", crate::help::of_key(.what))]
    Key {
        /// The file.
        file: String,
        /// Line, from 1.
        line: usize,
        /// The key, with its section.
        key: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A document of another kind.
    #[error(
        "{file}: this document is of kind \"{found}\"; here a document of kind \"{wanted}\" is read: name the other file, or write kind = \"{wanted}\""
    )]
    WrongKind {
        /// The file.
        file: String,
        /// The kind it has.
        found: Kind,
        /// The kind wanted.
        wanted: Kind,
    },
    /// Something this kind must name.
    #[error("{file}: `{key}` is missing; add {example}")]
    Missing {
        /// The file.
        file: String,
        /// The key, with its section.
        key: &'static str,
        /// A line to add.
        example: &'static str,
    },
    /// Longer than the limit.
    #[error(
        "{file}: {length} bytes; a policy document has at most {DOCUMENT_LEN_MAX}: take something out of it"
    )]
    TooLarge {
        /// The file.
        file: String,
        /// Its length.
        length: usize,
    },
}

impl PolicyError {
    /// What to do.
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::Syntax { .. } | Self::Key { .. } => {
                "correct the named line; docs/policy.md lists every key"
            }
            Self::WrongKind { .. } => "name the file of the right kind, or correct its `kind`",
            Self::Missing { .. } => "add the named line",
            Self::TooLarge { .. } => "make the document smaller",
        }
    }
}

/// A publisher's ask.
#[derive(Clone, Debug)]
pub struct Ask {
    pub(crate) document: Document,
    pub(crate) source: Source,
    pub(crate) name: ComponentName,
    pub(crate) version: semver::Version,
    pub(crate) world: crate::grant::World,
}

/// A fleet's policy.
#[derive(Clone, Debug)]
pub struct FleetPolicy {
    pub(crate) document: Document,
    pub(crate) source: Source,
    pub(crate) serial: u64,
}

/// A device's ceiling.
#[derive(Clone, Debug)]
pub struct DeviceCeiling {
    pub(crate) document: Document,
    pub(crate) source: Source,
    pub(crate) hardware: String,
}

impl Ask {
    /// The component.
    pub fn name(&self) -> &ComponentName {
        &self.name
    }

    /// Its version.
    pub fn version(&self) -> &semver::Version {
        &self.version
    }

    /// Its world.
    pub fn world(&self) -> crate::grant::World {
        self.world
    }
}

impl FleetPolicy {
    /// Only grows; a device refuses a lower one.
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// Lowest release counter of a component; `None`: no floor.
    pub fn floor(&self, component: &ComponentName) -> Option<ReleaseCounter> {
        self.document.floors.get(component).copied()
    }

    /// All floors.
    pub fn floors(&self) -> &BTreeMap<ComponentName, ReleaseCounter> {
        &self.document.floors
    }

    /// Digests no device may run.
    pub fn revoked(&self) -> &BTreeSet<Digest> {
        &self.document.revoke.digests
    }

    /// How long ago release signers may have signed what is adopted.
    pub fn signed_within(&self) -> Option<Seconds> {
        let within = self.document.require.ask_signed_within?;
        Some(Seconds::new(within.0.get() / 1000))
    }

    /// Oldest `redan-device` that may adopt anything.
    pub fn runtime_min(&self) -> Option<&semver::Version> {
        self.document.runtime.min.as_ref()
    }

    /// Proven time never passes this.
    pub fn maximum_time(&self) -> Option<UnixSeconds> {
        self.document.time.maximum
    }

    /// How long after it expired a device's newest certificate still gets it a new one: [`RENEWAL_GRACE`] where the policy is silent.
    pub fn renewal_grace(&self) -> Seconds {
        self.document
            .identity
            .renewal_grace
            .map_or(RENEWAL_GRACE, |span| Seconds::new(span.0.get() / 1000))
    }
}

impl DeviceCeiling {
    /// The device's hardware class.
    pub fn hardware(&self) -> &str {
        &self.hardware
    }

    /// What each publisher's workloads may use of the device's memory: the total, in as many equal parts as there are publishers this
    /// ceiling admits. No more executors than that ever run, so the parts never come to more than the total, whatever runs when.
    pub fn publisher_memory(&self) -> ByteCount {
        let total = self.document.totals.memory.map_or(MEMORY_TOTAL, |size| size.0);
        let names = self.document.subject.names.iter();
        let publishers: BTreeSet<&str> = names.filter_map(|name| name.split('/').next()).collect();
        let parts = u64::try_from(publishers.len()).unwrap_or(u64::MAX);
        ByteCount::new(total.get().checked_div(parts).unwrap_or(0))
    }

    /// Whether services of WASI 0.3 may run here.
    pub fn wasi_0_3(&self) -> bool {
        self.document.runtime.wasi_0_3.unwrap_or(false)
    }

    /// The device's own folders that volumes are mapped to, and what may be done there at most.
    pub fn folders(&self) -> impl Iterator<Item = (&str, Mode)> {
        let volumes = self.document.fs.iter();
        volumes.filter_map(|volume| Some((volume.host.as_deref()?, volume.mode)))
    }

    /// The file that holds a publisher's secret.
    pub fn secret_file(&self, publisher: &PublisherName, secret: &str) -> Option<&str> {
        let files = &self.document.secrets.as_ref()?.files;
        files.get(&format!("{publisher}/{secret}")).map(String::as_str)
    }

    /// Where workloads listen.
    pub fn listen(&self) -> &BTreeMap<ComponentName, SocketAddr> {
        &self.document.listen
    }
}

/// Reads a publisher's ask. `file` is only for messages.
pub fn parse_ask(file: &str, text: &str) -> Result<Ask, PolicyError> {
    let document = parse(file, text, Kind::Ask)?;
    let missing = |key, example| PolicyError::Missing {
        file: file.to_owned(),
        key,
        example,
    };
    let subject = &document.subject;
    let name = subject
        .name
        .clone()
        .ok_or_else(|| missing("subject.name", "name = \"publisher/workload\""))?;
    let version = subject
        .version
        .clone()
        .ok_or_else(|| missing("subject.version", "version = \"1.0.0\""))?;
    let world = subject
        .world
        .ok_or_else(|| missing("subject.world", "world = \"wasi:http/proxy@0.2\""))?;
    Ok(Ask {
        document,
        source: source(file, text),
        name,
        version,
        world,
    })
}

/// Reads a fleet policy.
pub fn parse_fleet(file: &str, text: &str) -> Result<FleetPolicy, PolicyError> {
    let document = parse(file, text, Kind::Fleet)?;
    let missing = PolicyError::Missing {
        file: file.to_owned(),
        key: "serial",
        example: "serial = 1",
    };
    let serial = document.serial.ok_or(missing)?;
    Ok(FleetPolicy {
        document,
        source: source(file, text),
        serial,
    })
}

/// Reads a device ceiling.
pub fn parse_device(file: &str, text: &str) -> Result<DeviceCeiling, PolicyError> {
    let document = parse(file, text, Kind::Device)?;
    let missing = PolicyError::Missing {
        file: file.to_owned(),
        key: "hardware",
        example: "hardware = \"gateway\"",
    };
    let hardware = document.hardware.clone().ok_or(missing)?;
    Ok(DeviceCeiling {
        document,
        source: source(file, text),
        hardware,
    })
}

fn source(file: &str, text: &str) -> Source {
    Source {
        file: file.to_owned(),
        text: text.to_owned(),
    }
}

fn parse(file: &str, text: &str, wanted: Kind) -> Result<Document, PolicyError> {
    if text.len() > DOCUMENT_LEN_MAX {
        return Err(PolicyError::TooLarge {
            file: file.to_owned(),
            length: text.len(),
        });
    }
    let document: Document = toml::from_str(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        let line = line_of(text, start);
        let what = error.message().replace('\n', " ");
        PolicyError::Syntax {
            file: file.to_owned(),
            line,
            suggestion: crate::help::suggestion(&what),
            what,
        }
    })?;
    if document.kind != wanted {
        return Err(PolicyError::WrongKind {
            file: file.to_owned(),
            found: document.kind,
            wanted,
        });
    }
    wellformed::check(&document).map_err(|flaw| PolicyError::Key {
        file: file.to_owned(),
        line: source(file, text)
            .line(flaw.section, flaw.nth, Some(flaw.key))
            .unwrap_or(1),
        key: [flaw.section, flaw.key]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join("."),
        what: flaw.what,
    })?;
    Ok(document)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASK: &str = "schema = \"redan.policy/1\"\nkind = \"ask\"\n[subject]\nname = \"acme/thermo\"\n\
                       version = \"1.0.0\"\nworld = \"wasi:http/proxy@0.2\"\n";

    #[test]
    fn an_unknown_key_is_an_error_with_its_line_and_the_nearest_known_key() {
        let text = format!("{ASK}[limits]\nmemory_totl = \"8MiB\"\n");
        let error = parse_ask("ask.toml", &text).unwrap_err();
        let PolicyError::Syntax {
            file,
            line,
            suggestion,
            ..
        } = error
        else {
            panic!("{error}")
        };
        assert_eq!(
            (file.as_str(), line, suggestion.as_deref()),
            ("ask.toml", 8, Some("memory_total"))
        );
    }

    #[test]
    fn a_key_given_twice_is_an_error() {
        let text = format!("{ASK}[limits]\nhandles = 1\nhandles = 2\n");
        assert!(matches!(
            parse_ask("a", &text),
            Err(PolicyError::Syntax { line: 9, .. })
        ));
    }

    #[test]
    fn a_document_of_another_kind_is_refused() {
        let wanted = PolicyError::WrongKind {
            file: "a".into(),
            found: Kind::Ask,
            wanted: Kind::Fleet,
        };
        assert_eq!(parse_fleet("a", ASK).unwrap_err(), wanted);
    }

    #[test]
    fn what_is_missing_is_named_with_a_line_to_add() {
        let text = ASK.replace("version = \"1.0.0\"\n", "");
        let wanted = PolicyError::Missing {
            file: "a".into(),
            key: "subject.version",
            example: "version = \"1.0.0\"",
        };
        assert_eq!(parse_ask("a", &text).unwrap_err(), wanted);
    }

    const FLEET: &str = "schema = \"redan.policy/1\"\nkind = \"fleet\"\nserial = 1\n[identity]\n";

    #[test]
    fn the_grace_is_the_fleets_and_half_a_year_where_it_says_nothing() {
        let read = |body: &str| parse_fleet("f", &format!("{FLEET}{body}"));
        assert_eq!(read("").unwrap().renewal_grace(), RENEWAL_GRACE);
        assert_eq!(RENEWAL_GRACE, Seconds::new(15_552_000));
        let grace = |text: &str| read(&format!("renewal_grace = {text}\n"));
        assert_eq!(
            grace("\"30d\"").unwrap().renewal_grace(),
            Seconds::new(30 * 86_400)
        );
        assert_eq!(grace("\"0s\"").unwrap().renewal_grace(), Seconds::new(0));
        let key = |file: &str, what| PolicyError::Key {
            file: file.into(),
            line: 5,
            key: "identity.renewal_grace".into(),
            what,
        };
        let wanted = key("f", "must be whole seconds, such as \"180d\"");
        assert_eq!(grace("\"1500ms\"").unwrap_err(), wanted);
        for unread in ["180", "\"1.5d\"", "\"half a year\"", "\"\""] {
            assert!(
                matches!(grace(unread), Err(PolicyError::Syntax { line: 5, .. })),
                "{unread}"
            );
        }
        let ceiling = FLEET.replace("\"fleet\"\nserial = 1", "\"device\"\nhardware = \"gateway\"");
        let error = parse_device("d", &format!("{ceiling}renewal_grace = \"1d\"\n")).unwrap_err();
        assert_eq!(error, key("d", "belongs to a fleet policy"));
    }

    #[test]
    fn publishers_have_equal_parts_that_never_come_to_more_than_the_total() {
        let ceiling = |names: &str, more: &str| {
            let head = "schema = \"redan.policy/1\"\nkind = \"device\"\nhardware = \"gateway\"\n";
            let ceiling = parse_device("d", &format!("{head}[subject]\nnames = [{names}]\n{more}"));
            ceiling.unwrap().publisher_memory()
        };
        let total = "[totals]\nmemory = \"90MiB\"\n";
        assert_eq!(ceiling("\"acme/*\"", total), ByteCount::mib(90));
        assert_eq!(
            ceiling("\"acme/a\", \"acme/b\", \"acme/*\"", total),
            ByteCount::mib(90)
        );
        assert_eq!(
            ceiling("\"acme/*\", \"other/a\", \"third/a\"", total),
            ByteCount::mib(30)
        );
        assert_eq!(ceiling("", total), ByteCount::new(0));
        assert_eq!(ceiling("\"acme/*\"", ""), MEMORY_TOTAL);
    }

    #[test]
    fn a_document_one_byte_over_the_limit_is_refused() {
        let text = format!("{ASK}#{}", "x".repeat(DOCUMENT_LEN_MAX - ASK.len() - 1));
        assert!(parse_ask("a", &text).is_ok());
        let length = DOCUMENT_LEN_MAX + 1;
        let error = parse_ask("a", &format!("{text}x")).unwrap_err();
        assert_eq!(
            error,
            PolicyError::TooLarge {
                file: "a".into(),
                length
            }
        );
    }
}
