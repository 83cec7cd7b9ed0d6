//! What is counted for each function, and the bill that follows from it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tombolo_core::{Code, FunctionId};

use crate::histogram::{Histogram, nanoseconds};

/// How an invocation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Ok,
    Failed(Code),
    /// The caller went away before the answer was complete.
    Cancelled,
}

/// The counters of one function. Nothing here takes a lock.
#[derive(Debug, Default)]
pub struct FunctionMetrics {
    started: AtomicU64,
    finished: AtomicU64,
    cancelled: AtomicU64,
    rejected: AtomicU64,
    waiting: AtomicU64,
    cpu_ns: AtomicU64,
    /// Memory times wall time, in pages of 64 KiB times microseconds, rounded up for each invocation.
    memory_page_us: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    pub(crate) wall: Histogram,
    pub(crate) init: Histogram,
    /// One counter for each code, in the order of [`Code::ALL`]; made at the first failure.
    errors: OnceLock<Box<[AtomicU64]>>,
}

/// The answers that are stored for a function's idempotency keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerReading {
    pub function: FunctionId,
    pub answers: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Answers that made room for newer ones before their time, since the node started.
    pub evicted: u64,
}

/// What a function has used since the node started: the basis of billing by real use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FunctionUsage {
    /// Invocations that ended, whatever their outcome.
    pub invocations: u64,
    /// Those of them that failed.
    pub errors: u64,
    /// Those of them whose caller went away.
    pub cancelled: u64,
    /// Calls that were refused because the function or the node was busy.
    pub rejected: u64,
    /// Invocations that found no machine code mapped.
    pub cold_starts: u64,
    /// CPU time of the function's own code.
    pub cpu_ns: u64,
    /// Wall time of all invocations.
    pub wall_ns: u64,
    /// Peak memory of each invocation times its wall time; 1 GB is 2^30 bytes. Memory is rounded up to 64 KiB, time to 1 µs.
    pub gb_seconds: f64,
    /// Bytes of request bodies.
    pub bytes_in: u64,
    /// Bytes of response bodies.
    pub bytes_out: u64,
    /// Invocations that run now.
    pub running: u64,
    /// Calls that wait for a place now.
    pub waiting: u64,
}

impl FunctionMetrics {
    /// An invocation begins.
    pub fn start(&self) {
        self.started.fetch_add(1, Ordering::Relaxed);
    }

    /// An invocation that began has ended.
    pub fn finish(
        &self,
        outcome: Outcome,
        wall: Duration,
        cpu: Duration,
        memory_peak_bytes: u64,
        bytes_in: u64,
        bytes_out: u64,
    ) {
        match outcome {
            Outcome::Ok => {}
            Outcome::Failed(code) => self.count_error(code),
            Outcome::Cancelled => {
                self.cancelled.fetch_add(1, Ordering::Relaxed);
            }
        }
        let page_us = memory_peak_bytes
            .div_ceil(64 << 10)
            .saturating_mul(nanoseconds(wall).div_ceil(1000));
        self.wall.record(wall);
        self.cpu_ns.fetch_add(nanoseconds(cpu), Ordering::Relaxed);
        self.memory_page_us.fetch_add(page_us, Ordering::Relaxed);
        self.bytes_in.fetch_add(bytes_in, Ordering::Relaxed);
        self.bytes_out.fetch_add(bytes_out, Ordering::Relaxed);
        self.finished.fetch_add(1, Ordering::Relaxed);
    }

    /// A cold start spent this long on mapping (or compiling) the machine code.
    pub fn cold_start(&self, duration: Duration) {
        self.init.record(duration);
    }

    /// A call was refused because the function or the node was busy.
    pub fn rejected(&self) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
    }

    /// A call begins to wait for a place; [`FunctionMetrics::waited`] must follow.
    pub fn wait(&self) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
    }

    /// A call waits no longer, whether it got a place or not.
    pub fn waited(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    /// What was counted until now.
    pub fn snapshot(&self) -> FunctionUsage {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        // `finished` is read first: counters only grow, so the difference is never negative.
        let invocations = load(&self.finished);
        FunctionUsage {
            invocations,
            errors: self.errors().map(|(_, count)| count).sum(),
            cancelled: load(&self.cancelled),
            rejected: load(&self.rejected),
            cold_starts: self.init.read().count,
            cpu_ns: load(&self.cpu_ns),
            wall_ns: self.wall.sum_ns(),
            gb_seconds: load(&self.memory_page_us) as f64 * f64::from(64 << 10)
                / f64::from(1 << 30)
                / 1e6,
            bytes_in: load(&self.bytes_in),
            bytes_out: load(&self.bytes_out),
            running: load(&self.started).saturating_sub(invocations),
            waiting: load(&self.waiting),
        }
    }

    /// How many invocations had a wall time in each bucket of the histogram: its upper bound in nanoseconds, which
    /// the last one does not have, and the count.
    pub fn wall_buckets(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        self.wall.buckets()
    }

    /// The codes that occurred, and how often.
    pub(crate) fn errors(&self) -> impl Iterator<Item = (Code, u64)> {
        let counters = self.errors.get().map(Box::as_ref).unwrap_or_default();
        Code::ALL
            .iter()
            .zip(counters)
            .map(|(code, counter)| (*code, counter.load(Ordering::Relaxed)))
            .filter(|(_, count)| *count > 0)
    }

    fn count_error(&self, code: Code) {
        let counters = self
            .errors
            .get_or_init(|| Code::ALL.iter().map(|_| AtomicU64::new(0)).collect());
        if let Some(counter) = counters.get(code as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bill_is_memory_times_time_and_every_outcome_is_counted() {
        let metrics = FunctionMetrics::default();
        let second = Duration::from_secs(1);
        for outcome in [Outcome::Ok, Outcome::Failed(Code::Trap), Outcome::Cancelled] {
            metrics.start();
            metrics.finish(outcome, second, Duration::from_millis(10), 512 << 20, 3, 4);
        }
        metrics.start();
        metrics.wait();
        metrics.rejected();
        metrics.cold_start(second);
        let usage = metrics.snapshot();
        let expected = FunctionUsage {
            invocations: 3,
            errors: 1,
            cancelled: 1,
            rejected: 1,
            cold_starts: 1,
            cpu_ns: 30_000_000,
            wall_ns: 3_000_000_000,
            gb_seconds: 1.5,
            bytes_in: 9,
            bytes_out: 12,
            running: 1,
            waiting: 1,
        };
        assert_eq!(usage, expected);
        assert_eq!(metrics.errors().collect::<Vec<_>>(), [(Code::Trap, 1)]);
    }

    #[test]
    fn every_code_has_a_counter_of_its_own() {
        let metrics = FunctionMetrics::default();
        for code in Code::ALL {
            metrics.count_error(*code);
        }
        assert_eq!(metrics.errors().count(), Code::ALL.len());
    }
}
