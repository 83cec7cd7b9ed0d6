//! What is kept of one machine: bounded figures in place of everything that it measured.

use std::collections::{BTreeMap, VecDeque};

use analysis::baseline::Limits;
use analysis::report::Report;
use analysis::verdict::{Part, Verdict};
use messages::{Action, Alarm, Day, Inspection, Observed, Trend};
use serde::{Deserialize, Serialize};

/// Windows whose figures are kept; older ones are only counted.
const POINTS_MAX: usize = 240;
/// Days whose temperatures are kept.
const DAYS_MAX: usize = 400;
/// Alarms that are kept word by word.
const ALARMS_MAX: usize = 50;

/// The figures of one window that a chart is drawn from.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Point {
    pub position: u64,
    pub rms: f32,
    pub crest: f32,
    pub kurtosis: f32,
    pub impact_db: f32,
    /// Prominence of the lines of [`Part::ALL`], in decibels.
    pub lines_db: [f32; 3],
    pub verdict: Option<Verdict>,
}

impl Point {
    fn of(report: &Report) -> Self {
        let features = &report.features;
        Self {
            position: report.position,
            rms: short(features.waveform.rms),
            crest: short(features.waveform.crest),
            kurtosis: short(features.waveform.kurtosis),
            impact_db: short(features.impact_level_db),
            lines_db: Part::ALL.map(|part| short(features.line(part).prominence_db)),
            verdict: report.diagnosis.map(|diagnosis| diagnosis.verdict),
        }
    }
}

/// Four decimals are more than a chart shows.
fn short(value: f64) -> f32 {
    ((value * 1e4).round() / 1e4) as f32
}

/// What vibration came to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Vibration {
    /// Windows that taught.
    pub taught: u32,
    /// Windows that were to be judged.
    pub windows: u64,
    /// How many got each of [`Verdict::ALL`].
    pub verdicts: [u64; 4],
    /// What the machine was last told.
    pub action: Option<Action>,
    pub limits: Option<Limits>,
    pub points: VecDeque<Point>,
    /// What people found when they opened the bearing.
    pub found: Option<Verdict>,
}

/// What temperature came to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Temperature {
    /// Readings taken.
    pub readings: u64,
    /// The number of the reading that comes next.
    pub next: u64,
    pub days: BTreeMap<String, Day>,
    /// From and to when people say that something was wrong.
    pub incidents: Vec<(String, String)>,
}

/// What is kept of one machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Lengths of the messages that it stands for.
    pub bytes_in: u64,
    pub alarms_total: u64,
    pub alarms: VecDeque<Alarm>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vibration: Option<Vibration>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<Temperature>,
}

impl Machine {
    /// Takes what one message came to. One that came before changes nothing: windows, taught windows and readings are
    /// numbered, and come in order.
    pub fn take(&mut self, trend: Trend) {
        let new = match trend.observed {
            Observed::Commissioning { windows } => self.teach(windows),
            Observed::Vibration {
                report,
                action,
                limits,
            } => self.judge(&report, action, limits),
            Observed::Temperature { first, end, days } => self.warm(first, end, days),
        };
        if !new {
            return;
        }
        self.bytes_in = self.bytes_in.saturating_add(trend.bytes);
        for alarm in trend.alarms {
            self.alarms_total = self.alarms_total.saturating_add(1);
            self.alarms.push_back(alarm);
        }
        while self.alarms.len() > ALARMS_MAX {
            self.alarms.pop_front();
        }
    }

    /// Takes note of what people found.
    pub fn inspect(&mut self, inspection: Inspection) {
        if inspection.found.is_some() {
            self.vibration.get_or_insert_default().found = inspection.found;
        }
        if !inspection.incidents.is_empty() {
            self.temperature.get_or_insert_default().incidents = inspection.incidents;
        }
    }

    /// Windows that were to be judged.
    pub fn windows(&self) -> u64 {
        self.vibration.as_ref().map_or(0, |it| it.windows)
    }

    /// Temperature readings.
    pub fn readings(&self) -> u64 {
        self.temperature.as_ref().map_or(0, |it| it.readings)
    }

    fn teach(&mut self, windows: u32) -> bool {
        let vibration = self.vibration.get_or_insert_default();
        let new = windows > vibration.taught;
        vibration.taught = vibration.taught.max(windows);
        new
    }

    fn judge(&mut self, report: &Report, action: Action, limits: Option<Limits>) -> bool {
        let vibration = self.vibration.get_or_insert_default();
        let last = vibration.points.back().map(|point| point.position);
        if last.is_some_and(|last| report.position <= last) {
            return false;
        }
        vibration.windows = vibration.windows.saturating_add(1);
        vibration.action = Some(action);
        vibration.limits = limits;
        if let Some(diagnosis) = report.diagnosis {
            let all = vibration.verdicts.iter_mut().zip(Verdict::ALL);
            for (count, _) in all.filter(|(_, verdict)| *verdict == diagnosis.verdict) {
                *count = count.saturating_add(1);
            }
        }
        vibration.points.push_back(Point::of(report));
        if vibration.points.len() > POINTS_MAX {
            vibration.points.pop_front();
        }
        true
    }

    fn warm(&mut self, first: u64, end: u64, days: Vec<(String, Day)>) -> bool {
        let temperature = self.temperature.get_or_insert_default();
        if first < temperature.next || end <= first {
            return false;
        }
        temperature.next = end;
        temperature.readings = temperature.readings.saturating_add(end - first);
        for (date, day) in days {
            let kept = temperature.days.entry(date);
            kept.and_modify(|kept| kept.add(&day)).or_insert(day);
        }
        while temperature.days.len() > DAYS_MAX {
            temperature.days.pop_first();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warm(first: u64, end: u64, alarms: Vec<Alarm>) -> Trend {
        Trend {
            machine: "press-7".into(),
            bytes: 100,
            alarms,
            observed: Observed::Temperature {
                first,
                end,
                days: vec![("2014-01-01".into(), Day::of(80.0))],
            },
        }
    }

    fn alarm() -> Alarm {
        Alarm::Vibration(messages::Command {
            position: 0,
            action: Action::Stop,
            verdict: Some(Verdict::Ball),
        })
    }

    #[test]
    fn what_comes_twice_counts_once() {
        let mut machine = Machine::default();
        for _ in 0..2 {
            machine.take(warm(0, 12, vec![alarm()]));
        }
        machine.take(warm(12, 24, vec![]));
        assert_eq!((machine.readings(), machine.bytes_in), (24, 200));
        assert_eq!(machine.alarms_total, 1);
        let temperature = machine.temperature.unwrap();
        assert_eq!(temperature.days["2014-01-01"].readings, 2);
    }

    #[test]
    fn a_machine_that_taught_twice_taught_once() {
        let mut machine = Machine::default();
        for windows in [1, 1, 2, 1] {
            let observed = Observed::Commissioning { windows };
            machine.take(Trend {
                observed,
                ..warm(0, 0, vec![])
            });
        }
        assert_eq!(machine.bytes_in, 200);
        assert_eq!(machine.vibration.unwrap().taught, 2);
    }

    #[test]
    fn what_is_kept_has_bounds() {
        let mut machine = Machine::default();
        for first in 0..500 {
            let mut trend = warm(first, first + 1, vec![alarm()]);
            let date = format!("day-{first:04}");
            if let Observed::Temperature { days, .. } = &mut trend.observed {
                days[0].0 = date;
            }
            machine.take(trend);
        }
        assert_eq!((machine.alarms.len(), machine.alarms_total), (50, 500));
        let days = &machine.temperature.as_ref().unwrap().days;
        assert_eq!((days.len(), days.contains_key("day-0499")), (400, true));
    }

    #[test]
    fn what_people_found_is_kept_beside_what_was_judged() {
        let mut machine = Machine::default();
        machine.inspect(Inspection {
            found: Some(Verdict::OuterRace),
            incidents: vec![],
        });
        assert_eq!(
            machine.vibration.as_ref().unwrap().found,
            Some(Verdict::OuterRace)
        );
        assert_eq!(machine.temperature, None);
    }
}
