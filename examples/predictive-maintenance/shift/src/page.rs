//! The report as a page: readable on a phone, by day and by night, with nothing from elsewhere.

use std::fmt::Write as _;

use analysis::verdict::{Part, Verdict};
use messages::Alarm;
use summary::machine::{Machine, Point, Temperature, Vibration};
use summary::report::Report;

use crate::chart::{self, Series};
use crate::text::{action, class};
use crate::{grouped, reduction};

/// The whole page.
pub fn render(report: &Report) -> String {
    let style = include_str!("style.css");
    let body = if report.machines.is_empty() {
        r#"<p class="empty">No machine has sent anything yet.</p>"#.to_owned()
    } else {
        [
            tiles(report),
            bearings(report),
            confusion(report),
            temperatures(report),
            alarms(report),
        ]
        .concat()
    };
    format!(
        r#"<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<meta name="color-scheme" content="light dark"><title>Shift report</title><style>{style}</style></head>
<body><main><header><h1>Shift report</h1><p>{} machines</p></header>{body}</main></body></html>
"#,
        report.machines.len()
    )
}

/// Names come from topics and are plain; whatever else is shown is a number or a word of ours. Times of a machine's
/// clock are not.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('"', "&quot;")
}

fn tiles(report: &Report) -> String {
    let all = |figure: fn(&Machine) -> u64| report.machines.values().map(figure).sum::<u64>();
    let (right, judged) = report.confusion.right_of();
    let hit = if judged > 0 {
        format!("{:.0} %", 100.0 * right as f64 / judged as f64)
    } else {
        "–".to_owned()
    };
    let tiles = [
        (
            "windows judged",
            grouped(all(Machine::windows)),
            "a third of a second of vibration each".to_owned(),
        ),
        (
            "verdicts right",
            hit,
            format!("{right} of {judged}, where the bearing was opened"),
        ),
        (
            "temperature readings",
            grouped(all(Machine::readings)),
            "one every five minutes".to_owned(),
        ),
        (
            "alarms",
            grouped(all(|machine| machine.alarms_total)),
            "told once, when they begin".to_owned(),
        ),
        (
            "kept of what came",
            format!("1 : {}", grouped(reduction(report))),
            format!(
                "{} bytes in, {} kept",
                grouped(report.bytes_in),
                grouped(report.bytes_kept)
            ),
        ),
    ];
    let tiles = tiles.map(|(name, value, note)| {
        format!(r#"<div class="tile"><span>{name}</span><b>{value}</b><small>{note}</small></div>"#)
    });
    format!(r#"<div class="tiles">{}</div>"#, tiles.concat())
}

fn bearings(report: &Report) -> String {
    let cards: String = report
        .machines
        .iter()
        .filter_map(|(name, machine)| Some(bearing(name, machine.vibration.as_ref()?)))
        .collect();
    if cards.is_empty() {
        return cards;
    }
    let key = [
        ("healthy", "healthy"),
        ("inner", "inner race"),
        ("outer", "outer race"),
        ("ball", "ball"),
    ]
    .map(|(color, name)| format!(r#"<i style="background:var(--{color})"></i>{name}"#));
    format!(
        r#"<h2>Bearings <span class="key">{}</span></h2><div class="grid">{cards}</div>"#,
        key.concat()
    )
}

fn bearing(name: &str, vibration: &Vibration) -> String {
    let badge = vibration.action.map_or("learn", action);
    let found = vibration
        .found
        .map_or(String::new(), |found| format!("; opened: {found}"));
    let rms = vibration
        .points
        .back()
        .map_or("–".to_owned(), |point| format!("{:.2}", point.rms));
    let classes: Vec<&str> = vibration
        .points
        .iter()
        .map(|point| point.verdict.map_or("none", class))
        .collect();
    let values = |figure: fn(&Point) -> f32| -> Vec<f64> {
        let points = vibration.points.iter();
        points.map(|point| f64::from(figure(point))).collect()
    };
    let line = |name, color, figure: fn(&Point) -> f32, limit| Series {
        name,
        color,
        values: values(figure),
        limit,
    };
    let limits = vibration.limits.as_ref();
    let limit = |part| limits.map(|limits| limits.line_db(part));
    let shape = chart::lines(
        "kurtosis and crest factor",
        &[
            line("kurtosis", "one", |point| point.kurtosis, None),
            line("crest factor", "none", |point| point.crest, None),
        ],
    );
    let impacts = chart::lines(
        "level above 2 kHz",
        &[line(
            "level",
            "one",
            |point| point.impact_db,
            limits.map(|limits| limits.impact_level_db),
        )],
    );
    let faults = chart::lines(
        "lines at the fault frequencies",
        &[
            line(
                "inner race",
                "inner",
                |point| point.lines_db[0],
                limit(Part::InnerRace),
            ),
            line(
                "outer race",
                "outer",
                |point| point.lines_db[1],
                limit(Part::OuterRace),
            ),
            line("ball", "ball", |point| point.lines_db[2], limit(Part::Ball)),
        ],
    );
    format!(
        r#"<section class="card"><h3>{} <span class="badge {badge}">{badge}</span><span class="key">RMS {rms} g; {} windows judged, {} taught{found}</span></h3>{}<h4>lines at the fault frequencies, dB over their surroundings; dashed: limits</h4>{faults}<h4>level above 2 kHz, dB</h4>{impacts}<h4>kurtosis, and (grey) crest factor</h4>{shape}</section>"#,
        escaped(name),
        vibration.windows,
        vibration.taught,
        chart::strip("verdict of each window", &classes),
    )
}

fn confusion(report: &Report) -> String {
    if report.confusion.0.is_empty() {
        return String::new();
    }
    let mut rows = String::new();
    for (found, counts) in &report.confusion.0 {
        // Writing to a string does not fail.
        write!(rows, "<tr><td>{found}</td>").ok();
        for (count, verdict) in counts.iter().zip(Verdict::ALL) {
            let class = match (*count, verdict == *found) {
                (0, _) => "",
                (_, true) => "hit",
                (_, false) => "miss",
            };
            let count = if *count == 0 {
                "·".to_owned()
            } else {
                count.to_string()
            };
            write!(rows, r#"<td class="{class}">{count}</td>"#).ok();
        }
        rows.push_str("</tr>");
    }
    let head = Verdict::ALL
        .map(|verdict| format!("<th>{verdict}</th>"))
        .concat();
    format!(
        r#"<h2>Verdicts against what inspections found</h2><section class="card scroll"><table><thead><tr><th>found ↓ judged →</th>{head}</tr></thead><tbody>{rows}</tbody></table></section>"#
    )
}

fn temperatures(report: &Report) -> String {
    let mut text = String::new();
    for (name, machine) in &report.machines {
        let Some(Temperature {
            readings,
            days,
            incidents,
            ..
        }) = &machine.temperature
        else {
            continue;
        };
        let times: Vec<String> = machine
            .alarms
            .iter()
            .filter_map(|alarm| match alarm {
                Alarm::Temperature { time, .. } => Some(escaped(time)),
                Alarm::Vibration(_) => None,
            })
            .collect();
        let alarms: Vec<&str> = times.iter().map(String::as_str).collect();
        let incidents: Vec<(String, String)> = incidents
            .iter()
            .map(|(from, to)| (escaped(from), escaped(to)))
            .collect();
        let score = report.incidents.get(name).map_or(String::new(), |score| {
            format!(
                "; {} of {} incidents (shaded) had an alarm, {} false alarms",
                score.found, score.incidents, score.false_alarms
            )
        });
        write!(
            text,
            r#"<section class="card"><h3>{} <span class="key">{} readings{score}</span></h3><h4>each day's range and mean; dots: alarms</h4>{}</section>"#,
            escaped(name),
            grouped(*readings),
            chart::temperature("temperature of each day", days, &incidents, &alarms)
        )
        .ok();
    }
    if text.is_empty() {
        return text;
    }
    format!("<h2>Temperature</h2>{text}")
}

fn alarms(report: &Report) -> String {
    let mut rows = String::new();
    for (name, machine) in &report.machines {
        for alarm in &machine.alarms {
            let (when, what) = match alarm {
                Alarm::Vibration(command) => (
                    format!("sample {}", grouped(command.position)),
                    format!(
                        "{}: {}",
                        action(command.action),
                        command
                            .verdict
                            .map_or("–".to_owned(), |verdict| verdict.to_string())
                    ),
                ),
                Alarm::Temperature { time, alarm } => (
                    escaped(time),
                    format!(
                        "lately {:.1}, usually {:.1}: {:.1} spreads off",
                        alarm.recent, alarm.usual, alarm.spreads
                    ),
                ),
            };
            write!(
                rows,
                "<tr><td>{}</td><td>{when}</td><td>{what}</td></tr>",
                escaped(name)
            )
            .ok();
        }
    }
    if rows.is_empty() {
        return rows;
    }
    format!(
        r#"<h2>Alarms</h2><section class="card scroll"><table><thead><tr><th>machine</th><th>when</th><th>what</th></tr></thead><tbody>{rows}</tbody></table></section>"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn the_page_shows_machines_verdicts_and_alarms() {
        let page = render(&sample::report());
        for shown in [
            r#"<span class="badge stop">stop</span>"#,
            r#"<td class="hit">2</td>"#,
            "incident from 2014-01-02 00:00:00",
            "alarm 2014-01-02 10:00:00",
            "1 : 200",
        ] {
            assert!(page.contains(shown), "{shown}");
        }
        assert!(!page.contains("NaN") && !page.contains("src="));
    }

    #[test]
    fn a_day_without_machines_says_so_and_text_of_machines_is_escaped() {
        assert!(render(&Report::default()).contains("No machine has sent anything yet."));
        assert_eq!(escaped("<b a=\"&\">"), "&lt;b a=&quot;&amp;&quot;>");
    }
}
