//! What is counted for the HTTP listeners.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ::http::StatusCode;

use crate::histogram::Histogram;

const STATUS_FIRST: u16 = 100;
const STATUS_COUNT: usize = 500;

/// The counters of a node's HTTP listeners. Nothing here takes a lock.
#[derive(Debug)]
pub struct HttpMetrics {
    pub(crate) duration: Histogram,
    started: AtomicU64,
    finished: AtomicU64,
    opened: AtomicU64,
    closed: AtomicU64,
    refused: AtomicU64,
    statuses: Box<[AtomicU64]>,
}

impl Default for HttpMetrics {
    fn default() -> Self {
        Self {
            duration: Histogram::default(),
            started: AtomicU64::new(0),
            finished: AtomicU64::new(0),
            opened: AtomicU64::new(0),
            closed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            statuses: (0..STATUS_COUNT).map(|_| AtomicU64::new(0)).collect(),
        }
    }
}

impl HttpMetrics {
    /// The head of a request arrived; [`HttpMetrics::finish`] must follow.
    pub fn start(&self) {
        self.started.fetch_add(1, Ordering::Relaxed);
    }

    /// An answer with this status ended, or broke.
    pub fn finish(&self, status: StatusCode, duration: Duration) {
        self.duration.record(duration);
        let index = usize::from(status.as_u16().saturating_sub(STATUS_FIRST));
        if let Some(counter) = self.statuses.get(index) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        self.finished.fetch_add(1, Ordering::Relaxed);
    }

    /// A client connected; [`HttpMetrics::connection_closed`] must follow.
    pub fn connection_opened(&self) {
        self.opened.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection ended.
    pub fn connection_closed(&self) {
        self.closed.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection was closed at once because its client had as many as allowed.
    pub fn connection_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests that are being answered now.
    pub fn active_requests(&self) -> u64 {
        let finished = self.finished.load(Ordering::Relaxed);
        self.started
            .load(Ordering::Relaxed)
            .saturating_sub(finished)
    }

    /// Connections that are open now.
    pub fn connections(&self) -> u64 {
        let closed = self.closed.load(Ordering::Relaxed);
        self.opened.load(Ordering::Relaxed).saturating_sub(closed)
    }

    pub(crate) fn connections_refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// The statuses that were answered, and how often.
    pub(crate) fn statuses(&self) -> impl Iterator<Item = (u16, u64)> {
        (STATUS_FIRST..)
            .zip(&self.statuses)
            .map(|(status, counter)| (status, counter.load(Ordering::Relaxed)))
            .filter(|(_, count)| *count > 0)
    }
}
