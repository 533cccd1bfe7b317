//! Attack A04: who watches when a device checks in learns nothing of what its workloads have to do, or how often they fail.

use super::settled;
use super::world::{Guest, World, member, set};
use crate::Mono;
use crate::cadence::{Cadence, News};
use redan_protocol::{Millis, PublisherName, Seconds};

/// What the server asks for.
const INTERVAL: Seconds = Seconds::new(20);
/// Check-ins of one device under one load, from one seed.
const CHECK_INS: usize = 1000;
/// Seeds of an idle device, and of one with a load: not the same, or the two would be equal and not alike.
const SEEDS: [(u64, u64); 3] = [(1, 2), (3, 4), (5, 6)];

/// What the device's workloads do meanwhile.
#[derive(Clone, Copy, Debug)]
enum Load {
    Nothing,
    Calls,
    Failures,
    Sickness,
    /// Its executor dies, every so many seconds.
    Deaths(u64),
    /// Not a load: an update, in the middle.
    Update,
}

/// `SplitMix64` (Steele, Lea, Flood 2014): a generator small enough to be read here.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }
}

/// Milliseconds between check-ins of a device with a load, as its main loop makes them, on a clock of the test's own.
fn gaps(load: Load, seed: u64) -> Vec<u64> {
    let mut world = settled();
    let guest = match load {
        Load::Calls => Guest::Busy,
        Load::Failures => Guest::HealthyButFailing,
        Load::Sickness => Guest::Unhealthy,
        Load::Nothing | Load::Deaths(_) | Load::Update => Guest::Healthy,
    };
    world.guest("acme/thermo", 1, guest);
    world.guest("acme/tick", 1, guest);
    let mut death = match load {
        Load::Deaths(every) => Some(world.now.after(Millis::seconds(every))),
        _ => None,
    };
    let (mut cadence, mut random) = (Cadence::default(), Random(seed));
    let mut begun = Vec::new();
    let mut answer = None;
    let news = |world: &World| News::of(&world.machine().view());
    while begun.len() <= CHECK_INS {
        cadence.hears(&news(&world));
        match answer {
            Some(at) if world.now >= at => {
                cadence.answered(world.now, INTERVAL, random.byte());
                answer = None;
            }
            None if world.now >= cadence.next() => {
                cadence.begins(world.now, news(&world));
                begun.push(world.now);
                // A network that answers within 20 to 275 ms.
                answer = Some(world.now.after(Millis::new(20 + u64::from(random.byte()))));
            }
            _ => {}
        }
        if let (Load::Deaths(every), Some(at)) = (load, death)
            && world.now >= at
        {
            world.kill(&PublisherName::parse("acme").unwrap());
            death = Some(world.now.after(Millis::seconds(every)));
        }
        if matches!(load, Load::Update) && begun.len() == CHECK_INS / 2 && world.committed() == Some("one") {
            world.offer(set("two", 2, &[member("acme/thermo", 2), member("acme/tick", 1)]));
        }
        let until = answer.unwrap_or(cadence.next());
        world.advance_to(death.map_or(until, |at| at.min(until)));
    }
    let gap = |pair: &[Mono]| pair[1].millis() - pair[0].millis();
    begun.windows(2).map(gap).collect()
}

fn number(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap())
}

/// Largest distance between two empirical distributions (Kolmogorov and Smirnov).
fn distance(a: &[u64], b: &[u64]) -> f64 {
    let (mut a, mut b) = (a.to_vec(), b.to_vec());
    a.sort_unstable();
    b.sort_unstable();
    let below = |sorted: &[u64], x: u64| number(sorted.partition_point(|y| *y <= x)) / number(sorted.len());
    let both = a.iter().chain(&b);
    both.map(|x| (below(&a, *x) - below(&b, *x)).abs())
        .fold(0.0, f64::max)
}

/// Two samples of one distribution are farther apart than this once in ten thousand times (c(α) = √(−ln(α/2)/2), α = 10⁻⁴). The seeds
/// are fixed, so that the test says the same every time: twelve comparisons would have been off by chance with 0.12 %.
fn alike_within(n: usize, m: usize) -> f64 {
    let alpha = 1e-4_f64;
    let (n, m) = (number(n), number(m));
    (-(alpha / 2.0).ln() / 2.0).sqrt() * ((n + m) / (n * m)).sqrt()
}

const LOADS: [Load; 4] = [Load::Calls, Load::Failures, Load::Sickness, Load::Deaths(61)];

#[test]
fn the_cadence_of_check_ins_is_that_of_an_idle_device_whatever_its_workloads_do() {
    for (idle, loaded) in SEEDS {
        let idle = gaps(Load::Nothing, idle);
        let bound = alike_within(CHECK_INS, CHECK_INS);
        for load in LOADS {
            let distance = distance(&idle, &gaps(load, loaded));
            assert!(distance < bound, "{load:?}: {distance} over {bound}");
        }
        // Positive control: a device that spoke a twentieth more often under load would be told apart.
        let eager: Vec<u64> = gaps(Load::Calls, loaded)
            .iter()
            .map(|gap| gap * 19 / 20)
            .collect();
        assert!(distance(&idle, &eager) > bound);
    }
}

#[test]
fn with_the_same_random_bytes_a_device_checks_in_at_the_same_moments_whatever_its_workloads_do() {
    let idle = gaps(Load::Nothing, 7);
    for load in LOADS {
        assert!(gaps(load, 7) == idle, "{load:?}");
    }
    // Positive control, and the exception: an update is told at once.
    assert!(gaps(Load::Update, 7) != idle);
}

#[test]
fn waits_after_failures_double_up_to_five_minutes_and_begin_anew_after_an_answer() {
    let mut cadence = Cadence::default();
    let mut waits = Vec::new();
    for _ in 0..11 {
        let now = cadence.next();
        cadence.failed(now, 0);
        waits.push((cadence.next().millis() - now.millis()) / 1000);
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    let now = cadence.next();
    cadence.answered(now, INTERVAL, 255);
    assert_eq!(
        cadence.next().millis() - now.millis(),
        20_000 - 20_000 * 255 / 1024
    );
    let now = cadence.next();
    cadence.failed(now, 0);
    assert_eq!(cadence.next().millis() - now.millis(), 1000);
}
