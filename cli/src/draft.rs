//! A role's next file on its way from signer to signer (`redan.draft/1`): begun by one who cannot sign for the role alone, such as CI,
//! inspected and signed by others days later on their own machines, and uploaded by whoever has the snapshot's key. Each of them holds
//! it against the server's present metadata, verified from their own pinned root, and never against what it says of itself.

use crate::access::{Access, Server, now};
use crate::error::CliError;
use crate::sign::{Base, Keys, rebased};
use redan_protocol::{Digest, FleetId, ReleaseCounter};
use redan_publish::metadata::{canonical, detached};
use redan_publish::{PublicKey, SigningKey};
use redan_trust::Claimed;
use redan_trust::custom::ReleaseCustom;
use redan_trust::listed::TargetMap;
use redan_trust::metadata::{Metadata as _, TargetEntry, Targets};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::path::Path;

const SCHEMA: &str = "redan.draft/1";
/// Longest draft read, bytes: the longest metadata a device takes. Tripped by `a_file_that_is_no_draft_is_refused`.
const DRAFT_LEN_MAX: u64 = 8 * 1024 * 1024;
/// Fewest characters of the digest that a signer gives.
const CONFIRM_CHARS_MIN: usize = 8;

/// Metadata that not enough holders have signed yet.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Draft {
    schema: String,
    fleet: FleetId,
    role: String,
    payload: Value,
    signatures: Vec<Signature>,
}

#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signature {
    keyid: String,
    sig: String,
}

/// A draft that keeps the rules.
struct Checked {
    targets: Targets,
    sha256: Digest,
    signed_by: Vec<PublicKey>,
}

impl Draft {
    /// Begins one: signed by those of the keys that may.
    pub(crate) fn begin(
        fleet: &FleetId,
        role: &str,
        payload: &Value,
        keys: &[&SigningKey],
    ) -> Result<Self, CliError> {
        let mut draft = Self {
            schema: SCHEMA.into(),
            fleet: fleet.clone(),
            role: role.to_owned(),
            payload: payload.clone(),
            signatures: Vec::new(),
        };
        for key in keys {
            draft.sign(key)?;
        }
        Ok(draft)
    }

    fn sign(&mut self, key: &SigningKey) -> Result<(), CliError> {
        let keyid = key.public().id;
        if self.signatures.iter().any(|signature| signature.keyid == keyid) {
            return Err(CliError::SignedAlready { key: keyid });
        }
        let sig = detached(&self.payload, key)?;
        self.signatures.push(Signature { keyid, sig });
        Ok(())
    }

    /// Reads one.
    pub fn read(path: &Path) -> Result<Self, CliError> {
        let mut bytes = Vec::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(DRAFT_LEN_MAX.saturating_add(1)).read_to_end(&mut bytes))
            .map_err(|error| CliError::file(path, &error))?;
        Self::parse(&bytes).ok_or_else(|| CliError::Draft {
            path: path.display().to_string(),
            what: "it is not a draft of this version".to_owned(),
        })
    }

    /// Reads its bytes. Nothing of it is believed yet; but a payload that nobody can sign (a fraction reads and writes as another number)
    /// is none.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let short = u64::try_from(bytes.len()).is_ok_and(|length| length <= DRAFT_LEN_MAX);
        let read: Self = serde_json::from_slice(bytes).ok().filter(|_| short)?;
        (read.schema == SCHEMA && canonical(&read.payload).is_ok()).then_some(read)
    }

    /// Writes it to a new file.
    pub(crate) fn write(&self, path: &Path) -> Result<(), CliError> {
        let text = serde_json::to_vec_pretty(self).map_err(|_| CliError::Answer("a draft"))?;
        std::fs::File::create_new(path)
            .and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()))
            .map_err(|error| CliError::file(path, &error))
    }

    /// Holds it to the rules: of this fleet, the very next version of its role, nothing of what is published lost, changed or counted
    /// backwards, and every signature its holder's.
    fn check(&self, base: &Base, fleet: &FleetId) -> Result<Checked, CliError> {
        let refuse = |what: String| CliError::Draft {
            path: self.role.clone(),
            what,
        };
        if self.fleet != *fleet {
            return Err(refuse(format!("it is for fleet {}", self.fleet)));
        }
        let unsigned = json!({"signed": self.payload, "signatures": []}).to_string();
        let targets = Claimed::<Targets>::parse(unsigned.as_bytes())
            .map_err(|error| refuse(format!("it is no metadata of its role: {error}")))?
            .into_peeked();
        if targets.version() != base.version().saturating_add(1) {
            return Err(CliError::Moved {
                role: self.role.clone(),
                there: base.version(),
                offered: targets.version(),
            });
        }
        if targets.expires() <= now() {
            return Err(refuse(format!("it expired at {}", targets.expires())));
        }
        if targets.delegations.is_some() {
            return Err(refuse("it would delegate to others".to_owned()));
        }
        for (path, entry) in targets.targets.iter() {
            if !base.covers(path) {
                return Err(refuse(format!("{} is not the role's to list", clean(path))));
            }
            if base.targets().get(path).is_none_or(|old| !same(old, entry)) {
                base.grows(entry)?;
            }
        }
        let canonical = canonical(&self.payload)?;
        let mut signed_by: Vec<PublicKey> = Vec::new();
        for signature in &self.signatures {
            let named = base.holders().iter().find(|key| key.id == signature.keyid);
            let named =
                named.ok_or_else(|| refuse(format!("key {} may not sign it", clean(&signature.keyid))))?;
            if signed_by.iter().any(|key| key.public == named.public) {
                return Err(CliError::SignedAlready {
                    key: named.id.clone(),
                });
            }
            if !named.made(&canonical, &bytes_of(&signature.sig)) {
                return Err(refuse(format!(
                    "the signature of key {} is not over it",
                    named.id
                )));
            }
            signed_by.push(named.clone());
        }
        Ok(Checked {
            targets,
            sha256: Digest::of(&canonical),
            signed_by,
        })
    }

    /// The signed file.
    fn file(&self) -> Result<Vec<u8>, CliError> {
        let file = json!({"signed": self.payload, "signatures": self.signatures});
        serde_json::to_vec(&file).map_err(|_| CliError::Answer("a draft"))
    }
}

/// Says what a draft is and changes: component, version, counter, digest, and how what it asks for differs from the last version.
pub async fn inspect(access: &Access, path: &Path) -> Result<Value, CliError> {
    let draft = Draft::read(path)?;
    let mut server = access.connect().await?;
    let base = Base::fetch(&mut server, &draft.role).await?;
    let checked = draft.check(&base, &server.fleet.clone())?;
    let mut changes = Vec::new();
    for (path, entry) in checked.targets.targets.iter() {
        let old = base.targets().get(path);
        if old.is_some_and(|old| same(old, entry)) {
            continue;
        }
        changes.push(change(&mut server, &base, path, entry).await?);
    }
    let gone: Vec<String> = base
        .targets()
        .keys()
        .filter(|path| checked.targets.targets.get(path).is_none())
        .map(|path| clean(path))
        .collect();
    let missing = base
        .threshold()
        .saturating_sub(u32::try_from(checked.signed_by.len()).unwrap_or(u32::MAX));
    Ok(json!({
        "fleet": draft.fleet,
        "role": clean(&draft.role),
        "version": checked.targets.version(),
        "expires": checked.targets.expires().to_string(),
        "changes": changes,
        "removed": gone,
        "signed_by": checked.signed_by.iter().map(|key| &key.id).collect::<Vec<_>>(),
        "signatures_missing": missing,
        "payload_sha256": checked.sha256,
    }))
}

async fn change(
    server: &mut Server,
    base: &Base,
    path: &str,
    entry: &TargetEntry,
) -> Result<Value, CliError> {
    let record = |entry: &TargetEntry| {
        let custom = serde_json::from_value::<ReleaseCustom>(entry.custom.clone()?).ok()?;
        Some(custom.record)
    };
    let mut shown = json!({"target": clean(path), "sha256": entry.sha256(), "length": entry.length});
    let (before, after) = if let Some(record) = record(entry) {
        let last = base
            .targets()
            .values()
            .filter_map(record_of)
            .max_by_key(|record| record.counter);
        merge(
            &mut shown,
            json!({
                "component": record.component,
                "component_version": record.version,
                "counter": record.counter,
                "last_version": last.as_ref().map(|last| &last.version),
                "last_counter": last.as_ref().map(|last| last.counter),
            }),
        );
        (last.map(|last| last.ask), record.ask)
    } else {
        let before = match base.targets().get(path) {
            Some(old) => Some(server.document(old).await?),
            None => None,
        };
        (before, server.document(entry).await?)
    };
    let name = if record(entry).is_some() {
        "ask_difference"
    } else {
        "difference"
    };
    merge(
        &mut shown,
        json!({name: difference(before.as_deref().unwrap_or_default(), &after)}),
    );
    Ok(shown)
}

fn record_of(entry: &TargetEntry) -> Option<redan_trust::custom::ComponentRecord> {
    Some(
        serde_json::from_value::<ReleaseCustom>(entry.custom.clone()?)
            .ok()?
            .record,
    )
}

/// The highest counter among a role's targets.
pub(crate) fn highest(targets: &TargetMap) -> Option<ReleaseCounter> {
    targets
        .values()
        .filter_map(record_of)
        .map(|record| record.counter)
        .max()
}

/// A target's own counter, if it is a component.
pub(crate) fn counter(entry: &TargetEntry) -> Option<ReleaseCounter> {
    record_of(entry).map(|record| record.counter)
}

fn same(one: &TargetEntry, other: &TargetEntry) -> bool {
    (one.length, &one.hashes, &one.custom) == (other.length, &other.hashes, &other.custom)
}

fn merge(into: &mut Value, more: Value) {
    if let (Value::Object(into), Value::Object(more)) = (into, more) {
        into.extend(more);
    }
}

/// Adds signatures, for somebody who knows what it is: `confirm` begins its digest. Writes a new file.
pub async fn sign(
    access: &Access,
    path: &Path,
    keys: &Keys,
    confirm: &str,
    out: &Path,
) -> Result<Value, CliError> {
    let mut draft = Draft::read(path)?;
    let mut server = access.connect().await?;
    let base = Base::fetch(&mut server, &draft.role).await?;
    let checked = draft.check(&base, &server.fleet.clone())?;
    let (digest, typed) = (checked.sha256.to_string(), confirm.trim());
    if typed.len() < CONFIRM_CHARS_MIN || !digest.starts_with(typed) {
        return Err(CliError::Confirm);
    }
    let keys = keys.open()?;
    let named = base.named(&keys);
    if named.is_empty() {
        return Err(CliError::Key { role: draft.role });
    }
    for key in named {
        draft.sign(key)?;
    }
    draft.write(out)?;
    let have = u32::try_from(draft.signatures.len()).unwrap_or(u32::MAX);
    Ok(json!({
        "draft": out.display().to_string(),
        "signed_by": draft.signatures.iter().map(|signature| &signature.keyid).collect::<Vec<_>>(),
        "signatures_missing": base.threshold().saturating_sub(have),
    }))
}

/// Uploads one that enough holders have signed, with a snapshot over the present metadata that is signed here. When somebody else
/// publishes meanwhile, the snapshot is made again over both.
pub async fn upload(access: &Access, path: &Path, keys: &Keys) -> Result<Value, CliError> {
    let draft = Draft::read(path)?;
    let keys = keys.open()?;
    let mut server = access.connect().await?;
    let fleet = server.fleet.clone();
    rebased(&mut server, &draft.role, &keys, |base| {
        let checked = draft.check(base, &fleet)?;
        let have = u32::try_from(checked.signed_by.len()).unwrap_or(u32::MAX);
        if have < base.threshold() {
            return Err(CliError::Short {
                role: draft.role.clone(),
                have,
                wanted: base.threshold(),
            });
        }
        draft.file()
    })
    .await?;
    Ok(json!({"role": draft.role, "uploaded": path.display().to_string()}))
}

/// Lines that came and went; lines that only moved are said to have.
fn difference(before: &str, after: &str) -> Vec<String> {
    let (old, new): (BTreeSet<&str>, BTreeSet<&str>) = (before.lines().collect(), after.lines().collect());
    let gone = before.lines().filter(|line| !new.contains(line));
    let came = after.lines().filter(|line| !old.contains(line));
    let mut found: Vec<String> = gone.map(|line| format!("- {}", clean(line))).collect();
    found.extend(came.map(|line| format!("+ {}", clean(line))));
    if found.is_empty() && before != after {
        found.push("the same lines in another order or number".to_owned());
    }
    found
}

/// Without what moves a cursor or turns the direction of writing.
fn clean(text: &str) -> String {
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    text.chars().map(|c| if hidden(c) { '?' } else { c }).collect()
}

fn bytes_of(hexadecimal: &str) -> Vec<u8> {
    let digits: Option<Vec<u8>> = hexadecimal
        .chars()
        .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0).unwrap_or_default();
    let byte = |pair: &[u8]| pair.iter().fold(0_u8, |byte, digit| (byte << 4) | digit);
    digits.chunks(2).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ask_that_wants_more_shows_the_lines_it_wants_more_by() {
        let before = "a\nb\nc";
        assert_eq!(difference(before, "a\nc\nd\u{202e}"), ["- b", "+ d?"]);
        assert_eq!(
            difference(before, "b\na\nc"),
            ["the same lines in another order or number"]
        );
        assert_eq!(
            difference(before, "a\nb\nc\nc"),
            ["the same lines in another order or number"]
        );
        assert!(difference(before, before).is_empty());
    }

    #[test]
    fn a_file_that_is_no_draft_is_refused() {
        let path = std::env::temp_dir().join(format!("redan-draft-{}", std::process::id()));
        let refused = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            Draft::read(&path).unwrap_err().to_string()
        };
        let good = json!({"schema": SCHEMA, "fleet": "plant.example", "role": "plan", "payload": {}, "signatures": []});
        let other = good.to_string().replace("draft/1", "draft/2");
        let more = good.to_string().replacen('{', "{\"why\":1,", 1);
        let fraction = good
            .to_string()
            .replace("\"payload\":{}", "\"payload\":{\"version\":1.5}");
        let mut long = good.to_string().into_bytes();
        long.resize(usize::try_from(DRAFT_LEN_MAX).unwrap(), b' ');
        std::fs::write(&path, &long).unwrap();
        assert!(Draft::read(&path).is_ok(), "at the limit");
        long.push(b' ');
        for bytes in [
            b"{}".as_slice(),
            other.as_bytes(),
            more.as_bytes(),
            fraction.as_bytes(),
            &long,
        ] {
            assert!(refused(bytes).contains("it is not a draft of this version"));
        }
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn hexadecimal_that_is_none_is_no_signature() {
        assert_eq!(bytes_of("00ff10"), [0, 255, 16]);
        for bad in ["0", "zz", "0é"] {
            assert!(bytes_of(bad).is_empty());
        }
    }
}
