//! The shift report: every machine as it is kept, what the shift added, and how good the analysis was.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::score::{Confusion, Incidents};

/// How much of a machine had been seen at some moment, or was seen between two.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub windows: u64,
    pub readings: u64,
    pub alarms: u64,
}

impl Seen {
    pub fn of(machine: &Machine) -> Self {
        Self {
            windows: machine.windows(),
            readings: machine.readings(),
            alarms: machine.alarms_total,
        }
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            windows: self.windows.saturating_sub(before.windows),
            readings: self.readings.saturating_sub(before.readings),
            alarms: self.alarms.saturating_sub(before.alarms),
        }
    }
}

/// Where the last shift ended and the one before it: what one tick of the schedule moves on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Shifts {
    /// The id of the tick that ended the last shift.
    pub tick: String,
    pub begun: BTreeMap<String, Seen>,
    pub ended: BTreeMap<String, Seen>,
}

impl Shifts {
    /// Ends a shift. A tick that is delivered again ends the same one.
    pub fn end(&mut self, tick: &str, machines: &BTreeMap<String, Machine>) {
        if self.tick != tick {
            self.begun = std::mem::take(&mut self.ended);
            tick.clone_into(&mut self.tick);
        }
        self.ended = machines
            .iter()
            .map(|(name, machine)| (name.clone(), Seen::of(machine)))
            .collect();
    }

    /// What the last shift saw of each machine.
    pub fn seen(&self) -> BTreeMap<String, Seen> {
        self.ended
            .iter()
            .map(|(name, ended)| {
                let begun = self.begun.get(name).copied().unwrap_or_default();
                (name.clone(), ended.since(&begun))
            })
            .collect()
    }
}

/// All that is kept, and what it says.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub machines: BTreeMap<String, Machine>,
    /// What the last shift saw; empty before the first one ended.
    pub shift: BTreeMap<String, Seen>,
    /// Lengths of all messages that were taken into account.
    pub bytes_in: u64,
    /// Lengths of all values that are kept in their place.
    pub bytes_kept: u64,
    /// Verdicts against findings, over the machines that were opened.
    pub confusion: Confusion,
    /// Alarms against incidents, for each machine that has a log book.
    pub incidents: BTreeMap<String, Incidents>,
}

impl Report {
    pub fn new(
        machines: BTreeMap<String, Machine>,
        shift: BTreeMap<String, Seen>,
        bytes_kept: u64,
    ) -> Self {
        Self {
            bytes_in: machines.values().map(|machine| machine.bytes_in).sum(),
            confusion: Confusion::of(machines.values()),
            incidents: machines
                .iter()
                .filter_map(|(name, machine)| Some((name.clone(), Incidents::of(machine)?)))
                .collect(),
            machines,
            shift,
            bytes_kept,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Temperature;

    fn machines(readings: u64) -> BTreeMap<String, Machine> {
        let machine = Machine {
            temperature: Some(Temperature {
                readings,
                ..Temperature::default()
            }),
            ..Machine::default()
        };
        BTreeMap::from([("press-7".to_owned(), machine)])
    }

    #[test]
    fn a_shift_is_what_came_since_the_tick_before() {
        let mut shifts = Shifts::default();
        shifts.end("06:00", &machines(100));
        assert_eq!(shifts.seen()["press-7"].readings, 100);
        shifts.end("14:00", &machines(130));
        shifts.end("14:00", &machines(130));
        assert_eq!(shifts.seen()["press-7"].readings, 30);
    }

    #[test]
    fn a_report_is_read_back_whole() {
        let report = Report::new(machines(5), BTreeMap::new(), 10);
        let json = serde_json::to_vec(&report).unwrap();
        assert_eq!(serde_json::from_slice::<Report>(&json).unwrap(), report);
    }
}
