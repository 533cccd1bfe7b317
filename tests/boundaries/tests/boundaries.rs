//! The crate edges: each package is resolved alone, since a workspace build unifies features.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// Crates that exist on devices only.
const DEVICE: &[&str] = &[
    "redan-host-api",
    "redan-agent-core",
    "redan-agent",
    "redan-runtime",
    "redan-sealed",
    "redan-broker",
    "redan-channel",
    "redan-device",
];
/// Crates that exist off devices only.
const PLATFORM: &[&str] = &[
    "redan-publish",
    "redan-control-core",
    "redan-control",
    "redan-ceremony",
    "redan",
];
/// Crates without clock, disk, socket and randomness.
const PURE: &[&str] = &[
    "redan-protocol",
    "redan-policy",
    "redan-trust",
    "redan-agent-core",
    "redan-control-core",
];
/// Crates of tests, benches and tasks: nothing depends on them but each other.
const TESTS: &[&str] = &[
    "redan-kit",
    "redan-e2e",
    "redan-attack-lab",
    "redan-boundaries",
    "redan-benches",
    "redan-fuzz",
    "tuf-client",
    "softhsm",
    "swtpm",
    "xtask",
];
/// Crates that may say `unsafe`: each argues at every block.
const UNSAFE: &[&str] = &["redan-sealed", "redan-jail"];
/// What opens sockets, by the name of the package.
const SOCKETS: &[&str] = &["mio", "socket2", "ureq", "reqwest", "curl", "hyper-util", "axum"];

struct Package {
    folder: PathBuf,
    /// Direct dependencies of the shipped code, ours and others.
    direct: BTreeSet<String>,
    /// Everything it resolves to, alone.
    all: BTreeSet<String>,
}

static PACKAGES: LazyLock<BTreeMap<String, Package>> = LazyLock::new(packages);

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

fn cargo(arguments: &[&str]) -> String {
    let ran = Command::new(env!("CARGO"))
        .args(arguments)
        .args(["--locked", "--offline"])
        .current_dir(repository())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "cargo {arguments:?}: {stderr}");
    String::from_utf8(ran.stdout).unwrap()
}

fn packages() -> BTreeMap<String, Package> {
    let metadata = cargo(&["metadata", "--format-version", "1", "--no-deps"]);
    let metadata: serde_json::Value = serde_json::from_str(&metadata).unwrap();
    let mut packages = BTreeMap::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap().to_owned();
        let manifest = Path::new(package["manifest_path"].as_str().unwrap());
        let tree = |depth: &'static str| -> BTreeSet<String> {
            let arguments = [
                "tree", "-p", &name, "-e", "normal", "--prefix", "none", "--depth", depth, "--format", "{p}",
            ];
            let lines = cargo(&arguments);
            let names = lines.lines().filter_map(|line| line.split(' ').next());
            names
                .filter(|other| *other != name && !other.is_empty())
                .map(str::to_owned)
                .collect()
        };
        let (direct, all) = (tree("1"), tree("99"));
        let folder = manifest.parent().unwrap().to_owned();
        packages.insert(name, Package { folder, direct, all });
    }
    packages
}

fn reaches(package: &str, forbidden: impl Fn(&str) -> bool) -> Vec<String> {
    let all = PACKAGES[package].all.iter();
    all.filter(|other| forbidden(other)).cloned().collect()
}

fn nothing(package: &str, forbidden: impl Fn(&str) -> bool) {
    let found = reaches(package, forbidden);
    assert!(found.is_empty(), "{package} reaches {found:?}");
}

#[test]
fn direct_dependencies_are_the_expected_ones() {
    let mut text = String::new();
    for (name, package) in PACKAGES.iter() {
        let direct: Vec<&str> = package.direct.iter().map(String::as_str).collect();
        text += &(name.clone() + ": " + &direct.join(" ") + "\n");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("expected.txt");
    if std::env::var_os("REDAN_BLESS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(
        std::fs::read_to_string(path).unwrap(),
        text,
        "an edge is new or gone: if that is meant, run with REDAN_BLESS=1 and say why in the commit"
    );
}

#[test]
fn device_and_platform_meet_only_in_shared_crates() {
    for device in DEVICE {
        nothing(device, |other| PLATFORM.contains(&other));
    }
    for platform in PLATFORM {
        nothing(platform, |other| DEVICE.contains(&other));
    }
}

#[test]
fn what_talks_to_the_platform_links_no_sandbox() {
    for agent in ["redan-agent", "redan-agent-core"] {
        nothing(agent, |other| {
            ["redan-runtime", "redan-host-api", "redan-sealed"].contains(&other)
                || other.starts_with("wasmtime")
        });
    }
}

#[test]
fn what_runs_guests_links_neither_trust_nor_identity() {
    for guest in ["redan-runtime", "redan-host-api", "redan-sealed", "redan-broker"] {
        nothing(guest, |other| ["redan-trust", "redan-identity"].contains(&other));
    }
}

#[test]
fn a_device_has_no_way_to_the_publishers_bench() {
    const BENCH: &str = "redan-dev";
    for name in PACKAGES.keys() {
        nothing(name, |other| other == BENCH);
    }
    nothing(BENCH, |other| {
        let device = DEVICE.contains(&other) && other.contains("agent");
        device || ["redan-trust", "redan-identity", "redan-publish"].contains(&other)
    });
    // What a bench lends is made by it alone, and so are documents that nobody signed.
    let names = ["bench::Bench", "runtime::bench", "suppose::"];
    let mentions = |package: &str| -> Vec<PathBuf> {
        let found = sources(&PACKAGES[package].folder.join("src")).into_iter();
        let found = found.filter(|source| {
            let text = std::fs::read_to_string(source).unwrap();
            names.iter().any(|name| text.contains(name))
        });
        found.collect()
    };
    for package in DEVICE
        .iter()
        .filter(|name| !["redan-host-api", "redan-runtime"].contains(name))
    {
        assert_eq!(mentions(package), Vec::<PathBuf>::new(), "{package}");
    }
    let executor = PACKAGES["redan-runtime"].folder.join("src/executor.rs");
    let executor = std::fs::read_to_string(executor).unwrap();
    assert!(
        !executor.contains("bench") && !executor.contains(".on("),
        "an executor lends nothing"
    );
    assert!(!mentions(BENCH).is_empty(), "the search would find it");
}

#[test]
fn the_ceremony_resolves_to_nothing_that_opens_a_socket() {
    nothing("redan-ceremony", |other| SOCKETS.contains(&other));
}

#[test]
fn sockets_are_found_where_there_are_some() {
    // The test above can fail: the very same names are in programs that do open sockets.
    assert!(!reaches("redan-control", |other| SOCKETS.contains(&other)).is_empty());
    assert!(!reaches("redan-agent", |other| SOCKETS.contains(&other)).is_empty());
}

#[test]
fn pure_crates_reach_no_runtime_no_system_and_no_random_numbers() {
    for pure in PURE {
        nothing(pure, |other| {
            [
                "tokio",
                "mio",
                "rustix",
                "libc",
                "getrandom",
                "rand",
                "rustls",
                "hyper",
            ]
            .contains(&other)
                && !allowed_below(pure, other)
        });
    }
}

#[test]
fn pure_crates_are_linted_against_clock_disk_and_sockets() {
    let expected = std::fs::read_to_string(PACKAGES["redan-protocol"].folder.join("clippy.toml")).unwrap();
    assert!(expected.contains("SystemTime::now") && expected.contains("std::fs::File"));
    for pure in PURE {
        let found = std::fs::read_to_string(PACKAGES[*pure].folder.join("clippy.toml"));
        assert_eq!(found.unwrap_or_default(), expected, "{pure}/clippy.toml");
    }
}

/// What a pure crate's cryptography brings along: a verifier needs the library, and calls nothing of the system.
fn allowed_below(pure: &str, other: &str) -> bool {
    let through = ["aws-lc-rs", "sha2"]
        .iter()
        .any(|library| PACKAGES[pure].all.contains(*library));
    through && ["libc", "getrandom"].contains(&other)
}

#[test]
fn nothing_shipped_depends_on_test_code() {
    for name in PACKAGES.keys().filter(|name| !TESTS.contains(&name.as_str())) {
        nothing(name, |other| TESTS.contains(&other));
    }
}

#[test]
fn tough_is_a_reader_in_tests_and_in_nothing_shipped() {
    for name in PACKAGES.keys().filter(|name| !TESTS.contains(&name.as_str())) {
        nothing(name, |other| other == "tough");
    }
}

#[test]
fn every_crate_but_two_forbids_unsafe_code() {
    for (name, package) in PACKAGES.iter() {
        for root in ["src/lib.rs", "src/main.rs"] {
            let Ok(text) = std::fs::read_to_string(package.folder.join(root)) else {
                continue;
            };
            let forbids = text.contains("#![forbid(unsafe_code)]");
            assert_eq!(
                forbids,
                !UNSAFE.contains(&name.as_str()),
                "{name}/{root}: forbid(unsafe_code) is in every crate root but those of {UNSAFE:?}"
            );
        }
    }
}

#[test]
fn platform_tls_is_set_up_in_identity_only() {
    // The host API has TLS of its own for guests' requests to the outside; the platform never uses it.
    let may = ["redan-identity", "redan-host-api"];
    for (name, package) in PACKAGES.iter() {
        let shipped = !TESTS.contains(&name.as_str()) && !may.contains(&name.as_str());
        if !shipped {
            continue;
        }
        for source in sources(&package.folder.join("src")) {
            let text = std::fs::read_to_string(&source).unwrap();
            for made in ["ClientConfig::builder", "ServerConfig::builder"] {
                assert!(!text.contains(made), "{} sets up TLS", source.display());
            }
        }
    }
    let identity = sources(&PACKAGES["redan-identity"].folder.join("src"));
    let found = identity.iter().any(|source| {
        let text = std::fs::read_to_string(source).unwrap();
        text.contains("ServerConfig::builder")
    });
    assert!(found, "the search would not find a TLS set-up if there were one");
}

#[test]
fn every_outside_crate_has_its_line_of_reasons() {
    let text = std::fs::read_to_string(repository().join("docs/dependencies.md")).unwrap();
    let named: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| "))
        .filter_map(|line| line.split(" |").next())
        .flat_map(|names| names.split(", "))
        .collect();
    for (name, package) in PACKAGES
        .iter()
        .filter(|(name, _)| !TESTS.contains(&name.as_str()))
    {
        for other in package
            .direct
            .iter()
            .filter(|other| !PACKAGES.contains_key(*other))
        {
            assert!(
                named.contains(other.as_str()),
                "{name} depends on {other}: say why in docs/dependencies.md"
            );
        }
    }
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}
