//! Bounds on the memory of instances: the budget of a function, and what the node has for all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use wasmtime::ResourceLimiter;

use crate::meter::Meter;

/// The memory that all instances of a node may have together.
#[derive(Debug)]
pub(crate) struct NodeMemory {
    used_bytes: AtomicU64,
    bytes_max: u64,
    refused: AtomicBool,
}

/// What refused a guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MemoryBound {
    /// The budget of its function.
    Function,
    /// The memory of the node.
    Node,
}

/// What an instance may do with memory, and the meter of the invocation it serves.
pub(crate) struct Memory {
    pub(crate) meter: Arc<Meter>,
    node: Arc<NodeMemory>,
    linear_bytes: u64,
}

/// Core instances of one component: one made from JavaScript has about ten, and several may be composed.
pub(crate) const CORE_INSTANCES_MAX: u16 = 64;
/// Linear memories of one component.
pub(crate) const MEMORIES_MAX: u16 = 8;
/// Tables of one component.
pub(crate) const TABLES_MAX: u16 = 32;
/// Elements of one table; a table of function references costs eight bytes for each.
pub(crate) const TABLE_ELEMENTS_MAX: usize = 100_000;

impl NodeMemory {
    pub(crate) fn new(bytes_max: u64) -> Self {
        Self {
            used_bytes: AtomicU64::new(0),
            bytes_max,
            refused: AtomicBool::new(false),
        }
    }

    /// Whether memory was refused since this was last asked.
    pub(crate) fn was_refused(&self) -> bool {
        self.refused.swap(false, Relaxed)
    }

    /// Takes so many bytes, all or none.
    fn take(&self, bytes: u64) -> bool {
        let used_bytes = self.used_bytes.fetch_add(bytes, Relaxed);
        let fits = used_bytes.saturating_add(bytes) <= self.bytes_max;
        if !fits {
            self.refused.store(true, Relaxed);
            self.used_bytes.fetch_sub(bytes, Relaxed);
        }
        fits
    }
}

impl Memory {
    pub(crate) fn new(meter: Arc<Meter>, node: Arc<NodeMemory>) -> Self {
        Self {
            meter,
            node,
            linear_bytes: 0,
        }
    }

    /// Counts for another invocation from now on; the memory that the instance has is charged to it.
    pub(crate) fn take_up(&mut self, meter: &Arc<Meter>) {
        self.meter = Arc::clone(meter);
        self.meter.count_memory(self.linear_bytes);
    }

    /// The instance is gone, and with it its memory.
    pub(crate) fn give_back(&mut self) {
        let bytes = std::mem::take(&mut self.linear_bytes);
        self.node.used_bytes.fetch_sub(bytes, Relaxed);
    }

    fn refuse(&self, bound: MemoryBound) -> wasmtime::Result<bool> {
        self.meter.refuse_memory(bound);
        Ok(false)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl ResourceLimiter for Memory {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // What the memory's own type refuses is not counted.
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let more = desired.saturating_sub(current) as u64;
        let grown = self.linear_bytes.saturating_add(more);
        if grown > self.meter.budget().memory_bytes {
            return self.refuse(MemoryBound::Function);
        }
        if !self.node.take(more) {
            return self.refuse(MemoryBound::Node);
        }
        self.linear_bytes = grown;
        self.meter.count_memory(grown);
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        Ok(())
    }

    fn table_growing(
        &mut self,
        _: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS_MAX)
    }

    fn instances(&self) -> usize {
        usize::from(CORE_INSTANCES_MAX)
    }

    fn memories(&self) -> usize {
        usize::from(MEMORIES_MAX)
    }

    fn tables(&self) -> usize {
        usize::from(TABLES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tombolo_core::Budget;
    use wasmtime::component::{Component, Linker};
    use wasmtime::{Engine, Store};

    fn memory(budget_bytes: u64, node: &Arc<NodeMemory>) -> Memory {
        let budget = Budget {
            memory_bytes: budget_bytes,
            ..Budget::default()
        };
        Memory::new(Arc::new(Meter::start(budget, None)), Arc::clone(node))
    }

    fn grow(memory: &mut Memory, current: usize, desired: usize) -> bool {
        memory.memory_growing(current, desired, None).unwrap()
    }

    #[test]
    fn a_refusal_says_which_bound_it_was() {
        let node = Arc::new(NodeMemory::new(150));
        let mut first = memory(100, &node);
        assert!(grow(&mut first, 0, 100));
        assert_eq!(first.meter.memory_refused(), None);
        assert!(!grow(&mut first, 100, 101));
        assert_eq!(first.meter.memory_refused(), Some(MemoryBound::Function));
        let mut second = memory(100, &node);
        assert!(!grow(&mut second, 0, 51));
        assert_eq!(second.meter.memory_refused(), Some(MemoryBound::Node));
        assert!(grow(&mut second, 0, 50));
        assert_eq!(second.meter.memory_bytes_peak(), 50);
    }

    #[test]
    fn memory_comes_back_with_the_instance() {
        let node = Arc::new(NodeMemory::new(100));
        for _ in 0..3 {
            assert!(grow(&mut memory(100, &node), 0, 100));
        }
        let mut reused = memory(100, &node);
        assert!(grow(&mut reused, 0, 100));
        reused.give_back();
        assert!(grow(&mut reused, 0, 100));
    }

    #[test]
    fn an_instance_has_a_bounded_number_of_parts() {
        let engine = Engine::default();
        for (part, allowed) in [
            ("", usize::from(CORE_INSTANCES_MAX)),
            ("(memory 0)", usize::from(MEMORIES_MAX)),
            ("(table 0 funcref)", usize::from(TABLES_MAX)),
        ] {
            let instantiate = |parts: usize| {
                let instances = "(core instance (instantiate $module))".repeat(parts);
                let text = format!("(component (core module $module {part}) {instances})");
                let component = Component::new(&engine, text).unwrap();
                let node = Arc::new(NodeMemory::new(u64::MAX));
                let mut store = Store::new(&engine, memory(1 << 20, &node));
                store.limiter(|memory| memory);
                Linker::new(&engine).instantiate(&mut store, &component)
            };
            assert!(instantiate(allowed).is_ok(), "{part}");
            assert!(instantiate(allowed + 1).is_err(), "{part}");
        }
    }
}
