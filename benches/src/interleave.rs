//! Ours and its reference, measured in turns.
//!
//! criterion measures one function to its end, then the next. On a machine that others use too, the seconds between the
//! two move a ratio more than any change of ours. So each sample of `ours` runs the reference as well, in turns of a few
//! milliseconds, and what the reference took is handed to criterion when it asks for it.

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Samples of each question.
const SAMPLES: usize = 30;
/// Turns in one sample: enough to meet the same noise, few enough that caches are warm within one.
const TURNS: u64 = 4;
/// How long criterion tries a function to choose how often one sample runs it.
const WARM_UP: Duration = Duration::from_millis(700);
/// Both functions of one question, all samples.
const MEASUREMENT: Duration = Duration::from_secs(6);
/// How long a function runs alone, and how often between two looks at the clock.
const ALONE: Duration = Duration::from_secs(10);
const AT_ONCE: u64 = 64;
/// A recorded sample takes no time; criterion's warm-up ends only when time passes.
const REPLAY: Duration = Duration::from_millis(1);

/// A measured function: runs so often, says how long that took.
pub type Timed<'a> = &'a mut dyn FnMut(u64) -> Duration;

/// How the questions are asked.
pub enum Asking {
    /// Each function once: does the bench still run? `cargo test` asks so.
    Once,
    /// Often enough to say how long it takes.
    Measured(Box<Criterion>),
    /// Ours alone, for a while: so that somebody can look at where its time goes.
    Alone,
}

/// Answers one question: a criterion group of `ours` and a function named after the reference.
pub fn compare(asking: &mut Asking, question: &str, ours: Timed<'_>, (reference, other): (&str, Timed<'_>)) {
    let criterion = match asking {
        Asking::Measured(criterion) => criterion,
        Asking::Once => {
            ours(1);
            other(1);
            return;
        }
        Asking::Alone => {
            let start = Instant::now();
            eprintln!("{question}: alone, in process {}", std::process::id());
            while start.elapsed() < ALONE {
                ours(AT_ONCE);
            }
            return;
        }
    };
    let mut group = criterion.benchmark_group(question);
    settle(&mut group);
    let recorded = RefCell::new(VecDeque::new());
    group.bench_function("ours", |bencher| {
        bencher.iter_custom(|times| {
            let (mut took, mut beside) = (Duration::ZERO, Duration::ZERO);
            for turn in 0..TURNS {
                let times = share(times, turn);
                if times > 0 {
                    took += ours(times);
                    beside += other(times);
                }
            }
            let mut recorded = recorded.borrow_mut();
            // What came before the last samples was warm-up.
            if recorded.len() == SAMPLES {
                recorded.pop_front();
            }
            recorded.push_back((beside, times));
            took
        });
    });
    group.warm_up_time(20 * REPLAY);
    group.bench_function(reference, |bencher| {
        bencher.iter_custom(|times| {
            let mut recorded = recorded.borrow_mut();
            let Some((took, of)) = recorded.pop_front() else {
                // A filter left `ours` out.
                return other(times);
            };
            recorded.push_back((took, of));
            std::thread::sleep(REPLAY);
            scaled(took, times, of)
        });
    });
    group.finish();
}

/// Times a function that is its own unit of work, run so often.
pub fn each(times: u64, mut work: impl FnMut()) -> Duration {
    let start = Instant::now();
    for _ in 0..times {
        work();
    }
    start.elapsed()
}

fn settle(group: &mut BenchmarkGroup<'_, WallTime>) {
    group
        .sample_size(SAMPLES)
        // Samples of one length, so that a recorded one can stand for any.
        .sampling_mode(SamplingMode::Flat)
        .warm_up_time(WARM_UP)
        .measurement_time(MEASUREMENT);
}

/// How many of `times` fall to this turn.
fn share(times: u64, turn: u64) -> u64 {
    times / TURNS + u64::from(turn < times % TURNS)
}

/// What `times` runs take when `of` runs took so long.
fn scaled(took: Duration, times: u64, of: u64) -> Duration {
    let nanos = took.as_nanos().saturating_mul(times.into()) / u128::from(of.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_turns_of_a_sample_add_up() {
        for times in [1, 3, 4, 5, 103] {
            assert_eq!((0..TURNS).map(|turn| share(times, turn)).sum::<u64>(), times);
        }
    }

    #[test]
    fn a_recorded_sample_keeps_its_time_for_one_run() {
        let took = Duration::from_micros(700);
        assert_eq!(scaled(took, 7, 7), took);
        assert_eq!(scaled(took, 14, 7), 2 * took);
    }
}
