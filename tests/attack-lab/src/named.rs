//! Tests by name: `<package>::<lib, or the name under tests/>::<path of the test>`, and whether there is such a test.
//!
//! Sources are asked, along their `mod` lines and from the file cargo compiles, so that nothing has to be built and a file
//! that no target reaches has no tests. What runs the tests ([`crate::cargo`]) finds out once more.

use anyhow::{Context, Result};
use proc_macro2::{TokenStream, TokenTree};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use syn::{Attribute, Item};

/// The repository.
pub const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// The name of one test.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Deserialize)]
#[serde(try_from = "String")]
pub struct TestName {
    /// Which test binary.
    pub binary: Binary,
    /// Its path in it, as the test runner takes it.
    pub path: String,
}

/// One test binary.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Binary {
    /// The package.
    pub package: String,
    /// `lib`, or the name under `tests/`.
    pub target: String,
}

impl TryFrom<String> for TestName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let mut parts = text.splitn(3, "::");
        match (parts.next(), parts.next(), parts.next()) {
            (Some(package), Some(target), Some(path)) => Ok(Self {
                binary: Binary {
                    package: package.to_owned(),
                    target: target.to_owned(),
                },
                path: path.to_owned(),
            }),
            _ => Err(format!("{text} is not <package>::<test binary or lib>::<test>")),
        }
    }
}

impl fmt::Display for TestName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { binary, path } = self;
        write!(f, "{}::{}::{path}", binary.package, binary.target)
    }
}

#[derive(Deserialize)]
struct Manifest {
    workspace: Option<Workspace>,
    package: Option<Package>,
}

#[derive(Deserialize)]
struct Workspace {
    members: Vec<String>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
}

/// The packages of the workspace and their folders.
pub fn packages() -> Result<BTreeMap<String, PathBuf>> {
    let read = |folder: &Path| -> Result<Manifest> {
        let path = folder.join("Cargo.toml");
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        toml::from_str(&text).with_context(|| path.display().to_string())
    };
    let repository = Path::new(REPOSITORY).canonicalize()?;
    let workspace = read(&repository)?.workspace.context("no workspace")?;
    let mut packages = BTreeMap::new();
    for member in workspace.members {
        let folder = repository.join(member);
        let package = read(&folder)?.package.context("a member without a package")?;
        packages.insert(package.name, folder);
    }
    Ok(packages)
}

/// Those of `names` that are no test, each with what was found instead.
pub fn missing<'a>(names: impl Iterator<Item = &'a TestName>) -> Result<Vec<String>> {
    let packages = packages()?;
    let mut known: BTreeMap<&Binary, BTreeSet<String>> = BTreeMap::new();
    let mut missing = Vec::new();
    for name in names {
        let Some(folder) = packages.get(&name.binary.package) else {
            missing.push(format!("{name}: no such package"));
            continue;
        };
        if !known.contains_key(&name.binary) {
            let Some(root) = root(folder, &name.binary.target) else {
                missing.push(format!("{name}: no such test binary"));
                continue;
            };
            known.insert(&name.binary, tests(&root)?);
        }
        if known
            .get(&name.binary)
            .is_none_or(|tests| !tests.contains(&name.path))
        {
            missing.push(format!("{name}: no such test"));
        }
    }
    Ok(missing)
}

/// The file cargo compiles for a target.
fn root(package: &Path, target: &str) -> Option<PathBuf> {
    let tests = package.join("tests");
    let candidates = match target {
        "lib" => vec![package.join("src/lib.rs")],
        _ => vec![
            tests.join(format!("{target}.rs")),
            tests.join(target).join("main.rs"),
        ],
    };
    candidates.into_iter().find(|path| path.is_file())
}

/// Every test that runs in the crate whose root is this file.
fn tests(root: &Path) -> Result<BTreeSet<String>> {
    let folder = root.parent().context("a file is in a folder")?;
    let mut found = BTreeSet::new();
    file(root, folder, "", &mut found)?;
    Ok(found)
}

/// Tests of one file; `below` is where the files of its modules are.
fn file(path: &Path, below: &Path, module: &str, found: &mut BTreeSet<String>) -> Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let file = syn::parse_file(&text).with_context(|| path.display().to_string())?;
    items(&file.items, below, module, found)
}

fn items(items: &[Item], below: &Path, module: &str, found: &mut BTreeSet<String>) -> Result<()> {
    for item in items {
        match item {
            Item::Fn(function) if runs(&function.attrs) => {
                found.insert(format!("{module}{}", function.sig.ident));
            }
            Item::Mod(inner) => {
                let name = inner.ident.to_string();
                let inside = format!("{module}{name}::");
                let folder = below.join(&name);
                if let Some((_, content)) = &inner.content {
                    self::items(content, &folder, &inside, found)?;
                    continue;
                }
                let candidates = [below.join(format!("{name}.rs")), folder.join("mod.rs")];
                let path = candidates.into_iter().find(|path| path.is_file());
                let path = path.with_context(|| format!("{}: no file of mod {name}", below.display()))?;
                file(&path, &folder, &inside, found)?;
            }
            Item::Macro(call) => in_macro(call.mac.tokens.clone(), module, found),
            _ => {}
        }
    }
    Ok(())
}

/// `#[test]`, `#[tokio::test]`, and not `#[ignore]`: an ignored test shows nothing.
fn runs(attributes: &[Attribute]) -> bool {
    let last = |attribute: &Attribute| {
        attribute
            .path()
            .segments
            .last()
            .map(|last| last.ident.to_string())
    };
    let has = |name: &str| {
        attributes
            .iter()
            .any(|attribute| last(attribute).as_deref() == Some(name))
    };
    has("test") && !has("ignore")
}

/// Tests written inside a macro as `proptest!` takes them: `#[test] fn name(…)`.
fn in_macro(tokens: TokenStream, module: &str, found: &mut BTreeSet<String>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    for window in tokens.windows(4) {
        if let [
            TokenTree::Punct(hash),
            TokenTree::Group(attribute),
            TokenTree::Ident(word),
            TokenTree::Ident(name),
        ] = window
            && hash.as_char() == '#'
            && attribute.stream().to_string() == "test"
            && word == "fn"
        {
            found.insert(format!("{module}{name}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> TestName {
        TestName::try_from(text.to_owned()).unwrap()
    }

    #[test]
    fn tests_of_every_way_to_write_one_are_found() {
        let there = [
            "redan-attack-lab::lib::named::tests::tests_of_every_way_to_write_one_are_found",
            "redan-attack-lab::lab::the_public_table_is_generated_from_the_registry",
            "redan-trust::trust::workflow::no_version_goes_back",
            "redan-trust::trust::properties::an_offer_is_planned_exactly_when_no_rule_is_broken",
            "redan-identity::identity::handshake::nobody_is_let_in_without_a_certificate",
            "redan-agent-core::lib::tests::power::an_unchanged_boot_writes_nothing",
        ]
        .map(name);
        assert_eq!(missing(there.iter()).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_test_that_vanished_is_named() {
        let gone = [
            ("redan-nobody::lib::x", "no such package"),
            ("redan-trust::nothing::x", "no such test binary"),
            ("redan-trust::trust::no_version_goes_back", "no such test"),
            (
                "redan-trust::trust::workflow::no_version_goes_back_any_more",
                "no such test",
            ),
            // A function of the same file that is no test.
            ("redan-trust::trust::workflow::refused", "no such test"),
        ];
        for (text, why) in gone {
            let expected = vec![format!("{text}: {why}")];
            assert_eq!(missing([name(text)].iter()).unwrap(), expected);
        }
        assert!(TestName::try_from("redan-trust::trust".to_owned()).is_err());
    }

    #[test]
    fn an_ignored_test_is_none() {
        let file: syn::File =
            syn::parse_str("#[test] #[ignore = \"slow\"] fn a() {} #[test] fn b() {} fn c() {}").unwrap();
        let mut found = BTreeSet::new();
        items(&file.items, Path::new("."), "", &mut found).unwrap();
        assert_eq!(found, BTreeSet::from(["b".to_owned()]));
    }
}
