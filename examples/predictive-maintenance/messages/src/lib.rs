//! What machines, functions and people send each other, as JSON. A vibration window alone is binary: `analysis::window`.

use analysis::baseline::Limits;
use analysis::report::Report;
use analysis::temperature;
use analysis::verdict::Verdict;
use serde::{Deserialize, Serialize};

/// The types of the events that functions publish; the subject is always the machine's name.
pub mod kind {
    pub const COMMAND: &str = "maintenance.command";
    pub const ALARM: &str = "maintenance.alarm";
    pub const TREND: &str = "maintenance.trend";
}

/// What is told about a machine on a topic of its own, `machines/<machine>/<channel>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// Vibration windows of a machine that is known to be healthy: they teach.
    Commissioning,
    /// Vibration windows to be judged.
    Vibration,
    /// Readings of its thermometer.
    Temperature,
    /// What people found.
    Inspection,
}

impl Channel {
    const ALL: [Self; 4] = [
        Self::Commissioning,
        Self::Vibration,
        Self::Temperature,
        Self::Inspection,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Commissioning => "commissioning",
            Self::Vibration => "vibration",
            Self::Temperature => "temperature",
            Self::Inspection => "inspection",
        }
    }

    pub fn topic(self, machine: &str) -> String {
        format!("machines/{machine}/{}", self.name())
    }

    /// The machine and the channel of a topic.
    pub fn of_topic(topic: &str) -> Option<(&str, Self)> {
        let (machine, name) = topic.strip_prefix("machines/")?.split_once('/')?;
        let channel = Self::ALL
            .into_iter()
            .find(|channel| channel.name() == name)?;
        is_name(machine).then_some((machine, channel))
    }
}

/// Some readings of a thermometer, in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Readings {
    /// Number of the first reading since the machine began to measure.
    pub first: u64,
    /// Times are `YYYY-MM-DD HH:MM:SS` on the machine's own clock.
    pub readings: Vec<(String, f64)>,
}

/// What a machine is told in answer to each of its vibration windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// The window taught; nothing was judged.
    Learn,
    Run,
    /// This window is not that of a healthy machine; the next ones decide.
    Watch,
    /// Several windows in a row were not.
    Stop,
}

/// The answer to one window.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// Of the window.
    pub position: u64,
    pub action: Action,
    /// Absent while the baseline is being learnt.
    pub verdict: Option<Verdict>,
}

/// Something that people should know of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Alarm {
    /// A machine that ran well is told to be watched, or to stop.
    Vibration(Command),
    Temperature {
        time: String,
        #[serde(flatten)]
        alarm: temperature::Alarm,
    },
}

/// Readings of one day.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Day {
    pub readings: u32,
    pub sum: f64,
    pub lowest: f64,
    pub highest: f64,
}

impl Day {
    pub fn of(value: f64) -> Self {
        Self {
            readings: 1,
            sum: value,
            lowest: value,
            highest: value,
        }
    }

    pub fn add(&mut self, other: &Self) {
        self.readings = self.readings.saturating_add(other.readings);
        self.sum += other.sum;
        self.lowest = self.lowest.min(other.lowest);
        self.highest = self.highest.max(other.highest);
    }

    pub fn mean(&self) -> f64 {
        self.sum / f64::from(self.readings.max(1))
    }
}

/// What one message of a machine came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trend {
    pub machine: String,
    /// Length of the message.
    pub bytes: u64,
    pub alarms: Vec<Alarm>,
    pub observed: Observed,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Observed {
    Commissioning {
        /// Windows that have taught, this one too.
        windows: u32,
    },
    Vibration {
        report: Report,
        action: Action,
        limits: Option<Limits>,
    },
    Temperature {
        /// Numbers of the first reading and of the one after the last.
        first: u64,
        end: u64,
        /// By date, in order.
        days: Vec<(String, Day)>,
    },
}

/// What people found when they opened the machine, or read its log book.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Inspection {
    /// The state of the bearing.
    #[serde(default)]
    pub found: Option<Verdict>,
    /// From and to when something was wrong, on the machine's clock.
    #[serde(default)]
    pub incidents: Vec<(String, String)>,
}

/// Whether a name can be that of a machine: 1 to 64 letters, digits and hyphens.
pub fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_and_inspections_are_plain_json() {
        let alarm = Alarm::Vibration(Command {
            position: 8_192,
            action: Action::Stop,
            verdict: Some(Verdict::InnerRace),
        });
        assert_eq!(
            serde_json::to_string(&alarm).unwrap(),
            r#"{"kind":"vibration","position":8192,"action":"stop","verdict":"inner-race"}"#
        );
        let found: Inspection = serde_json::from_str(r#"{"found":"ball"}"#).unwrap();
        assert_eq!(found.found, Some(Verdict::Ball));
        assert!(found.incidents.is_empty());
    }

    #[test]
    fn days_add_up() {
        let mut day = Day::of(70.0);
        day.add(&Day::of(90.0));
        day.add(&Day::of(65.0));
        assert_eq!((day.readings, day.mean()), (3, 75.0));
        assert_eq!((day.lowest, day.highest), (65.0, 90.0));
    }

    #[test]
    fn a_topic_names_a_machine_and_a_channel() {
        let topic = Channel::Vibration.topic("press-7");
        assert_eq!(
            Channel::of_topic(&topic),
            Some(("press-7", Channel::Vibration))
        );
        for topic in [
            "machines/press-7/noise",
            "machines//vibration",
            "machines/a b/vibration",
            "machines/a/b/vibration",
            "alarms/press-7",
        ] {
            assert_eq!(Channel::of_topic(topic), None, "{topic}");
        }
    }

    #[test]
    fn a_name_stands_for_one_level_of_a_topic() {
        assert!(is_name("press-7"));
        for name in ["", "a/b", "+", "a b", "ä"] {
            assert!(!is_name(name), "{name}");
        }
    }
}
