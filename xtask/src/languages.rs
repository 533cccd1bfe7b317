//! Guests in other languages: made by their own toolchains, at fixed versions, into the target folder. What was made of the same
//! sources is not made again.

use crate::build::{Services, must, repository, target};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A language: what makes its component, and from which files.
struct Language {
    name: &'static str,
    folder: &'static str,
    guest: &'static str,
    needs: &'static str,
    /// Each ends well where the toolchain is there.
    asked: &'static [&'static [&'static str]],
    /// Which file says what is installed, and what else the component is made of.
    pinned: &'static str,
    sources: &'static [&'static str],
    install: fn(&Path) -> Result<()>,
    make: fn(&Path, &Path, &Path) -> Result<()>,
}

const LANGUAGES: &[Language] = &[
    Language {
        name: "JavaScript",
        folder: "js",
        guest: "greet-js-1.0.0.wasm",
        needs: "node 20 or later, and npm",
        asked: &[
            &[
                "node",
                "-e",
                "process.exit(Number(parseInt(process.versions.node) < 20))",
            ],
            &["npm", "--version"],
        ],
        pinned: "package-lock.json",
        sources: &["package.json", "app.js", "build.mjs"],
        install: |folder| must(npm(folder).args(["ci", "--silent", "--no-audit", "--no-fund"])),
        make: |folder, wit, output| {
            let mut build = Command::new("node");
            must(
                build
                    .current_dir(folder)
                    .arg("build.mjs")
                    .args([wit, output])
                    .stdin(Stdio::null()),
            )
        },
    },
    Language {
        name: "Python",
        folder: "python",
        guest: "greet-py-1.0.0.wasm",
        needs: "python3 with venv and pip",
        asked: &[&["python3", "-c", "import venv, ensurepip"]],
        pinned: "requirements.txt",
        sources: &["app.py"],
        install: |folder| {
            must(
                Command::new("python3")
                    .current_dir(folder)
                    .args(["-m", "venv", "venv"]),
            )?;
            let mut pip = Command::new(folder.join("venv/bin/python"));
            must(pip.current_dir(folder).args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--require-hashes",
                "--no-deps",
                "--only-binary",
                ":all:",
                "--disable-pip-version-check",
                "-r",
                "requirements.txt",
            ]))
        },
        make: |folder, wit, output| {
            // Whatever lies beside the program becomes part of the component: it gets a folder of its own.
            let source = folder.join("source");
            std::fs::create_dir_all(&source)?;
            copy(&folder.join("app.py"), &source.join("app.py"))?;
            let mut build = Command::new(folder.join("venv/bin/componentize-py"));
            build
                .current_dir(source)
                .arg("--quiet")
                .arg("-d")
                .arg(wit)
                .args(["-w", "service"]);
            must(
                build
                    .args(["componentize", "app", "-o"])
                    .arg(output)
                    .stdin(Stdio::null()),
            )
        },
    },
];

fn npm(folder: &Path) -> Command {
    let mut npm = Command::new("npm");
    npm.current_dir(folder).stdin(Stdio::null());
    npm
}

/// Makes every component there is a toolchain for. Where services are mandatory, a missing one is an error.
pub(crate) fn build(services: Services) -> Result<()> {
    for language in LANGUAGES {
        if services == Services::IfThere && !language.is_there() {
            println!(
                "left out: the {} guest (it needs {}; continuous integration makes it)",
                language.name, language.needs
            );
            continue;
        }
        match (language.build(), services) {
            (Err(error), Services::IfThere) => {
                println!(
                    "left out: the {} guest, which could not be made: {error:#}",
                    language.name
                );
            }
            (outcome, _) => outcome.with_context(|| format!("the {} guest", language.name))?,
        }
    }
    Ok(())
}

impl Language {
    fn is_there(&self) -> bool {
        self.asked.iter().all(|words| {
            let Some((program, arguments)) = words.split_first() else {
                return false;
            };
            let mut asked = Command::new(program);
            asked
                .args(arguments)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            asked.status().is_ok_and(|status| status.success())
        })
    }

    fn build(&self) -> Result<()> {
        let from = repository()?.join("guest-examples").join(self.folder);
        let wit = repository()?.join("guest-examples/wit");
        let folder = target()?.join("guest-languages").join(self.folder);
        let output = target()?.join("guests").join(self.guest);
        std::fs::create_dir_all(&folder)?;
        std::fs::create_dir_all(target()?.join("guests"))?;
        let pinned = [from.join(self.pinned)];
        if !same(&folder.join("installed"), &pinned)? {
            println!(
                "Installing the {} toolchain (once; some hundred megabytes) …",
                self.name
            );
            for file in [&[self.pinned], self.sources].concat() {
                copy(&from.join(file), &folder.join(file))?;
            }
            (self.install)(&folder)?;
            std::fs::write(folder.join("installed"), contents(&pinned)?)?;
        }
        let mut sources: Vec<PathBuf> = self.sources.iter().map(|file| from.join(file)).collect();
        sources.extend(pinned);
        sources.push(wit.join("world.wit"));
        for entry in std::fs::read_dir(wit.join("deps"))? {
            sources.push(entry?.path());
        }
        sources.sort();
        let made = folder.join("made");
        if output.exists() && same(&made, &sources)? {
            return Ok(());
        }
        for file in self.sources {
            copy(&from.join(file), &folder.join(file))?;
        }
        (self.make)(&folder, &wit, &output)?;
        std::fs::write(made, contents(&sources)?)?;
        Ok(())
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(())
}

/// The files, one after another.
fn contents(files: &[PathBuf]) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    for file in files {
        all.extend(std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?);
    }
    Ok(all)
}

/// Whether something was made of exactly these files.
fn same(stamp: &Path, files: &[PathBuf]) -> Result<bool> {
    let wanted = contents(files)?;
    Ok(std::fs::read(stamp).is_ok_and(|found| found == wanted))
}
