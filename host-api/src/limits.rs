//! The limits of one call, and who broke which: [`Meter`] is the store's only resource limiter.

use crate::bench::Bench;
use crate::slice::Slice;
use crate::state::Capabilities;
use crate::workload::{Reservation, Workload};
use redan_policy::grant::{Limits, Rate};
use redan_protocol::{Code, Millis};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Instant;
use tokio::time::Sleep;
use wasmtime::ResourceLimiter;

/// Sums what one call uses over all memories and tables of its instance, and remembers the first limit that said no.
///
/// A per-memory limit is not enough: a component may have many memories, each below it.
pub struct Meter {
    memory_max: u64,
    tables_max: u64,
    instances_max: usize,
    memory: u64,
    tables: u64,
    last_memory: u64,
    last_table: u64,
    reserved: Reservation,
    verdict: Verdict,
    bench: Option<Arc<Bench>>,
}

impl Meter {
    /// A meter for one call, which enters what it admits in the workload's account.
    pub fn new(limits: &Limits, reserved: Reservation, verdict: Verdict, bench: Option<Arc<Bench>>) -> Self {
        Self {
            memory_max: limits.memory_total.get(),
            tables_max: u64::from(limits.table_elements),
            instances_max: usize::try_from(limits.instances_max).unwrap_or(usize::MAX),
            memory: 0,
            tables: 0,
            last_memory: 0,
            last_table: 0,
            reserved,
            verdict,
            bench,
        }
    }
}

impl ResourceLimiter for Meter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // Beyond its own maximum a memory fails by itself; that is the guest's affair and no denial of ours.
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        self.last_memory = wide(desired.saturating_sub(current));
        let sum = self.memory.saturating_add(self.last_memory);
        if sum > self.memory_max {
            self.verdict.deny(Code::MemoryLimit);
            return Ok(false);
        }
        if !self.reserved.grow(self.last_memory) {
            self.verdict.deny(Code::DeviceMemory);
            return Ok(false);
        }
        self.memory = sum;
        if let Some(bench) = &self.bench {
            bench.note(|seen| seen.memory = seen.memory.max(sum));
        }
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        // The pool had no room although the grant allowed it: what was added did not happen.
        self.memory = self.memory.saturating_sub(self.last_memory);
        self.reserved.give_back(self.last_memory);
        self.verdict.deny(Code::MemoryLimit);
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.last_table = wide(desired.saturating_sub(current));
        let sum = self.tables.saturating_add(self.last_table);
        // Asked first: the pool's own size is a maximum too, and no affair of the guest's.
        if sum > self.tables_max {
            self.verdict.deny(Code::TableLimit);
            return Ok(false);
        }
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        self.tables = sum;
        if let Some(bench) = &self.bench {
            bench.note(|seen| seen.tables = seen.tables.max(sum));
        }
        Ok(true)
    }

    fn table_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.tables = self.tables.saturating_sub(self.last_table);
        self.verdict.deny(Code::TableLimit);
        Ok(())
    }

    fn instances(&self) -> usize {
        self.instances_max
    }

    fn tables(&self) -> usize {
        self.instances_max
    }

    fn memories(&self) -> usize {
        self.instances_max
    }
}

fn wide(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// The first limit a call broke, shared by everything that can say no to it.
#[derive(Clone, Debug, Default)]
pub struct Verdict(Arc<Said>);

/// Both words in one allocation: a call has ten holders of its verdict.
#[derive(Debug, Default)]
struct Said {
    denied: AtomicU16,
    noted: AtomicU16,
}

impl Verdict {
    /// Remembers a denial; the first one stays.
    pub fn deny(&self, code: Code) {
        first(&self.0.denied, code);
    }

    /// Remembers what was cut off without failing the call.
    pub fn note(&self, code: Code) {
        first(&self.0.noted, code);
    }

    /// The first denial.
    pub fn code(&self) -> Option<Code> {
        Code::from_number(self.0.denied.load(Ordering::Relaxed))
    }

    /// What was cut off, or else denied.
    pub fn noted(&self) -> Option<Code> {
        Code::from_number(self.0.noted.load(Ordering::Relaxed)).or_else(|| self.code())
    }
}

fn first(cell: &AtomicU16, code: Code) {
    // Whoever came first stays: what follows is usually its consequence.
    let _ = cell.compare_exchange(0, code.number(), Ordering::Relaxed, Ordering::Relaxed);
}

/// CPU time of one call: what its thread used while the call was polled, checked at every epoch.
///
/// Waiting costs nothing, and time on another thread's cores cannot be hidden: a call is polled by one thread at a time.
/// Guests give up their thread at every epoch; a call whose workload has used up its share is then not polled again until
/// there is some.
///
/// A slice is never charged less than its thread used (`slice.rs`).
#[derive(Debug)]
pub struct Cpu {
    share: Option<Share>,
    budget_nanos: u64,
    used: AtomicU64,
    running: Slice,
    interrupted: AtomicBool,
}

impl Cpu {
    /// A budget for one call.
    pub fn new(capabilities: &Capabilities, verdict: &Verdict) -> Arc<Self> {
        let limits = &capabilities.grant().limits;
        let share = limits.cpu_share.map(|permille| Share {
            workload: Arc::clone(&capabilities.workload),
            // A second's part of a core at once: nanoseconds of it in each second.
            rate: Rate {
                amount: u64::from(permille).saturating_mul(1_000_000),
                per: Millis::seconds(1),
            },
            verdict: verdict.clone(),
        });
        Arc::new(Self {
            share,
            budget_nanos: limits.cpu_per_call.get().saturating_mul(1_000_000),
            used: AtomicU64::new(0),
            running: Slice::default(),
            interrupted: AtomicBool::new(false),
        })
    }

    /// Whether the budget is used up, seen from inside the call.
    pub fn exhausted(&self) -> bool {
        let slice = self.running.nanos();
        self.used.load(Ordering::Relaxed).saturating_add(slice) >= self.budget_nanos
    }

    /// Asks the call to end at its next epoch.
    pub fn interrupt(&self) {
        self.interrupted.store(true, Ordering::Relaxed);
    }

    /// Whether somebody asked the call to end.
    pub fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// Milliseconds used so far, rounded up.
    pub fn used_millis(&self) -> u64 {
        self.used.load(Ordering::Relaxed).div_ceil(1_000_000)
    }

    /// The same future, its polls measured. It is pinned by the caller: a call needs no allocation for being measured.
    pub fn measure<F: Future + Unpin>(self: &Arc<Self>, call: F) -> Measured<F> {
        Measured {
            cpu: Arc::clone(self),
            call,
            waiting: None,
        }
    }
}

/// The workload's share of the CPU, and who is told that a call waited for it.
#[derive(Debug)]
struct Share {
    workload: Arc<Workload>,
    rate: Rate,
    verdict: Verdict,
}

/// A call whose polls are measured. Made by [`Cpu::measure`].
pub struct Measured<F> {
    cpu: Arc<Cpu>,
    call: F,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<F> Measured<F> {
    /// Ready when the workload has CPU time to spend.
    fn poll_share(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(share) = &self.cpu.share else {
            return Poll::Ready(());
        };
        loop {
            if let Some(waiting) = &mut self.waiting {
                ready!(waiting.as_mut().poll(context));
                self.waiting = None;
            }
            let Some(wait) = share.workload.cpu.wait(share.rate, Instant::now()) else {
                return Poll::Ready(());
            };
            share.verdict.note(Code::CpuShare);
            self.waiting = Some(Box::pin(tokio::time::sleep(wait)));
        }
    }
}

impl<F: Future + Unpin> Future for Measured<F> {
    type Output = F::Output;
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        ready!(self.poll_share(context));
        self.cpu.running.begin();
        let outcome = Pin::new(&mut self.call).poll(context);
        let slice = self.cpu.running.nanos();
        self.cpu.used.fetch_add(slice, Ordering::Relaxed);
        if let Some(share) = &self.cpu.share {
            share.workload.cpu.charge(share.rate, Instant::now(), slice);
        }
        outcome
    }
}
