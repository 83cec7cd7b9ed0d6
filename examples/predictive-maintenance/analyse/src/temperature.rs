//! What some readings of a thermometer come to: the watch goes on, days add up, alarms are raised.

use analysis::temperature::{Monitor, Settings};
use messages::{Alarm, Day, Readings};
use serde::{Deserialize, Serialize};

/// Readings that one message may hold: a day's, every minute.
pub const READINGS_MAX: usize = 1_440;

/// The state of the watch over one thermometer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Watch {
    /// Number of the reading that comes next.
    next: u64,
    monitor: Monitor,
}

/// Why readings are not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("a message is 1 to {READINGS_MAX} readings")]
    Length,
}

/// What new readings came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    pub first: u64,
    pub end: u64,
    pub days: Vec<(String, Day)>,
    pub alarms: Vec<Alarm>,
}

impl Watch {
    /// Takes the next readings; `None` when all of them were taken before.
    pub fn take(&mut self, message: &Readings) -> Result<Option<Step>, Refused> {
        if !(1..=READINGS_MAX).contains(&message.readings.len()) {
            return Err(Refused::Length);
        }
        // Readings that never came are no reason to leave out those that follow.
        let first = self.next.max(message.first);
        let known = usize::try_from(first - message.first).unwrap_or(usize::MAX);
        let mut step = Step {
            first,
            end: first,
            days: Vec::new(),
            alarms: Vec::new(),
        };
        for (time, value) in message.readings.iter().skip(known) {
            step.end += 1;
            if let Some(alarm) = self.monitor.take(&Settings::default(), *value) {
                let time = time.clone();
                step.alarms.push(Alarm::Temperature { time, alarm });
            }
            let date = time.get(..10).unwrap_or(time);
            match step.days.last_mut() {
                Some((last, day)) if last == date => day.add(&Day::of(*value)),
                _ => step.days.push((date.to_owned(), Day::of(*value))),
            }
        }
        if step.end == first {
            return Ok(None);
        }
        self.next = step.end;
        Ok(Some(step))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readings(first: u64, times: &[&str]) -> Readings {
        let readings = times.iter().map(|time| ((*time).to_owned(), 80.0));
        Readings {
            first,
            readings: readings.collect(),
        }
    }

    #[test]
    fn readings_are_taken_once_and_days_are_told_apart() {
        let mut watch = Watch::default();
        let message = readings(0, &["2014-01-01 23:50:00", "2014-01-01 23:55:00"]);
        assert_eq!(watch.take(&message).unwrap().unwrap().end, 2);
        assert_eq!(watch.take(&message), Ok(None));
        let overlapping = readings(1, &["2014-01-01 23:55:00", "2014-01-02 00:00:00"]);
        let step = watch.take(&overlapping).unwrap().unwrap();
        assert_eq!((step.first, step.end), (2, 3));
        assert_eq!(step.days, [("2014-01-02".to_owned(), Day::of(80.0))]);
    }

    #[test]
    fn after_a_gap_it_goes_on_and_an_empty_message_is_refused() {
        let mut watch = Watch::default();
        let step = watch.take(&readings(5, &["2014-01-01 00:00:00"])).unwrap();
        assert_eq!(step.map(|step| (step.first, step.end)), Some((5, 6)));
        assert_eq!(watch.take(&readings(6, &[])), Err(Refused::Length));
    }
}
