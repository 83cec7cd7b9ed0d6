//! Schedules of cron triggers, and the time zones they are read in.

use std::fmt;
use std::str::FromStr;

use croner::Cron;
use croner::errors::CronError;
use croner::parser::{CronParser, Seconds, Year};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::text::text_type;

/// Longer texts are no schedule that anybody wrote.
const BYTES_MAX: usize = 256;

/// What may stand for five fields.
const SHORTHANDS: [&str; 6] = [
    "@yearly",
    "@annually",
    "@monthly",
    "@weekly",
    "@daily",
    "@hourly",
];

const NAMES: [&str; 6] = ["second", "minute", "hour", "day", "month", "weekday"];

/// When a trigger ticks, in local time: minute, hour, day, month and weekday, with seconds before them where they are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    text: String,
    fields: Cron,
    fixed: bool,
}

/// Why a text is no schedule.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ScheduleError {
    #[error(
        "a schedule has 5 fields (minute, hour, day, month, weekday), or 6 with seconds first; this one has {0}"
    )]
    Fields(usize),
    #[error("`{0}` is no number, list, range, step or `*`")]
    Field(String),
    #[error("the {name} `{text}` is not valid: {problem}")]
    Value {
        /// Which field, such as `hour`.
        name: &'static str,
        /// The field as it was written.
        text: String,
        /// What is wrong with it.
        problem: String,
    },
    #[error("`{0}` is no schedule")]
    Pattern(String),
    #[error("there is no such time: the schedule would never tick")]
    Never,
}

impl Schedule {
    /// The schedule as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it names times of the day (`30 2 * * *`), rather than an interval (`*/5 * * * *`, `0 * * * *`):
    /// neither its minute nor its hour, nor its second, begins with `*`. Only such a schedule is affected when
    /// clocks change, as in Vixie's cron.
    pub fn is_fixed(&self) -> bool {
        self.fixed
    }

    /// The first local time that is meant and is later than this one; none after the year 5000.
    pub fn next_local(&self, after: DateTime) -> Option<DateTime> {
        self.fields.find_next_occurrence(&after, false).ok()
    }

    /// The last local time that is meant and is earlier than this one; none before the year 1.
    pub fn previous_local(&self, before: DateTime) -> Option<DateTime> {
        // The library drops fractions of seconds; with one, the whole second is still earlier.
        let fraction = before.subsec_nanosecond() > 0;
        self.fields.find_previous_occurrence(&before, fraction).ok()
    }
}

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        let fields: Vec<&str> = text.split_ascii_whitespace().collect();
        let times = match fields.as_slice() {
            _ if text.len() > BYTES_MAX => return Err(ScheduleError::Fields(fields.len())),
            [word] if SHORTHANDS.contains(word) => 0,
            [_, _, _, _, _] => 2,
            [_, _, _, _, _, _] => 3,
            _ => return Err(ScheduleError::Fields(fields.len())),
        };
        // The library reads names of months in any field, and nothing between two commas.
        for (index, field) in fields.iter().enumerate() {
            let readable = |part: &str| {
                let number = part
                    .bytes()
                    .all(|b| b.is_ascii_digit() || b"*/-".contains(&b));
                !part.is_empty() && (number || index >= times)
            };
            if !field.split(',').all(readable) {
                return Err(ScheduleError::Field((*field).to_owned()));
            }
        }
        let parser = CronParser::builder()
            .seconds(Seconds::Optional)
            .year(Year::Disallowed)
            .build();
        let parsed = parser.parse(text).map_err(|_| culprit(&parser, &fields))?;
        let hourly = fields == ["@hourly"];
        let mut clock = fields.iter().take(times);
        let schedule = Self {
            text: fields.join(" "),
            fields: parsed,
            fixed: !hourly && !clock.any(|field| field.starts_with('*')),
        };
        // Any eight years from here have all the days that there are.
        let start = DateTime::constant(2024, 1, 1, 0, 0, 0, 0);
        match schedule.next_local(start) {
            Some(_) => Ok(schedule),
            None => Err(ScheduleError::Never),
        }
    }
}

/// The library does not say in which field a problem is: each is tried by itself.
fn culprit(parser: &CronParser, fields: &[&str]) -> ScheduleError {
    let names = match fields.len() {
        6 => NAMES.as_slice(),
        _ => NAMES.get(1..).unwrap_or_default(),
    };
    for (index, (name, text)) in names.iter().zip(fields).enumerate() {
        let mut alone = vec!["*"; fields.len()];
        if let Some(field) = alone.get_mut(index) {
            *field = text;
        }
        if let Err(error) = parser.parse(&alone.join(" ")) {
            let text = (*text).to_owned();
            return ScheduleError::Value {
                name,
                text,
                problem: problem(&error),
            };
        }
    }
    ScheduleError::Pattern(fields.join(" "))
}

/// What the library says, as a part of a sentence.
fn problem(error: &CronError) -> String {
    let (CronError::ComponentError(text) | CronError::InvalidPattern(text)) = error else {
        return "it has characters that mean nothing there".into();
    };
    let mut chars = text.trim_end_matches('.').chars();
    let first = chars.next().map(|c| c.to_ascii_lowercase());
    first.into_iter().chain(chars).collect()
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

text_type!(Schedule, "schedule");

/// A time zone of the IANA database, whose rules are part of this program: the same on every node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    name: String,
    rules: TimeZone,
}

/// There is no such time zone.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("there is no time zone `{0}`")]
pub struct ZoneError(String);

impl Zone {
    /// The name, such as `Europe/Berlin`.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// Its rules.
    pub fn rules(&self) -> &TimeZone {
        &self.rules
    }
}

impl Default for Zone {
    fn default() -> Self {
        Self {
            name: "UTC".into(),
            rules: TimeZone::UTC,
        }
    }
}

impl FromStr for Zone {
    type Err = ZoneError;

    fn from_str(text: &str) -> Result<Self, ZoneError> {
        let rules = TimeZone::get(text).map_err(|_| ZoneError(text.into()))?;
        let name = rules.iana_name().unwrap_or(text).to_owned();
        Ok(Self { name, rules })
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

text_type!(Zone, "time-zone");

#[cfg(test)]
mod tests {
    use super::*;

    fn next(schedule: &str, after: &str) -> String {
        let schedule: Schedule = schedule.parse().unwrap();
        schedule
            .next_local(after.parse().unwrap())
            .unwrap()
            .to_string()
    }

    #[test]
    fn the_next_local_time_is_found() {
        for (schedule, after, expected) in [
            ("*/5 * * * *", "2026-01-01T00:00:00", "2026-01-01T00:05:00"),
            (
                "*/5 * * * *",
                "2026-01-01T00:04:59.5",
                "2026-01-01T00:05:00",
            ),
            (
                "*/20 * * * * *",
                "2026-01-01T00:00:41",
                "2026-01-01T00:01:00",
            ),
            ("30 2 * * *", "2026-01-01T02:30:00", "2026-01-02T02:30:00"),
            ("0 0 29 2 *", "2026-01-01T00:00:00", "2028-02-29T00:00:00"),
            ("0 0 1 1 *", "2026-01-01T00:00:00", "2027-01-01T00:00:00"),
            (
                "0 9 * * MON-FRI",
                "2026-01-02T09:00:00",
                "2026-01-05T09:00:00",
            ),
            ("0 9 * * 7", "2026-01-01T00:00:00", "2026-01-04T09:00:00"),
            ("0 0 L * *", "2026-02-01T00:00:00", "2026-02-28T00:00:00"),
            ("0 0 13 * 5", "2026-02-01T00:00:00", "2026-02-06T00:00:00"),
            ("@daily", "2026-02-01T00:00:00", "2026-02-02T00:00:00"),
        ] {
            assert_eq!(next(schedule, after), expected, "{schedule}");
        }
    }

    #[test]
    fn times_of_the_day_are_told_from_intervals() {
        for (schedule, fixed) in [
            ("30 2 * * *", true),
            ("0,30 1-3 * * *", true),
            ("15 30 2 * * *", true),
            ("@daily", true),
            ("*/5 * * * *", false),
            ("0 * * * *", false),
            ("0 */2 * * *", false),
            ("* 30 2 * * *", false),
            ("@hourly", false),
        ] {
            assert_eq!(
                schedule.parse::<Schedule>().unwrap().is_fixed(),
                fixed,
                "{schedule}"
            );
        }
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for bad in [
            "",
            "* * * *",
            "* * * * * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * 32 * *",
            "* * * 13 *",
            "* * * * 8",
            "5-1 * * * *",
            "*/0 * * * *",
            "JAN * * * *",
            ", * * * *",
            "1,,2 * * * *",
            "x * * * *",
            "0 0 30 2 *",
            "0 0 31 4,6 *",
            "@reboot",
            "@",
            "-1 * * * *",
            "* * * JANE *",
            "١ * * * *",
            &"1,".repeat(200),
        ] {
            assert!(bad.parse::<Schedule>().is_err(), "{bad}");
        }
    }

    #[test]
    fn zones_are_those_of_the_database() {
        assert_eq!(Zone::default(), "UTC".parse().unwrap());
        assert_eq!(
            "europe/berlin".parse::<Zone>().unwrap().as_str(),
            "Europe/Berlin"
        );
        for bad in ["", "Europe/Atlantis", "../UTC", "+01:00"] {
            assert!(bad.parse::<Zone>().is_err(), "{bad}");
        }
    }
}
