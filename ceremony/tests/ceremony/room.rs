//! A fleet of three holders of whom two must sign, and a medium for each of them.

use serde_json::Value;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

pub(crate) const PASSPHRASE: &str = "correct horse battery staple";

/// Two holders of the release root: enough.
pub(crate) const ROOT: [&str; 2] = ["release.root-1", "release.root-2"];

/// A room with a request for a longer root.
pub(crate) fn rotating() -> Room {
    let room = Room::found();
    done(&room.request("root", &["rotate", "--role", "root"]));
    room
}

pub(crate) fn ceremony(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_redan-ceremony"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[track_caller]
pub(crate) fn refused(ran: &Output, exit: i32, words: &[&str]) {
    let said = String::from_utf8_lossy(&ran.stderr);
    assert_eq!(ran.status.code(), Some(exit), "{said}");
    for word in ["error:", "because:", "try:"].iter().chain(words) {
        assert!(said.contains(word), "{word:?} is missing in {said}");
    }
}

#[track_caller]
pub(crate) fn done(ran: &Output) -> String {
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout.clone()).unwrap()
}

/// A file with a passphrase, its owner's alone.
pub(crate) fn passphrase_file(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, format!("{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path.to_str().unwrap().to_owned()
}

pub(crate) struct Room {
    folder: tempfile::TempDir,
}

impl Room {
    pub(crate) fn found() -> Self {
        Self::found_with(&["--profile", "development"])
    }

    pub(crate) fn found_with(more: &[&str]) -> Self {
        let room = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let out = room.path("fleet");
        let mut arguments = vec!["init", "--fleet", "plant.example", "--publisher", "acme"];
        arguments.extend(["--component", "acme/thermo", "--holders", "3", "--threshold", "2"]);
        arguments.extend(["--out", out.to_str().unwrap()]);
        arguments.extend(more);
        done(&ceremony(&arguments));
        room
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A command that works on the custodians' own public folder.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        let public = self.text("fleet/public");
        let mut all = arguments.to_vec();
        all.extend(["--public", &public]);
        ceremony(&all)
    }

    /// Makes a request in `<name>.request.json`.
    pub(crate) fn request(&self, name: &str, arguments: &[&str]) -> Output {
        let out = self.text(&format!("{name}.request.json"));
        let mut all = vec!["request"];
        all.extend(arguments);
        all.extend(["--out", &out]);
        self.run(&all)
    }

    /// A key made for a purpose; its public file.
    pub(crate) fn key(&self, purpose: &str) -> String {
        let out = self.text("made");
        std::fs::create_dir_all(&out).unwrap();
        done(&ceremony(&[
            "key",
            "--plain-keys",
            "--purpose",
            purpose,
            "--out",
            &out,
        ]));
        self.text(&format!("made/{purpose}.public.json"))
    }

    /// The private half of a key, wherever it was made.
    pub(crate) fn private(&self, purpose: &str) -> String {
        ["fleet/offline", "fleet/online", "made"]
            .iter()
            .map(|folder| self.path(folder).join(format!("{purpose}.key.json")))
            .find(|path| path.exists())
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned()
    }

    /// The id of a key.
    pub(crate) fn id(&self, purpose: &str) -> String {
        let key = redan_publish::SigningKey::load(Path::new(&self.private(purpose))).unwrap();
        key.public().id
    }

    /// First characters of what a request would have signed, as its maker read them.
    pub(crate) fn digest(&self, name: &str) -> String {
        let request = self.text(&format!("{name}.request.json"));
        let text = done(&self.run(&["inspect", "--request", &request]));
        let digest = text.lines().find_map(|line| line.strip_prefix("payload sha256 "));
        digest.unwrap()[..8].to_owned()
    }

    /// Signs on a medium of the holder's own: the request, a copy of the public folder, the one key. Gives the signature's file.
    pub(crate) fn sign(&self, name: &str, purpose: &str) -> (Output, String) {
        self.sign_confirming(name, purpose, &self.digest(name))
    }

    pub(crate) fn sign_confirming(&self, name: &str, purpose: &str, typed: &str) -> (Output, String) {
        let medium = tempfile::tempdir_in(self.folder()).unwrap().keep();
        copy(&self.path("fleet/public"), &medium.join("public"));
        let on_it = |file: &str| medium.join(file).to_str().unwrap().to_owned();
        std::fs::copy(self.path(&format!("{name}.request.json")), on_it("request.json")).unwrap();
        std::fs::copy(self.private(purpose), on_it("key.json")).unwrap();
        let ran = ceremony(&[
            "sign",
            "--public",
            &on_it("public"),
            "--request",
            &on_it("request.json"),
            "--key",
            &on_it("key.json"),
            "--confirm",
            typed,
            "--out",
            &on_it("signature.json"),
        ]);
        (ran, on_it("signature.json"))
    }

    pub(crate) fn assemble(&self, name: &str, signatures: &[&str]) -> Output {
        let request = self.text(&format!("{name}.request.json"));
        let mut arguments = vec!["assemble", "--request", &request];
        for signature in signatures {
            arguments.extend(["--signature", signature]);
        }
        self.run(&arguments)
    }

    /// A request that these sign and somebody assembles.
    #[track_caller]
    pub(crate) fn complete(&self, name: &str, arguments: &[&str], signers: &[&str]) {
        done(&self.request(name, arguments));
        self.finish(name, signers);
    }

    #[track_caller]
    pub(crate) fn finish(&self, name: &str, signers: &[&str]) {
        let mut signatures = Vec::new();
        for purpose in signers {
            let (ran, file) = self.sign(name, purpose);
            done(&ran);
            signatures.push(file);
        }
        let signatures: Vec<&str> = signatures.iter().map(String::as_str).collect();
        done(&self.assemble(name, &signatures));
    }

    /// Changes a request as somebody on its way could.
    pub(crate) fn tamper(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let path = self.path(&format!("{name}.request.json"));
        let mut request: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut request);
        std::fs::write(&path, request.to_string()).unwrap();
    }

    pub(crate) fn release(&self, name: &str) -> Option<Vec<u8>> {
        std::fs::read(self.path("fleet/public/release").join(name)).ok()
    }
}

pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}
