//! The tables that numpy and scipy computed from the same recordings (`reference/ORIGIN.md`).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow};

/// One judged window.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    pub truth: String,
    pub rms: f64,
    pub crest: f64,
    pub kurtosis: f64,
    pub verdict: String,
}

#[derive(Debug, Default)]
pub struct Reference {
    /// By machine and position.
    pub windows: BTreeMap<(String, u64), Judged>,
    /// When the temperature left the usual, and whereto.
    pub alarms: Vec<(String, String)>,
}

impl Reference {
    pub fn read(folder: &Path) -> Result<Self> {
        let table = |name: &str| {
            let file = folder.join(name);
            fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))
        };
        Self::parse(&table("vibration.csv")?, &table("temperature.csv")?)
    }

    fn parse(vibration: &str, temperature: &str) -> Result<Self> {
        let mut reference = Self::default();
        for [machine, position, truth, rms, crest, kurtosis, verdict] in rows(vibration)? {
            let judged = Judged {
                truth: truth.to_owned(),
                rms: rms.parse()?,
                crest: crest.parse()?,
                kurtosis: kurtosis.parse()?,
                verdict: verdict.to_owned(),
            };
            reference
                .windows
                .insert((machine.to_owned(), position.parse()?), judged);
        }
        for [time, side] in rows(temperature)? {
            reference.alarms.push((time.to_owned(), side.to_owned()));
        }
        Ok(reference)
    }

    /// Windows that the reference judged rightly.
    pub fn right(&self) -> u64 {
        let windows = self.windows.values();
        windows
            .filter(|judged| judged.truth == judged.verdict)
            .count() as u64
    }
}

fn rows<const N: usize>(table: &str) -> Result<Vec<[&str; N]>> {
    let mut rows = Vec::new();
    for line in table.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let row = <[&str; N]>::try_from(fields).map_err(|fields| {
            anyhow!("`{line}` has {} fields, and {N} are expected", fields.len())
        })?;
        rows.push(row);
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_read_and_short_rows_refused() {
        let vibration = "head\nm,0,ball,0.1,4,3,ball\nm,4096,ball,0.1,4,3,healthy\n";
        let reference = Reference::parse(vibration, "head\n2014-01-01 00:00:00,below\n").unwrap();
        assert_eq!((reference.windows.len(), reference.right()), (2, 1));
        assert_eq!(reference.alarms.len(), 1);
        assert!(Reference::parse("head\nm,0\n", "head\n").is_err());
    }
}
