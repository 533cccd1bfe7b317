//! Where the built programs and guests are.

use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};

/// The built programs and the folder of guests.
#[derive(Clone, Debug)]
pub struct Programs {
    /// `redan-ceremony`
    pub ceremony: PathBuf,
    /// `redan-control`
    pub control: PathBuf,
    /// `redan-device`
    pub device: PathBuf,
    /// `redan`
    pub redan: PathBuf,
    /// Folder of built guests, `<name>-<version>.wasm`.
    pub guests: PathBuf,
    /// The repository.
    pub repository: PathBuf,
}

impl Programs {
    /// Finds the programs of the target folder this very executable was built into.
    pub fn find() -> Result<Self> {
        let me = std::env::current_exe().context("cannot tell where this program is")?;
        let target = me
            .ancestors()
            .find(|folder| folder.join("CACHEDIR.TAG").exists())
            .context("this program is not in a cargo target folder; run it with `cargo xtask`")?;
        Self::in_target(target)
    }

    /// The programs of a given target folder.
    pub fn in_target(target: &Path) -> Result<Self> {
        let debug = target.join("debug");
        let repository = Path::new(env!("CARGO_MANIFEST_DIR"))
            .ancestors()
            .nth(2)
            .context("the kit is two folders below the repository")?;
        let programs = Self {
            ceremony: debug.join("redan-ceremony"),
            control: debug.join("redan-control"),
            device: debug.join("redan-device"),
            redan: debug.join("redan"),
            guests: target.join("guests"),
            repository: repository.to_owned(),
        };
        for program in [
            &programs.ceremony,
            &programs.control,
            &programs.device,
            &programs.redan,
        ] {
            ensure!(
                program.exists(),
                "{} is not built; run `cargo xtask build` (or `cargo xtask test`, which does it)",
                program.display()
            );
        }
        Ok(programs)
    }

    /// A built guest.
    pub fn guest(&self, name: &str, version: &str) -> Result<PathBuf> {
        let path = self.guests.join(format!("{name}-{version}.wasm"));
        ensure!(
            path.exists(),
            "{} is not built; run `cargo xtask build`",
            path.display()
        );
        Ok(path)
    }
}
