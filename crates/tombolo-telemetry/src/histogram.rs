//! A histogram of durations made of atomic counters: recording takes no lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds in nanoseconds: 10 µs to 10 s in steps of 1, 2.5 and 5. What is longer falls into a last bucket.
const BOUNDS_NS: [u64; 19] = [
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];

#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS_NS.len()],
    beyond: AtomicU64,
    sum_ns: AtomicU64,
}

/// The state of a histogram at one moment.
pub struct HistogramReading {
    /// Upper bound in seconds and count of each bucket, not cumulative.
    pub buckets: Vec<(f64, u64)>,
    pub sum_s: f64,
    pub count: u64,
}

impl Histogram {
    pub fn record(&self, duration: Duration) {
        let ns = nanoseconds(duration);
        let bucket = BOUNDS_NS.partition_point(|bound| *bound < ns);
        self.buckets
            .get(bucket)
            .unwrap_or(&self.beyond)
            .fetch_add(1, Ordering::Relaxed);
        self.sum_ns.fetch_add(ns, Ordering::Relaxed);
    }

    pub fn sum_ns(&self) -> u64 {
        self.sum_ns.load(Ordering::Relaxed)
    }

    /// The upper bound of each bucket in nanoseconds, which the last one does not have, and its count.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        let bounds = BOUNDS_NS.iter().copied().map(Some).chain([None]);
        let counts = self.buckets.iter().chain([&self.beyond]);
        bounds.zip(counts.map(|count| count.load(Ordering::Relaxed)))
    }

    pub fn read(&self) -> HistogramReading {
        let seconds = |ns: Option<u64>| ns.map_or(f64::INFINITY, |ns| ns as f64 / 1e9);
        let buckets: Vec<(f64, u64)> = self
            .buckets()
            .map(|(bound, count)| (seconds(bound), count))
            .collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        HistogramReading {
            buckets,
            sum_s: self.sum_ns() as f64 / 1e9,
            count,
        }
    }
}

/// A duration in whole nanoseconds, at most 584 years.
pub fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_into_the_bucket_whose_bound_it_does_not_exceed() {
        let histogram = Histogram::default();
        for us in [10, 11, 20_000_000] {
            histogram.record(Duration::from_micros(us));
        }
        let reading = histogram.read();
        assert_eq!(reading.buckets[0], (1e-5, 1));
        assert_eq!(reading.buckets[1], (2.5e-5, 1));
        assert_eq!(reading.buckets[19], (f64::INFINITY, 1));
        assert_eq!(reading.count, 3);
        assert!((reading.sum_s - 20.000_021).abs() < 1e-9);
    }
}
