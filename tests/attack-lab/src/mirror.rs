//! T08: one of two addresses of the control server lies to a running device about a release that the other one has.
//!
//! Every liar holds the server's own TLS key, and two of them the key that signs what is new. That is more than a mirror has.

use crate::resigned;
use crate::theft::evil::{Answers, EvilServer};
use crate::theft::live::{FAR, now, online, reply, stolen_server, version};
use anyhow::{Context, Result, ensure};
use redan_kit::stage::{FLEET, JOB, Release, SERVICE};
use redan_kit::{DeviceView, Stage};
use redan_protocol::report::Report;
use redan_protocol::{DeviceId, FleetId, Seconds, SpiffeId};
use redan_publish::SigningKey;
use redan_publish::metadata::{sign, timestamp};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Bytes by name.
type Files = BTreeMap<String, Vec<u8>>;

/// The device whose only address is the honest one.
const HONEST: &str = "press-1";
/// What runs before, and what is rolled out.
const SETS: [&str; 2] = ["plant-1", "plant-2"];
/// For devices on a busy machine: one liar is believed for sixteen check-ins.
const WITHIN: Duration = Duration::from_mins(2);

/// What an address tells.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Lie {
    /// All that the server held before the release, as if it were the newest: signed, not expired.
    Old,
    /// A newer timestamp that a stranger has signed.
    Stranger,
    /// A timestamp that is none.
    Garbage,
    /// A next root that is none: the first thing a device asks for.
    GarbageRoot,
    /// That there is nothing at all.
    Nothing,
    /// The truth, and other bytes for every artifact.
    OtherBytes,
}

/// Every lie, and the device that hears it.
const LIES: [(Lie, &str); 6] = [
    (Lie::Old, "told-old"),
    (Lie::Stranger, "told-stranger"),
    (Lie::Garbage, "told-garbage"),
    (Lie::GarbageRoot, "told-garbage-root"),
    (Lie::Nothing, "told-nothing"),
    (Lie::OtherBytes, "told-other-bytes"),
];

/// An address that lies, and how often it did.
struct Liar {
    lie: Lie,
    device: &'static str,
    server: EvilServer,
    told: Arc<AtomicUsize>,
}

/// Plays all lies, each to a device of its own, while a release is rolled out. Each device runs the first set, hears the lie from
/// the address it asks first, and ends with the release of the other address.
///
/// Positive control: a device without the liar adopts the same release in the wave before.
pub fn one_address_of_two_lies(stage: &mut Stage) -> Result<()> {
    let mut devices = vec![HONEST];
    devices.extend(LIES.map(|(_, device)| device));
    stage.play_first_release(&devices)?;
    let before = Held::read(stage)?;
    for (_, device) in LIES {
        stage.device_mut(device)?.stop()?;
    }
    stage.publish(Release {
        component: SERVICE,
        version: "1.1.0",
        counter: 2,
    })?;
    let [_, next] = SETS;
    stage.publish_set(next, &[(SERVICE, "1.1.0"), (JOB, "1.0.0")])?;
    let waves = [format!("honest={HONEST}"), "rest=1000permille".to_owned()];
    let rollout = stage.start_rollout(next, &waves.each_ref().map(String::as_str))?;
    stage
        .await_devices("the release without a liar", WITHIN, |views| {
            let directed = views.iter().all(|view| view.desired_set.as_deref() == Some(next));
            directed && views.iter().any(|view| view.device == HONEST && adopted(view))
        })
        .context("positive control")?;

    let after = Held::read(stage)?;
    let mut liars = Vec::new();
    for (lie, device) in LIES {
        let liar = Liar::start(stage, lie, device, (&before, &after))?;
        liar.put_first(stage)?;
        stage.start_device(device)?;
        liars.push(liar);
    }
    let mut strange = Vec::new();
    stage.await_devices("the release in spite of every liar", WITHIN, |views| {
        strange.extend(views.iter().filter(|view| !expected(view)).cloned());
        views.iter().all(adopted)
    })?;
    stage.await_rollout(&rollout, &["complete"], WITHIN)?;
    ensure!(strange.is_empty(), "something else ran: {strange:?}");
    for liar in &liars {
        liar.was_heard()?;
    }
    stage.stop()
}

/// Whether a device has committed the release and runs it in health.
fn adopted(view: &DeviceView) -> bool {
    let [_, next] = SETS;
    view.set.as_deref() == Some(next)
        && view.refusal.is_none()
        && view.healthy_version(SERVICE) == Some("1.1.0")
        && view.healthy_version(JOB) == Some("1.0.0")
}

/// Whether a device runs nothing but what one of the two sets has.
fn expected(view: &DeviceView) -> bool {
    let slots = view.slots.iter().map(|slot| (&*slot.component, &*slot.version));
    SETS.contains(&view.set.as_deref().unwrap_or_default())
        && view.rollback.is_none()
        && slots.into_iter().all(known)
}

fn known((component, version): (&str, &str)) -> bool {
    [(SERVICE, "1.0.0"), (SERVICE, "1.1.0"), (JOB, "1.0.0")].contains(&(component, version))
}

/// The same of what it told the liar.
fn reports_the_expected(report: &Report) -> bool {
    let set = report.set.as_ref().map(ToString::to_string);
    SETS.contains(&set.as_deref().unwrap_or_default())
        && report.rollback.is_none()
        && report.slots.iter().all(|slot| {
            let [major, minor, patch] = slot.version;
            known((&slot.component.to_string(), &format!("{major}.{minor}.{patch}")))
        })
}

/// What the honest server held at one time.
struct Held {
    release: Files,
    director: Files,
}

impl Held {
    fn read(stage: &Stage) -> Result<Self> {
        let database = stage
            .control_state()
            .join("fleets")
            .join(FLEET)
            .join("fleet.sqlite");
        Ok(Self {
            release: resigned::published(&database)?,
            director: resigned::documents(&database, "director")?,
        })
    }

    /// What a device is served below `/tuf/`, and the versions that a statement of it names.
    fn tuf(&self, device: &str) -> Result<(Files, (u64, u64))> {
        let row = self.director.get(device).context("no direction")?;
        let row: Value = serde_json::from_slice(row)?;
        let number = row.get("version").and_then(Value::as_u64).context("a version")?;
        let release = self.release.iter();
        let mut files: Files = release
            .map(|(name, bytes)| (format!("/tuf/release/{name}"), bytes.clone()))
            .collect();
        for (role, name) in [
            ("timestamp", "timestamp.json".to_owned()),
            ("snapshot", format!("{number}.snapshot.json")),
            ("targets", format!("{number}.targets.json")),
        ] {
            let text = row.get(role).and_then(Value::as_str).context("a role")?;
            files.insert(format!("/tuf/director/{name}"), text.as_bytes().to_vec());
        }
        let versions = (version(self.release.get("timestamp.json"))?, number);
        Ok((files, versions))
    }
}

impl Liar {
    fn start(stage: &Stage, lie: Lie, device: &'static str, held: (&Held, &Held)) -> Result<Self> {
        let told = Arc::default();
        let answers = answers(stage, lie, device, held, Arc::clone(&told))?;
        let (chain, key) = stolen_server(stage)?;
        Ok(Self {
            lie,
            device,
            server: EvilServer::start(chain, key, answers)?,
            told,
        })
    }

    /// The device asks the liar first, and then the honest server.
    fn put_first(&self, stage: &Stage) -> Result<()> {
        let path = stage.folder.join("devices").join(self.device).join("device.toml");
        let honest = stage.server()?;
        let text = std::fs::read_to_string(&path)?;
        let both = format!("server = \"{}\"\nservers = [\"{honest}\"]", self.server.address);
        let lies = text.replace(&format!("server = \"{honest}\""), &both);
        ensure!(lies != text, "{} names no server", path.display());
        Ok(std::fs::write(path, lies)?)
    }

    /// It had its turn with a device that ran the first set, told its lie, and was told of nothing else but the two sets.
    fn was_heard(&self) -> Result<()> {
        let (lie, reports) = (self.lie, self.server.reports());
        let [before, _] = SETS;
        let first = reports.last().with_context(|| format!("{lie:?}: not asked"))?;
        let set = first.set.as_ref().map(ToString::to_string);
        ensure!(
            set.as_deref() == Some(before),
            "{lie:?}: asked first by {first:?}"
        );
        ensure!(self.told.load(Ordering::SeqCst) > 0, "{lie:?}: was not told");
        let strange = reports.iter().find(|report| !reports_the_expected(report));
        ensure!(strange.is_none(), "{lie:?}: something else ran: {strange:?}");
        Ok(())
    }
}

fn answers(
    stage: &Stage,
    lie: Lie,
    device: &str,
    (before, after): (&Held, &Held),
    told: Arc<AtomicUsize>,
) -> Result<Answers> {
    let id = SpiffeId::Device(FleetId::parse(FLEET)?, DeviceId::parse(device)?);
    let stranger = SigningKey::generate("stranger")?;
    let (mut files, mut versions) = if lie == Lie::Old { before } else { after }.tuf(device)?;
    let key = match lie {
        Lie::Old | Lie::OtherBytes => SigningKey::load(&online(stage, "director.timestamp.key.json"))?,
        Lie::Stranger | Lie::Garbage | Lie::GarbageRoot | Lie::Nothing => {
            versions = (FAR, FAR);
            let later = now().after(Seconds::new(3600));
            let forged = sign(&timestamp(FAR, later, (FAR, b"{}"))?, &[&stranger])?;
            for repository in ["release", "director"] {
                files.insert(format!("/tuf/{repository}/timestamp.json"), forged.clone());
            }
            stranger
        }
    };
    Ok(Box::new(move |path, check_in| {
        let lies = match lie {
            Lie::Nothing => true,
            Lie::Old | Lie::Stranger | Lie::Garbage => path.ends_with("/timestamp.json"),
            Lie::GarbageRoot => path.ends_with(".root.json"),
            Lie::OtherBytes => path.starts_with("/artifacts/"),
        };
        if lies {
            told.fetch_add(1, Ordering::SeqCst);
        }
        match (lie, check_in) {
            (Lie::Nothing, _) => None,
            (_, Some(check_in)) => reply(&id, check_in.nonce, versions, &key).ok(),
            (Lie::Garbage | Lie::GarbageRoot, None) if lies => {
                Some(b"what you asked for is not here".to_vec())
            }
            (Lie::OtherBytes, None) if lies => Some(b"the liar's code".to_vec()),
            (_, None) => files.get(path).cloned(),
        }
    }))
}
