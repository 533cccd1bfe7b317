//! `tuf-client` against repositories that python-tuf's library signed: another implementation of the same specification.
//!
//! Needs `python3` with `venv`; the library is installed once into the build folder.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

mod published;
mod server;
mod simulator;

use server::Server;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use tempfile::TempDir;

/// What the producer signed, once for all tests.
fn repositories() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let build = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let python = redan_kit::python::tuf(build).unwrap().unwrap();
        let out = build.join(format!("tuf-producer-out-{}", std::process::id()));
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/producer.py");
        run(Command::new(python).arg(script).arg(&out));
        out
    })
}

fn run(command: &mut Command) {
    let status = command.status().unwrap();
    assert!(status.success(), "{command:?}");
}

/// One client with its own folders, and a server it talks to.
struct Stage {
    folder: TempDir,
    server: Server,
}

impl Stage {
    /// A client that trusts the first root.
    fn new() -> Self {
        let stage = Self {
            folder: TempDir::new().unwrap(),
            server: Server::start(repositories().join("first")),
        };
        let root = repositories().join("first/metadata/1.root.json");
        assert_eq!(stage.client(&["init", root.to_str().unwrap()]), 0);
        assert_eq!(stage.server.requests(), Vec::<String>::new());
        fs::create_dir(stage.folder.path().join("targets")).unwrap();
        stage
    }

    fn client(&self, arguments: &[&str]) -> i32 {
        let url = self.server.url();
        Command::new(env!("CARGO_BIN_EXE_tuf-client"))
            .arg("--metadata-dir")
            .arg(self.folder.path().join("metadata"))
            .args(["--metadata-url", &format!("{url}/metadata/")])
            .args(["--target-base-url", &format!("{url}/targets/")])
            .arg("--target-dir")
            .arg(self.folder.path().join("targets"))
            .args(arguments)
            .status()
            .unwrap()
            .code()
            .unwrap()
    }

    fn download(&self, name: &str) -> i32 {
        self.client(&["--target-name", name, "download"])
    }

    fn metadata(&self, role: &str) -> Vec<u8> {
        fs::read(self.folder.path().join(format!("metadata/{role}.json"))).unwrap()
    }

    fn targets(&self) -> Vec<(String, Vec<u8>)> {
        fs::read_dir(self.folder.path().join("targets"))
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let name = entry.file_name().into_string().unwrap();
                (name, fs::read(entry.path()).unwrap())
            })
            .collect()
    }
}

/// The target every repository has, through a delegate with an unusual name.
const TARGET: &str = "dir/file one.txt";

#[test]
fn a_repository_with_keys_of_every_kind_is_followed_through_a_rotation_of_all_of_them() {
    let mut stage = Stage::new();
    assert_eq!(stage.client(&["refresh"]), 0);
    let served =
        |state: &str, file: &str| fs::read(repositories().join(state).join("metadata").join(file)).unwrap();
    for (role, file) in [
        ("root", "1.root.json"),
        ("timestamp", "timestamp.json"),
        ("snapshot", "1.snapshot.json"),
    ] {
        assert_eq!(stage.metadata(role), served("first", file));
    }
    assert_eq!(stage.client(&["refresh"]), 0);
    assert_eq!(
        stage.server.requests()[4..],
        ["/metadata/2.root.json", "/metadata/timestamp.json"]
    );
    stage.server.serve(repositories().join("rotated"));
    assert_eq!(stage.client(&["refresh"]), 0);
    assert_eq!(stage.metadata("root"), served("rotated", "2.root.json"));
    assert_eq!(stage.metadata("timestamp"), served("rotated", "timestamp.json"));
    // The attacker replays the first state, under keys that were given up.
    stage.server.serve(repositories().join("first"));
    assert_eq!(stage.client(&["refresh"]), 1);
    assert_eq!(stage.metadata("root"), served("rotated", "2.root.json"));
    stage.server.serve(repositories().join("plain"));
    assert_eq!(stage.client(&["refresh"]), 0);
    assert_eq!(stage.metadata("targets"), served("plain", "targets.json"));
}

#[test]
fn a_target_in_a_folder_is_downloaded_once() {
    for state in ["first", "plain"] {
        let mut stage = Stage::new();
        if state == "plain" {
            stage.server.serve(repositories().join("plain"));
        }
        assert_eq!(stage.download(TARGET), 0);
        let file = ("dir%2Ffile%20one.txt".to_owned(), b"made by python\n".to_vec());
        assert_eq!(stage.targets(), [file]);
        let asked = |stage: &Stage| {
            let requests = stage.server.requests();
            requests
                .iter()
                .filter(|path| path.starts_with("/targets/"))
                .count()
        };
        assert_eq!(asked(&stage), 1);
        assert_eq!(stage.download(TARGET), 0);
        assert_eq!(asked(&stage), 1);
        assert_eq!(stage.download("dir/other"), 1);
    }
}

#[test]
fn a_substituted_target_is_not_kept() {
    // The attacker owns the store.
    let stage = Stage::new();
    stage.server.substitute("/targets/", b"made by mallory".to_vec());
    assert_eq!(stage.download(TARGET), 1);
    assert_eq!(stage.targets(), []);
    stage.server.substitute("/targets/", vec![b'x'; 1 << 20]);
    assert_eq!(stage.download(TARGET), 1);
    assert_eq!(stage.targets(), []);
}

#[test]
fn only_not_found_ends_the_root_walk() {
    for status in [403, 410, 500, 503, 302, 0] {
        let stage = Stage::new();
        stage.server.fail("/metadata/2.root.json", status);
        assert_eq!(stage.client(&["refresh"]), 1, "{status}");
        assert_eq!(stage.server.requests().len(), 1);
    }
}

#[test]
fn a_torn_file_is_an_error_and_stays_one() {
    let stage = Stage::new();
    assert_eq!(stage.client(&["refresh"]), 0);
    let path = stage.folder.path().join("metadata/timestamp.json");
    let whole = stage.metadata("timestamp");
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    assert_eq!(stage.client(&["refresh"]), 1);
    fs::write(&path, &whole).unwrap();
    assert_eq!(stage.client(&["refresh"]), 0);
}

#[test]
fn every_failure_exits_with_one() {
    let stage = Stage::new();
    for arguments in [&["no-such-command"][..], &["init", "/does/not/exist"], &["init"]] {
        assert_eq!(stage.client(arguments), 1);
    }
    let lonely = Command::new(env!("CARGO_BIN_EXE_tuf-client"))
        .args(["--metadata-dir", "/does/not/exist", "refresh"])
        .status()
        .unwrap();
    assert_eq!(lonely.code(), Some(1));
}
