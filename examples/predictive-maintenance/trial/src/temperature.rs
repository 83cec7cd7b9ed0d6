//! The temperature trial: the labelled series of the Numenta Anomaly Benchmark, reading by reading.

use std::collections::BTreeMap;
use std::io::Read;
use std::ops::RangeInclusive;

use analysis::temperature::{Alarm, Monitor, Settings};
use flate2::read::GzDecoder;

const SERIES: &[u8] = include_bytes!("../../data/machine_temperature.csv.gz");
const WINDOWS: &str = include_str!("../../data/nab_anomaly_windows.json");
const SERIES_NAME: &str = "realKnownCause/machine_temperature_system_failure.csv";

/// Why the trial could not be held.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("the series cannot be unpacked")]
    Unpack(#[from] std::io::Error),
    #[error("line {line} of the series is not a time and a number")]
    Reading { line: usize },
    #[error("the labelled windows are not JSON")]
    Json(#[from] serde_json::Error),
    #[error("the labelled windows lack this series")]
    Unlabelled,
}

/// The series and the stretches of it that people labelled as anomalous. Times are `YYYY-MM-DD HH:MM:SS`, which order as
/// text does.
#[derive(Debug)]
pub struct Series {
    pub readings: Vec<(String, f64)>,
    pub windows: Vec<RangeInclusive<String>>,
}

impl Series {
    /// The series that is part of this program.
    pub fn load() -> Result<Self, Failure> {
        let mut text = String::new();
        GzDecoder::new(SERIES).read_to_string(&mut text)?;
        let readings = text
            .lines()
            .enumerate()
            .skip(1)
            .map(|(index, line)| {
                line.split_once(',')
                    .and_then(|(time, value)| Some((time.to_owned(), value.trim().parse().ok()?)))
                    .ok_or(Failure::Reading { line: index + 1 })
            })
            .collect::<Result<_, _>>()?;
        let labels: BTreeMap<String, Vec<[String; 2]>> = serde_json::from_str(WINDOWS)?;
        let windows = labels
            .get(SERIES_NAME)
            .ok_or(Failure::Unlabelled)?
            .iter()
            .map(|[from, to]| whole_seconds(from)..=whole_seconds(to))
            .collect();
        Ok(Self { readings, windows })
    }
}

fn whole_seconds(time: &str) -> String {
    time.split('.').next().unwrap_or(time).to_owned()
}

/// One alarm, when it came, and the labelled window that it lies in.
#[derive(Debug, Clone)]
pub struct Raised {
    pub time: String,
    pub alarm: Alarm,
    pub window: Option<usize>,
}

/// Runs the monitor over the series.
pub fn hold(series: &Series, settings: &Settings) -> Vec<Raised> {
    let mut monitor = Monitor::default();
    series
        .readings
        .iter()
        .filter_map(|(time, value)| {
            let alarm = monitor.take(settings, *value)?;
            Some(Raised {
                time: time.clone(),
                alarm,
                window: series
                    .windows
                    .iter()
                    .position(|window| window.contains(time)),
            })
        })
        .collect()
}

/// What a stretch of the series came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Score {
    pub windows: usize,
    pub found: usize,
    pub false_alarms: usize,
}

/// Scores the alarms whose time, and the windows whose end, `within` accepts.
pub fn score(series: &Series, raised: &[Raised], within: impl Fn(&str) -> bool) -> Score {
    let windows: Vec<usize> = series
        .windows
        .iter()
        .enumerate()
        .filter(|(_, window)| within(window.end()))
        .map(|(index, _)| index)
        .collect();
    let found = windows
        .iter()
        .filter(|index| raised.iter().any(|one| one.window == Some(**index)))
        .count();
    Score {
        windows: windows.len(),
        found,
        false_alarms: raised
            .iter()
            .filter(|one| one.window.is_none() && within(&one.time))
            .count(),
    }
}

/// The settings among which the first half of the series chooses: smoothing, usual, limit.
pub fn candidates() -> Vec<Settings> {
    let mut all = Vec::new();
    for recent_hours in [2.0, 4.0, 6.0, 8.0] {
        for usual_hours in [96.0, 168.0, 336.0] {
            for limit in [2.5, 3.0, 3.5] {
                all.push(Settings {
                    recent_hours,
                    usual_hours,
                    limit,
                    ..Settings::default()
                });
            }
        }
    }
    all
}
