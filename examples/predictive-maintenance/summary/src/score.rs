//! How good the analysis was, once people have looked: verdicts against findings, alarms against incidents.

use std::collections::BTreeMap;

use analysis::verdict::Verdict;
use messages::Alarm;
use serde::{Deserialize, Serialize};

use crate::machine::Machine;

/// What each found state was taken for: counts in the order of [`Verdict::ALL`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confusion(pub BTreeMap<Verdict, [u64; 4]>);

impl Confusion {
    /// Over the machines whose bearing was opened.
    pub fn of<'a>(machines: impl Iterator<Item = &'a Machine>) -> Self {
        let mut rows: BTreeMap<Verdict, [u64; 4]> = BTreeMap::new();
        for vibration in machines.filter_map(|machine| machine.vibration.as_ref()) {
            if let Some(found) = vibration.found {
                let row = rows.entry(found).or_default();
                for (sum, count) in row.iter_mut().zip(vibration.verdicts) {
                    *sum += count;
                }
            }
        }
        Self(rows)
    }

    /// Windows judged rightly, and windows judged.
    pub fn right_of(&self) -> (u64, u64) {
        self.0.iter().fold((0, 0), |(right, all), (found, row)| {
            let counts = row.iter().zip(Verdict::ALL);
            let hit: u64 = counts
                .filter(|(_, verdict)| verdict == found)
                .map(|(count, _)| count)
                .sum();
            (right + hit, all + row.iter().sum::<u64>())
        })
    }
}

/// Temperature alarms against the incidents of the log book.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incidents {
    pub incidents: usize,
    /// Incidents with an alarm in them.
    pub found: usize,
    /// Alarms outside of every incident.
    pub false_alarms: usize,
}

impl Incidents {
    /// Over the alarms that are still kept; `None` before somebody wrote incidents down.
    pub fn of(machine: &Machine) -> Option<Self> {
        let incidents = &machine.temperature.as_ref()?.incidents;
        if incidents.is_empty() {
            return None;
        }
        let times: Vec<&str> = machine
            .alarms
            .iter()
            .filter_map(|alarm| match alarm {
                Alarm::Temperature { time, .. } => Some(time.as_str()),
                Alarm::Vibration(_) => None,
            })
            .collect();
        // Times of one clock order as text does.
        let within = |time: &str, (from, to): &(String, String)| {
            from.as_str() <= time && time <= to.as_str()
        };
        let found = incidents
            .iter()
            .filter(|incident| times.iter().any(|time| within(time, incident)));
        let outside = times
            .iter()
            .filter(|time| !incidents.iter().any(|incident| within(time, incident)));
        Some(Self {
            incidents: incidents.len(),
            found: found.count(),
            false_alarms: outside.count(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{Temperature, Vibration};
    use analysis::temperature::{Alarm as Left, Side};

    #[test]
    fn only_opened_bearings_count() {
        let machine = |found, verdicts| Machine {
            vibration: Some(Vibration {
                found,
                verdicts,
                ..Vibration::default()
            }),
            ..Machine::default()
        };
        let machines = [
            machine(Some(Verdict::Healthy), [9, 0, 0, 1]),
            machine(Some(Verdict::Ball), [1, 0, 0, 4]),
            machine(None, [7, 7, 7, 7]),
        ];
        let confusion = Confusion::of(machines.iter());
        assert_eq!(confusion.right_of(), (13, 15));
        assert_eq!(confusion.0[&Verdict::Ball], [1, 0, 0, 4]);
    }

    #[test]
    fn alarms_outside_of_every_incident_are_false() {
        let alarm = |time: &str| Alarm::Temperature {
            time: time.into(),
            alarm: Left {
                side: Side::Below,
                recent: 1.0,
                usual: 2.0,
                spreads: 3.0,
            },
        };
        let mut machine = Machine {
            alarms: ["05", "25", "26"].map(alarm).into(),
            temperature: Some(Temperature::default()),
            ..Machine::default()
        };
        assert_eq!(Incidents::of(&machine), None);
        let incident = |from: &str, to: &str| (from.to_owned(), to.to_owned());
        machine.temperature.as_mut().unwrap().incidents =
            vec![incident("10", "20"), incident("24", "30")];
        let expected = Incidents {
            incidents: 2,
            found: 1,
            false_alarms: 1,
        };
        assert_eq!(Incidents::of(&machine), Some(expected));
    }
}
