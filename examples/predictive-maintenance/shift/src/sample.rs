//! A small report for the tests: a bearing with a damaged ball, and a thermometer with an alarm.

use std::collections::BTreeMap;

use analysis::temperature::{Alarm as Left, Side};
use analysis::verdict::Verdict;
use messages::{Action, Alarm, Command, Day};
use summary::machine::{Machine, Point, Temperature, Vibration};
use summary::report::{Report, Seen};

pub fn report() -> Report {
    let machines = BTreeMap::from([
        ("motor-ball".to_owned(), motor()),
        ("press".to_owned(), press()),
    ]);
    let shift = machines
        .iter()
        .map(|(name, machine)| (name.clone(), Seen::of(machine)))
        .collect();
    Report::new(machines, shift, 10_000)
}

fn motor() -> Machine {
    let point = |position| Point {
        position,
        rms: 0.1,
        crest: 4.0,
        kurtosis: 3.0,
        impact_db: -20.0,
        lines_db: [3.0, 4.0, 5.0],
        verdict: Some(Verdict::Ball),
    };
    let stop = Command {
        position: 4_096,
        action: Action::Stop,
        verdict: Some(Verdict::Ball),
    };
    Machine {
        bytes_in: 1_500_000,
        alarms_total: 1,
        alarms: [Alarm::Vibration(stop)].into(),
        vibration: Some(Vibration {
            windows: 2,
            verdicts: [0, 0, 0, 2],
            action: Some(Action::Stop),
            points: [0, 4_096].map(point).into(),
            found: Some(Verdict::Ball),
            ..Vibration::default()
        }),
        temperature: None,
    }
}

fn press() -> Machine {
    let day = |date: &str| (date.to_owned(), Day::of(80.0));
    let alarm = Alarm::Temperature {
        time: "2014-01-02 10:00:00".into(),
        alarm: Left {
            side: Side::Below,
            recent: 70.0,
            usual: 85.0,
            spreads: 3.1,
        },
    };
    let incident = ("2014-01-02 00:00:00".into(), "2014-01-03 00:00:00".into());
    Machine {
        bytes_in: 500_000,
        alarms_total: 1,
        alarms: [alarm].into(),
        vibration: None,
        temperature: Some(Temperature {
            readings: 600,
            next: 600,
            days: [day("2014-01-01"), day("2014-01-02")].into(),
            incidents: vec![incident],
        }),
    }
}
