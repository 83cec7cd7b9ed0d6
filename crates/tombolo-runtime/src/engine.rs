//! The two engines: one without the machinery of concurrent components, one with it, both sized by probing the machine.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use rustix::process::{Resource, getrlimit};
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig,
    WasmBacktraceDetails,
};

use crate::cgroup;
use crate::memory::{CORE_INSTANCES_MAX, MEMORIES_MAX, TABLE_ELEMENTS_MAX, TABLES_MAX};
use crate::ticker::Ticker;

/// Which engine a component needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub(crate) enum EngineKind {
    /// For components without async: `concurrency_support` off, which saves a fifth of the cost of a call.
    Plain,
    /// For components of WASI 0.3.
    Concurrent,
}

/// How instances get their memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// Slots of the pool, or `None` where instances are allocated on demand.
    pub pool_slots: Option<u32>,
    /// Bytes of each slot that stay resident between invocations.
    pub keep_resident_bytes: usize,
    /// Whether dirty pages are found by `PAGEMAP_SCAN`.
    pub pagemap_scan: bool,
    /// Whether each memory reserves the addresses of the largest one, which spares its checks.
    pub reserve_memory: bool,
}

impl Allocation {
    /// Each instance is allocated by itself.
    pub(crate) fn on_demand(reserve_memory: bool) -> Self {
        Self {
            pool_slots: None,
            keep_resident_bytes: 0,
            pagemap_scan: false,
            reserve_memory,
        }
    }
}

impl fmt::Display for Allocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pool_slots {
            Some(slots) => write!(
                f,
                "pool of {slots} slots, {} KiB of each kept resident, pagemap scan {}",
                self.keep_resident_bytes >> 10,
                if self.pagemap_scan { "on" } else { "off" }
            ),
            None => f.write_str("on demand (slower: no pool fits the address space or the config)"),
        }
    }
}

/// What the machine offers a pool.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// Physical memory, or what the cgroup allows of it.
    pub memory_bytes: u64,
    /// Address space, or what the process's limit allows of it.
    pub address_bytes: u64,
    /// Whether the machine swaps: then `PAGEMAP_SCAN` may miss pages of a previous instance.
    pub swap: bool,
}

/// Why no engine could be made.
#[derive(Debug, thiserror::Error)]
#[error("the WebAssembly engine cannot start")]
pub struct EngineError(#[source] wasmtime::Error);

pub(crate) struct Engines {
    plain: Engine,
    concurrent: Mutex<Option<Engine>>,
    allocation: Allocation,
    ticker: Ticker,
}

/// One slot costs the reservation of a 32-bit memory and its guard.
const SLOT_ADDRESS_BYTES: u64 = (4 << 30) + (32 << 20);
/// A 47-bit address space, half of which a pool may take.
const ADDRESS_BYTES: u64 = 1 << 46;
/// Memory that one slot may be expected to need while it runs.
const SLOT_MEMORY_BYTES: u64 = 4 << 20;
const KEEP_RESIDENT_BYTES_MAX: u64 = 2 << 20;
const SLOTS_MIN: u32 = 16;
/// Addresses that a memory without a reservation takes beyond its size, so that it seldom moves.
const MEMORY_GROWTH_BYTES: u64 = 4 << 20;

impl Probe {
    /// Reads the limits of this machine and process.
    pub fn machine() -> Self {
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kib = |key: &str| {
            meminfo
                .lines()
                .find_map(|line| {
                    line.strip_prefix(key)?
                        .split_whitespace()
                        .next()?
                        .parse::<u64>()
                        .ok()
                })
                .map(|kib| kib << 10)
        };
        let physical = kib("MemTotal:").unwrap_or(1 << 30);
        let memory_bytes =
            cgroup::memory_limit_bytes().map_or(physical, |limit| limit.min(physical));
        Self {
            memory_bytes,
            address_bytes: getrlimit(Resource::As)
                .current
                .unwrap_or(ADDRESS_BYTES)
                .min(ADDRESS_BYTES),
            swap: kib("SwapTotal:").is_some_and(|bytes| bytes > 0),
        }
    }

    /// The instances that memory is expected to suffice for, at most `concurrency`.
    pub(crate) fn instances(&self, concurrency: u32) -> u32 {
        let by_memory = self.memory_bytes / SLOT_MEMORY_BYTES;
        let by_memory = u32::try_from(by_memory).unwrap_or(u32::MAX);
        concurrency.min(by_memory.max(SLOTS_MIN))
    }

    /// The pool that fits the machine for `concurrency` invocations at once.
    pub fn allocation(&self, concurrency: u32) -> Allocation {
        // Two engines may each have a pool, and something must be left for everything else.
        let by_address = self.address_bytes / 4 / SLOT_ADDRESS_BYTES;
        let slots = u64::from(self.instances(concurrency)).min(by_address);
        let slots = u32::try_from(slots).unwrap_or(u32::MAX);
        if slots < SLOTS_MIN.min(concurrency) {
            return Allocation::on_demand(false);
        }
        let keep =
            (self.memory_bytes / 8 / u64::from(slots)).clamp(64 << 10, KEEP_RESIDENT_BYTES_MAX);
        Allocation {
            pool_slots: Some(slots),
            reserve_memory: true,
            keep_resident_bytes: usize::try_from(keep).unwrap_or(64 << 10),
            pagemap_scan: !self.swap && PoolingAllocationConfig::is_pagemap_scan_available(),
        }
    }
}

impl Engines {
    /// Starts the plain engine; the concurrent one starts when the first component needs it.
    pub(crate) fn start(wanted: Allocation, ticker: Ticker) -> Result<Self, EngineError> {
        let (plain, allocation) = engine_or_on_demand(EngineKind::Plain, wanted)?;
        ticker.add(&plain);
        Ok(Self {
            plain,
            concurrent: Mutex::new(None),
            allocation,
            ticker,
        })
    }

    pub(crate) fn allocation(&self) -> Allocation {
        self.allocation
    }

    pub(crate) fn get(&self, kind: EngineKind) -> Result<Engine, EngineError> {
        if kind == EngineKind::Plain {
            return Ok(self.plain.clone());
        }
        let mut slot = self
            .concurrent
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(engine) = &*slot {
            return Ok(engine.clone());
        }
        let (engine, _) = engine_or_on_demand(kind, self.allocation)?;
        self.ticker.add(&engine);
        *slot = Some(engine.clone());
        Ok(engine)
    }
}

/// An engine with the wanted allocation, or one without a pool where the pool cannot be reserved.
fn engine_or_on_demand(
    kind: EngineKind,
    wanted: Allocation,
) -> Result<(Engine, Allocation), EngineError> {
    match engine(kind, wanted) {
        Err(error) if wanted.pool_slots.is_some() => {
            tracing::warn!(%error, "the pool cannot be reserved, instances are allocated on demand");
            let on_demand = Allocation::on_demand(false);
            Ok((engine(kind, on_demand)?, on_demand))
        }
        result => Ok((result?, wanted)),
    }
}

fn engine(kind: EngineKind, allocation: Allocation) -> Result<Engine, EngineError> {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .cranelift_opt_level(OptLevel::Speed)
        .wasm_backtrace_details(WasmBacktraceDetails::Enable)
        .concurrency_support(kind == EngineKind::Concurrent)
        .wasm_component_model_async(kind == EngineKind::Concurrent);
    if let Some(slots) = allocation.pool_slots {
        let mut pool = PoolingAllocationConfig::new();
        pool.total_component_instances(slots)
            // A component made from Rust holds about four core instances, one made from JavaScript up to ten.
            .total_core_instances(slots.saturating_mul(10))
            .total_memories(slots.saturating_add(slots / 4))
            .total_tables(slots.saturating_mul(4))
            .total_stacks(slots)
            .total_gc_heaps(SLOTS_MIN)
            .max_core_instances_per_component(u32::from(CORE_INSTANCES_MAX))
            .max_memories_per_component(u32::from(MEMORIES_MAX))
            .max_tables_per_component(u32::from(TABLES_MAX))
            .max_memory_size(4 << 30)
            .table_elements(TABLE_ELEMENTS_MAX)
            .max_component_instance_size(16 << 20)
            .max_core_instance_size(16 << 20)
            .linear_memory_keep_resident(allocation.keep_resident_bytes)
            .table_keep_resident(64 << 10)
            .async_stack_keep_resident(64 << 10)
            .max_unused_warm_slots(slots)
            .pagemap_scan(if allocation.pagemap_scan {
                Enabled::Auto
            } else {
                Enabled::No
            });
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    } else {
        config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
        if !allocation.reserve_memory {
            // Memories take the addresses that they need and are checked by comparison, not by guards.
            config
                .memory_reservation(0)
                .memory_reservation_for_growth(MEMORY_GROWTH_BYTES)
                .memory_guard_size(64 << 10);
        }
    }
    Engine::new(&config).map_err(EngineError)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOO_MUCH: Allocation = Allocation {
        pool_slots: Some(100_000),
        keep_resident_bytes: 0,
        pagemap_scan: false,
        reserve_memory: true,
    };

    fn probe(memory_bytes: u64, address_bytes: u64) -> Probe {
        Probe {
            memory_bytes,
            address_bytes,
            swap: false,
        }
    }

    #[test]
    fn a_large_machine_gets_a_slot_for_each_invocation() {
        let allocation = probe(24 << 30, ADDRESS_BYTES).allocation(2000);
        assert_eq!(allocation.pool_slots, Some(2000));
        assert!(allocation.keep_resident_bytes > 1 << 20);
    }

    #[test]
    fn a_small_cgroup_gets_a_small_pool_that_fits_its_memory() {
        let allocation = probe(256 << 20, ADDRESS_BYTES).allocation(2000);
        let slots = u64::from(allocation.pool_slots.unwrap());
        assert_eq!(slots, 64);
        assert!(slots * allocation.keep_resident_bytes as u64 <= 32 << 20);
    }

    #[test]
    fn a_small_address_space_means_allocation_on_demand() {
        assert_eq!(probe(1 << 30, 64 << 30).allocation(2000).pool_slots, None);
        let engines = Engines::start(
            probe(1 << 30, 64 << 30).allocation(2000),
            Ticker::start().unwrap(),
        );
        assert_eq!(engines.unwrap().allocation().pool_slots, None);
    }

    #[test]
    fn a_pool_that_cannot_be_reserved_falls_back_to_on_demand() {
        let engines = Engines::start(TOO_MUCH, Ticker::start().unwrap()).unwrap();
        assert_eq!(engines.allocation().pool_slots, None);
    }

    #[test]
    fn the_second_engine_falls_back_too() {
        let ticker = Ticker::start().unwrap();
        let engines = Engines {
            allocation: TOO_MUCH,
            ..Engines::start(Allocation::on_demand(true), ticker).unwrap()
        };
        assert!(engines.get(EngineKind::Concurrent).is_ok());
    }

    #[test]
    fn a_component_of_many_parts_gets_no_place_in_the_pool() {
        let engine = engine(
            EngineKind::Plain,
            probe(1 << 30, ADDRESS_BYTES).allocation(16),
        )
        .unwrap();
        let compile = |instances: usize| {
            let instances = "(core instance (instantiate $module))".repeat(instances);
            let text = format!("(component (core module $module) {instances})");
            wasmtime::component::Component::new(&engine, text)
        };
        assert!(compile(usize::from(CORE_INSTANCES_MAX)).is_ok());
        assert!(compile(usize::from(CORE_INSTANCES_MAX) + 1).is_err());
    }

    #[test]
    fn memory_bounds_instances_with_and_without_a_pool() {
        assert_eq!(probe(256 << 20, 0).instances(2000), 64);
        assert_eq!(probe(1 << 20, 0).instances(2000), SLOTS_MIN);
        assert_eq!(probe(24 << 30, 0).instances(2000), 2000);
    }

    #[test]
    fn a_machine_that_swaps_does_without_pagemap_scan() {
        let probe = Probe {
            swap: true,
            ..probe(24 << 30, ADDRESS_BYTES)
        };
        assert!(!probe.allocation(100).pagemap_scan);
    }
}
