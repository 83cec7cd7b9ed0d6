//! Small charts as SVG: lines with a limit, a strip of verdicts, days of temperature.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use messages::Day;

const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 120.0;
/// Room for the numbers at the left.
const LEFT: f64 = 38.0;

/// One line of a chart; its limit, if it has one, is dashed in the same colour.
pub struct Series<'a> {
    pub name: &'a str,
    pub color: &'a str,
    pub values: Vec<f64>,
    pub limit: Option<f64>,
}

/// From values to places.
struct Scale {
    lowest: f64,
    highest: f64,
    height: f64,
}

impl Scale {
    /// Over all values, with some air.
    fn over(values: impl Iterator<Item = f64>, height: f64) -> Self {
        let (lowest, highest) = values.fold((f64::MAX, f64::MIN), |(lowest, highest), value| {
            (lowest.min(value), highest.max(value))
        });
        let air = 0.06 * (highest - lowest).max(1e-3);
        Self {
            lowest: lowest - air,
            highest: highest + air,
            height,
        }
    }

    fn y(&self, value: f64) -> f64 {
        self.height * (self.highest - value) / (self.highest - self.lowest).max(1e-9)
    }

    /// Lines at three round values, with their numbers.
    fn grid(&self, width: f64) -> String {
        let mut text = String::new();
        for part in [0.15, 0.5, 0.85] {
            let value = self.lowest + part * (self.highest - self.lowest);
            let y = self.y(value);
            let digits = usize::from(self.highest - self.lowest < 5.0) * 2;
            // Writing to a string does not fail, here and below.
            write!(
                text,
                r#"<line class="grid" x1="{LEFT}" x2="{width}" y1="{y:.1}" y2="{y:.1}"/><text class="tick" x="{:.1}" y="{:.1}" text-anchor="end">{value:.digits$}</text>"#,
                LEFT - 6.0,
                y + 4.0
            )
            .ok();
        }
        text
    }
}

/// Lines over a common axis, oldest at the left.
pub fn lines(title: &str, all: &[Series<'_>]) -> String {
    let values = all.iter().flat_map(|series| series.values.iter().copied());
    let limits = all.iter().filter_map(|series| series.limit);
    let scale = Scale::over(values.chain(limits), HEIGHT);
    let mut text = open(title, WIDTH, HEIGHT);
    text.push_str(&scale.grid(WIDTH));
    for series in all {
        let steps = series.values.len().saturating_sub(1).max(1) as f64;
        let points: Vec<String> = series
            .values
            .iter()
            .enumerate()
            .map(|(index, value)| {
                let x = LEFT + (WIDTH - LEFT) * index as f64 / steps;
                format!("{x:.1},{:.1}", scale.y(*value))
            })
            .collect();
        let (color, name) = (series.color, series.name);
        if let Some(y) = series.limit.map(|limit| scale.y(limit)) {
            write!(
                text,
                r#"<line x1="{LEFT}" x2="{WIDTH}" y1="{y:.1}" y2="{y:.1}" stroke="var(--{color})" stroke-dasharray="4 4" opacity=".7"/>"#
            )
            .ok();
        }
        write!(
            text,
            r#"<polyline points="{}" fill="none" stroke="var(--{color})" stroke-width="2" stroke-linejoin="round"><title>{name}</title></polyline>"#,
            points.join(" ")
        )
        .ok();
    }
    text + "</svg>"
}

/// One cell for each window, in the colour of its class.
pub fn strip(title: &str, classes: &[&str]) -> String {
    let mut text = open(title, WIDTH, 18.0);
    let width = WIDTH / classes.len().max(1) as f64;
    for (index, class) in classes.iter().enumerate() {
        write!(
            text,
            r#"<rect x="{:.1}" y="0" width="{:.1}" height="18" rx="2" fill="var(--{class})"><title>{class}</title></rect>"#,
            index as f64 * width,
            (width - 1.5).max(1.0)
        )
        .ok();
    }
    text + "</svg>"
}

/// Each day's range and mean; incidents shaded, alarms marked. Times begin with their date.
pub fn temperature(
    title: &str,
    days: &BTreeMap<String, Day>,
    incidents: &[(String, String)],
    alarms: &[&str],
) -> String {
    const WIDE: f64 = 1_060.0;
    const HIGH: f64 = 200.0;
    let scale = Scale::over(
        days.values().flat_map(|day| [day.lowest, day.highest]),
        HIGH,
    );
    let step = (WIDE - LEFT) / days.len().max(1) as f64;
    // The place of a date: how many days come before it.
    let x = |time: &str| {
        let date = time.get(..10).unwrap_or(time);
        LEFT + step * days.keys().take_while(|day| day.as_str() < date).count() as f64
    };
    let mut text = open(title, WIDE, HIGH + 22.0);
    for (from, to) in incidents {
        write!(
            text,
            r#"<rect x="{:.1}" y="0" width="{:.1}" height="{HIGH}" class="incident"><title>incident from {from} to {to}</title></rect>"#,
            x(from),
            x(to) - x(from) + step
        )
        .ok();
    }
    text.push_str(&scale.grid(WIDE));
    let mut means = Vec::new();
    for (index, (date, day)) in days.iter().enumerate() {
        let left = LEFT + step * index as f64;
        let (top, bottom) = (scale.y(day.highest), scale.y(day.lowest));
        write!(
            text,
            r#"<rect x="{:.1}" y="{top:.1}" width="{:.1}" height="{:.1}" rx="2" class="range"><title>{date}: {:.1} to {:.1}, mean {:.1}</title></rect>"#,
            left + 1.0,
            (step - 2.0).max(1.0),
            (bottom - top).max(1.0),
            day.lowest,
            day.highest,
            day.mean()
        )
        .ok();
        means.push(format!(
            "{:.1},{:.1}",
            left + step / 2.0,
            scale.y(day.mean())
        ));
        if index % 14 == 0 {
            write!(
                text,
                r#"<text class="tick" x="{left:.1}" y="{:.1}">{date}</text>"#,
                HIGH + 17.0
            )
            .ok();
        }
    }
    write!(
        text,
        r#"<polyline points="{}" fill="none" stroke="var(--ink)" stroke-width="1.5"/>"#,
        means.join(" ")
    )
    .ok();
    for time in alarms {
        write!(
            text,
            r#"<circle cx="{:.1}" cy="10" r="6" class="alarm"><title>alarm {time}</title></circle>"#,
            x(time) + step / 2.0
        )
        .ok();
    }
    text + "</svg>"
}

fn open(title: &str, width: f64, height: f64) -> String {
    format!(r#"<svg viewBox="0 0 {width} {height}" role="img" aria-label="{title}">"#)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_runs_from_edge_to_edge_and_the_limit_is_in_sight() {
        let series = Series {
            name: "RMS",
            color: "one",
            values: vec![1.0, 3.0, 2.0],
            limit: Some(5.0),
        };
        let chart = lines("RMS", &[series]);
        assert!(
            chart.contains(r#"points="38.0,"#) && chart.contains(" 520.0,"),
            "{chart}"
        );
        assert!(chart.contains("stroke-dasharray") && !chart.contains("NaN"));
    }

    #[test]
    fn nothing_to_draw_is_an_empty_chart() {
        assert!(!lines("none", &[]).contains("NaN"));
        assert!(!temperature("none", &BTreeMap::new(), &[], &[]).contains("NaN"));
        assert!(strip("none", &[]).ends_with("</svg>"));
    }
}
