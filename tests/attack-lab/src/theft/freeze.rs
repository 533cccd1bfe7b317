//! For how long a thief can keep a device from news without its noticing.
//!
//! He serves what was current when he struck, signs again what he can whenever the device asks, and lets the other repository go on.

use super::device::{Device, Moment, Outcome};
use super::fleet::{Book, Hand, Pen, Role};
use super::tries::{NEXT, NOW, Scene, rightful};
use anyhow::{Result, bail, ensure};
use redan_protocol::{Seconds, UnixSeconds};
use std::collections::BTreeSet;

/// Which repository is held back. The other is honest, or held back as well: the thief takes what serves him better.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Held {
    News,
    Directions,
}

/// Both bounds, as the table writes them.
pub(super) fn bounds(scene: &Scene, hand: &Hand<'_>) -> Result<String> {
    let mut texts = Vec::new();
    for (held, what) in [(Held::News, "news"), (Held::Directions, "directions")] {
        let (after, role) = bound(scene, hand, held)?;
        let days = after.get() / (24 * 3600);
        let plural = if days == 1 { "" } else { "s" };
        texts.push(format!(
            "{what} until `{}` expires, {days} day{plural}",
            role.name()
        ));
    }
    Ok(texts.join("; "))
}

fn bound(scene: &Scene, hand: &Hand<'_>, held: Held) -> Result<(Seconds, Role)> {
    let ends: BTreeSet<UnixSeconds> = Role::ALL.iter().map(|role| NOW.after(role.life())).collect();
    let mut device = scene.device.clone();
    let mut book = scene.book.clone();
    for end in ends {
        let last = UnixSeconds::new(end.get().saturating_sub(1));
        for now in [last, end] {
            match poll(scene, hand, held, &mut device, &mut book, now)? {
                Outcome::Quiet => {}
                Outcome::Expired(role) => {
                    ensure!(now == end, "it ended before {} expired", role.name());
                    over(scene, now)?;
                    return Ok((Seconds::new(end.get().saturating_sub(NOW.get())), role));
                }
                other => bail!("{other:?} in a freeze"),
            }
        }
    }
    bail!("the freeze has no end")
}

/// One check-in in the freeze.
fn poll(
    scene: &Scene,
    hand: &Hand<'_>,
    held: Held,
    device: &mut Device,
    book: &mut Book,
    now: UnixSeconds,
) -> Result<Outcome> {
    let mut forged = BTreeSet::new();
    for role in Role::ALL {
        let root = matches!(role, Role::Root | Role::DirectorRoot);
        let goes_on = role.directs() == (held == Held::News);
        if root && goes_on {
            // By a ceremony in time; once, for a root of one version has one content.
            let month = NOW.after(Seconds::new(30 * 24 * 3600));
            book.second_root.insert(role, (month, None));
        }
        if !root && (goes_on || signs_again(hand, role)) {
            book.renew(role, now);
        }
        if !goes_on && signs_again(hand, role) {
            forged.insert(role);
        }
    }
    let pen = Pen {
        fleet: &scene.fleet,
        hand,
        forged,
    };
    let served = scene.fleet.serve(book, &pen)?;
    device.checks_in(&served, &pen, moment(now))
}

/// What a thief can sign again: a role he holds, if he holds all that lists it.
fn signs_again(hand: &Hand<'_>, role: Role) -> bool {
    let listed_by: &[Role] = match role {
        Role::Root | Role::DirectorRoot => return false,
        Role::Timestamp | Role::DirectorTimestamp => &[],
        Role::Snapshot => &[Role::Timestamp],
        Role::Targets | Role::Component | Role::Plan | Role::Policy | Role::Direction => {
            &[Role::Snapshot, Role::Timestamp]
        }
        Role::DirectorSnapshot => &[Role::DirectorTimestamp],
        Role::DirectorTargets => &[Role::DirectorSnapshot, Role::DirectorTimestamp],
    };
    hand.is(role) && listed_by.iter().all(|above| hand.is(*above))
}

/// Positive control: at that moment the honest server, whose people have signed again, is followed.
fn over(scene: &Scene, now: UnixSeconds) -> Result<()> {
    let mut book = scene.book.clone();
    book.direct(NEXT)?;
    for role in Role::ALL {
        if matches!(role, Role::Root | Role::DirectorRoot) {
            book.second_root.insert(role, (now, None));
        } else {
            book.renew(role, now);
        }
    }
    let nothing = Hand::new(&scene.fleet, &[])?;
    let pen = rightful(&scene.fleet, &nothing);
    let served = scene.fleet.serve(&book, &pen)?;
    let outcome = scene.device.clone().checks_in(&served, &pen, moment(now))?;
    ensure!(
        matches!(outcome, Outcome::Adopts(..)),
        "positive control: {outcome:?}"
    );
    Ok(())
}

fn moment(now: UnixSeconds) -> Moment {
    Moment {
        now,
        plan_known: Seconds::new(0),
        stated: now,
    }
}
