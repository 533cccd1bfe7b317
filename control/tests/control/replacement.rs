//! Online keys, certificates and roots replaced while the server runs: all of it or nothing, whenever the power goes.

use crate::ceremony::decide;
use crate::program::{control, line, registered, running, said, tell};
use crate::raw::Raw;
use crate::site::{Door, ceremony, config};
use redan_ceremony::change::Change;
use redan_ceremony::present::RepositoryName;
use redan_control::server::Server;
use redan_identity::ca::Issuer;
use redan_identity::{FleetAnchor, FleetCa, IssuerKind, KeyFile, pem};
use redan_protocol::report::Report;
use redan_protocol::wire::{CheckIn, Nonce};
use redan_protocol::{Code, DeviceId, FleetId, SpiffeId};
use redan_publish::{PublicKey, SigningKey};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

type Tree = BTreeMap<PathBuf, Vec<u8>>;

fn fleet() -> FleetId {
    FleetId::parse("plant.example").unwrap()
}

/// New keys of every online role in `<folder>/new`, and the roots that name them in the custodians' public folder.
fn revoke_everything(folder: &Path) {
    let founded = folder.join("fleet");
    let new = folder.join("new");
    std::fs::create_dir(&new).unwrap();
    for (name, roles) in [
        (RepositoryName::Release, &["timestamp"][..]),
        (RepositoryName::Director, &["targets", "snapshot", "timestamp"]),
    ] {
        let keys: Vec<(String, PublicKey)> = roles
            .iter()
            .map(|role| {
                let purpose = format!("{}.{role}", name.folder());
                let key = SigningKey::generate(&purpose).unwrap();
                key.save(&new.join(format!("{purpose}.key.json"))).unwrap();
                key.save_public(&new.join(format!("{purpose}.public.json")))
                    .unwrap();
                ((*role).to_owned(), key.public())
            })
            .collect();
        let holder = format!("{}.root", name.folder());
        decide(&founded, name, &Change::RevokeOnline { keys }, &holder);
    }
}

/// A new issuer of devices' certificates, by the fleet's own root.
fn new_issuer(folder: &Path) {
    let founded = folder.join("fleet");
    let read = |name: &str| std::fs::read_to_string(founded.join(name)).unwrap();
    let anchor = FleetAnchor::from_pem(fleet(), &read("public/ca.pem")).unwrap();
    let ca = FleetCa::load(anchor, &read("offline/fleet-ca.key.pem")).unwrap();
    let issuer = ca.issuer(IssuerKind::Device, crate::site::now()).unwrap();
    let text = pem::write_bundle(issuer.key(), &[issuer.certificate().clone()]);
    redan_identity::key::write_private(&folder.join("new/device-issuer.pem"), text.as_bytes()).unwrap();
}

fn ca_of(founded: &Path) -> String {
    std::fs::read_to_string(founded.join("public/ca.pem")).unwrap()
}

fn keys_of(folder: &Path, public: &Path) -> Command {
    let at = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let mut command = control(&[
        "fleet",
        "keys",
        "--config",
        &at("control.toml"),
        "--online",
        &at("new"),
    ]);
    command.arg("--public").arg(public);
    command
}

fn replace(folder: &Path) -> Output {
    keys_of(folder, &folder.join("fleet/public")).output().unwrap()
}

/// Every file below a fleet's folder in the server's state, but for its database.
fn tree(folder: &Path) -> Tree {
    fn walk(at: &Path, below: &Path, found: &mut Tree) {
        for entry in std::fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, below, found);
            } else if !path.to_str().unwrap().contains("fleet.sqlite") {
                let name = path.strip_prefix(below).unwrap().to_owned();
                found.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    let mut found = Tree::new();
    let kept = folder.join("state/fleets/plant.example");
    walk(&kept, &kept, &mut found);
    found
}

fn put(folder: &Path, tree: &Tree) {
    let kept = folder.join("state/fleets/plant.example");
    for (name, bytes) in tree {
        let path = kept.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
}

/// What the audit log says was replaced.
async fn replaced(address: std::net::SocketAddr, folder: &Path) -> Vec<String> {
    let admin = folder.join("fleet/operators/admin.pem");
    let mut raw = Raw::at(address, &fleet(), &admin).await;
    raw.send("GET /v1/audit HTTP/1.1\r\nhost: control.plant.example\r\nconnection: close\r\n\r\n")
        .await;
    let text = raw.rest().await;
    let body = &text[text.find("\r\n\r\n").unwrap() + 4..];
    let start = body.find('[').unwrap();
    let end = body.rfind(']').unwrap();
    let entries: Vec<serde_json::Value> = serde_json::from_str(&body[start..=end]).unwrap();
    entries
        .iter()
        .filter(|entry| entry["action"] == "online-keys-replaced")
        .map(|entry| entry["subject"].as_str().unwrap().to_owned())
        .collect()
}

const ALL: &str = "device-issuer director.snapshot director.targets director.timestamp release.timestamp";

#[tokio::test]
async fn every_online_key_is_replaced_while_the_server_runs() {
    let (folder, file) = registered().await;
    let folder = folder.path();
    let (mut child, mut out, address) = running(&file);
    revoke_everything(folder);
    new_issuer(folder);
    let ran = replace(folder);
    let said = String::from_utf8(ran.stdout).unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    for file in [
        "online/device-issuer.pem",
        "online/release.timestamp.key.json",
        "online/director.targets.key.json",
        "public/release/2.root.json",
        "public/director/2.root.json",
    ] {
        assert!(
            said.contains(&format!("took {file}\n")),
            "{file} is not in {said}"
        );
    }
    assert!(
        said.ends_with("redan-control: plant.example is served with them now\n"),
        "{said}"
    );
    let now_there =
        "redan-control: plant.example goes on with the keys, certificates and roots that are there now\n";
    assert_eq!(line(&mut out), now_there);
    // Nothing of the stolen keys is left, and no half-way folder.
    let after = tree(folder);
    for (name, bytes) in &after {
        let brought = folder.join("new").join(name.file_name().unwrap());
        if let Ok(new) = std::fs::read(brought) {
            assert_eq!(*bytes, new, "{}", name.display());
        }
    }
    assert!(
        after
            .keys()
            .all(|name| !name.starts_with("replacement") && !name.starts_with("replacement.unfinished"))
    );
    assert_eq!(replaced(address, folder).await, [ALL]);
    tell(&child, Signal::TERM);
    child.wait().unwrap();
    // And a start finds nothing left to do.
    let (mut child, _, address) = running(&file);
    assert_eq!(replaced(address, folder).await, [ALL]);
    tell(&child, Signal::TERM);
    child.wait().unwrap();
}

/// How a device's key and certificate are answered when it checks in.
async fn checks_in(door: &Door, bundle: &Path) -> Result<(), (u16, Code)> {
    let body = serde_json::to_vec(&CheckIn {
        nonce: Nonce([7; 16]),
        settled: None,
        report: Report::default(),
    });
    let mut caller = door.connect(bundle).await.unwrap();
    let answer = caller.ask("POST", "/v1/checkin", body.unwrap()).await;
    match answer.status {
        200 => Ok(()),
        _ => Err(answer.refusal()),
    }
}

#[tokio::test]
async fn a_stolen_device_issuer_certifies_nobody_after_its_replacement_and_the_new_one_enrols() {
    let (folder, file) = registered().await;
    let folder = folder.path();
    let founded = folder.join("fleet");
    let (mut child, _out, address) = running(&file);
    let door = Door::new(folder, &founded, fleet(), address);
    let before = door.enrolled("press-1").await;
    let stolen = std::fs::read_to_string(founded.join("online/device-issuer.pem")).unwrap();
    let (key, chain) = pem::read_bundle(&stolen).unwrap();
    let anchor = || FleetAnchor::from_pem(fleet(), &ca_of(&founded)).unwrap();
    let thief = Issuer::load(IssuerKind::Device, anchor(), key, chain[0].clone());

    revoke_everything(folder);
    new_issuer(folder);
    let ran = replace(folder);
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let after = door.enrolled("press-2").await;
    let issued_by = |bundle: &Path| pem::load_bundle(bundle).unwrap().1[1].clone();
    assert_eq!(issued_by(&before), chain[0], "the stolen one issued this");
    let (_, new) = pem::load_bundle(&folder.join("new/device-issuer.pem")).unwrap();
    assert_ne!(new, chain);
    assert_eq!(issued_by(&after), new[0]);

    for id in ["press-1", "press-2", "ghost-1"] {
        let own = KeyFile::generate().unwrap();
        let id = SpiffeId::Device(fleet(), DeviceId::parse(id).unwrap());
        let forged = thief.issue_for(&id, &own, crate::site::now()).unwrap();
        let forged = door.keep("forged", &own, &forged);
        let refused = checks_in(&door, &forged).await;
        assert_eq!(refused, Err((403, Code::CertificateRevoked)), "{id}");
    }
    // Admitted keys are answered, whichever issuer certified them.
    for honest in [&before, &after] {
        assert_eq!(checks_in(&door, honest).await, Ok(()));
    }
    tell(&child, Signal::TERM);
    child.wait().unwrap();
}

#[tokio::test]
async fn keys_laid_in_place_by_hand_are_taken_at_a_hangup_and_at_a_start() {
    for told in [true, false] {
        let (folder, file) = registered().await;
        let folder = folder.path();
        let (mut child, mut out, mut address) = running(&file);
        revoke_everything(folder);
        let kept = folder.join("state/fleets/plant.example");
        if !told {
            tell(&child, Signal::TERM);
            child.wait().unwrap();
        }
        for name in [
            "release.timestamp",
            "director.targets",
            "director.snapshot",
            "director.timestamp",
        ] {
            let name = format!("{name}.key.json");
            std::fs::copy(folder.join("new").join(&name), kept.join("online").join(&name)).unwrap();
        }
        for name in ["release/2.root.json", "director/2.root.json"] {
            std::fs::copy(
                folder.join("fleet/public").join(name),
                kept.join("public").join(name),
            )
            .unwrap();
        }
        if told {
            tell(&child, Signal::HUP);
            assert!(line(&mut out).contains("that are there now"));
        } else {
            (child, _, address) = running(&file);
        }
        let four = ALL.trim_start_matches("device-issuer ");
        assert_eq!(replaced(address, folder).await, [four], "told: {told}");
        tell(&child, Signal::TERM);
        child.wait().unwrap();
    }
}

/// A fleet whose keys are about to be replaced, and somebody else's of the same name.
struct Spoiler<'a> {
    folder: &'a Path,
    other: tempfile::TempDir,
    before: Tree,
}

impl<'a> Spoiler<'a> {
    fn new(folder: &'a Path) -> Self {
        let other = tempfile::tempdir().unwrap();
        ceremony("plant.example", &other.path().join("fleet"));
        revoke_everything(folder);
        let before = tree(folder);
        Self {
            folder,
            other,
            before,
        }
    }

    fn new_key(&self, name: &str) -> PathBuf {
        self.folder.join("new").join(name)
    }

    fn public(&self, name: &str) -> PathBuf {
        self.folder.join("fleet/public").join(name)
    }

    fn ours(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.folder.join("fleet").join(name)).unwrap()
    }

    fn theirs(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.other.path().join("fleet").join(name)).unwrap()
    }

    /// Spoils one file, or takes it away: it is refused, and nothing changes.
    #[track_caller]
    fn spoilt(&self, path: &Path, bytes: Option<&[u8]>, code: &str, word: &str) {
        let write = |bytes: Option<&[u8]>| match bytes {
            Some(bytes) => {
                std::fs::write(path, bytes).unwrap();
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
            }
            None => std::fs::remove_file(path).unwrap(),
        };
        let kept = std::fs::read(path).ok();
        write(bytes);
        let ran = replace(self.folder);
        write(kept.as_deref());
        let text = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert_eq!(ran.status.code(), Some(1), "{text}");
        assert!(
            text.contains(&format!("because: {code}\n")),
            "{code} is not in {text}"
        );
        assert!(text.contains(word), "{word} is not in {text}");
        assert_eq!(tree(self.folder), self.before, "{text}");
    }
}

#[tokio::test]
async fn keys_that_would_not_start_replace_nothing_and_are_named() {
    let (folder, file) = registered().await;
    let (mut child, _out, address) = running(&file);
    let spoiler = Spoiler::new(folder.path());
    let timestamp = spoiler.new_key("release.timestamp.key.json");
    let shown = timestamp.display().to_string();
    let refused = "not-authorised";
    // A root without its key, and keys without their root.
    spoiler.spoilt(
        &timestamp,
        None,
        refused,
        "the fleet's root names for release.timestamp",
    );
    let root = spoiler.public("director/2.root.json");
    spoiler.spoilt(&root, None, refused, "director.targets.key.json");
    // Keys that sign offline, whatever they are called; keys of somebody else; a file nobody needs.
    let offline = spoiler.ours("offline/release.targets-1.key.json");
    spoiler.spoilt(&timestamp, Some(&offline), refused, &shown);
    let offline = spoiler.ours("offline/component.acme.thermo-1.key.json");
    let said = "x.key.json is a key of component.acme.thermo";
    spoiler.spoilt(&spoiler.new_key("x.key.json"), Some(&offline), refused, said);
    let theirs = spoiler.theirs("online/release.timestamp.key.json");
    spoiler.spoilt(&timestamp, Some(&theirs), refused, &shown);
    let stray = spoiler.new_key("notes.txt");
    let said = "notes.txt is no key this server needs";
    spoiler.spoilt(&stray, Some(b"remember"), refused, said);
    for (name, code) in [
        ("device-issuer.pem", "certificate-profile"),
        ("server.pem", "foreign-certificate"),
    ] {
        let theirs = spoiler.theirs(&format!("online/{name}"));
        spoiler.spoilt(&spoiler.new_key(name), Some(&theirs), code, name);
    }
    // Readable by others.
    let mode = |mode| std::fs::set_permissions(&timestamp, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(0o644);
    let ran = replace(spoiler.folder);
    assert!(String::from_utf8_lossy(&ran.stderr).contains("can be read by others (mode 644)"));
    mode(0o600);
    assert_eq!(tree(spoiler.folder), spoiler.before);
    // The server did not notice anything.
    assert_eq!(replaced(address, spoiler.folder).await, [""; 0]);
    // Positive control; and then there is nothing more to do.
    assert!(replace(spoiler.folder).status.success());
    let public = spoiler.folder.join("fleet/public");
    let nothing = format!(
        "the server has every key and root that is in {}",
        public.display()
    );
    let try_this = "name the folders that the ceremony wrote the new keys and roots to";
    said_of(&replace(spoiler.folder), &nothing, try_this);
    tell(&child, Signal::TERM);
    child.wait().unwrap();
}

fn said_of(ran: &Output, what: &str, try_this: &str) {
    said(ran, 2, what, "conflict", try_this);
}

#[tokio::test]
async fn roots_that_devices_would_not_walk_to_replace_nothing() {
    let (folder, _) = registered().await;
    let spoiler = Spoiler::new(folder.path());
    for repository in ["release", "director"] {
        let path = spoiler.public(&format!("{repository}/2.root.json"));
        let mut root: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        root["signatures"] = serde_json::json!([]);
        let unsigned = root.to_string();
        spoiler.spoilt(&path, Some(unsigned.as_bytes()), "threshold-not-met", "root");
    }
    let gap = spoiler.public("director/4.root.json");
    let root = spoiler.ours("public/director/2.root.json");
    spoiler.spoilt(&gap, Some(&root), "metadata-invalid", "root");
    // Another fleet's of the same name.
    let said = "is not what this server has under that name";
    for name in ["ca.pem", "director/1.root.json"] {
        let theirs = spoiler.theirs(&format!("public/{name}"));
        spoiler.spoilt(&spoiler.public(name), Some(&theirs), "conflict", said);
    }
    assert!(replace(spoiler.folder).status.success(), "positive control");
}

#[tokio::test]
async fn a_power_cut_leaves_the_old_keys_or_the_new_ones() {
    let (folder, file) = registered().await;
    let folder = folder.path();
    let old = tree(folder);
    revoke_everything(folder);
    let ran = replace(folder);
    assert!(String::from_utf8_lossy(&ran.stdout).contains("the next start takes them over"));
    let new = tree(folder);
    let places: Vec<&PathBuf> = new
        .iter()
        .filter(|(name, bytes)| old.get(*name) != Some(*bytes))
        .map(|(name, _)| name)
        .collect();
    assert_eq!(places.len(), 6);
    let kept = folder.join("state/fleets/plant.example");
    let restore = || {
        for part in ["online", "public", "replacement", "replacement.unfinished"] {
            drop(std::fs::remove_dir_all(kept.join(part)));
        }
        put(folder, &old);
    };
    let lay = |at: &str, places: &[&PathBuf]| {
        for part in ["online", "public/release", "public/director"] {
            std::fs::create_dir_all(kept.join(at).join(part)).unwrap();
        }
        let laid: Tree = places
            .iter()
            .map(|place| (Path::new(at).join(place), new[*place].clone()))
            .collect();
        put(folder, &laid);
    };
    // Before it was decided: nothing has happened, and half of it is in nobody's way.
    for half in 0..=places.len() {
        restore();
        lay("replacement.unfinished", &places[..half]);
        Server::open(config(folder)).await.unwrap();
        let mut after = tree(folder);
        after.retain(|name, _| !name.starts_with("replacement.unfinished"));
        assert_eq!(after, old, "{half}");
    }
    // Once it was decided: whichever of the files have their places, the rest follow.
    for moved in 0..=places.len() {
        restore();
        put(
            folder,
            &places[..moved]
                .iter()
                .map(|place| ((*place).clone(), new[*place].clone()))
                .collect(),
        );
        lay("replacement", &places[moved..]);
        Server::open(config(folder)).await.unwrap();
        assert_eq!(tree(folder), new, "{moved}");
        // The database of this one has the new root; the next begins with the old files again, which the walk takes as well.
        if moved == 0 {
            std::fs::remove_file(kept.join("fleet.sqlite")).unwrap();
        }
    }
    drop(file);
}

#[tokio::test]
async fn a_second_server_on_the_same_state_does_not_start() {
    let (folder, file) = registered().await;
    let (mut child, _out, _) = running(&file);
    let second = control(&["serve", "--config", file.to_str().unwrap()])
        .output()
        .unwrap();
    let what = format!(
        "a server runs on {} already",
        folder.path().join("state").display()
    );
    said(
        &second,
        2,
        &what,
        "conflict",
        "stop that server, or name another `state` folder",
    );
    // Killed: nothing of it is in the next one's way.
    tell(&child, Signal::KILL);
    child.wait().unwrap();
    let (mut child, _out, _) = running(&file);
    tell(&child, Signal::TERM);
    child.wait().unwrap();
}
