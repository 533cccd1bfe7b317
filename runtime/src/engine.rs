//! The one wasmtime configuration: compiler and executor must agree on it, or native code is refused.

use redan_policy::EffectiveGrant;
use redan_protocol::{ByteCount, Code, Digest};
use std::hash::{Hash, Hasher};
use std::time::Duration;
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

/// Between two epochs: how soon a loop is seen. The ticker costs one wake-up a tick, a guest one compare a loop.
pub const EPOCH: Duration = Duration::from_millis(2);

/// Stack of Wasm frames. One setting for the engine: wasmtime has none per instance, so a grant's `wasm_stack` above
/// this has no effect and one below it is not tightened.
pub const WASM_STACK: ByteCount = ByteCount::kib(512);

/// Stack of a fiber: Wasm frames plus host functions called from them.
pub const FIBER_STACK: ByteCount = ByteCount::mib(2);

/// The top of a fiber's stack, which is overwritten with zeros for the next one instead of being unmapped. Every call pays for all of it, one
/// that used more has page faults as well: a service that says "hello" uses less than 8 KiB, host functions included.
const STACK_KEPT: ByteCount = ByteCount::kib(32);

/// Address space reserved for each linear memory, and its guard: 32-bit memories then need no bounds checks
/// (wasmtime's own default on 64-bit machines). Written out, because native code depends on them.
const MEMORY_RESERVATION: ByteCount = ByteCount::mib(4096);
const MEMORY_GUARD: ByteCount = ByteCount::mib(32);

/// Memories of one component, in however many of its core modules. A grant's total bounds their sum.
const MEMORIES_MAX: u32 = 8;

/// How large the executor's pool is. Chosen before confinement, from the device's memory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Sizes {
    /// Instances of components at once, all workloads together.
    pub instances: u32,
    /// Largest linear memory of any workload.
    pub memory_max: ByteCount,
    /// Bytes of a memory kept resident between two instances instead of being unmapped.
    pub keep_resident: ByteCount,
}

impl Default for Sizes {
    /// 256 instances of at most 256 MiB, 512 KiB kept of each: 1 TiB of address space, 128 MiB of memory when all
    /// slots were used.
    fn default() -> Self {
        Self {
            instances: 256,
            memory_max: ByteCount::mib(256),
            keep_resident: ByteCount::kib(512),
        }
    }
}

/// Why no engine could be made.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// wasmtime refused the configuration even without a pool.
    #[error("the sandbox engine does not start: {0}")]
    Refused(#[source] wasmtime::Error),
    /// No thread for the epoch ticker.
    #[error("the epoch ticker does not start: {0}")]
    Ticker(#[source] std::io::Error),
}

impl EngineError {
    /// The code that leaves the process.
    pub const fn code(&self) -> Code {
        Code::Internal
    }
}

/// How instances get their memory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Allocation {
    /// From a pool, cleaning pages with `PAGEMAP_SCAN`.
    PooledWithScan,
    /// From a pool, cleaning by unmapping.
    Pooled,
    /// Mapped for each instance: the pool does not fit this device's address space.
    OnDemand,
}

/// An engine of the best allocation this machine offers: pool with scan, pool, on demand.
pub fn executor_engine(sizes: &Sizes) -> Result<(Engine, Allocation), EngineError> {
    for (allocation, scan) in [
        (Allocation::PooledWithScan, Enabled::Yes),
        (Allocation::Pooled, Enabled::No),
    ] {
        let mut config = config(Native::Plain);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(sizes, scan)));
        if let Ok(engine) = Engine::new(&config) {
            return Ok((engine, allocation));
        }
    }
    compiler_engine(Native::Plain).map(|engine| (engine, Allocation::OnDemand))
}

/// Kinds of native code. No engine takes another kind's code.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Native {
    /// What WASI 0.2 runs on.
    Plain,
    /// Counts fuel, which makes it slower: for workloads whose grant has a limit of fuel.
    Metered,
    /// May suspend and resume tasks of its own, with streams and futures (the component model's async ABI, by callbacks): for worlds
    /// of WASI 0.3. Counts no fuel; [`redan_policy::intersect()`] gives no such grant.
    Tasks,
}

impl Native {
    /// What a grant wants.
    pub fn of(grant: &EffectiveGrant) -> Self {
        if grant.world.is_wasi_0_3() {
            Self::Tasks
        } else if grant.limits.fuel_per_call > 0 {
            Self::Metered
        } else {
            Self::Plain
        }
    }
}

/// An engine that compiles for the executor: the same code settings, no pool.
pub fn compiler_engine(native: Native) -> Result<Engine, EngineError> {
    Engine::new(&config(native)).map_err(EngineError::Refused)
}

/// What native code depends on. Threads, GC, 64-bit memories and exceptions are off: each is a class of advisories
/// and no component of WASI 0.2 needs them. Tasks neither: they are on where a device's owner said so and a world needs them, and then
/// without what is beyond callbacks (stackful lifting, threads, error contexts), which stay off by wasmtime's own defaults.
fn config(native: Native) -> Config {
    let mut config = Config::new();
    config
        .consume_fuel(native == Native::Metered)
        .epoch_interruption(true)
        .max_wasm_stack(size(WASM_STACK))
        .async_stack_size(size(FIBER_STACK))
        .async_stack_zeroing(true)
        .memory_reservation(MEMORY_RESERVATION.get())
        .memory_guard_size(MEMORY_GUARD.get())
        .memory_init_cow(true)
        .wasm_memory64(false)
        .wasm_relaxed_simd(false)
        .wasm_backtrace_max_frames(None)
        .generate_address_map(false)
        .concurrency_support(native == Native::Tasks);
    config
        .wasm_features(wasmtime::WasmFeatures::THREADS, false)
        .wasm_features(wasmtime::WasmFeatures::SHARED_EVERYTHING_THREADS, false)
        .wasm_features(wasmtime::WasmFeatures::GC, false)
        .wasm_features(wasmtime::WasmFeatures::FUNCTION_REFERENCES, false)
        .wasm_features(wasmtime::WasmFeatures::EXCEPTIONS, false)
        .wasm_features(wasmtime::WasmFeatures::STACK_SWITCHING, false)
        .wasm_features(wasmtime::WasmFeatures::CM_ASYNC_STACKFUL, false)
        .wasm_features(wasmtime::WasmFeatures::CM_MORE_ASYNC_BUILTINS, false)
        .wasm_features(wasmtime::WasmFeatures::CM_THREADING, false)
        .wasm_features(wasmtime::WasmFeatures::CM_ERROR_CONTEXT, false);
    config
}

fn pool(sizes: &Sizes, scan: Enabled) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    // A component built by wit-component has one main core instance and up to a handful of shims.
    let cores = sizes.instances.saturating_mul(4);
    pool.total_component_instances(sizes.instances)
        .total_core_instances(cores)
        .total_memories(sizes.instances)
        .total_tables(cores)
        .total_stacks(sizes.instances)
        .max_core_instances_per_component(32)
        .max_memories_per_component(MEMORIES_MAX)
        .max_memories_per_module(MEMORIES_MAX)
        .max_tables_per_component(32)
        .max_tables_per_module(32)
        .max_component_instance_size(1 << 20)
        .max_core_instance_size(1 << 20)
        .table_elements(20_000)
        .max_memory_size(size(sizes.memory_max))
        .linear_memory_keep_resident(size(sizes.keep_resident))
        .table_keep_resident(16 << 10)
        .async_stack_keep_resident(size(STACK_KEPT))
        .pagemap_scan(scan);
    pool
}

/// Digest over all that native code depends on: wasmtime's version, its compatibility hash (settings, tunables, CPU
/// features) and our own. Two engines with the same digest take each other's code.
pub fn digest(engine: &Engine) -> Digest {
    let mut hasher = Streaming(redan_protocol::digest::Hasher::default());
    hasher.write(b"redan.engine/1\0wasmtime 48\0");
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hasher.0.finish()
}

/// SHA-256 as a [`Hasher`]; `finish` of that trait has no use here.
struct Streaming(redan_protocol::digest::Hasher);

impl Hasher for Streaming {
    fn finish(&self) -> u64 {
        0
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
}

/// Advances the engine's epoch until the engine is gone.
pub(crate) fn start_ticker(engine: &Engine) -> Result<(), EngineError> {
    let weak = engine.weak();
    let ticker = std::thread::Builder::new().name("epoch".to_owned());
    let started = ticker.spawn(move || {
        while let Some(engine) = weak.upgrade() {
            engine.increment_epoch();
            drop(engine);
            std::thread::sleep(EPOCH);
        }
    });
    started.map(drop).map_err(EngineError::Ticker)
}

/// A size of this machine; saturates where `usize` is narrower.
fn size(bytes: ByteCount) -> usize {
    usize::try_from(bytes.get()).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compiler_and_executor_agree_on_native_code() {
        let (executor, _) = executor_engine(&Sizes::default()).unwrap();
        assert_eq!(
            digest(&executor),
            digest(&compiler_engine(Native::Plain).unwrap())
        );
    }

    #[test]
    fn code_that_counts_fuel_is_other_code() {
        let plain = digest(&compiler_engine(Native::Plain).unwrap());
        assert_ne!(plain, digest(&compiler_engine(Native::Metered).unwrap()));
    }

    #[test]
    fn code_for_wasi_0_3_is_other_code() {
        let tasks = digest(&compiler_engine(Native::Tasks).unwrap());
        for native in [Native::Plain, Native::Metered] {
            assert_ne!(tasks, digest(&compiler_engine(native).unwrap()), "{native:?}");
        }
    }

    #[test]
    fn a_pool_that_does_not_fit_falls_back_to_allocation_on_demand() {
        let sizes = Sizes {
            instances: 60_000,
            memory_max: ByteCount::mib(4096),
            ..Sizes::default()
        };
        let (engine, allocation) = executor_engine(&sizes).unwrap();
        assert_eq!(allocation, Allocation::OnDemand);
        assert_eq!(digest(&engine), digest(&compiler_engine(Native::Plain).unwrap()));
    }
}
