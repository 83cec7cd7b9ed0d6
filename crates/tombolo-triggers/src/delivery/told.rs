//! What is told of each delivery where somebody watches: which events went to which function, and what became of them.

use super::exchange::Taken;
use super::lane::Lane;
use super::verdict::Verdict;

/// A verdict in words, to be told once it is durable.
pub(super) struct Told {
    verdict: &'static str,
    cause: Option<String>,
}

impl Told {
    /// The words of a verdict; none where nobody watches.
    pub(super) fn of(lane: &Lane, verdict: &Verdict) -> Option<Self> {
        if !lane.shared.config.log {
            return None;
        }
        let (verdict, cause) = verdict.words();
        Some(Self {
            verdict,
            cause: cause.map(str::to_owned),
        })
    }

    /// Tells what became of a delivery.
    pub(super) fn tell(&self, lane: &Lane, taken: &Taken) {
        let consumer = &lane.consumer;
        let event = taken.events.first();
        tracing::info!(
            target: "delivery",
            trigger = consumer.trigger,
            queue = %consumer.queue,
            r#type = event.map(|event| event.kind.as_str()),
            source = event.map(|event| event.source.as_str()),
            id = event.map(|event| event.id.as_str()),
            events = (taken.events.len() > 1).then_some(taken.events.len()),
            function = %consumer.function,
            attempt = taken.attempt,
            verdict = self.verdict,
            cause = self.cause.as_deref(),
            ms = u64::try_from(taken.begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            "delivery"
        );
    }
}
