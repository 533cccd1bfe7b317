//! Which types may stand in a report. Text, bytes and maps are not among them, and nobody outside can add one.

use super::{Bucket, Health, Isolation, Phase, Report, SlotReport};
use crate::{Code, ComponentName, Digest, DirectionSequence, ReleaseCounter, SetId, Version64};

/// What cannot carry a workload's data: numbers, enums, digests, and names that came out of verified metadata.
///
/// ```
/// fn carries(_: impl redan_protocol::report::Closed) {}
/// carries(7_u64);
/// ```
///
/// ```compile_fail,E0277
/// fn carries(_: impl redan_protocol::report::Closed) {}
/// carries(String::new());
/// ```
///
/// ```compile_fail,E0277
/// fn carries(_: impl redan_protocol::report::Closed) {}
/// carries(Vec::<u8>::new());
/// ```
///
/// ```compile_fail,E0277
/// fn carries(_: impl redan_protocol::report::Closed) {}
/// carries(std::collections::BTreeMap::<u8, u8>::new());
/// ```
///
/// ```compile_fail,E0277
/// fn carries(_: impl redan_protocol::report::Closed) {}
/// carries(Some("text"));
/// ```
///
/// ```compile_fail,E0603
/// struct Words(String);
/// impl redan_protocol::report::closed::Sealed for Words {}
/// impl redan_protocol::report::Closed for Words {}
/// ```
pub trait Closed: Sealed {}

/// Out of reach for other crates.
pub trait Sealed {}

macro_rules! closed {
    ($($type:ty),* $(,)?) => {
        $(impl Sealed for $type {} impl Closed for $type {})*
    };
}

closed![
    bool,
    u8,
    u16,
    u32,
    u64,
    Bucket,
    Code,
    ComponentName,
    Digest,
    DirectionSequence,
    Health,
    Isolation,
    Phase,
    ReleaseCounter,
    SetId,
    SlotReport,
    Version64,
];

impl<T: Closed> Sealed for Option<T> {}
impl<T: Closed> Closed for Option<T> {}
impl<T: Closed, const N: usize> Sealed for [T; N] {}
impl<T: Closed, const N: usize> Closed for [T; N] {}

/// Every field of a report and of what is in it, by name and without `..`: a new one is added here, or nothing compiles.
#[expect(dead_code, reason = "it is only there to be compiled")]
fn every_field_is_closed(report: Report, slot: SlotReport, isolation: Isolation) {
    fn is(_: impl Closed) {}
    let Report {
        sequence,
        runtime,
        set,
        direction,
        phase,
        refusal,
        rollback,
        release,
        director,
        isolation: _,
        slots,
    } = report;
    is(sequence);
    is(runtime);
    is(set);
    is(direction);
    is(phase);
    is(refusal);
    is(rollback);
    is(release);
    is(director);
    // A list, of nothing but slots, and bounded (`REPORT_SLOTS_MAX`).
    let _: Vec<SlotReport> = slots;
    let SlotReport {
        component,
        version,
        counter,
        digest,
        grant,
        health,
        code,
        calls,
        failures,
    } = slot;
    is(component);
    is(version);
    is(counter);
    is(digest);
    is(grant);
    is(health);
    is(code);
    is(calls);
    is(failures);
    let Isolation {
        processes,
        users,
        landlock,
        seccomp,
        no_new_privs,
    } = isolation;
    is([processes, users, landlock, seccomp, no_new_privs]);
}
