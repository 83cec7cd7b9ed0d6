//! The recording of the intersection, cut into one batch for each second.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use flate2::read::GzDecoder;

/// The files of the data folder.
pub const EVENTS: &str = "controller_events.csv.gz";
pub const DETECTORS: &str = "controller_config.csv.gz";

/// Rows of millisecond, event id, parameter: the wire form of `examples/smart-traffic/README.md`.
pub type Events = Vec<(u16, u16, u16)>;

/// One second of the recording.
#[derive(Debug, serde::Serialize)]
pub struct Second {
    pub sequence: u64,
    /// Seconds since 1970 on the controller's clock.
    pub time: i64,
    pub events: Events,
}

#[derive(Debug)]
pub struct Recording {
    device: String,
    detectors: String,
    seconds: Vec<Second>,
}

impl Recording {
    /// Reads the events and the detector table from the example's data folder.
    pub fn read(folder: &Path) -> Result<Self> {
        let detectors = unpack(&folder.join(DETECTORS))?;
        let events = folder.join(EVENTS);
        Self::parse(&unpack(&events)?, detectors).with_context(|| events.display().to_string())
    }

    /// Every second from the first to the last event has a batch, and one more follows them: the tick that lets the last
    /// quarter hour end.
    fn parse(events: &str, detectors: String) -> Result<Self> {
        let mut recording = Self {
            device: String::new(),
            detectors,
            seconds: Vec::new(),
        };
        for (index, line) in events.lines().enumerate().skip(1) {
            recording
                .push(line)
                .with_context(|| format!("line {}", index + 1))?;
        }
        let last = recording
            .seconds
            .last()
            .context("the recording is empty")?
            .time;
        recording.second(last.div_euclid(900) * 900 + 900)?;
        Ok(recording)
    }

    fn push(&mut self, line: &str) -> Result<()> {
        let mut fields = line.split(',').map(|field| field.trim_matches('"'));
        let mut next = || fields.next().context("a field is missing");
        let (time, millisecond) = instant(next()?)?;
        let device = next()?;
        ensure!(
            self.device.is_empty() || self.device == device,
            "the recording is of one device"
        );
        let mut number = |field: &str| -> Result<u16> {
            let text = next()?;
            text.parse()
                .with_context(|| format!("the {field} `{text}` is no number up to {}", u16::MAX))
        };
        let (event, parameter) = (number("event id")?, number("parameter")?);
        self.device = device.into();
        self.second(time)?
            .events
            .push((millisecond, event, parameter));
        Ok(())
    }

    /// The batch of this second, which is the last one or later; what lies between gets empty ones.
    fn second(&mut self, time: i64) -> Result<&mut Second> {
        let first = self.seconds.first().map_or(time, |second| second.time);
        ensure!(
            time - first >= self.seconds.len() as i64 - 1,
            "the event is older than the one before it"
        );
        while (self.seconds.len() as i64) <= time - first {
            let sequence = self.seconds.len() as u64;
            let second = Second {
                sequence,
                time: first + sequence as i64,
                events: Vec::new(),
            };
            self.seconds.push(second);
        }
        self.seconds.last_mut().context("there is none")
    }

    /// The begin of the quarter hour of the last event, as the reference writes it.
    pub fn last_quarter(&self) -> String {
        // The last batch is the tick that ends it.
        let tick = self.seconds.last().map_or(0, |second| second.time);
        written(tick - 900)
    }

    pub fn device(&self) -> &str {
        &self.device
    }

    /// The detector table as CSV.
    pub fn detectors(&self) -> &str {
        &self.detectors
    }

    pub fn seconds(&self) -> &[Second] {
        &self.seconds
    }
}

fn unpack(path: &Path) -> Result<String> {
    let name = || format!("cannot read {}", path.display());
    let mut text = String::new();
    GzDecoder::new(File::open(path).with_context(name)?)
        .read_to_string(&mut text)
        .with_context(name)?;
    Ok(text)
}

/// Seconds since 1970 and milliseconds of `2024-04-15 12:00:26.300000`.
fn instant(stamp: &str) -> Result<(i64, u16)> {
    let parts: Vec<i64> = stamp
        .split(['-', ' ', ':', '.'])
        .map(|part| {
            part.parse()
                .with_context(|| format!("`{stamp}` is no time"))
        })
        .collect::<Result<_>>()?;
    let [year, month, day, hour, minute, second, microsecond] = parts.as_slice() else {
        anyhow::bail!("`{stamp}` is no time");
    };
    let time = ((days(*year, *month, *day) * 24 + hour) * 60 + minute) * 60 + second;
    Ok((time, u16::try_from(microsecond / 1_000)?))
}

/// The way back: `2024-04-15 12:00:00` of seconds since 1970.
fn written(time: i64) -> String {
    let (day, second) = (time.div_euclid(86_400), time.rem_euclid(86_400));
    // From the first day of a year that cannot be later than the one that is looked for.
    let mut year = 1970 + day.div_euclid(366);
    while days(year + 1, 1, 1) <= day {
        year += 1;
    }
    let month = (1..=12)
        .rev()
        .find(|month| days(year, *month, 1) <= day)
        .unwrap_or(1);
    let of_month = day - days(year, month, 1) + 1;
    let (hour, minute) = (second / 3_600, second / 60 % 60);
    format!(
        "{year:04}-{month:02}-{of_month:02} {hour:02}:{minute:02}:{:02}",
        second % 60
    )
}

/// Days since 1970-01-01 in the Gregorian calendar (H. Hinnant, "chrono-compatible low-level date algorithms").
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_second_gets_a_batch_and_a_tick_ends_the_quarter() {
        let events = "head\n2024-04-15 12:14:56.000000,7,1,2\n2024-04-15 12:14:58.500000,7,82,4\n";
        let recording = Recording::parse(events, String::new()).unwrap();
        let found: Vec<_> = recording
            .seconds()
            .iter()
            .map(|second| (second.time, second.events.len()))
            .collect();
        let begin = 1_713_183_296;
        assert_eq!(
            found,
            [
                (begin, 1),
                (begin + 1, 0),
                (begin + 2, 1),
                (begin + 3, 0),
                (begin + 4, 0)
            ]
        );
        assert_eq!(recording.seconds()[2].events, [(500, 82, 4)]);
        assert_eq!(recording.device(), "7");
        assert_eq!(recording.last_quarter(), "2024-04-15 12:00:00");
    }

    #[test]
    fn what_is_wrong_with_a_line_is_told_with_its_number_and_value() {
        let event = "2024-04-15 12:14:56.000000,7,1,2\n";
        for (line, told) in [
            (
                "2024-04-15 12:14:57.000000,7,x1,2",
                "line 3: the event id `x1` is no number up to 65535",
            ),
            (
                "2024-04-15 12:14:57.000000,7,1,-2",
                "line 3: the parameter `-2` is no number up to 65535",
            ),
            (
                "2024-04-15 12:14:00.000000,7,1,2",
                "line 3: the event is older than the one before it",
            ),
            ("yesterday,7,1,2", "line 3: `yesterday` is no time"),
        ] {
            let error =
                Recording::parse(&format!("head\n{event}{line}\n"), String::new()).unwrap_err();
            assert!(format!("{error:#}").starts_with(told), "{error:#}");
        }
    }

    #[test]
    fn a_time_is_written_as_it_is_read() {
        for stamp in [
            "1970-01-01 00:00:00",
            "2024-02-29 23:59:59",
            "2024-12-31 12:45:00",
        ] {
            let (time, _) = instant(&format!("{stamp}.000000")).unwrap();
            assert_eq!(written(time), stamp);
        }
    }

    #[test]
    fn days_are_counted_over_leap_years() {
        assert_eq!(days(1970, 1, 1), 0);
        assert_eq!(days(2000, 3, 1) - days(2000, 2, 28), 2);
        assert_eq!(days(2024, 4, 15), 19_828);
    }
}
