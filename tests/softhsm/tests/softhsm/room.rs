//! A folder of tokens. `SoftHSM2` learns where it is from its environment, and this process's own must not change while other tests
//! run: so a test starts itself once more, alone in a process whose environment is right.

use redan_token::{Key, Kind, Uri};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

const FOLDER: &str = "REDAN_SOFTHSM_ROOM";
const MODULES: &[&str] = &[
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
];
/// The PIN of every token here.
pub(crate) const PIN: &str = "1234";

pub(crate) struct Room(PathBuf);

/// Plays a test in a room with these tokens. `name`: the test's own, with its module.
pub(crate) fn with_tokens(name: &str, tokens: &[&str], play: impl FnOnce(&Room)) {
    if let Some(folder) = std::env::var_os(FOLDER) {
        play(&Room(folder.into()));
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let room = Room(folder.path().to_owned());
    std::fs::create_dir(room.path("tokens")).unwrap();
    let settings = format!(
        "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n",
        room.path("tokens").display()
    );
    std::fs::write(room.path("softhsm2.conf"), settings).unwrap();
    room.pin_file("pin", PIN);
    for token in tokens {
        room.init_token(token);
    }
    let ran = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env("SOFTHSM2_CONF", room.path("softhsm2.conf"))
        .env(FOLDER, &room.0)
        .output()
        .unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (said(&ran.stdout), said(&ran.stderr));
    assert!(ran.status.success(), "{name}: {}\n{out}{err}", ran.status);
    assert!(out.contains("1 passed"), "no test has this name: {name}\n{out}");
}

impl Room {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The module of `SoftHSM2`.
    pub(crate) fn module() -> &'static Path {
        let found = MODULES.iter().map(Path::new).find(|path| path.exists());
        found.expect("SoftHSM2 is not installed (Debian: softhsm2)")
    }

    pub(crate) fn init_token(&self, label: &str) {
        let ran = Command::new("softhsm2-util")
            .args(["--init-token", "--free", "--label", label])
            .args(["--so-pin", "0000", "--pin", PIN])
            .env("SOFTHSM2_CONF", self.path("softhsm2.conf"))
            .output()
            .expect("SoftHSM2 is not installed (Debian: softhsm2)");
        assert!(ran.status.success(), "{ran:?}");
    }

    /// A file with a PIN, its owner's alone.
    pub(crate) fn pin_file(&self, name: &str, pin: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, pin).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// The name of a key, with the PIN of this room.
    pub(crate) fn uri(&self, token: &str, object: &str) -> Uri {
        Uri::parse(&self.text(token, object)).unwrap()
    }

    pub(crate) fn text(&self, token: &str, object: &str) -> String {
        let (module, pin) = (Self::module().display(), self.path("pin"));
        format!(
            "pkcs11:token={token};object={object}?module-path={module}&pin-source=file:{}",
            pin.display()
        )
    }

    /// The same without a PIN.
    pub(crate) fn without_pin(&self, token: &str, object: &str) -> Uri {
        let text = self.text(token, object);
        Uri::parse(text.split('&').next().unwrap()).unwrap()
    }

    pub(crate) fn has(&self, token: &str, object: &str, kind: Kind) -> bool {
        Key::open(&self.uri(token, object), kind, None).is_ok()
    }
}
