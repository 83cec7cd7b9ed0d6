//! What came of it: everything acknowledged, everything processed once, verdicts and alarms as good as the reference's.

use std::collections::BTreeMap;

use analysis::temperature::Side;
use anyhow::Result;
use messages::Alarm;
use summary::machine::{Machine, Point};
use summary::report::Report;

use crate::machines::Sent;
use crate::reference::{Judged, Reference};

/// How far a figure may be from the reference's, as a part of it: what is kept is rounded.
const TOLERANCE: f64 = 2e-3;

/// What one machine sent, over all its phases.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    pub taught: u64,
    pub windows: u64,
    pub readings: u64,
}

fn sent_by_machine(sent: &[Sent]) -> BTreeMap<&str, Counts> {
    let mut all: BTreeMap<&str, Counts> = BTreeMap::new();
    for one in sent {
        let counts = all.entry(&one.machine).or_default();
        counts.taught += one.taught;
        counts.windows += one.windows;
        counts.readings += one.readings;
    }
    all
}

/// What was counted of one machine.
pub fn counted(machine: &Machine) -> Counts {
    Counts {
        taught: machine.vibration.as_ref().map_or(0, |it| it.taught.into()),
        windows: machine.windows(),
        readings: machine.readings(),
    }
}

/// Whether the report holds everything that was sent and every inspection.
pub fn is_whole(report: &Report, sent: &[Sent], inspected: &[String]) -> bool {
    let count = |name: &str| report.machines.get(name).map(counted).unwrap_or_default();
    let looked_at = |name: &String| {
        let found = |machine: &Machine| {
            machine
                .vibration
                .as_ref()
                .is_some_and(|it| it.found.is_some())
        };
        report.incidents.contains_key(name) || report.machines.get(name).is_some_and(found)
    };
    sent_by_machine(sent)
        .iter()
        .all(|(name, sent)| count(name) == *sent)
        && inspected.iter().all(looked_at)
}

/// Alarms that were counted.
pub fn alarms(report: &Report) -> u64 {
    let machines = report.machines.values();
    machines.map(|machine| machine.alarms_total).sum()
}

/// Everything that is not as it must be, one line each.
pub fn differences(report: &Report, sent: &[Sent], alarms: u64) -> Result<Vec<String>> {
    let reference = Reference::read(&crate::reference_folder()?)?;
    let mut wrong = Vec::new();
    for one in sent {
        let published = one.messages + one.repeated;
        if one.acknowledged != published {
            wrong.push(format!(
                "{}: {published} messages published, {} acknowledged",
                one.machine, one.acknowledged
            ));
        }
    }
    for (name, sent) in sent_by_machine(sent) {
        let counted = report.machines.get(name).map(counted).unwrap_or_default();
        if counted != sent {
            wrong.push(format!(
                "{name} sent {sent:?}, and {counted:?} were counted"
            ));
        }
    }
    let told = self::alarms(report);
    if told != alarms {
        wrong.push(format!(
            "{told} alarms were counted, and {alarms} heard on alarms/#"
        ));
    }
    if sent.iter().any(|one| one.windows > 0) {
        wrong.extend(vibration(report, &reference));
    }
    wrong.extend(temperature(report, &reference));
    Ok(wrong)
}

/// At least as many windows right as in the reference, and the same figures of each.
fn vibration(report: &Report, reference: &Reference) -> Vec<String> {
    let mut wrong = Vec::new();
    let (right, all) = report.confusion.right_of();
    if right < reference.right() || all != reference.windows.len() as u64 {
        wrong.push(format!(
            "{right} of {all} windows are right, and {} of {} in the reference",
            reference.right(),
            reference.windows.len()
        ));
    }
    for ((name, position), judged) in &reference.windows {
        let vibration = report
            .machines
            .get(name)
            .and_then(|machine| machine.vibration.as_ref());
        let mut points = vibration.iter().flat_map(|vibration| &vibration.points);
        match points.find(|point| point.position == *position) {
            None => wrong.push(format!("{name}: the window at {position} was not judged")),
            Some(point) => {
                if let Some(figure) = differing(point, judged) {
                    wrong.push(format!(
                        "{name}: {figure} of the window at {position} is not the reference's"
                    ));
                }
            }
        }
    }
    wrong
}

fn differing(point: &Point, judged: &Judged) -> Option<&'static str> {
    [
        ("the RMS", point.rms, judged.rms),
        ("the crest factor", point.crest, judged.crest),
        ("the kurtosis", point.kurtosis, judged.kurtosis),
    ]
    .into_iter()
    .find(|(_, ours, theirs)| (f64::from(*ours) - theirs).abs() > TOLERANCE * theirs.abs())
    .map(|(name, ..)| name)
}

/// The same alarms as in the reference.
fn temperature(report: &Report, reference: &Reference) -> Vec<String> {
    let raised: Vec<(String, String)> = report
        .machines
        .values()
        .flat_map(|machine| &machine.alarms)
        .filter_map(|alarm| match alarm {
            Alarm::Temperature { time, alarm } => Some((time.clone(), side(alarm.side).to_owned())),
            Alarm::Vibration(_) => None,
        })
        .collect();
    if raised == reference.alarms {
        return Vec::new();
    }
    vec![format!(
        "the temperature's alarms are {raised:?}, and {:?} in the reference",
        reference.alarms
    )]
}

fn side(side: Side) -> &'static str {
    match side {
        Side::Below => "below",
        Side::Above => "above",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_told() {
        let sent = [Sent {
            machine: "press-7".into(),
            messages: 2,
            acknowledged: 1,
            readings: 24,
            ..Sent::default()
        }];
        let wrong = differences(&Report::default(), &sent, 0).unwrap();
        assert_eq!(wrong.len(), 3, "{wrong:?}");
        assert!(!is_whole(&Report::default(), &sent, &[]));
    }
}
