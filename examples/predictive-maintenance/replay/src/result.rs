//! The result for people: a few lines, the last of which is the verdict.

use std::fmt::Write as _;
use std::time::Duration;

use analysis::verdict::Verdict;
use summary::report::Report;

use crate::machines::Sent;
use crate::outcome::{Counts, counted};

type Line = (&'static str, String);

/// All lines; `differences` is what is wrong, and `alarms` how many were heard.
pub fn render(report: &Report, sent: &[Sent], alarms: u64, differences: &[String]) -> String {
    let mut lines = delivery(report, sent);
    lines.extend(bearings(report));
    lines.extend(temperatures(report));
    lines.push(("alarms", format!("{alarms} heard on alarms/#")));
    let bytes = format!(
        "{} in, {} kept (1 : {})",
        report.bytes_in,
        report.bytes_kept,
        report.bytes_in / report.bytes_kept.max(1)
    );
    lines.push(("bytes", bytes));
    lines.push(("verdict", verdict(differences)));
    let mut text = String::new();
    for (name, value) in lines {
        // Writing to a string does not fail.
        writeln!(text, "{name:<12} {value}").ok();
    }
    text
}

/// What became of the messages.
fn delivery(report: &Report, sent: &[Sent]) -> Vec<Line> {
    let sum = |figure: fn(&Sent) -> u64| sent.iter().map(figure).sum::<u64>();
    let published = format!(
        "{} messages by MQTT with QoS 1, {} of them twice on purpose; {} acknowledged",
        sum(|one| one.messages),
        sum(|one| one.repeated),
        sum(|one| one.acknowledged)
    );
    let total = |figure: fn(Counts) -> u64| {
        let machines = report.machines.values();
        machines.map(counted).map(figure).sum::<u64>()
    };
    let counts = [
        (
            "windows judged",
            total(|it| it.windows),
            sum(|one| one.windows),
        ),
        (
            "windows that teach",
            total(|it| it.taught),
            sum(|one| one.taught),
        ),
        ("readings", total(|it| it.readings), sum(|one| one.readings)),
    ];
    let counts: Vec<String> = counts
        .into_iter()
        .filter(|(_, _, sent)| *sent > 0)
        .map(|(name, taken, sent)| format!("{taken} of {sent} {name}"))
        .collect();
    let mut lines = vec![("published", published), ("processed", counts.join(", "))];
    let mut latencies: Vec<Duration> = sent.iter().flat_map(|one| one.latencies.clone()).collect();
    latencies.sort_unstable();
    if !latencies.is_empty() {
        let answered = format!(
            "window published → command received: p50 {:.1} ms, p99 {:.1} ms ({} windows)",
            ranked_ms(&latencies, 0.5),
            ranked_ms(&latencies, 0.99),
            latencies.len()
        );
        lines.push(("answered", answered));
    }
    lines
}

fn bearings(report: &Report) -> Option<Line> {
    let row = |(found, counts): (&Verdict, &[u64; 4])| {
        let named = counts
            .iter()
            .zip(Verdict::ALL)
            .filter(|(count, _)| **count > 0);
        let named: Vec<String> = named
            .map(|(count, verdict)| format!("{count} × {verdict}"))
            .collect();
        format!("{found}: {}", named.join(", "))
    };
    let rows: Vec<String> = report.confusion.0.iter().map(row).collect();
    let (right, all) = report.confusion.right_of();
    let line = format!("{right} of {all} windows right ({})", rows.join("; "));
    (!rows.is_empty()).then_some(("bearings", line))
}

fn temperatures(report: &Report) -> impl Iterator<Item = Line> {
    report.incidents.iter().map(|(name, score)| {
        let line = format!(
            "{name}: {} of {} incidents had an alarm, {} false alarms",
            score.found, score.incidents, score.false_alarms
        );
        ("temperature", line)
    })
}

/// The latency that this share of the sorted ones does not exceed, in milliseconds.
fn ranked_ms(sorted: &[Duration], share: f64) -> f64 {
    let place = (sorted.len() as f64 * share).ceil() as usize;
    sorted
        .get(place.saturating_sub(1))
        .map_or(0.0, |latency| 1e3 * latency.as_secs_f64())
}

fn verdict(differences: &[String]) -> String {
    if differences.is_empty() {
        return "everything was processed once, and agrees with the reference".to_owned();
    }
    format!(
        "{} things are wrong:\n             {}",
        differences.len(),
        differences.join("\n             ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_ranked() {
        let sorted: Vec<Duration> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(
            (ranked_ms(&sorted, 0.5), ranked_ms(&sorted, 0.99)),
            (50.0, 99.0)
        );
        assert_eq!(ranked_ms(&[], 0.5), 0.0);
    }

    #[test]
    fn what_is_wrong_is_told_last() {
        let wrong = ["press-7: 2 messages published, 1 acknowledged".to_owned()];
        let text = render(&Report::default(), &[], 0, &wrong);
        assert!(
            text.ends_with(
                "1 things are wrong:\n             press-7: 2 messages published, 1 acknowledged\n"
            ),
            "{text}"
        );
    }
}
