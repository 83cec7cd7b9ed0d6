//! One intersection: takes batches, answers with decisions, closes an aggregate per cycle.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::aggregate::Aggregate;
use crate::batch::{Batch, Event, Instant, Kind, Refused};
use crate::decision::{Decision, decide};
use crate::detectors::{Channel, Detectors, Purpose};
use crate::phase::{Light, Phase, PhaseNumber};

const QUARTER_MS: i64 = 15 * 60 * 1_000;
/// Aggregates that wait for the city at most, about two hours of them; then the oldest is dropped, and the hole in the
/// numbers tells so.
pub const OUTBOX_MAX: usize = 96;

/// All that is remembered between two batches; stored as JSON under the device's name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Intersection {
    /// Of the last batch taken.
    sequence: Option<u64>,
    time: i64,
    detectors: Detectors,
    phases: BTreeMap<PhaseNumber, Phase>,
    /// The detectors that are occupied now.
    occupied: Vec<Channel>,
    /// The period that is running; none before the first batch.
    running: Option<Aggregate>,
    closed: u64,
    outbox: VecDeque<Aggregate>,
    decisions: BTreeMap<PhaseNumber, Decision>,
}

/// The body of the answer to a batch.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Answer {
    pub sequence: u64,
    /// The batch had been taken before; this is the same answer again.
    pub repeated: bool,
    pub decisions: BTreeMap<PhaseNumber, Decision>,
}

impl Intersection {
    /// Begins anew with this table. Aggregates that still wait, and their numbering, stay.
    pub fn configure(&mut self, detectors: Detectors) {
        let phases = detectors
            .phases()
            .into_iter()
            .map(|phase| (phase, Phase::default()))
            .collect();
        let (closed, outbox) = (self.closed, std::mem::take(&mut self.outbox));
        *self = Self {
            detectors,
            phases,
            closed,
            outbox,
            ..Self::default()
        };
    }

    /// Takes one batch. A repetition of the last one changes nothing and gets the same answer.
    pub fn take(&mut self, batch: &Batch) -> Result<Answer, Refused> {
        if self.detectors.is_empty() {
            return Err(Refused::NoDetectors);
        }
        let (sequence, time) = (batch.sequence, batch.time);
        match self.sequence {
            Some(last) if sequence == last => return Ok(self.answer(sequence, true)),
            Some(last) if sequence < last => return Err(Refused::OutOfOrder { last }),
            Some(_) if time < self.time => return Err(Refused::TimeRanBack),
            _ => {}
        }
        let events = batch.events_in_order()?;
        let begin = time * 1_000;
        let mut running = self.period_at(begin);
        for event in events {
            self.apply(event, &mut running);
        }
        self.running = Some(running);
        self.sequence = Some(sequence);
        self.time = time;
        self.decisions = decide(&self.phases, begin + 1_000);
        Ok(self.answer(sequence, false))
    }

    /// The closed aggregates that the city has not acknowledged yet, oldest first.
    pub fn outbox(&self) -> &VecDeque<Aggregate> {
        &self.outbox
    }

    /// The city has everything up to this number.
    pub fn acknowledge(&mut self, number: u64) {
        self.outbox.retain(|aggregate| aggregate.number > number);
    }

    fn answer(&self, sequence: u64, repeated: bool) -> Answer {
        Answer {
            sequence,
            repeated,
            decisions: self.decisions.clone(),
        }
    }

    /// The running period, after closing one that belongs to an earlier quarter hour.
    fn period_at(&mut self, now: Instant) -> Aggregate {
        let quarter = now.div_euclid(QUARTER_MS) * QUARTER_MS;
        match self.running.take() {
            None => Aggregate {
                from: now,
                ..Aggregate::default()
            },
            Some(running) if running.from >= quarter => running,
            Some(running) => {
                let end = running.from.div_euclid(QUARTER_MS) * QUARTER_MS + QUARTER_MS;
                self.close(running, end, false);
                Aggregate {
                    from: quarter,
                    ..Aggregate::default()
                }
            }
        }
    }

    fn close(&mut self, mut period: Aggregate, at: Instant, cycle: bool) {
        for (number, phase) in &mut self.phases {
            phase.settle(at, period.phase(*number));
        }
        self.closed += 1;
        if self.outbox.len() == OUTBOX_MAX {
            self.outbox.pop_front();
        }
        self.outbox.push_back(Aggregate {
            number: self.closed,
            to: at,
            cycle,
            ..period
        });
    }

    fn apply(&mut self, Event { at, kind }: Event, running: &mut Aggregate) {
        let (number, light) = match kind {
            Kind::GreenBegan(number) => {
                if self.detectors.phases().first() == Some(&number) && at > running.from {
                    let ended = std::mem::replace(
                        running,
                        Aggregate {
                            from: at,
                            ..Aggregate::default()
                        },
                    );
                    self.close(ended, at, true);
                }
                (number, Light::Green)
            }
            Kind::YellowBegan(number) => (number, Light::Yellow),
            Kind::ClearanceBegan(number) => (number, Light::Clearance),
            Kind::ClearanceEnded(number) => {
                if self
                    .phases
                    .get(&number)
                    .is_none_or(|phase| phase.light != Light::Clearance)
                {
                    return;
                }
                (number, Light::Red)
            }
            Kind::Ended(number, ending) => return running.phase(number).ended(ending),
            Kind::Called(number, called) => {
                self.phases.entry(number).or_default().called = called;
                return;
            }
            Kind::Detector(channel, on) => return self.detect(channel, on, at, running),
        };
        self.phases
            .entry(number)
            .or_default()
            .turn(light, at, running.phase(number));
    }

    /// A detector saw a vehicle come (on) or go.
    fn detect(&mut self, channel: Channel, on: bool, at: Instant, running: &mut Aggregate) {
        if on {
            *running.detectors.entry(channel).or_default() += 1;
        }
        let Some((number, purpose)) = self.detectors.get(channel) else {
            return;
        };
        let phase = self.phases.entry(number).or_default();
        let counts = running.phase(number);
        phase.last_vehicle = at;
        if on {
            counts.actuations += 1;
            if purpose == Purpose::Advance {
                counts.arrivals += 1;
                counts.arrivals_on_green += u64::from(phase.light == Light::Green);
            }
        }
        if purpose == Purpose::Presence && self.occupied.contains(&channel) != on {
            phase.occupy(on, at, counts);
            self.occupied.retain(|occupied| *occupied != channel);
            if on {
                self.occupied.push(channel);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intersection() -> Intersection {
        let mut intersection = Intersection::default();
        intersection.configure(
            Detectors::parse("head\nx,2,4,Presence\nx,2,5,Advance\nx,6,9,Advance", "x").unwrap(),
        );
        intersection
    }

    fn batch(sequence: u64, time: i64, events: &[(u16, u16, u16)]) -> Batch {
        Batch {
            sequence,
            time,
            events: events.to_vec(),
        }
    }

    #[test]
    fn arrivals_are_on_green_from_the_begin_of_green_until_yellow() {
        let mut one = intersection();
        one.take(&batch(
            1,
            0,
            &[(0, 82, 5), (100, 1, 2), (100, 82, 5), (900, 82, 5)],
        ))
        .unwrap();
        one.take(&batch(2, 1, &[(500, 8, 2), (500, 82, 5), (600, 82, 5)]))
            .unwrap();
        let counts = one.running.unwrap().phases[&2];
        assert_eq!((counts.arrivals, counts.arrivals_on_green), (4, 2));
        assert_eq!(one.outbox[0].phases[&2].arrivals, 1);
    }

    #[test]
    fn a_repeated_batch_changes_nothing_and_an_older_one_is_refused() {
        let mut one = intersection();
        one.take(&batch(1, 0, &[(0, 82, 5)])).unwrap();
        let first = one.take(&batch(2, 1, &[(0, 82, 5)])).unwrap();
        let before = one.clone();
        let again = one.take(&batch(2, 1, &[(0, 82, 5)])).unwrap();
        assert_eq!(one, before);
        assert_eq!(
            again,
            Answer {
                repeated: true,
                ..first
            }
        );
        assert_eq!(
            one.take(&batch(1, 0, &[])),
            Err(Refused::OutOfOrder { last: 2 })
        );
        assert_eq!(one.take(&batch(3, 0, &[])), Err(Refused::TimeRanBack));
    }

    #[test]
    fn a_period_ends_with_the_cycle_and_at_the_quarter_hour() {
        let mut one = intersection();
        one.take(&batch(1, 890, &[(0, 82, 9)])).unwrap();
        one.take(&batch(2, 895, &[(500, 1, 2), (700, 82, 9)]))
            .unwrap();
        one.take(&batch(3, 900, &[])).unwrap();
        let spans: Vec<_> = one
            .outbox()
            .iter()
            .map(|done| (done.number, done.from, done.to, done.cycle))
            .collect();
        assert_eq!(
            spans,
            [(1, 890_000, 895_500, true), (2, 895_500, 900_000, false)]
        );
        one.acknowledge(1);
        assert_eq!(one.outbox().len(), 1);
    }

    #[test]
    fn a_full_outbox_drops_its_oldest() {
        let mut one = intersection();
        for cycle in 0..=OUTBOX_MAX as u64 + 1 {
            one.take(&batch(cycle + 1, cycle as i64, &[(500, 1, 2)]))
                .unwrap();
        }
        assert_eq!(one.outbox().len(), OUTBOX_MAX);
        assert_eq!(one.outbox()[0].number, 3);
    }

    #[test]
    fn what_was_stored_is_read_back_whole() {
        let mut one = intersection();
        one.take(&batch(
            1,
            0,
            &[(0, 1, 2), (10, 82, 4), (20, 43, 6), (30, 82, 9)],
        ))
        .unwrap();
        let stored = serde_json::to_vec(&one).unwrap();
        assert_eq!(
            serde_json::from_slice::<Intersection>(&stored).unwrap(),
            one
        );
    }

    #[test]
    fn nothing_is_taken_before_the_table_is_known() {
        assert_eq!(
            Intersection::default().take(&batch(1, 0, &[])),
            Err(Refused::NoDetectors)
        );
    }
}
