//! The report as a schedule prints it: plain text, aligned.

use std::fmt::Write as _;

use analysis::verdict::Verdict;
use messages::Alarm;
use summary::machine::{Machine, Temperature, Vibration};
use summary::report::Report;

use crate::{grouped, reduction};

/// Alarms of one machine that are printed; the page has more.
const ALARMS: usize = 10;

/// The whole report; ends with a line end.
pub fn render(report: &Report) -> String {
    let mut out = String::from("Shift report\n");
    line(
        &mut out,
        &format!(
            "  {} machines, {} bytes in, {} kept (1 : {})",
            report.machines.len(),
            grouped(report.bytes_in),
            grouped(report.bytes_kept),
            grouped(reduction(report))
        ),
    );
    bearings(&mut out, report);
    confusion(&mut out, report);
    temperatures(&mut out, report);
    out
}

fn line(out: &mut String, text: &str) {
    out.push_str(text.trim_end());
    out.push('\n');
}

fn bearings(out: &mut String, report: &Report) {
    let bearings: Vec<(&String, &Machine, &Vibration)> = report
        .machines
        .iter()
        .filter_map(|(name, machine)| Some((name, machine, machine.vibration.as_ref()?)))
        .collect();
    if bearings.is_empty() {
        return;
    }
    line(
        out,
        "\nBearings             windows  this shift  healthy  inner race  outer race  ball   RMS, g  kurtosis  alarms  told",
    );
    for (name, machine, vibration) in bearings {
        let [healthy, inner, outer, ball] = vibration.verdicts;
        let last = vibration.points.back();
        let figure = |value: Option<f32>| value.map_or("–".into(), |value| format!("{value:.2}"));
        let told = vibration.action.map_or("–", action);
        line(
            out,
            &format!(
                "  {name:<18} {:>7}  {:>10}  {healthy:>7}  {inner:>10}  {outer:>10}  {ball:>4}  {:>7}  {:>8}  {:>6}  {told}",
                vibration.windows,
                report.shift.get(name).map_or(0, |seen| seen.windows),
                figure(last.map(|point| point.rms)),
                figure(last.map(|point| point.kurtosis)),
                machine.alarms_total,
            ),
        );
    }
}

fn confusion(out: &mut String, report: &Report) {
    if report.confusion.0.is_empty() {
        return;
    }
    line(out, "\nVerdicts against what inspections found");
    line(
        out,
        "  found ↓  judged →  healthy  inner race  outer race  ball",
    );
    for (found, [healthy, inner, outer, ball]) in &report.confusion.0 {
        line(
            out,
            &format!("  {found:<18} {healthy:>7}  {inner:>10}  {outer:>10}  {ball:>4}"),
        );
    }
    let (right, all) = report.confusion.right_of();
    line(out, &format!("  {right} of {all} windows right"));
}

fn temperatures(out: &mut String, report: &Report) {
    for (name, machine) in &report.machines {
        let Some(Temperature { readings, days, .. }) = &machine.temperature else {
            continue;
        };
        let (from, to) = (days.keys().next(), days.keys().next_back());
        line(
            out,
            &format!(
                "\nTemperature of {name}\n  {} readings from {} to {}, {} in this shift",
                grouped(*readings),
                from.map_or("–", String::as_str),
                to.map_or("–", String::as_str),
                grouped(report.shift.get(name).map_or(0, |seen| seen.readings)),
            ),
        );
        let skipped = machine.alarms.len().saturating_sub(ALARMS);
        for alarm in machine.alarms.iter().skip(skipped) {
            if let Alarm::Temperature { time, alarm } = alarm {
                // Writing to a string does not fail.
                writeln!(
                    out,
                    "  alarm {time}  {:.1} spreads off: lately {:.1}, usually {:.1}",
                    alarm.spreads, alarm.recent, alarm.usual
                )
                .ok();
            }
        }
        if let Some(score) = report.incidents.get(name) {
            line(
                out,
                &format!(
                    "  {} of {} incidents of the log book had an alarm, {} false alarms",
                    score.found, score.incidents, score.false_alarms
                ),
            );
        }
    }
}

/// What a machine was told, in words.
pub fn action(action: messages::Action) -> &'static str {
    match action {
        messages::Action::Learn => "learn",
        messages::Action::Run => "run",
        messages::Action::Watch => "watch",
        messages::Action::Stop => "stop",
    }
}

/// A verdict as a style's name.
pub fn class(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Healthy => "healthy",
        Verdict::InnerRace => "inner",
        Verdict::OuterRace => "outer",
        Verdict::Ball => "ball",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn the_report_tells_machines_findings_and_alarms() {
        let text = render(&sample::report());
        for told in [
            "2 machines, 2,000,000 bytes in, 10,000 kept (1 : 200)",
            "  motor-ball               2           2        0           0           0     2     0.10      3.00       1  stop",
            "  ball                     0           0           0     2",
            "  2 of 2 windows right",
            "  600 readings from 2014-01-01 to 2014-01-02",
            "  alarm 2014-01-02 10:00:00  3.1 spreads off: lately 70.0, usually 85.0",
            "  1 of 1 incidents of the log book had an alarm, 0 false alarms",
        ] {
            assert!(text.contains(told), "{told}\n{text}");
        }
    }

    #[test]
    fn a_report_of_nothing_is_short() {
        assert_eq!(
            render(&Report::default()),
            "Shift report\n  0 machines, 0 bytes in, 0 kept (1 : 0)\n"
        );
    }
}
