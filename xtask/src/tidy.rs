//! What no compiler checks: file sizes, test names, crate roots, the path in ARCHITECTURE.md.

use crate::build;
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};

/// Longest source file, lines (style §9).
const LINES_MAX: usize = 800;

/// Checks the tree.
pub(crate) fn check() -> Result<()> {
    let repository = build::repository()?;
    let mut faults = Vec::new();
    let mut sources = Vec::new();
    for entry in std::fs::read_dir(&repository)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if path.is_dir() && !name.starts_with('.') && !name.starts_with("target") {
            collect(&path, &mut sources)?;
        }
    }
    for path in &sources {
        source(&repository, path, &mut faults)?;
    }
    manifests(&repository, &mut faults)?;
    straight_path(&repository, &mut faults)?;
    ensure!(
        faults.is_empty(),
        "tidy found {}:\n  {}",
        faults.len(),
        faults.join("\n  ")
    );
    Ok(())
}

fn collect(folder: &Path, sources: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            if !path.ends_with("target") && !path.ends_with("node_modules") {
                collect(&path, sources)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push(path);
        }
    }
    Ok(())
}

fn source(repository: &Path, path: &Path, faults: &mut Vec<String>) -> Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let shown = path.strip_prefix(repository)?.display();
    let lines = text.lines().count();
    if lines > LINES_MAX {
        faults.push(format!(
            "{shown} has {lines} lines; split it (at most {LINES_MAX})"
        ));
    }
    let mut after_test = false;
    for line in text.lines() {
        let line = line.trim_start();
        if after_test
            && let Some(rest) = line
                .strip_prefix("fn ")
                .or_else(|| line.strip_prefix("async fn "))
        {
            let name = rest.split('(').next().unwrap_or_default();
            if name.starts_with("test_") || name.ends_with("_works") || name == "works" {
                faults.push(format!(
                    "{shown}: a test's name is the claim it makes, not `{name}`"
                ));
            }
            after_test = false;
        } else if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            after_test = true;
        }
        if line.starts_with("#[ignore") {
            faults.push(format!(
                "{shown}: a test that is ignored does not exist; delete it or run it"
            ));
        }
    }
    Ok(())
}

/// Every crate takes its lints from the workspace.
fn manifests(repository: &Path, faults: &mut Vec<String>) -> Result<()> {
    let root = std::fs::read_to_string(repository.join("Cargo.toml"))?;
    let members = root
        .split_once("members = [")
        .and_then(|(_, rest)| rest.split_once(']'));
    let (members, _) = members.context("the workspace lists its members")?;
    for member in members
        .split(',')
        .map(|m| m.trim().trim_matches('"'))
        .filter(|m| !m.is_empty())
    {
        let manifest = std::fs::read_to_string(repository.join(member).join("Cargo.toml"))?;
        if !manifest.contains("[lints]\nworkspace = true") {
            faults.push(format!(
                "{member}/Cargo.toml does not take its lints from the workspace"
            ));
        }
    }
    Ok(())
}

/// The straight path that ARCHITECTURE.md lists exists, file by file.
fn straight_path(repository: &Path, faults: &mut Vec<String>) -> Result<()> {
    let text = std::fs::read_to_string(repository.join("ARCHITECTURE.md"))?;
    let section = text
        .split_once("<!-- straight path -->")
        .and_then(|(_, rest)| rest.split_once("<!-- end -->"));
    let (section, _) = section.context("ARCHITECTURE.md marks the straight path")?;
    let mut found = 0;
    for file in section
        .split('`')
        .filter(|word| Path::new(word).extension().is_some_and(|e| e == "rs"))
    {
        found += 1;
        if !repository.join(file).exists() {
            faults.push(format!(
                "ARCHITECTURE.md names {file} on the straight path; it does not exist"
            ));
        }
    }
    if found < 15 {
        faults.push(format!(
            "ARCHITECTURE.md lists only {found} files on the straight path"
        ));
    }
    Ok(())
}
