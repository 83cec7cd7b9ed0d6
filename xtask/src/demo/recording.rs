//! The recording of the intersection, cut into one batch for each second.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use flate2::read::GzDecoder;

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
        let detectors = unpack(&folder.join("controller_config.csv.gz"))?;
        Self::parse(
            &unpack(&folder.join("controller_events.csv.gz"))?,
            detectors,
        )
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
                .with_context(|| format!("line {} of the events", index + 1))?;
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
        let (event, parameter) = (next()?.parse()?, next()?.parse()?);
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
            "the recording is not in order of time"
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
    }

    #[test]
    fn days_are_counted_over_leap_years() {
        assert_eq!(days(1970, 1, 1), 0);
        assert_eq!(days(2000, 3, 1) - days(2000, 2, 28), 2);
        assert_eq!(days(2024, 4, 15), 19_828);
    }
}
