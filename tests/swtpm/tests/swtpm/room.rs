//! Software TPMs, each in a folder and behind a socket of its own.

use redan_tpm::Address;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest start of a software TPM on a loaded machine.
const SOON: Duration = Duration::from_mins(1);

/// One TPM; gone when it is dropped.
pub(crate) struct Tpm {
    folder: PathBuf,
    child: Child,
}

impl Tpm {
    /// A new one below `folder`, or one that was stopped.
    pub(crate) fn start(folder: &Path) -> Self {
        let state = folder.join("tpm");
        std::fs::create_dir_all(&state).unwrap();
        let socket = folder.join("tpm.sock");
        std::fs::remove_file(&socket).ok();
        let child = Command::new("swtpm")
            .arg("socket")
            .arg("--tpm2")
            .args(["--tpmstate", &format!("dir={}", state.display())])
            .args(["--server", &format!("type=unixio,path={}", socket.display())])
            .args([
                "--ctrl",
                &format!("type=unixio,path={}", folder.join("ctrl.sock").display()),
            ])
            .args(["--flags", "not-need-init,startup-clear"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("swtpm is not installed (Debian: swtpm)");
        let mut tpm = Self {
            folder: folder.to_owned(),
            child,
        };
        let until = Instant::now() + SOON;
        while !socket.exists() {
            assert!(tpm.child.try_wait().unwrap().is_none(), "swtpm ended");
            assert!(Instant::now() < until, "swtpm does not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        tpm
    }

    pub(crate) fn text(&self) -> String {
        format!("tpm:{}", self.folder.join("tpm.sock").display())
    }

    pub(crate) fn address(&self) -> Address {
        Address::parse(&self.text()).unwrap()
    }
}

impl Drop for Tpm {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
