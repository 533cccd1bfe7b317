//! Building guests and programs, and running the tests.

use crate::languages;
use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The compilation target of Rust guests.
const GUEST_TARGET: &str = "wasm32-wasip2";
/// Guests the demo and the tests use: crate, version it reports, whether it says it is unhealthy.
const GUESTS: &[(&str, &str, bool)] = &[
    ("thermo", "1.0.0", false),
    ("thermo", "1.1.0", false),
    ("thermo", "1.2.0", true),
    ("tick", "1.0.0", false),
    ("canary", "1.0.0", false),
    ("canary", "1.1.0", true),
    ("alarm", "1.0.0", false),
    ("alarm", "1.1.0", false),
    ("uploader", "1.0.0", false),
    ("tasks", "1.0.0", false),
];
/// The programs, and the attackers.
const PROGRAMS: &[&str] = &[
    "redan-device",
    "redan-control",
    "redan-ceremony",
    "redan",
    "redan-dev",
    "redan-attack-lab",
];

/// The repository.
pub(crate) fn repository() -> Result<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("xtask is a folder of the repository")?;
    Ok(folder.to_owned())
}

/// Where cargo builds: the folder this program was built into.
pub(crate) fn target() -> Result<PathBuf> {
    let me = std::env::current_exe()?;
    let folder = me.ancestors().find(|folder| folder.join("CACHEDIR.TAG").exists());
    Ok(folder.context("run this with `cargo xtask`")?.to_owned())
}

/// Cargo, in the repository, building into the same target folder as this program.
pub(crate) fn cargo() -> Result<Command> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .current_dir(repository()?)
        .env("CARGO_TARGET_DIR", target()?)
        .stdin(Stdio::null());
    // Set by the outer cargo for this very package; a cargo below must not take them for its own.
    for name in [
        "CARGO_MANIFEST_DIR",
        "CARGO_PKG_NAME",
        "CARGO_PKG_VERSION",
        "CARGO_MANIFEST_PATH",
    ] {
        command.env_remove(name);
    }
    Ok(command)
}

/// Runs a command and fails when it does.
pub(crate) fn must(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    ensure!(status.success(), "{} ended with {status}", line(command));
    Ok(())
}

/// A command as one would type it.
pub(crate) fn line(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|word| word.to_string_lossy().into_owned()));
    words.join(" ")
}

/// Builds the guests, then every program, into the debug profile.
pub(crate) fn everything() -> Result<PathBuf> {
    guests()?;
    programs()?;
    target()
}

/// Builds every program.
pub(crate) fn programs() -> Result<()> {
    let mut build = cargo()?;
    build.args(["build", "--locked"]);
    for program in PROGRAMS {
        build.args(["--package", program]);
    }
    must(&mut build)
}

/// Builds the guests into `target/guests/<name>-<version>.wasm`.
pub(crate) fn guests() -> Result<()> {
    install_guest_target()?;
    let folder = target()?.join("guests");
    std::fs::create_dir_all(&folder)?;
    for (name, version, unhealthy) in GUESTS {
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        let output = target()?.join("guest-build");
        build
            .current_dir(repository()?.join("guest-examples"))
            .args([
                "build",
                "--quiet",
                "--locked",
                "--release",
                "--target",
                GUEST_TARGET,
                "--package",
                name,
            ])
            .env("CARGO_TARGET_DIR", &output)
            .env("GUEST_VERSION", version)
            .stdin(Stdio::null());
        if *unhealthy {
            build.args(["--features", "unhealthy"]);
        }
        must(&mut build).with_context(|| format!("guest {name} {version}"))?;
        let wasm = output
            .join(GUEST_TARGET)
            .join("release")
            .join(format!("{name}.wasm"));
        let wanted = folder.join(format!("{name}-{version}.wasm"));
        std::fs::copy(&wasm, &wanted).with_context(|| format!("cannot copy {}", wasm.display()))?;
    }
    Ok(())
}

/// Adds the guest target when it is missing. Idempotent.
fn install_guest_target() -> Result<()> {
    let sysroot = Command::new("rustc")
        .current_dir(repository()?)
        .args(["--print", "sysroot"])
        .output();
    let sysroot = sysroot.context("cannot run rustc; install Rust with rustup (https://rustup.rs)")?;
    let sysroot = PathBuf::from(String::from_utf8_lossy(&sysroot.stdout).trim());
    if sysroot.join("lib/rustlib").join(GUEST_TARGET).exists() {
        return Ok(());
    }
    let added = Command::new("rustup")
        .current_dir(repository()?)
        .args(["target", "add", GUEST_TARGET])
        .status();
    match added {
        Ok(status) if status.success() => Ok(()),
        _ => bail!("guests need the target {GUEST_TARGET}: run `rustup target add {GUEST_TARGET}`"),
    }
}

/// Whether tests that need programs of the system run: whole packages are left out, or single tests leave themselves out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Services {
    /// Continuous integration: without them the run fails.
    Mandatory,
    /// Anybody's machine: what is missing is said, and left out.
    IfThere,
}

/// Runs every test. The runner's own summary comes last.
pub(crate) fn test(filter: &[String], services: Services) -> Result<()> {
    everything()?;
    languages::build(services)?;
    let mut test = cargo()?;
    test.args(["test", "--workspace", "--locked"]);
    if services == Services::Mandatory {
        // Tests that need a program of the system fail without it instead of saying that they were left out.
        test.env("REDAN_SERVICES", "mandatory");
    }
    for service in SERVICES {
        if services == Services::IfThere && !service.is_there() {
            println!(
                "left out: tests {} (they need {}; continuous integration runs them)",
                service.of, service.needs
            );
            test.args(["--exclude", service.package]);
        }
    }
    if !filter.is_empty() {
        test.arg("--").args(filter);
    }
    must(&mut test)
}

/// A program of the system that the tests of one package need.
struct Service {
    package: &'static str,
    of: &'static str,
    needs: &'static str,
    /// Ends well where it is there.
    asked: &'static [&'static str],
}

const SERVICES: &[Service] = &[
    Service {
        package: "tuf-client",
        of: "against python-tuf",
        needs: "python3 with venv and pip",
        asked: &["python3", "-c", "import venv, ensurepip"],
    },
    Service {
        package: "softhsm",
        of: "of keys in PKCS#11 tokens",
        needs: "softhsm2-util and its module, Debian's softhsm2",
        asked: &["softhsm2-util", "--version"],
    },
    Service {
        package: "swtpm",
        of: "of keys in a TPM 2.0",
        needs: "swtpm, Debian's swtpm",
        asked: &["swtpm", "--version"],
    },
];

impl Service {
    fn is_there(&self) -> bool {
        let Some((program, arguments)) = self.asked.split_first() else {
            return false;
        };
        let ran = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        ran.is_ok_and(|status| status.success())
    }
}
