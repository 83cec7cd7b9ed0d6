//! Measures what one invocation uses, and says when it hit a limit of its budget.

use std::cell::Cell;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tombolo_core::{Budget, Limit};

use crate::memory::MemoryBound;

thread_local! {
    /// CPU time of polls that ended within the poll that is under way on this thread.
    static NESTED_NS: Cell<u64> = const { Cell::new(0) };
}

/// What one invocation (or one reused instance, for concurrent isolation) has used so far.
///
/// CPU time is the thread's while the guest is polled. The epoch callback reads it in the middle of a
/// poll, so that a guest which never returns is caught as well.
#[derive(Debug)]
pub(crate) struct Meter {
    budget: Budget,
    cpu_allowed_ns: AtomicU64,
    deadline: Instant,
    started: Instant,
    cpu_ns: AtomicU64,
    poll_began_ns: AtomicU64,
    memory_bytes_peak: AtomicU64,
    memory_refused: AtomicU8,
    hit: AtomicU8,
}

impl Meter {
    /// A meter that starts now; `deadline` is the caller's, which may only shorten the wall time.
    pub(crate) fn start(budget: Budget, deadline: Option<Instant>) -> Self {
        let started = Instant::now();
        let own = started + budget.wall;
        Self {
            budget,
            cpu_allowed_ns: AtomicU64::new(nanos(budget.cpu)),
            deadline: deadline.map_or(own, |deadline| own.min(deadline)),
            started,
            cpu_ns: AtomicU64::new(0),
            poll_began_ns: AtomicU64::new(0),
            memory_bytes_peak: AtomicU64::new(0),
            memory_refused: AtomicU8::new(0),
            hit: AtomicU8::new(0),
        }
    }

    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    pub(crate) fn wall(&self) -> Duration {
        self.started.elapsed()
    }

    pub(crate) fn cpu(&self) -> Duration {
        Duration::from_nanos(self.cpu_ns.load(Relaxed))
    }

    /// Adds CPU time that was measured elsewhere.
    pub(crate) fn add_cpu(&self, used: Duration) {
        self.cpu_ns.fetch_add(nanos(used), Relaxed);
    }

    /// For an instance that serves several invocations at once: one more has begun, and with it one more share of CPU time.
    pub(crate) fn begin_share(&self) {
        self.cpu_allowed_ns
            .fetch_add(nanos(self.budget.cpu), Relaxed);
    }

    /// One of several invocations has ended: its share goes, and with it the CPU time used since the last one ended.
    pub(crate) fn end_share(&self) -> Duration {
        self.cpu_allowed_ns
            .fetch_sub(nanos(self.budget.cpu), Relaxed);
        Duration::from_nanos(self.cpu_ns.swap(0, Relaxed))
    }

    pub(crate) fn memory_bytes_peak(&self) -> u64 {
        self.memory_bytes_peak.load(Relaxed)
    }

    /// Runs one poll of the guest on this thread and adds the CPU time it took.
    ///
    /// A guest that reads the answer of another function polls that function within its own poll: what
    /// the inner one used is its own and is taken off the outer one.
    pub(crate) fn poll<T>(&self, poll: impl FnOnce() -> T) -> T {
        let outer_nested_ns = NESTED_NS.replace(0);
        let began_ns = thread_cpu_ns();
        self.poll_began_ns.store(began_ns, Relaxed);
        let result = poll();
        let elapsed_ns = thread_cpu_ns().saturating_sub(began_ns);
        let own_ns = elapsed_ns.saturating_sub(NESTED_NS.replace(outer_nested_ns + elapsed_ns));
        let total_ns = self.cpu_ns.fetch_add(own_ns, Relaxed) + own_ns;
        if total_ns > self.cpu_allowed_ns.load(Relaxed) {
            self.record(Limit::Cpu);
        }
        result
    }

    /// Called in the middle of a poll, at an epoch: tells which limit is hit by now.
    pub(crate) fn check_within_poll(&self) -> Option<Limit> {
        let used = thread_cpu_ns()
            .saturating_sub(self.poll_began_ns.load(Relaxed))
            .saturating_sub(NESTED_NS.get());
        if self.cpu_ns.load(Relaxed) + used > self.cpu_allowed_ns.load(Relaxed) {
            self.record(Limit::Cpu);
        } else if Instant::now() >= self.deadline {
            self.record(Limit::Wall);
        }
        self.hit()
    }

    /// Counts `bytes` of linear memory in all.
    pub(crate) fn count_memory(&self, bytes: u64) {
        self.memory_bytes_peak.fetch_max(bytes, Relaxed);
    }

    /// Notes that a bound refused the guest memory.
    pub(crate) fn refuse_memory(&self, bound: MemoryBound) {
        let code = match bound {
            MemoryBound::Function => 1,
            MemoryBound::Node => 2,
        };
        self.memory_refused.store(code, Relaxed);
    }

    /// The bound that refused the guest memory last: a trap afterwards is put down to that.
    pub(crate) fn memory_refused(&self) -> Option<MemoryBound> {
        match self.memory_refused.load(Relaxed) {
            0 => None,
            1 => Some(MemoryBound::Function),
            _ => Some(MemoryBound::Node),
        }
    }

    /// Notes that a limit was hit; the first one counts.
    pub(crate) fn record(&self, limit: Limit) {
        let _ = self
            .hit
            .compare_exchange(0, encode(limit), Relaxed, Relaxed);
    }

    /// The first limit that was hit.
    pub(crate) fn hit(&self) -> Option<Limit> {
        decode(self.hit.load(Relaxed))
    }
}

const LIMITS: [Limit; 6] = [
    Limit::Wall,
    Limit::Cpu,
    Limit::Memory,
    Limit::HostcallBytes,
    Limit::ResponseBytes,
    Limit::Concurrency,
];

fn encode(limit: Limit) -> u8 {
    let position = LIMITS.iter().position(|l| *l == limit).unwrap_or(0);
    u8::try_from(position + 1).unwrap_or(1)
}

fn decode(code: u8) -> Option<Limit> {
    LIMITS.get(usize::from(code).checked_sub(1)?).copied()
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn thread_cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    u64::try_from(time.tv_sec * 1_000_000_000 + time.tv_nsec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_survives_its_encoding_and_the_first_one_counts() {
        for limit in LIMITS {
            let meter = Meter::start(Budget::default(), None);
            assert_eq!(meter.hit(), None);
            meter.record(limit);
            meter.record(Limit::Wall);
            assert_eq!(meter.hit(), Some(limit));
        }
    }

    #[test]
    fn cpu_used_within_a_poll_counts_before_the_poll_ends() {
        let budget = Budget {
            cpu: Duration::from_nanos(1),
            ..Budget::default()
        };
        let meter = Meter::start(budget, None);
        meter.poll(|| {
            work();
            assert_eq!(meter.check_within_poll(), Some(Limit::Cpu));
        });
    }

    #[test]
    fn cpu_used_by_a_nested_guest_is_not_the_outer_ones() {
        let (outer, inner) = (
            Meter::start(Budget::default(), None),
            Meter::start(Budget::default(), None),
        );
        let began = thread_cpu_ns();
        outer.poll(|| inner.poll(work));
        let all = Duration::from_nanos(thread_cpu_ns() - began);
        assert!(inner.cpu() > Duration::ZERO);
        assert!(outer.cpu() + inner.cpu() <= all);
    }

    fn work() {
        std::hint::black_box((0..100_000u64).map(std::hint::black_box).sum::<u64>());
    }
}
