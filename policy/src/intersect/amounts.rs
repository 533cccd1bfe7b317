//! Amounts: the lower of two, and what holds when nobody names one.

use crate::grant::{HealthContract, Limits, Mechanism, NetBudget, Rate, Upgrade};
use crate::schema::{BudgetSection, Document};
use crate::units::{PerSpan, Size, Span};
use redan_protocol::{ByteCount, Millis};
use std::collections::BTreeSet;

/// The budget of one section.
pub(super) fn budget(section: BudgetSection) -> NetBudget {
    NetBudget {
        bytes_out: section.bytes_out.map(|r| r.0),
        requests: section.requests.map(|r| r.0),
        concurrent: section.concurrent,
    }
}

/// A budget that exceeds none of these.
pub(crate) fn tightest_budget(budgets: &[NetBudget]) -> NetBudget {
    NetBudget {
        bytes_out: tightest(budgets.iter().filter_map(|budget| budget.bytes_out)),
        requests: tightest(budgets.iter().filter_map(|budget| budget.requests)),
        concurrent: budgets.iter().filter_map(|budget| budget.concurrent).min(),
    }
}

/// A rate that exceeds none of these: no larger burst, no faster in the long run. `120/min` and `600/h` come to 120 in twelve minutes:
/// the slower one alone would admit a burst of 600. All at once, for it is rounded: two by two, their order would show.
pub(crate) fn tightest(rates: impl Iterator<Item = Rate>) -> Option<Rate> {
    let rates: Vec<Rate> = rates.collect();
    let amount = rates.iter().map(|rate| rate.amount).min()?;
    let cross = |x: &Rate, y: &Rate| u128::from(x.amount).saturating_mul(u128::from(y.per.get()));
    let slow = rates
        .iter()
        .min_by(|a, b| cross(a, b).cmp(&cross(b, a)).then(b.per.cmp(&a.per)))?;
    let per = u128::from(amount)
        .saturating_mul(u128::from(slow.per.get()))
        .checked_div(u128::from(slow.amount).max(1))
        .unwrap_or_default();
    // Rounded up to a whole millisecond, so never faster.
    let exact = per.saturating_mul(u128::from(slow.amount))
        == u128::from(amount).saturating_mul(u128::from(slow.per.get()));
    let per = if exact { per } else { per.saturating_add(1) };
    let per = if amount == 0 {
        slow.per.get()
    } else {
        u64::try_from(per).unwrap_or(u64::MAX)
    };
    Some(Rate {
        amount,
        per: Millis::new(per),
    })
}

pub(super) fn min_of<T: Ord>(values: impl Iterator<Item = Option<T>>, default: T) -> T {
    values.flatten().min().unwrap_or(default)
}

pub(super) fn min_span(values: [Option<Span>; 3], default: Millis) -> Millis {
    min_of(values.into_iter().map(|v| v.map(|s| s.0)), default)
}

pub(super) fn min_size(values: [Option<Size>; 3], default: ByteCount) -> ByteCount {
    min_of(values.into_iter().map(|v| v.map(|s| s.0)), default)
}

pub(super) fn min_rate(values: [Option<PerSpan>; 3]) -> Option<Rate> {
    tightest(values.into_iter().flatten().map(|r| r.0))
}

/// Memory kept for a workload when nobody names an amount: three instances of a small guest. With [`MEMORY_TOTAL`] as many workloads
/// find their minimum as an executor takes slots.
const MEMORY_MIN: ByteCount = ByteCount::mib(4);

/// Memory of all workloads when the device ceiling names none.
pub(crate) const MEMORY_TOTAL: ByteCount = ByteCount::mib(256);

pub(super) fn limits(layers: [&Document; 3]) -> Limits {
    let l = layers.map(|document| document.limits);
    let count = |values: [Option<u32>; 3], default| min_of(values.into_iter(), default);
    let memory_total = min_size(l.map(|l| l.memory_total), ByteCount::mib(64));
    Limits {
        memory_total,
        // What is kept for one is taken from others: the larger minimum is the wider grant.
        memory_min: min_size(l.map(|l| l.memory_min), MEMORY_MIN).min(memory_total),
        table_elements: count(l.map(|l| l.table_elements), 20_000),
        instances_max: count(l.map(|l| l.instances_max), 20),
        concurrency: count(l.map(|l| l.concurrency), 16),
        cpu_per_call: min_span(l.map(|l| l.cpu.per_call), Millis::new(500)),
        cpu_share: l.iter().filter_map(|l| l.cpu.share.map(|s| s.0)).min(),
        // 0 is no limit: any other number is the narrower one.
        fuel_per_call: min_of(l.map(|l| l.fuel_per_call.filter(|fuel| *fuel > 0)).into_iter(), 0),
        wall_call: min_span(l.map(|l| l.wall.call), Millis::seconds(10)),
        wall_start: min_span(l.map(|l| l.wall.start), Millis::seconds(2)),
        wasm_stack: min_size(l.map(|l| l.wasm_stack), ByteCount::kib(512)),
        handles: count(l.map(|l| l.handles), 2_000),
        descriptors: count(l.map(|l| l.descriptors), 64),
        sockets: count(l.map(|l| l.sockets), 8),
        hostcall_bytes: min_size(l.map(|l| l.hostcall_bytes), ByteCount::mib(1)),
        body_request: min_size(l.map(|l| l.body.request), ByteCount::mib(1)),
        body_response: min_size(l.map(|l| l.body.response), ByteCount::mib(1)),
        header_bytes: min_size(l.map(|l| l.body.header_bytes), ByteCount::kib(16)),
    }
}

/// Demands add up: the wider grant is the one that demands less.
pub(super) fn isolation(layers: [&Document; 3]) -> BTreeSet<Mechanism> {
    let demands = layers.iter().flat_map(|document| &document.require.isolation);
    demands.copied().collect()
}

pub(super) fn health(layers: [&Document; 3]) -> HealthContract {
    let h = layers.map(|document| document.health);
    HealthContract {
        interval: min_span(h.map(|h| h.interval), Millis::seconds(10)),
        timeout: min_span(h.map(|h| h.timeout), Millis::seconds(1)),
        fail_after: min_of(h.map(|h| h.fail_after).into_iter(), 3).max(1),
        // The longest trial anybody wants: a shorter one would be the wider grant.
        probation: h
            .into_iter()
            .filter_map(|h| h.probation.map(|s| s.0))
            .max()
            .unwrap_or(Millis::seconds(120)),
        max_error_permille: min_of(h.map(|h| h.max_error_rate.map(|s| s.0)).into_iter(), 50),
        max_restarts: min_of(h.map(|h| h.max_restarts).into_iter(), 3),
    }
}

/// How a new version takes over.
pub(super) fn upgrade(layers: [&Document; 3]) -> Upgrade {
    // Reuse is a declaration of the publisher that calls are independent: nobody else can make it.
    let calls = layers
        .iter()
        .map(|d| d.upgrade.reuse.calls.unwrap_or(1))
        .min()
        .unwrap_or(1);
    Upgrade {
        // Stopping first is the narrower one: it needs nobody's leave.
        strategy: layers
            .iter()
            .filter_map(|d| d.upgrade.strategy)
            .max()
            .unwrap_or_default(),
        drain: min_span(layers.map(|d| d.upgrade.drain), Millis::seconds(10)),
        reuse_calls: calls.max(1),
        max_defer: min_span(layers.map(|d| d.upgrade.max_defer), Millis::new(0)),
    }
}
