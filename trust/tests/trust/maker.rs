//! Makes and serves repositories in memory, and drives a device's refresh against them.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use redan_protocol::{Digest, UnixSeconds};
use redan_trust::{Answer, LookupStep, Refresh, Repository, RoleVersions, Step, Target, Trusted, TufError};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Now, in all tests: 2027.
pub(crate) const NOW: UnixSeconds = UnixSeconds::new(1_800_000_000);
/// After everything has expired: 2033.
pub(crate) const LATE: UnixSeconds = UnixSeconds::new(2_000_000_000);
/// When everything expires.
pub(crate) const EXPIRES: UnixSeconds = UnixSeconds::new(1_893_456_000);

/// A signer.
pub(crate) struct Signer {
    pair: Ed25519KeyPair,
    pub(crate) id: String,
}

impl Signer {
    pub(crate) fn new(id: &str) -> Self {
        let pair = Ed25519KeyPair::generate().unwrap();
        let id = format!("{id} {}", &hex::encode(pair.public_key().as_ref())[..8]);
        Self { pair, id }
    }

    pub(crate) fn key(&self) -> Value {
        let public = hex::encode(self.pair.public_key().as_ref());
        json!({"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": public}})
    }

    pub(crate) fn signature(&self, signed: &Value) -> Value {
        let message = redan_policy::canonical::to_vec(signed).unwrap();
        json!({"keyid": self.id, "sig": hex::encode(self.pair.sign(&message).as_ref())})
    }
}

pub(crate) fn envelope(signed: &Value, by: &[&Signer]) -> Value {
    let signatures: Vec<Value> = by.iter().map(|signer| signer.signature(signed)).collect();
    json!({"signed": signed, "signatures": signatures})
}

/// What a server says about a path.
#[derive(Clone)]
pub(crate) enum Served {
    Bytes(Vec<u8>),
    Failed,
}

/// A repository: the unsigned documents, who signs them, and what is served.
pub(crate) struct Repo {
    pub(crate) root: Value,
    pub(crate) timestamp: Value,
    pub(crate) snapshot: Value,
    /// `targets` and delegated roles.
    pub(crate) targets: BTreeMap<String, Value>,
    pub(crate) signers: BTreeMap<String, Vec<Signer>>,
    /// Hash algorithms that parents name.
    pub(crate) hashes: Vec<&'static str>,
    pub(crate) served: BTreeMap<String, Served>,
}

fn document(kind: &str) -> Value {
    json!({"_type": kind, "spec_version": "1.0.34", "version": 1, "expires": "2030-01-01T00:00:00Z"})
}

pub(crate) fn targets_document() -> Value {
    let mut targets = document("targets");
    targets["targets"] = json!({});
    targets
}

pub(crate) fn hashes(bytes: &[u8], algorithms: &[&str]) -> Value {
    use aws_lc_rs::digest::{SHA256, SHA512, digest};
    let mut hashes = json!({});
    for name in algorithms {
        let algorithm = if *name == "sha512" { &SHA512 } else { &SHA256 };
        hashes[*name] = json!(hex::encode(digest(algorithm, bytes)));
    }
    hashes
}

pub(crate) fn target(bytes: &[u8]) -> Value {
    json!({"length": bytes.len(), "hashes": {"sha256": Digest::of(bytes).to_string()}})
}

impl Repo {
    /// Version 1 of everything, published.
    pub(crate) fn new() -> Self {
        let mut repo = Self {
            root: document("root"),
            timestamp: document("timestamp"),
            snapshot: document("snapshot"),
            targets: BTreeMap::from([("targets".to_owned(), targets_document())]),
            signers: BTreeMap::new(),
            hashes: vec!["sha256"],
            served: BTreeMap::new(),
        };
        repo.root["consistent_snapshot"] = json!(true);
        repo.root["keys"] = json!({});
        repo.root["roles"] = json!({});
        for role in ["root", "timestamp", "snapshot", "targets"] {
            repo.rotate(role);
        }
        let signed = envelope(&repo.root, &repo.by("root"));
        repo.serve("1.root.json", &signed);
        repo.publish();
        repo
    }

    /// The same, of a fleet.
    pub(crate) fn of_fleet(fleet: &str) -> Self {
        let mut repo = Self::new();
        repo.root["fleet"] = json!(fleet);
        repo.root["profile"] = json!("development");
        let signed = envelope(&repo.root, &repo.by("root"));
        repo.serve("1.root.json", &signed);
        repo
    }

    pub(crate) fn by(&self, role: &str) -> Vec<&Signer> {
        self.signers[role].iter().collect()
    }

    pub(crate) fn serve(&mut self, path: &str, file: &Value) -> Vec<u8> {
        let bytes = serde_json::to_vec_pretty(file).unwrap();
        self.served.insert(path.to_owned(), Served::Bytes(bytes.clone()));
        bytes
    }

    /// Gives a role of the root one new key, in the unpublished root. Returns the old signers.
    pub(crate) fn rotate(&mut self, role: &str) -> Vec<Signer> {
        let signer = Signer::new(role);
        self.root["keys"][&signer.id] = signer.key();
        self.root["roles"][role] = json!({"keyids": [signer.id], "threshold": 1});
        self.signers
            .insert(role.to_owned(), vec![signer])
            .unwrap_or_default()
    }

    /// Publishes the next root, signed by the present root signers and `also`.
    pub(crate) fn publish_root(&mut self, also: &[Signer]) {
        let version = self.root["version"].as_u64().unwrap() + 1;
        self.root["version"] = json!(version);
        let by: Vec<&Signer> = self.signers["root"].iter().chain(also).collect();
        let signed = envelope(&self.root, &by);
        self.serve(&format!("{version}.root.json"), &signed);
    }

    /// The unsigned document of a role.
    pub(crate) fn document(&mut self, role: &str) -> &mut Value {
        match role {
            "root" => &mut self.root,
            "timestamp" => &mut self.timestamp,
            "snapshot" => &mut self.snapshot,
            role => self.targets.get_mut(role).unwrap(),
        }
    }

    /// Adds one to a version.
    pub(crate) fn bump(document: &mut Value) {
        document["version"] = json!(document["version"].as_u64().unwrap() + 1);
    }

    /// Publishes targets with the next version, then the rest.
    pub(crate) fn publish_next(&mut self) {
        for document in self
            .targets
            .values_mut()
            .chain([&mut self.snapshot, &mut self.timestamp])
        {
            Self::bump(document);
        }
        self.publish();
    }

    /// Signs and serves everything but the root as the documents stand.
    pub(crate) fn publish(&mut self) {
        let mut meta = json!({});
        for (role, document) in self.targets.clone() {
            let signed = envelope(&document, &self.by(&role));
            let version = document["version"].as_u64().unwrap();
            let bytes = self.serve(&self.path(&role, version), &signed);
            meta[format!("{role}.json")] = self.entry(version, &bytes);
        }
        self.snapshot["meta"] = meta;
        self.publish_snapshot();
    }

    /// The same from the snapshot on.
    pub(crate) fn publish_snapshot(&mut self) {
        let signed = envelope(&self.snapshot, &self.by("snapshot"));
        let version = self.snapshot["version"].as_u64().unwrap();
        let bytes = self.serve(&self.path("snapshot", version), &signed);
        self.timestamp["meta"] = json!({"snapshot.json": self.entry(version, &bytes)});
        self.publish_timestamp();
    }

    /// The timestamp alone.
    pub(crate) fn publish_timestamp(&mut self) {
        let signed = envelope(&self.timestamp, &self.by("timestamp"));
        self.serve("timestamp.json", &signed);
    }

    fn path(&self, role: &str, version: u64) -> String {
        let consistent = self.root["consistent_snapshot"].as_bool().unwrap();
        redan_trust::metadata::file_name(role, consistent.then_some(version))
    }

    fn entry(&self, version: u64, bytes: &[u8]) -> Value {
        if self.hashes.is_empty() {
            return json!({"version": version});
        }
        json!({"version": version, "length": bytes.len(), "hashes": hashes(bytes, &self.hashes)})
    }

    /// Adds a delegation with a new key and an empty role, unpublished.
    pub(crate) fn delegate(&mut self, from: &str, role: &str, paths: &[&str], terminating: bool) {
        let signer = Signer::new(role);
        let parent = self.targets.get_mut(from).unwrap();
        if parent.get("delegations").is_none() {
            parent["delegations"] = json!({"keys": {}, "roles": []});
        }
        let signer = match self.signers.get_mut(role) {
            Some(signers) => signers.remove(0),
            None => signer,
        };
        parent["delegations"]["keys"][&signer.id] = signer.key();
        parent["delegations"]["roles"].as_array_mut().unwrap().push(json!({
            "name": role, "keyids": [signer.id], "threshold": 1, "terminating": terminating, "paths": paths,
        }));
        self.signers.insert(role.to_owned(), vec![signer]);
        self.targets
            .entry(role.to_owned())
            .or_insert_with(targets_document);
    }

    /// What a device begins with.
    pub(crate) fn device(&self) -> Device {
        let Some(Served::Bytes(root)) = self.served.get("1.root.json") else {
            panic!("the first root is always served");
        };
        Device {
            trusted: Trusted {
                root: root.clone(),
                ..Trusted::default()
            },
            ..Device::default()
        }
    }
}

/// A device's metadata store, and what was asked for.
#[derive(Clone, Default)]
pub(crate) struct Device {
    pub(crate) trusted: Trusted,
    pub(crate) fetched: Vec<String>,
    pub(crate) stored: Vec<String>,
}

impl Device {
    pub(crate) fn refresh(&mut self, repo: &Repo) -> Result<Repository, TufError> {
        self.refresh_at(repo, NOW)
    }

    /// A refresh from a repository that changes: `meanwhile` is called before each request with the number of those before it.
    pub(crate) fn refresh_while(
        &mut self,
        repo: &mut Repo,
        meanwhile: impl Fn(&mut Repo, usize),
    ) -> Result<Repository, TufError> {
        (self.fetched, self.stored) = (Vec::new(), Vec::new());
        let mut refresh = Refresh::new(self.trusted.clone(), NOW)?;
        let mut answer = None;
        loop {
            let step = refresh.step(answer.take())?;
            if step == Step::Done {
                return refresh.finish();
            }
            if matches!(step, Step::Fetch { .. }) {
                meanwhile(repo, self.fetched.len());
            }
            answer = Some(self.perform(repo, step));
        }
    }

    /// The same device with a record of versions beside its files.
    pub(crate) fn with_record(mut self) -> Self {
        self.trusted.versions = Some(RoleVersions::default());
        self
    }

    /// Its files are gone; its root and its record are not.
    pub(crate) fn without_files(&self) -> Self {
        let mut device = self.clone();
        device.trusted = Trusted {
            root: self.trusted.root.clone(),
            versions: self.trusted.versions.clone(),
            ..Trusted::default()
        };
        device
    }

    pub(crate) fn refresh_at(&mut self, repo: &Repo, now: UnixSeconds) -> Result<Repository, TufError> {
        (self.fetched, self.stored) = (Vec::new(), Vec::new());
        let mut refresh = Refresh::new(self.trusted.clone(), now)?;
        let done = self.drive(repo, &mut refresh);
        if let Some(versions) = &mut self.trusted.versions {
            versions.clone_from(refresh.versions());
        }
        done?;
        refresh.finish()
    }

    /// A refresh from a folder that somebody carried here: the snapshot has a plain name, and there is no timestamp.
    pub(crate) fn refresh_carried(&mut self, repo: &Repo, now: UnixSeconds) -> Result<Repository, TufError> {
        (self.fetched, self.stored) = (Vec::new(), Vec::new());
        let mut refresh = Refresh::carried(self.trusted.clone(), now)?;
        let version = repo.snapshot["version"].as_u64().unwrap();
        let mut answer = None;
        let done = loop {
            let step = match refresh.step(answer.take()) {
                Ok(Step::Done) => break Ok(()),
                Ok(Step::Fetch { path, limit }) if path == "snapshot.json" => Step::Fetch {
                    path: repo.path("snapshot", version),
                    limit,
                },
                Ok(step) => step,
                Err(error) => break Err(error),
            };
            answer = Some(self.perform(repo, step));
        };
        if let Some(versions) = &mut self.trusted.versions {
            versions.clone_from(refresh.versions());
        }
        done?;
        refresh.finish()
    }

    fn drive(&mut self, repo: &Repo, refresh: &mut Refresh) -> Result<(), TufError> {
        let mut answer = None;
        loop {
            let step = refresh.step(answer.take())?;
            if step == Step::Done {
                return Ok(());
            }
            answer = Some(self.perform(repo, step));
        }
    }

    pub(crate) fn lookup(
        &mut self,
        repo: &Repo,
        repository: &mut Repository,
        path: &str,
    ) -> Result<Option<Target>, TufError> {
        (self.fetched, self.stored) = (Vec::new(), Vec::new());
        let mut lookup = repository.lookup(path);
        let mut answer = None;
        loop {
            match lookup.step(answer.take())? {
                LookupStep::Found(target) => return Ok(Some(target)),
                LookupStep::NotFound => return Ok(None),
                LookupStep::Do(step) => answer = Some(self.perform(repo, step)),
            }
        }
    }

    fn perform(&mut self, repo: &Repo, step: Step) -> Answer {
        match step {
            Step::Fetch { path, .. } => {
                let answer = match repo.served.get(&path) {
                    Some(Served::Bytes(bytes)) => Answer::Bytes(bytes.clone()),
                    Some(Served::Failed) => Answer::Failed,
                    None => Answer::Absent,
                };
                self.fetched.push(path);
                answer
            }
            Step::Store { role, bytes } => {
                match role.as_str() {
                    "root" => self.trusted.root = bytes,
                    "timestamp" => self.trusted.timestamp = Some(bytes),
                    "snapshot" => self.trusted.snapshot = Some(bytes),
                    _ => drop(self.trusted.targets.insert(role.clone(), bytes)),
                }
                self.stored.push(role);
                Answer::Stored
            }
            Step::Remove { role } => {
                match role.as_str() {
                    "timestamp" => self.trusted.timestamp = None,
                    _ => self.trusted.snapshot = None,
                }
                self.stored.push(format!("-{role}"));
                Answer::Stored
            }
            Step::Done => panic!("nothing to perform"),
        }
    }
}
