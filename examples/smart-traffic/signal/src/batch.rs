//! One second of controller events as it arrives, put into the order in which it is applied.

use serde::Deserialize;

use crate::detectors::Channel;
use crate::phase::{Ending, PhaseNumber};

/// Milliseconds since 1970 on the controller's own clock.
pub type Instant = i64;

/// Rows that one second may hold; a controller logs tens.
pub const EVENTS_MAX: usize = 2_000;

/// The body of `POST /signals/{device}`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// Ascends from batch to batch; a number seen before is a repetition.
    pub sequence: u64,
    /// The second that the events lie in, in seconds since 1970 on the controller's clock.
    pub time: i64,
    /// Rows of millisecond within the second, event id, parameter. No row is a batch too: time passed.
    pub events: Vec<(u16, u16, u16)>,
}

/// Why a batch was refused.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    TooManyEvents,
    OutsideItsSecond,
    OutOfOrder { last: u64 },
    TimeRanBack,
    NoDetectors,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooManyEvents => write!(out, "more than {EVENTS_MAX} events in one batch"),
            Self::OutsideItsSecond => out.write_str("an event lies outside the batch's second"),
            Self::OutOfOrder { last } => {
                write!(
                    out,
                    "batch {last} was taken already, and a later one is wanted"
                )
            }
            Self::TimeRanBack => out.write_str("the batch is older than the one before it"),
            Self::NoDetectors => {
                out.write_str("no detectors known: send them first by PUT to …/detectors")
            }
        }
    }
}

/// What happened at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    pub at: Instant,
    pub kind: Kind,
}

/// The events that matter here, by the Indiana enumeration of high-resolution controller events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    GreenBegan(PhaseNumber),
    Ended(PhaseNumber, Ending),
    YellowBegan(PhaseNumber),
    ClearanceBegan(PhaseNumber),
    ClearanceEnded(PhaseNumber),
    Called(PhaseNumber, bool),
    Detector(Channel, bool),
}

impl Kind {
    fn of(id: u16, parameter: u16) -> Option<Self> {
        let number = u8::try_from(parameter).ok()?;
        Some(match id {
            1 => Self::GreenBegan(number),
            4 => Self::Ended(number, Ending::GapOut),
            5 => Self::Ended(number, Ending::MaxOut),
            6 => Self::Ended(number, Ending::ForceOff),
            8 => Self::YellowBegan(number),
            10 => Self::ClearanceBegan(number),
            11 => Self::ClearanceEnded(number),
            43 => Self::Called(number, true),
            44 => Self::Called(number, false),
            81 => Self::Detector(number, false),
            82 => Self::Detector(number, true),
            _ => return None,
        })
    }
}

impl Batch {
    /// The events of the batch by time, then by id, each once: controllers repeat rows, and rows of one instant
    /// come in no order. Light changes (ids up to 11) therefore come before the arrivals (82) of the same instant.
    pub fn events_in_order(&self) -> Result<Vec<Event>, Refused> {
        if self.events.len() > EVENTS_MAX {
            return Err(Refused::TooManyEvents);
        }
        if self
            .events
            .iter()
            .any(|(millisecond, ..)| *millisecond >= 1_000)
        {
            return Err(Refused::OutsideItsSecond);
        }
        let mut rows = self.events.clone();
        rows.sort_unstable();
        rows.dedup();
        let begin = self.time * 1_000;
        let event = |(millisecond, id, parameter)| {
            Some(Event {
                at: begin + i64::from(millisecond),
                kind: Kind::of(id, parameter)?,
            })
        };
        Ok(rows.into_iter().filter_map(event).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_ordered_and_counted_once() {
        let batch = Batch {
            sequence: 1,
            time: 10,
            events: vec![(500, 82, 4), (500, 1, 2), (500, 82, 4), (100, 0, 2)],
        };
        let events = batch.events_in_order().unwrap();
        assert_eq!(
            events,
            [
                Event {
                    at: 10_500,
                    kind: Kind::GreenBegan(2)
                },
                Event {
                    at: 10_500,
                    kind: Kind::Detector(4, true)
                }
            ]
        );
    }

    #[test]
    fn a_row_of_another_second_is_refused() {
        let batch = Batch {
            sequence: 1,
            time: 10,
            events: vec![(1_000, 82, 4)],
        };
        assert_eq!(batch.events_in_order(), Err(Refused::OutsideItsSecond));
    }
}
