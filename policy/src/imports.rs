//! Which capability each WIT interface needs: the one table that admission, `redan check` and the linker follow.

use crate::grant::{EffectiveGrant, World};
use crate::parse::Ask;
use redan_protocol::Code;
use std::fmt;

/// What an ask, a policy and a ceiling have to name before an interface is linked.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub enum Capability {
    /// `[[net.http]]`
    NetHttp,
    /// `[[kv]]`
    Kv,
    /// `[config]`
    Config,
    /// `[log]`
    Log,
    /// `[[outbox]]`
    Outbox,
    /// `[net.sockets]`, which binds them to a stub that refuses: this runtime offers none.
    Sockets,
    /// Not offered by this runtime.
    NotOffered,
}

impl Capability {
    /// The section of `redan.policy/1` that grants it.
    pub const fn section(self) -> &'static str {
        match self {
            Self::NetHttp => "net.http",
            Self::Kv => "kv",
            Self::Config => "config",
            Self::Log => "log",
            Self::Outbox => "outbox",
            Self::Sockets => "net.sockets",
            Self::NotOffered => "(none)",
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.section())
    }
}

/// What an interface needs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Need {
    /// A grant; without it the interface is not linked.
    Granted(Capability),
    /// Nothing: without a grant it is linked inert and conveys no authority (empty environment, no preopened folder, closed
    /// standard input). Standard libraries import these whether a program uses them or not (corrections 3).
    Inert,
    /// Nothing: it conveys no authority at all.
    Always,
    /// An interface of WASI 0.3.
    Later,
    /// Not an interface of this runtime.
    Unknown,
}

/// Versions of WASI 0.2 this runtime links, and the draft of key-value and configuration.
const VERSION_02: &str = "0.2.";
/// Versions of this runtime's own interfaces.
const VERSION_OWN: &str = "0.1.";
/// Of WASI 0.3, which it links for components of its world alone.
const VERSION_03: &str = "0.3.";

/// What an interface needs; `interface` as a component imports it, `wasi:http/types@0.2.3`.
pub fn need(interface: &str) -> Need {
    let (name, version) = interface.split_once('@').unwrap_or((interface, ""));
    let stable = version.starts_with(VERSION_02) && !version.contains('-');
    match name {
        "wasi:io/error" | "wasi:io/poll" | "wasi:io/streams" | "wasi:http/types" if stable => Need::Always,
        "wasi:clocks/wall-clock" | "wasi:filesystem/types" | "wasi:filesystem/preopens" if stable => {
            Need::Inert
        }
        _ if stable && is_of_std(name) => Need::Inert,
        "wasi:http/outgoing-handler" if stable => Need::Granted(Capability::NetHttp),
        "wasi:keyvalue/store" | "wasi:keyvalue/atomics" | "wasi:keyvalue/batch"
            if version.starts_with("0.2.0-draft") =>
        {
            Need::Granted(Capability::Kv)
        }
        "wasi:config/store" if version.starts_with(VERSION_02) => Need::Granted(Capability::Config),
        "wasi:logging/logging" => Need::Granted(Capability::Log),
        "redan:outbox/outbox" if version.starts_with(VERSION_OWN) => Need::Granted(Capability::Outbox),
        "redan:messaging/types" if version.starts_with(VERSION_OWN) => Need::Always,
        _ if name.starts_with("wasi:") && version.starts_with(VERSION_03) => Need::Later,
        _ if name.starts_with("wasi:sockets/") => Need::Granted(Capability::Sockets),
        _ => Need::Unknown,
    }
}

/// What every standard library imports, under one name in both versions.
fn is_of_std(name: &str) -> bool {
    matches!(
        name,
        "wasi:clocks/monotonic-clock"
            | "wasi:random/random"
            | "wasi:random/insecure"
            | "wasi:random/insecure-seed"
            | "wasi:cli/environment"
            | "wasi:cli/exit"
            | "wasi:cli/stdin"
            | "wasi:cli/stdout"
            | "wasi:cli/stderr"
            | "wasi:cli/terminal-input"
            | "wasi:cli/terminal-output"
            | "wasi:cli/terminal-stdin"
            | "wasi:cli/terminal-stdout"
            | "wasi:cli/terminal-stderr"
    )
}

/// The same for a component of a world of WASI 0.3, which may import interfaces of both: its standard library is of 0.2.
fn need_of_later(interface: &str) -> Need {
    let (name, version) = interface.split_once('@').unwrap_or((interface, ""));
    if !version.starts_with(VERSION_03) || version.contains('-') {
        return need(interface);
    }
    match name {
        "wasi:http/types" | "wasi:clocks/types" | "wasi:cli/types" => Need::Always,
        "wasi:clocks/system-clock" => Need::Inert,
        _ if is_of_std(name) => Need::Inert,
        "wasi:http/client" => Need::Granted(Capability::NetHttp),
        _ => need(interface),
    }
}

/// Why a component is not admitted.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NotAdmitted {
    /// It imports what was not asked for, or not granted.
    #[error("the component imports `{interface}`, which needs `[{capability}]`")]
    Import {
        /// The interface, checked against the grammar of WIT names by the parser that read it.
        interface: String,
        /// The missing section.
        capability: Capability,
    },
    /// It was built for WASI 0.3.
    #[error("the component is built for WASI 0.3 (`{interface}`); this runtime offers WASI 0.2")]
    Later {
        /// The interface.
        interface: String,
    },
    /// It is of a world of WASI 0.3, and imports what of 0.3 is not offered.
    #[error("the component imports `{interface}`, which this runtime offers in its version of WASI 0.2 only")]
    NotOfLater {
        /// The interface.
        interface: String,
    },
    /// It imports what this runtime does not know.
    #[error("the component imports `{interface}`, which this runtime does not offer")]
    Unknown {
        /// The interface.
        interface: String,
    },
    /// It does not export what its world promises.
    #[error("the component does not export `{interface}`, which its world promises")]
    Export {
        /// The interface.
        interface: &'static str,
    },
}

impl NotAdmitted {
    /// The code of the refusal.
    pub const fn code(&self) -> Code {
        match self {
            Self::Import {
                capability: Capability::Sockets,
                ..
            } => Code::SocketsNotOffered,
            Self::Later { .. } => Code::WasiNotOffered,
            Self::NotOfLater { .. } => Code::WasiPartNotOffered,
            Self::Import { .. } | Self::Unknown { .. } => Code::UndeclaredImport,
            Self::Export { .. } => Code::MissingExport,
        }
    }

    /// The section that would grant it, or the export that is missing.
    pub const fn subject(&self) -> &'static str {
        match self {
            Self::Import { capability, .. } => capability.section(),
            Self::Unknown { .. } | Self::Later { .. } | Self::NotOfLater { .. } => {
                Capability::NotOffered.section()
            }
            Self::Export { interface } => interface,
        }
    }
}

/// Holds a component's imports and exports against what it was granted. The error is made of what may leave the process:
/// a code, and the section or export that is missing; no name the component chose.
pub fn admit(
    imports: &[String],
    exports: &[String],
    grant: &EffectiveGrant,
) -> Result<(), (Code, &'static str)> {
    let stub = |section: &str| grant.denied_optional.iter().any(|denied| denied == section);
    check(imports, exports, grant.world, |capability| {
        let granted = match capability {
            Capability::NetHttp => !grant.net_http.is_empty(),
            Capability::Kv => !grant.kv.is_empty(),
            Capability::Config => grant.config.is_some(),
            Capability::Log => grant.log.is_some(),
            Capability::Outbox => !grant.messages.outbox.is_empty(),
            Capability::Sockets | Capability::NotOffered => false,
        };
        // An optional capability that did not survive is bound to a stub that refuses.
        granted || stub(capability.section())
    })
    .map_err(|refused| (refused.code(), refused.subject()))
}

/// Holds a component's imports and exports against its own ask, before anything is signed.
pub fn admit_ask(imports: &[String], exports: &[String], ask: &Ask) -> Result<(), NotAdmitted> {
    check(imports, exports, ask.world, |capability| match capability {
        Capability::NetHttp => !ask.document.net.http.is_empty(),
        Capability::Kv => !ask.document.kv.is_empty(),
        Capability::Config => ask.document.config.is_some(),
        Capability::Log => ask.document.log.is_some(),
        Capability::Outbox => !ask.document.outbox.is_empty(),
        Capability::Sockets => ask.document.net.sockets.is_some(),
        Capability::NotOffered => false,
    })
}

fn check(
    imports: &[String],
    exports: &[String],
    world: World,
    granted: impl Fn(Capability) -> bool,
) -> Result<(), NotAdmitted> {
    for interface in imports {
        let needed = if world.is_wasi_0_3() {
            need_of_later(interface)
        } else {
            need(interface)
        };
        match needed {
            Need::Always | Need::Inert => {}
            Need::Granted(capability) if granted(capability) => {}
            Need::Granted(capability) => {
                return Err(NotAdmitted::Import {
                    interface: interface.clone(),
                    capability,
                });
            }
            Need::Later if world.is_wasi_0_3() => {
                return Err(NotAdmitted::NotOfLater {
                    interface: interface.clone(),
                });
            }
            Need::Later => {
                return Err(NotAdmitted::Later {
                    interface: interface.clone(),
                });
            }
            Need::Unknown => {
                return Err(NotAdmitted::Unknown {
                    interface: interface.clone(),
                });
            }
        }
    }
    let (promised, versions) = match world {
        World::HttpProxy => ("wasi:http/incoming-handler", VERSION_02),
        World::Command => ("wasi:cli/run", VERSION_02),
        World::Messages => ("redan:messaging/handler", VERSION_OWN),
        World::HttpService => ("wasi:http/handler", VERSION_03),
    };
    let there = exports.iter().any(|export| {
        export
            .split_once('@')
            .is_some_and(|(name, version)| name == promised && version.starts_with(versions))
    });
    let mut later = exports.iter().filter(|export| need(export) == Need::Later);
    if there {
        Ok(())
    } else if let Some(interface) = later.next().filter(|_| !world.is_wasi_0_3()) {
        Err(NotAdmitted::Later {
            interface: interface.clone(),
        })
    } else {
        Err(NotAdmitted::Export { interface: promised })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse_ask;

    fn ask(more: &str) -> Ask {
        let text = format!(
            "schema = \"redan.policy/1\"\nkind = \"ask\"\n[subject]\nname = \"acme/thermo\"\nversion = \"1.0.0\"\n\
             world = \"wasi:http/proxy@0.2\"\n{more}"
        );
        parse_ask("ask.toml", &text).unwrap()
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_security_relevant_import_needs_its_section() {
        let exports = names(&["wasi:http/incoming-handler@0.2.3"]);
        for (interface, capability, section) in [
            (
                "wasi:http/outgoing-handler@0.2.3",
                Capability::NetHttp,
                "[[net.http]]\nid = \"a\"\nallow = [\"https://a.example\"]\nmethods = [\"GET\"]\n",
            ),
            (
                "wasi:keyvalue/store@0.2.0-draft2",
                Capability::Kv,
                "[[kv]]\nlabel = \"a\"\n",
            ),
            (
                "wasi:config/store@0.2.0-rc.1",
                Capability::Config,
                "[config]\nkeys = []\n",
            ),
        ] {
            let imports = names(&[interface]);
            let refused = NotAdmitted::Import {
                interface: interface.into(),
                capability,
            };
            assert_eq!(admit_ask(&imports, &exports, &ask("")), Err(refused));
            assert_eq!(admit_ask(&imports, &exports, &ask(section)), Ok(()));
        }
    }

    #[test]
    fn sockets_are_refused_unless_the_ask_takes_a_stub_that_refuses() {
        let imports = names(&["wasi:sockets/tcp@0.2.3"]);
        let exports = names(&["wasi:http/incoming-handler@0.2.3"]);
        let refused = NotAdmitted::Import {
            interface: imports[0].clone(),
            capability: Capability::Sockets,
        };
        assert_eq!(refused.code(), Code::SocketsNotOffered);
        assert_eq!(admit_ask(&imports, &exports, &ask("")), Err(refused));
        assert_eq!(admit_ask(&imports, &exports, &ask("[net.sockets]\n")), Ok(()));
    }

    #[test]
    fn a_component_of_wasi_0_3_is_refused_by_that_name() {
        for (imports, exports) in [
            (
                names(&["wasi:cli/environment@0.3.0"]),
                names(&["wasi:cli/run@0.2.3"]),
            ),
            (names(&[]), names(&["wasi:http/handler@0.3.0-rc-2025-09-16"])),
        ] {
            let interface = imports
                .iter()
                .chain(&exports)
                .find(|name| name.contains("@0.3"))
                .unwrap();
            let refused = NotAdmitted::Later {
                interface: interface.clone(),
            };
            assert_eq!(refused.code(), Code::WasiNotOffered);
            assert_eq!(admit_ask(&imports, &exports, &ask("")), Err(refused));
        }
    }

    #[test]
    fn a_component_of_the_world_of_wasi_0_3_imports_what_of_it_is_offered() {
        let ask = |more: &str| {
            let text = format!(
                "schema = \"redan.policy/1\"\nkind = \"ask\"\n[subject]\nname = \"acme/thermo\"\nversion = \"1.0.0\"\n\
                 world = \"wasi:http/service@0.3\"\n{more}"
            );
            parse_ask("ask.toml", &text).unwrap()
        };
        let exports = names(&["wasi:http/handler@0.3.2"]);
        let mixed = names(&[
            "wasi:http/types@0.3.2",
            "wasi:clocks/monotonic-clock@0.3.0",
            "wasi:cli/stdout@0.3.0",
            "wasi:cli/environment@0.2.6",
            "wasi:filesystem/types@0.2.6",
        ]);
        assert_eq!(admit_ask(&mixed, &exports, &ask("")), Ok(()));
        let client = names(&["wasi:http/client@0.3.0"]);
        let refused = NotAdmitted::Import {
            interface: client[0].clone(),
            capability: Capability::NetHttp,
        };
        assert_eq!(admit_ask(&client, &exports, &ask("")), Err(refused));
        let http = "[[net.http]]\nid = \"a\"\nallow = [\"https://a.example\"]\nmethods = [\"GET\"]\n";
        assert_eq!(admit_ask(&client, &exports, &ask(http)), Ok(()));
        for interface in [
            "wasi:filesystem/types@0.3.0",
            "wasi:sockets/types@0.3.0",
            "wasi:clocks/timezone@0.3.0",
            "wasi:http/handler@0.3.0",
            "wasi:http/types@0.3.0-rc-2025-09-16",
        ] {
            let refused = NotAdmitted::NotOfLater {
                interface: interface.to_owned(),
            };
            assert_eq!(refused.code(), Code::WasiPartNotOffered);
            let imports = names(&[interface]);
            assert_eq!(admit_ask(&imports, &exports, &ask("")), Err(refused));
        }
        let refused = NotAdmitted::Export {
            interface: "wasi:http/handler",
        };
        let older = names(&["wasi:http/incoming-handler@0.2.3"]);
        assert_eq!(admit_ask(&[], &older, &ask("")), Err(refused));
    }

    #[test]
    fn what_standard_libraries_import_is_admitted_inert() {
        let imports = names(&[
            "wasi:cli/environment@0.2.3",
            "wasi:filesystem/preopens@0.2.3",
            "wasi:io/poll@0.2.3",
        ]);
        let exports = names(&["wasi:http/incoming-handler@0.2.3"]);
        assert_eq!(admit_ask(&imports, &exports, &ask("")), Ok(()));
    }

    #[test]
    fn an_unknown_interface_and_a_missing_export_are_refused() {
        let imports = names(&["evil:host/shell@0.2.0"]);
        let refused = NotAdmitted::Unknown {
            interface: imports[0].clone(),
        };
        assert_eq!(admit_ask(&imports, &[], &ask("")), Err(refused));
        let refused = NotAdmitted::Export {
            interface: "wasi:http/incoming-handler",
        };
        assert_eq!(
            admit_ask(&[], &names(&["wasi:cli/run@0.2.3"]), &ask("")),
            Err(refused)
        );
    }
}
