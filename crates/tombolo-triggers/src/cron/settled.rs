//! Which stretches of wall time a schedule has been through: what keeps a tick from being published twice when clocks jump.

use serde::{Deserialize, Serialize};

/// A stretch of wall time, both ends included, in milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// Its begin.
    pub from_ms: u64,
    /// Its end, not before its begin.
    pub to_ms: u64,
}

/// The state of a schedule that has to survive the node: the stretches whose ticks are settled, in order, apart
/// from one another, and few.
///
/// With a clock that only goes forward there is one for each downtime in which ticks were dropped. A clock that
/// jumps far ahead and back leaves one in the future: time goes on where it was, and what was published
/// out there is not published again when it comes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled(Vec<Span>);

/// More stretches than these are joined where they are nearest, which forgets what was *not* published between them.
const SPANS_MAX: usize = 16;

impl Settled {
    /// The stretches, in order.
    pub fn spans(&self) -> &[Span] {
        &self.0
    }

    /// The end of the last stretch that begins at this time or before.
    pub(super) fn end_before(&self, at_ms: u64) -> Option<u64> {
        let spans = self.0.iter().rev();
        let mut begun = spans.filter(|span| span.from_ms <= at_ms);
        begun.next().map(|span| span.to_ms)
    }

    /// The end of the stretch that has this time in it.
    pub(super) fn end_around(&self, at_ms: u64) -> Option<u64> {
        self.end_before(at_ms).filter(|end_ms| *end_ms >= at_ms)
    }

    /// Adds a stretch, and joins it with those that it touches.
    pub(super) fn add(&mut self, mut span: Span) {
        self.0.retain(|other| {
            let apart = other.to_ms < span.from_ms || other.from_ms > span.to_ms;
            if !apart {
                span.from_ms = span.from_ms.min(other.from_ms);
                span.to_ms = span.to_ms.max(other.to_ms);
            }
            apart
        });
        let place = self.0.partition_point(|other| other.from_ms < span.from_ms);
        self.0.insert(place, span);
        while self.0.len() > SPANS_MAX {
            self.join_nearest();
        }
    }

    fn join_nearest(&mut self) {
        let pairs = self.0.iter().zip(self.0.iter().skip(1));
        let gaps = pairs.map(|(left, right)| right.from_ms - left.to_ms);
        let nearest = gaps.enumerate().min_by_key(|(_, gap)| *gap);
        if let Some((place, _)) = nearest {
            let right = self.0.remove(place + 1);
            if let Some(left) = self.0.get_mut(place) {
                left.to_ms = right.to_ms;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn span(from_ms: u64, to_ms: u64) -> Span {
        Span { from_ms, to_ms }
    }

    #[test]
    fn what_touches_is_joined_and_what_does_not_is_kept_apart() {
        let mut settled = Settled::default();
        for (from_ms, to_ms) in [(10, 20), (40, 50), (20, 25), (30, 35), (24, 41)] {
            settled.add(span(from_ms, to_ms));
        }
        settled.add(span(60, 60));
        assert_eq!(settled.spans(), [span(10, 50), span(60, 60)]);
        assert_eq!(settled.end_around(9), None);
        assert_eq!(settled.end_around(10), Some(50));
        assert_eq!(settled.end_around(51), None);
        assert_eq!(settled.end_before(59), Some(50));
    }

    proptest! {
        #[test]
        fn whatever_was_added_stays_and_there_are_few(
            spans in proptest::collection::vec((0_u64..10_000, 0_u64..50), 1..80)
        ) {
            let mut settled = Settled::default();
            for (from_ms, length) in &spans {
                settled.add(span(*from_ms, from_ms + length));
            }
            prop_assert!(settled.spans().len() <= SPANS_MAX);
            prop_assert!(settled.spans().windows(2).all(|pair| pair[0].to_ms < pair[1].from_ms));
            for (from_ms, length) in spans {
                let end_ms = settled.end_around(from_ms);
                prop_assert!(end_ms.is_some_and(|end_ms| end_ms >= from_ms + length));
            }
        }
    }
}
