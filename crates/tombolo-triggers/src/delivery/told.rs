//! What is told of each delivery where somebody watches: which events went to which function, and what became of them.

use std::time::Instant;

use tombolo_store::Delivery;

use super::lane::Lane;
use super::verdict::Verdict;

/// A delivery that will be told.
pub(super) struct Told {
    events: usize,
    /// Of the first event.
    kind: String,
    source: String,
    id: String,
    attempt: u16,
    begun: Instant,
}

impl Told {
    /// A delivery that begins now; none where nobody watches.
    pub(super) fn of(lane: &Lane, deliveries: &[Delivery]) -> Option<Self> {
        let first = deliveries.first().filter(|_| lane.shared.config.log)?;
        Some(Self {
            events: deliveries.len(),
            kind: first.event.kind.clone(),
            source: first.event.source.clone(),
            id: first.event.id.clone(),
            attempt: first.attempt,
            begun: Instant::now(),
        })
    }

    /// Tells it, now that the function has answered.
    pub(super) fn tell(&self, lane: &Lane, verdict: &Verdict) {
        let consumer = &lane.consumer;
        let (verdict, cause) = verdict.words();
        tracing::info!(
            target: "delivery",
            trigger = consumer.trigger,
            queue = %consumer.queue,
            r#type = self.kind.as_str(),
            source = self.source.as_str(),
            id = self.id.as_str(),
            events = (self.events > 1).then_some(self.events),
            function = %consumer.function,
            attempt = self.attempt,
            verdict,
            cause,
            ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            "delivery"
        );
    }
}
