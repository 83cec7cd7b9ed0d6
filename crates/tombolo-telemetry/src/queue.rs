//! What is measured of queues: the time that deliveries take, and what each queue tells of itself when it is asked.

use std::time::Duration;

use tombolo_core::QueueId;

use crate::histogram::Histogram;

/// What is measured of the deliveries of one queue. Nothing here takes a lock.
#[derive(Debug, Default)]
pub struct QueueMetrics {
    pub(crate) process: Histogram,
}

impl QueueMetrics {
    /// A delivery has ended, this long after its events were taken.
    pub fn delivered(&self, duration: Duration) {
        self.process.record(duration);
    }
}

/// The state of a queue; counters are since the node started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueReading {
    pub queue: QueueId,
    /// Events in the queue.
    pub depth: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The age of the oldest of them; nothing when there is none.
    pub oldest_age: Duration,
    /// Events that are being delivered.
    pub leased: u64,
    pub published: u64,
    /// Deliveries, again and again.
    pub attempts: u64,
    /// Attempts that failed and were followed by another.
    pub retried: u64,
    /// Events that were acknowledged.
    pub delivered: u64,
    /// Events that became dead letters.
    pub dead: u64,
    /// Events that left unread, by reason.
    pub dropped: Vec<(&'static str, u64)>,
    /// Ids that are remembered, to know duplicates.
    pub remembered: u64,
    /// Ids that were forgotten before their time.
    pub forgotten_early: u64,
    /// Places with remembered ids that were found damaged.
    pub remembered_damages: u64,
}
