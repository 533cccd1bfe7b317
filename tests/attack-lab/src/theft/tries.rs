//! What a thief tries. Each forgery is the strongest of its kind: what points at a forged file is signed by its rightful signers
//! wherever the thief needs it, as if they had been deceived, and the server states fresh whatever is served.

use super::device::{Device, Moment, Outcome};
use super::fleet::{Book, Fleet, Hand, Pen, Released, Role, set_id};
use super::freeze;
use anyhow::{Context, Result, ensure};
use redan_protocol::{Digest, Seconds, SpiffeId, UnixSeconds};
use std::collections::{BTreeMap, BTreeSet};

/// Now: 2027.
pub const NOW: UnixSeconds = UnixSeconds::new(1_800_000_000);
/// Below the floor; below what is committed; what ran before; what is committed; signed and open; signed and its ring not open;
/// signed and not admitted by policy; nobody's.
pub const FLOORED: u64 = 4;
const OLD: u64 = 5;
const BEFORE: u64 = 6;
const COMMITTED: u64 = 7;
pub(super) const NEXT: u64 = 8;
const LATER: u64 = 9;
const WIDE: u64 = 10;
const EVIL: u64 = 11;
/// When the ring of [`LATER`] opens.
const WEEK: Seconds = Seconds::new(7 * 24 * 3600);
const ADMITS_ADMIN: &str = "\n[[trigger.http]]\nroute = \"/admin/...\"\nmethods = [\"GET\", \"POST\"]\n";

const DIRECTOR: &[Role] = &[
    Role::DirectorTargets,
    Role::DirectorSnapshot,
    Role::DirectorTimestamp,
];
const TOP: &[Role] = &[Role::Snapshot, Role::Timestamp];
const RELEASE: &[Role] = &[
    Role::Targets,
    Role::Component,
    Role::Plan,
    Role::Policy,
    Role::Direction,
    Role::Snapshot,
    Role::Timestamp,
];

/// One column of the table.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Try {
    /// Run bytes that no release signers signed.
    NewCode,
    /// Go below the floor, or below what is committed and the set before it.
    RollBack,
    /// Keep devices from news, unnoticed.
    Freeze,
    /// Reach the devices of another fleet.
    OtherFleet,
    /// Be faster than the signed rings.
    Ring,
    /// Get a workload more than policy grants.
    Grant,
    /// Choose another signed set than the operators.
    Choose,
}

/// What must succeed where the forgery does not.
#[derive(Clone, Copy)]
enum Control {
    /// The same forgery, by every rightful signer: no forgery then.
    Everybody,
    /// An honest direction to the next signed set.
    Honest,
    /// The same direction by the rightful director, once the ring is open.
    Later,
    /// An honest direction to the next signed set, on a stick.
    Carried,
    /// The same direction on a stick by its rightful signers, once the ring is open.
    CarriedLater,
}

struct Forgery {
    name: &'static str,
    forged: &'static [&'static [Role]],
    build: fn(&Scene, &Hand<'_>, &mut Book) -> Result<()>,
    control: Control,
    /// To a device that has just enrolled.
    fresh: bool,
    /// The server says that it is next year.
    lies_about_time: bool,
    /// Not served, but carried there on a stick.
    on_a_stick: bool,
}

const fn forgery(
    name: &'static str,
    forged: &'static [&'static [Role]],
    build: fn(&Scene, &Hand<'_>, &mut Book) -> Result<()>,
    control: Control,
) -> Forgery {
    Forgery {
        name,
        forged,
        build,
        control,
        fresh: false,
        lies_about_time: false,
        on_a_stick: false,
    }
}

/// A direction on a stick.
const fn stick(
    name: &'static str,
    build: fn(&Scene, &Hand<'_>, &mut Book) -> Result<()>,
    control: Control,
) -> Forgery {
    Forgery {
        on_a_stick: true,
        ..forgery(name, &[&[Role::Direction]], build, control)
    }
}

const NEW_CODE: &[Forgery] = &[
    forgery("a release", &[&[Role::Component]], evil, Control::Everybody),
    forgery(
        "a delegation",
        &[&[Role::Targets, Role::Component, Role::Plan, Role::Policy]],
        delegated,
        Control::Everybody,
    ),
    forgery(
        "a release root",
        &[&[Role::Root], RELEASE],
        usurped,
        Control::Everybody,
    ),
    forgery("everything", &[RELEASE, DIRECTOR], evil, Control::Everybody),
    forgery("a direction to it", &[DIRECTOR], unreleased, Control::Honest),
    forgery(
        "its digest under a released name",
        &[DIRECTOR],
        renamed,
        Control::Honest,
    ),
    forgery("its bytes in the store", &[], stored, Control::Honest),
    forgery(
        "a director root",
        &[&[Role::DirectorRoot], DIRECTOR],
        usurped_director,
        Control::Honest,
    ),
    stick(
        "a stick with a set of it",
        unreleased_on_a_stick,
        Control::Carried,
    ),
];

const ROLL_BACK: &[Forgery] = &[
    forgery("yesterday's files", &[], yesterday, Control::Honest),
    forgery("yesterday's timestamp", &[], old_timestamp, Control::Honest),
    forgery(
        "yesterday's snapshot",
        &[&[Role::Timestamp]],
        old_snapshot,
        Control::Honest,
    ),
    forgery(
        "yesterday's plans",
        &[&[Role::Snapshot]],
        old_plans,
        Control::Honest,
    ),
    forgery(
        "a set below what is committed",
        &[DIRECTOR],
        |_, _, book| direct(book, OLD),
        Control::Honest,
    ),
    forgery(
        "a set below the floor",
        &[DIRECTOR],
        |_, _, book| direct(book, FLOORED),
        Control::Honest,
    ),
    forgery("an old direction", &[DIRECTOR], replayed, Control::Honest),
    Forgery {
        fresh: true,
        ..forgery("a lower floor", &[&[Role::Policy]], lowered, Control::Everybody)
    },
    stick(
        "a stick below what is committed",
        |_, _, book| carry(book, OLD),
        Control::Carried,
    ),
    stick(
        "a stick below the floor",
        |_, _, book| carry(book, FLOORED),
        Control::Carried,
    ),
    stick("an old stick", replayed_on_a_stick, Control::Carried),
];

const RING: &[Forgery] = &[
    forgery(
        "a direction",
        &[DIRECTOR],
        |_, _, book| direct(book, LATER),
        Control::Later,
    ),
    Forgery {
        lies_about_time: true,
        ..forgery(
            "a lie about time",
            &[DIRECTOR],
            |_, _, book| direct(book, LATER),
            Control::Later,
        )
    },
    forgery("a wider ring", &[&[Role::Plan]], opened, Control::Everybody),
    stick("a stick", |_, _, book| carry(book, LATER), Control::CarriedLater),
];

const GRANT: &[Forgery] = &[
    forgery(
        "a direction",
        &[DIRECTOR],
        |_, _, book| direct(book, WIDE),
        Control::Honest,
    ),
    forgery(
        "another ask in the direction",
        &[DIRECTOR],
        other_ask,
        Control::Honest,
    ),
    forgery(
        "a wider policy",
        &[&[Role::Policy]],
        wider_policy,
        Control::Everybody,
    ),
    forgery(
        "a wider ask",
        &[&[Role::Component]],
        wider_ask,
        Control::Everybody,
    ),
    stick(
        "a stick with a set that policy does not admit",
        |_, _, book| carry(book, WIDE),
        Control::Carried,
    ),
];

const CHOOSE: &[Forgery] = &[
    forgery(
        "the next signed set",
        &[DIRECTOR],
        |_, _, book| direct(book, NEXT),
        Control::Honest,
    ),
    forgery(
        "the set before",
        &[DIRECTOR],
        |_, _, book| direct(book, BEFORE),
        Control::Honest,
    ),
    stick(
        "the next signed set from a stick",
        |_, _, book| carry(book, NEXT),
        Control::Carried,
    ),
    stick(
        "the set before from a stick",
        |_, _, book| carry(book, BEFORE),
        Control::Carried,
    ),
];

/// Two production fleets, and a device of each that has followed its fleet for some sets.
pub struct Scene {
    pub(super) fleet: Fleet,
    other: Fleet,
    pub(super) book: Book,
    other_book: Book,
    pub(super) device: Device,
    other_device: Device,
    enrolled: Device,
}

impl Scene {
    /// Founds both, and lets the devices follow: each adoption is a positive control of the whole path.
    pub fn new() -> Result<Self> {
        let (fleet, other) = (Fleet::found("plant.example")?, Fleet::found("other.example")?);
        let (book, other_book) = (book(&fleet)?, book(&other)?);
        let enrolled = Device::enrolled(&fleet, &book.device, NOW)?;
        let other_enrolled = Device::enrolled(&other, &other_book.device, NOW)?;
        Ok(Self {
            device: followed(&fleet, &book, enrolled.clone())?,
            other_device: followed(&other, &other_book, other_enrolled)?,
            enrolled,
            fleet,
            other,
            book,
            other_book,
        })
    }

    /// What a thief with these keys gets out of one column.
    pub fn tries(&self, what: Try, stolen: &[(Role, usize)]) -> Result<String> {
        let hand = Hand::new(&self.fleet, stolen)?;
        let forgeries = match what {
            Try::NewCode => NEW_CODE,
            Try::RollBack => ROLL_BACK,
            Try::Ring => RING,
            Try::Grant => GRANT,
            Try::Choose => CHOOSE,
            Try::Freeze => return freeze::bounds(self, &hand),
            Try::OtherFleet => return self.other_fleet(&hand),
        };
        let mut seen = Seen::default();
        for forgery in forgeries {
            let named = || format!("{what:?}, {}", forgery.name);
            seen.note(forgery.name, &self.play(forgery, &hand).with_context(named)?)?;
            self.control(forgery).with_context(named)?;
        }
        Ok(seen.text())
    }

    fn play(&self, forgery: &Forgery, hand: &Hand<'_>) -> Result<Outcome> {
        let mut book = self.book.clone();
        (forgery.build)(self, hand, &mut book)?;
        let pen = Pen {
            fleet: &self.fleet,
            hand,
            forged: forgery.forged.iter().copied().flatten().copied().collect(),
        };
        let mut device = if forgery.fresh {
            &self.enrolled
        } else {
            &self.device
        }
        .clone();
        let served = self.fleet.serve(&book, &pen)?;
        let at = soon(forgery.lies_about_time, Seconds::new(0));
        if forgery.on_a_stick {
            return device.is_carried(&served, at);
        }
        device.checks_in(&served, &pen, at)
    }

    /// The same flow without the theft must succeed.
    fn control(&self, forgery: &Forgery) -> Result<()> {
        let outcome = match forgery.control {
            Control::Everybody => self.play(forgery, &Hand::everybody(&self.fleet)?)?,
            Control::Honest => self.honest(NEXT, Seconds::new(0))?,
            Control::Later => self.honest(LATER, WEEK)?,
            Control::Carried => self.carried(NEXT, Seconds::new(0))?,
            Control::CarriedLater => self.carried(LATER, WEEK)?,
        };
        ensure!(
            matches!(outcome, Outcome::Adopts(..)),
            "positive control: {outcome:?}"
        );
        Ok(())
    }

    /// A direction by the rightful director.
    fn honest(&self, counter: u64, plan_known: Seconds) -> Result<Outcome> {
        let mut book = self.book.clone();
        direct(&mut book, counter)?;
        let nothing = Hand::new(&self.fleet, &[])?;
        let pen = rightful(&self.fleet, &nothing);
        let served = self.fleet.serve(&book, &pen)?;
        self.device
            .clone()
            .checks_in(&served, &pen, soon(false, plan_known))
    }

    /// A stick by the rightful signers.
    fn carried(&self, counter: u64, plan_known: Seconds) -> Result<Outcome> {
        let mut book = self.book.clone();
        carry(&mut book, counter)?;
        let nothing = Hand::new(&self.fleet, &[])?;
        let served = self.fleet.serve(&book, &rightful(&self.fleet, &nothing))?;
        self.device.clone().is_carried(&served, soon(false, plan_known))
    }

    /// The device of another fleet is served this fleet's files, and its own with each role forged in turn.
    fn other_fleet(&self, hand: &Hand<'_>) -> Result<String> {
        let mut seen = Seen::default();
        let pen = rightful(&self.fleet, hand);
        let mut book = self.book.clone();
        book.device = self.other_book.device.clone();
        direct(&mut book, NEXT)?;
        let served = self.fleet.serve(&book, &pen)?;
        let at = soon(false, Seconds::new(0));
        seen.note("files", &self.other_device.clone().checks_in(&served, &pen, at)?)?;
        for role in Role::ALL {
            let theft = self.to_the_other(role, hand)?;
            seen.note(role.name(), &theft)?;
            let everybody = self.to_the_other(role, &Hand::everybody(&self.other)?)?;
            ensure!(
                matches!(everybody, Outcome::Adopts(..)),
                "positive control of {}: {everybody:?}",
                role.name()
            );
        }
        Ok(seen.text())
    }

    fn to_the_other(&self, role: Role, hand: &Hand<'_>) -> Result<Outcome> {
        let mut book = self.other_book.clone();
        direct(&mut book, NEXT)?;
        let mut forged = BTreeSet::from([role]);
        if matches!(role, Role::Root | Role::DirectorRoot) {
            // A root counts by what it says: it gives the repository to the thief, who signs the rest of it.
            book.second_root.insert(role, (NOW, Some(hand.own())));
            forged.extend(
                Role::ALL
                    .into_iter()
                    .filter(|other| other.directs() == role.directs()),
            );
            if role == Role::Root {
                book.delegates = Some(hand.own());
            }
        }
        if role == Role::Direction {
            carry(&mut book, NEXT)?;
        }
        for role in RELEASE {
            book.renew(*role, NOW);
        }
        let pen = Pen {
            fleet: &self.other,
            hand,
            forged,
        };
        let served = self.other.serve(&book, &pen)?;
        let mut device = self.other_device.clone();
        let at = soon(false, Seconds::new(0));
        if role == Role::Direction {
            return device.is_carried(&served, at);
        }
        device.checks_in(&served, &pen, at)
    }
}

/// Outcomes of one column, put together.
#[derive(Default)]
struct Seen {
    refused: BTreeSet<&'static str>,
    adopted: Vec<&'static str>,
}

impl Seen {
    fn note(&mut self, name: &'static str, outcome: &Outcome) -> Result<()> {
        match outcome {
            Outcome::Refused(code) => drop(self.refused.insert(code.name())),
            Outcome::Adopts(..) => self.adopted.push(name),
            Outcome::Expired(role) => anyhow::bail!("{} has expired", role.name()),
            Outcome::Quiet => anyhow::bail!("{name} changed nothing and was not refused"),
        }
        Ok(())
    }

    fn text(&self) -> String {
        let refused: Vec<&str> = self.refused.iter().copied().collect();
        let adopted = (!self.adopted.is_empty()).then(|| format!("**adopts {}**", self.adopted.join(", ")));
        let refused = (!refused.is_empty()).then(|| refused.join(", "));
        let parts: Vec<String> = adopted.into_iter().chain(refused).collect();
        parts.join("; ")
    }
}

/// An hour later, when everybody has published.
fn soon(lies_about_time: bool, plan_known: Seconds) -> Moment {
    let now = NOW.after(Seconds::new(3600));
    let next_year = Seconds::new(365 * 24 * 3600);
    Moment {
        now,
        plan_known,
        stated: if lies_about_time {
            now.after(next_year)
        } else {
            now
        },
    }
}

/// Nothing is forged.
pub(super) fn rightful<'a>(fleet: &'a Fleet, hand: &'a Hand<'a>) -> Pen<'a> {
    Pen {
        fleet,
        hand,
        forged: BTreeSet::new(),
    }
}

/// What a fleet says today.
fn book(fleet: &Fleet) -> Result<Book> {
    let mut releases = Vec::new();
    let mut sets = Vec::new();
    for counter in FLOORED..EVIL {
        let release = Released::new(&fleet.id, counter)?;
        let release = if counter == WIDE { release.wide() } else { release };
        let opens = if counter == LATER { WEEK } else { Seconds::new(0) };
        sets.push(release.set(opens)?);
        releases.push(release);
    }
    let first = releases.first().context("there are releases")?.clone();
    let mut book = Book {
        versions: Role::ALL.into_iter().map(|role| (role, 2)).collect(),
        made: Role::ALL.into_iter().map(|role| (role, NOW)).collect(),
        releases,
        sets,
        policy: (4, OLD, String::new()),
        directed: (first, set_id(FLOORED)?, 6),
        carried: None,
        directed_digest: None,
        device: SpiffeId::parse(&format!("spiffe://{}/device/press-1", fleet.id))?,
        delegates: None,
        second_root: BTreeMap::new(),
        stored: BTreeMap::new(),
    };
    // Three directions were followed, and what was published yesterday has lower versions.
    for counter in [OLD, BEFORE, COMMITTED] {
        direct(&mut book, counter)?;
    }
    renew(&mut book, &[TOP, &[Role::Plan]]);
    Ok(book)
}

/// A device that has adopted three sets, one after another.
fn followed(fleet: &Fleet, today: &Book, mut device: Device) -> Result<Device> {
    let nothing = Hand::new(fleet, &[])?;
    let pen = rightful(fleet, &nothing);
    for (counter, before) in [(OLD, 2), (BEFORE, 1), (COMMITTED, 0)] {
        let book = at_direction(today, counter, before)?;
        let outcome = device.checks_in(&fleet.serve(&book, &pen)?, &pen, soon(false, Seconds::new(0)))?;
        ensure!(
            matches!(&outcome, Outcome::Adopts(set, _) if *set == set_id(counter)?),
            "{outcome:?} in the place of set-{counter}"
        );
    }
    Ok(device)
}

/// Today's book as it was so many directions before.
fn at_direction(today: &Book, counter: u64, before: u64) -> Result<Book> {
    let mut book = today.clone();
    book.directed = (
        today.release(counter)?.clone(),
        set_id(counter)?,
        today.directed.2.saturating_sub(before),
    );
    for role in DIRECTOR {
        let version = book.versions.entry(*role).or_default();
        *version = version.saturating_sub(before);
    }
    Ok(book)
}

fn direct(book: &mut Book, counter: u64) -> Result<()> {
    book.direct(counter)?;
    for role in DIRECTOR {
        book.renew(*role, NOW);
    }
    Ok(())
}

/// Directs to a set from a stick, under the next sequence.
fn carry(book: &mut Book, counter: u64) -> Result<()> {
    book.carried = Some((set_id(counter)?, book.directed.2.saturating_add(1)));
    renew(book, &[&[Role::Direction], TOP]);
    Ok(())
}

fn renew(book: &mut Book, roles: &[&[Role]]) {
    for role in roles.iter().copied().flatten() {
        book.renew(*role, NOW);
    }
}

/// Lists the attacker's code as a release in a set, and directs to it.
fn evil(scene: &Scene, _: &Hand<'_>, book: &mut Book) -> Result<()> {
    let mut release = Released::new(&scene.fleet.id, EVIL)?;
    release.bytes = b"the attacker's code".to_vec();
    book.sets.push(release.set(Seconds::new(0))?);
    book.releases.push(release);
    renew(book, &[&[Role::Component, Role::Plan], TOP]);
    direct(book, EVIL)
}

fn delegated(scene: &Scene, hand: &Hand<'_>, book: &mut Book) -> Result<()> {
    book.delegates = Some(hand.own());
    renew(book, &[&[Role::Targets, Role::Policy]]);
    evil(scene, hand, book)
}

fn usurped(scene: &Scene, hand: &Hand<'_>, book: &mut Book) -> Result<()> {
    book.second_root.insert(Role::Root, (NOW, Some(hand.own())));
    delegated(scene, hand, book)
}

fn unreleased(scene: &Scene, _: &Hand<'_>, book: &mut Book) -> Result<()> {
    let mut release = Released::new(&scene.fleet.id, EVIL)?;
    release.bytes = b"the attacker's code".to_vec();
    book.stored
        .insert(Digest::of(&release.bytes), release.bytes.clone());
    direct(book, NEXT)?;
    book.directed.0 = release;
    Ok(())
}

/// A set of the attacker's code, whose document no signer of plans has listed; its bytes are on the stick.
fn unreleased_on_a_stick(scene: &Scene, _: &Hand<'_>, book: &mut Book) -> Result<()> {
    let mut release = Released::new(&scene.fleet.id, EVIL)?;
    release.bytes = b"the attacker's code".to_vec();
    let code = release.bytes.clone();
    book.stored.insert(Digest::of(&code), code);
    carry(book, EVIL)
}

fn replayed_on_a_stick(_: &Scene, _: &Hand<'_>, book: &mut Book) -> Result<()> {
    book.carried = Some((set_id(NEXT)?, 1));
    renew(book, &[&[Role::Direction], TOP]);
    Ok(())
}

fn usurped_director(scene: &Scene, hand: &Hand<'_>, book: &mut Book) -> Result<()> {
    book.second_root
        .insert(Role::DirectorRoot, (NOW, Some(hand.own())));
    unreleased(scene, hand, book)
}

fn renamed(_: &Scene, _: &Hand<'_>, book: &mut Book) -> Result<()> {
    direct(book, NEXT)?;
    let code = b"the attacker's code".to_vec();
    book.directed_digest = Some(Digest::of(&code));
    book.stored.insert(Digest::of(&code), code);
    Ok(())
}

fn stored(_: &Scene, _: &Hand<'_>, book: &mut Book) -> Result<()> {
    direct(book, NEXT)?;
    let honest = Digest::of(&book.release(NEXT)?.bytes);
    book.stored.insert(honest, b"the attacker's code".to_vec());
    Ok(())
}

/// Everything as it was served before the last direction and the last publication.
fn yesterday(_: &Scene, _: &Hand<'_>, book: &mut Book) -> Result<()> {
    *book = at_direction(book, BEFORE, 1)?;
    before(book, &[Role::Plan, Role::Snapshot, Role::Timestamp]);
    Ok(())
}

/// One of these files as it was yesterday, so that nothing else can give it away.
fn before(book: &mut Book, roles: &[Role]) {
    for role in roles {
        let version = book.versions.entry(*role).or_default();
        *version = version.saturating_sub(1);
    }
}

fn old_timestamp(_: &Scene, _: &Hand<'_>, book: &mut Book) -> Result<()> {
    before(book, &[Role::Timestamp]);
    direct(book, NEXT)
}

fn old_snapshot(_: &Scene, _: &Hand<'_>, book: &mut Book) -> Result<()> {
    before(book, &[Role::Snapshot]);
    renew(book, &[&[Role::Timestamp]]);
    direct(book, NEXT)
}

fn old_plans(_: &Scene, _: &Hand<'_>, book: &mut Book) -> Result<()> {
    before(book, &[Role::Plan]);
    renew(book, &[TOP]);
    direct(book, NEXT)
}

fn replayed(_: &Scene, _: &Hand<'_>, book: &mut Book) -> Result<()> {
    direct(book, NEXT)?;
    book.directed.2 = 1;
    Ok(())
}

fn lowered(_: &Scene, _: &Hand<'_>, book: &mut Book) -> Result<()> {
    book.policy = (5, 1, String::new());
    renew(book, &[&[Role::Policy], TOP]);
    direct(book, FLOORED)
}

fn opened(_: &Scene, _: &Hand<'_>, book: &mut Book) -> Result<()> {
    for set in &mut book.sets {
        for ring in &mut set.rings {
            ring.opens_after = Seconds::new(0);
        }
    }
    renew(book, &[&[Role::Plan], TOP]);
    direct(book, LATER)
}

fn other_ask(_: &Scene, _: &Hand<'_>, book: &mut Book) -> Result<()> {
    direct(book, NEXT)?;
    book.directed.0 = book.directed.0.clone().wide();
    Ok(())
}

fn wider_policy(_: &Scene, _: &Hand<'_>, book: &mut Book) -> Result<()> {
    book.policy = (5, OLD, ADMITS_ADMIN.into());
    renew(book, &[&[Role::Policy], TOP]);
    direct(book, WIDE)
}

/// Policy, by its rightful signers, admits more than the released ask names.
fn wider_ask(_: &Scene, _: &Hand<'_>, book: &mut Book) -> Result<()> {
    book.policy = (5, OLD, ADMITS_ADMIN.into());
    for release in &mut book.releases {
        *release = release.clone().wide();
    }
    renew(book, &[&[Role::Component, Role::Policy], TOP]);
    direct(book, NEXT)
}
