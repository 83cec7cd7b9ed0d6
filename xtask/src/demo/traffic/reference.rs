//! The tables that atspm computed from the same recording, and how the city's report differs from them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

/// One total: what is counted, of which detector or phase, in which quarter hour.
type Key = (&'static str, u32, String);
type Totals = BTreeMap<Key, u64>;

/// The city's `GET /report.json`, as much of it as is compared.
#[derive(Debug, Deserialize)]
pub struct Report {
    devices: Vec<Device>,
}

#[derive(Debug, Deserialize)]
struct Device {
    device: String,
    quarters: Vec<Quarter>,
}

#[derive(Debug, Deserialize)]
struct Quarter {
    from: String,
    phases: BTreeMap<u32, Phase>,
    detectors: BTreeMap<u32, u64>,
}

#[derive(Debug, Deserialize)]
struct Phase {
    arrivals: u64,
    arrivals_on_green: u64,
    gap_outs: u64,
    max_outs: u64,
    force_offs: u64,
}

const ACTUATIONS: &str = "actuations of detector";
const ARRIVALS: &str = "arrivals of phase";
const ON_GREEN: &str = "arrivals on green of phase";
const GAP_OUT: &str = "gap outs of phase";
const MAX_OUT: &str = "max outs of phase";
const FORCE_OFF: &str = "force offs of phase";

/// The reference's totals that are not zero, for one device.
#[derive(Debug)]
pub struct Reference(Totals);

impl Reference {
    pub fn read(folder: &Path) -> Result<Self> {
        let table = |name: &str| {
            let file = folder.join(name);
            fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))
        };
        Self::parse(
            &table("actuations.csv")?,
            &table("arrival_on_green.csv")?,
            &table("terminations.csv")?,
        )
        .context("the reference is not readable")
    }

    fn parse(actuations: &str, arrivals: &str, terminations: &str) -> Result<Self> {
        let mut totals = Totals::new();
        for (quarter, [detector, total]) in rows(actuations)? {
            totals.insert((ACTUATIONS, detector.parse()?, quarter), total.parse()?);
        }
        for (quarter, [phase, total, share]) in rows(arrivals)? {
            let (phase, total, share): (u32, u64, f64) =
                (phase.parse()?, total.parse()?, share.parse()?);
            totals.insert((ARRIVALS, phase, quarter.clone()), total);
            totals.insert(
                (ON_GREEN, phase, quarter),
                (total as f64 * share).round() as u64,
            );
        }
        for (quarter, [phase, ending, total]) in rows(terminations)? {
            let name = match ending {
                "GapOut" => GAP_OUT,
                "MaxOut" => MAX_OUT,
                "ForceOff" => FORCE_OFF,
                other => anyhow::bail!("`{other}` is no ending"),
            };
            totals.insert((name, phase.parse()?, quarter), total.parse()?);
        }
        totals.retain(|_, total| *total > 0);
        Ok(Self(totals))
    }

    /// The begin of the last quarter hour that has a total.
    pub fn last_quarter(&self) -> &str {
        let quarters = self.0.keys().map(|(_, _, quarter)| quarter.as_str());
        quarters.max().unwrap_or_default()
    }

    pub fn totals(&self) -> usize {
        self.0.len()
    }

    /// Every total that is not the same on both sides, one line each.
    pub fn compare(&self, report: &Report, device: &str) -> Vec<String> {
        let ours = report.totals(device);
        let keys: std::collections::BTreeSet<&Key> = self.0.keys().chain(ours.keys()).collect();
        let of = |totals: &Totals, key: &Key| totals.get(key).copied().unwrap_or(0);
        keys.into_iter()
            .map(|key| (key, of(&ours, key), of(&self.0, key)))
            .filter(|(_, ours, theirs)| ours != theirs)
            .map(|((name, number, quarter), ours, theirs)| {
                format!("{name} {number} at {quarter}: {ours}, and the reference has {theirs}")
            })
            .collect()
    }

    /// The whole recording's totals of each phase.
    pub fn table(&self, report: &Report, device: &str) -> String {
        let ours = report.totals(device);
        let sum = |name: &str, phase: u32| -> u64 {
            ours.iter()
                .filter(|((found, of, _), _)| *found == name && *of == phase)
                .map(|(_, total)| total)
                .sum()
        };
        let phases: std::collections::BTreeSet<u32> = ours
            .keys()
            .filter(|(name, ..)| *name != ACTUATIONS)
            .map(|(_, phase, _)| *phase)
            .collect();
        let mut text = String::from("phase  arrivals  on green  gap out  force off  max out\n");
        for phase in phases {
            let arrivals = sum(ARRIVALS, phase);
            let share = 100.0 * sum(ON_GREEN, phase) as f64 / arrivals.max(1) as f64;
            let [gap, force, most] = [GAP_OUT, FORCE_OFF, MAX_OUT].map(|name| sum(name, phase));
            // Writing to a string does not fail.
            writeln!(
                text,
                "{phase:>5}  {arrivals:>8}  {share:>6.1} %  {gap:>7}  {force:>9}  {most:>7}"
            )
            .ok();
        }
        text
    }
}

impl Report {
    /// The totals of a device that are not zero.
    fn totals(&self, device: &str) -> Totals {
        let mut totals = Totals::new();
        let quarters = self
            .devices
            .iter()
            .filter(|found| found.device == device)
            .flat_map(|found| &found.quarters);
        for quarter in quarters {
            let from = quarter.from.replace('T', " ");
            for (detector, total) in &quarter.detectors {
                totals.insert((ACTUATIONS, *detector, from.clone()), *total);
            }
            for (phase, counts) in &quarter.phases {
                for (name, total) in [
                    (ARRIVALS, counts.arrivals),
                    (ON_GREEN, counts.arrivals_on_green),
                    (GAP_OUT, counts.gap_outs),
                    (MAX_OUT, counts.max_outs),
                    (FORCE_OFF, counts.force_offs),
                ] {
                    totals.insert((name, *phase, from.clone()), total);
                }
            }
        }
        totals.retain(|_, total| *total > 0);
        totals
    }
}

/// The rows of a table: the quarter hour, then what follows the device.
fn rows<const N: usize>(table: &str) -> Result<Vec<(String, [&str; N])>> {
    let row = |line| {
        let mut fields = str::split(line, ',');
        let quarter = fields.next().context("a row is empty")?.to_owned();
        let rest: Vec<&str> = fields.skip(1).collect();
        let rest = <[&str; N]>::try_from(rest)
            .map_err(|_| anyhow::anyhow!("`{line}` has not {} fields", N + 2))?;
        Ok((quarter, rest))
    };
    table.lines().skip(1).map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = r#"{"devices":[{"device":"7","aggregates":1,"lost":0,"quarters":[{"from":"2024-04-15T12:00:00",
        "phases":{"2":{"arrivals":4,"arrivals_on_green":3,"gap_outs":1,"max_outs":0,"force_offs":0}},"detectors":{"9":5}}]}]}"#;

    fn reference(actuations: u64) -> Reference {
        Reference::parse(
            &format!("head\n2024-04-15 12:00:00,7,9,{actuations}\n"),
            "head\n2024-04-15 12:00:00,7,2,4,0.75\n",
            "head\n2024-04-15 12:00:00,7,2,GapOut,1\n",
        )
        .unwrap()
    }

    #[test]
    fn equal_totals_have_no_difference() {
        let report: Report = serde_json::from_str(REPORT).unwrap();
        assert_eq!(reference(5).compare(&report, "7"), Vec::<String>::new());
        assert_eq!(reference(5).totals(), 4);
    }

    #[test]
    fn each_difference_is_told_even_of_what_one_side_lacks() {
        let report: Report = serde_json::from_str(REPORT).unwrap();
        let expected =
            "actuations of detector 9 at 2024-04-15 12:00:00: 5, and the reference has 6";
        assert_eq!(reference(6).compare(&report, "7"), [expected]);
        assert_eq!(reference(5).compare(&report, "8").len(), 4);
    }
}
