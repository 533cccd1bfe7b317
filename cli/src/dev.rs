//! The publisher's bench is a program of its own, beside this one: what signs and uploads links no sandbox (decision 19).

use crate::error::CliError;
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// The bench.
const PROGRAM: &str = "redan-dev";

/// Becomes the bench, with its terminal, its signals and its exit code. Comes back only when there is none.
pub fn become_bench(arguments: &[OsString]) -> CliError {
    let beside = std::env::current_exe().ok();
    let beside = beside.and_then(|me| Some(me.parent()?.join(PROGRAM)));
    let program = beside.filter(|path| path.exists());
    let program = program.unwrap_or_else(|| PROGRAM.into());
    let error = Command::new(&program).args(arguments).exec();
    CliError::Usage {
        what: format!("cannot start {}: {error}", program.display()),
        remedy: "install redan-dev beside redan",
    }
}
