//! What the HTTP benchmark says: one table, the goals beside what was measured, and the same as JSON.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use super::latency::Latency;
use super::round::Sample;
use super::statistics::{Spread, Times};

/// Ours, theirs, and how many times less CPU a request is to cost here than there.
const GOALS: [(&str, &str, &str, f64); 6] = [
    ("P1", "tombolo fresh, p2", "wasmtime default, p2", 4.0),
    ("P1", "tombolo fresh, p2", "wasmtime tuned, p2", 2.5),
    ("P1", "tombolo fresh, js", "wasmtime default, js", 3.0),
    (
        "P1",
        "tombolo fresh, python",
        "wasmtime default, python",
        3.0,
    ),
    ("P2", "tombolo serial, p2", "wasmtime reuse, p2", 1.5),
    ("P2", "tombolo concurrent, p3", "wasmtime default, p3", 2.0),
];

/// One contender's rounds and their middle.
#[derive(Debug, Serialize)]
pub struct Entry {
    pub name: String,
    pub remark: String,
    pub requests_per_second: Spread,
    pub cpu_us_per_request: Spread,
    pub samples: Vec<Sample>,
}

#[derive(Serialize)]
pub struct Report {
    pub rounds: u32,
    pub seconds: u32,
    pub seed: u64,
    pub entries: Vec<Entry>,
    pub latencies: Vec<Latency>,
    pub missing: Vec<String>,
}

/// A goal and what the rounds say about it.
#[derive(Serialize)]
struct Comparison {
    goal: &'static str,
    ours: &'static str,
    theirs: &'static str,
    wanted: f64,
    ratio: Spread,
}

/// A report, and what its entries say beside one another, as one JSON object.
#[derive(Serialize)]
pub struct Compared<'a, R, C> {
    #[serde(flatten)]
    pub report: &'a R,
    pub comparisons: Vec<C>,
}

/// Writes a benchmark's result beside the others, and returns where.
pub fn write_json(folder: &Path, name: &str, document: &impl Serialize) -> Result<PathBuf> {
    fs::create_dir_all(folder)?;
    let file = folder.join(name);
    fs::write(&file, serde_json::to_string_pretty(document)?)
        .with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}

impl Entry {
    /// There is at least one round, so at least one sample.
    pub fn new(name: &str, remark: &str, samples: Vec<Sample>) -> Self {
        let nothing = Spread {
            median: 0.0,
            min: 0.0,
            max: 0.0,
        };
        let rates = samples.iter().map(|sample| sample.requests_per_second);
        let costs = samples.iter().map(|sample| sample.cpu_us_per_request);
        Self {
            name: name.into(),
            remark: remark.into(),
            requests_per_second: Spread::of(rates).unwrap_or(nothing),
            cpu_us_per_request: Spread::of(costs).unwrap_or(nothing),
            samples,
        }
    }
}

impl Report {
    pub fn write(&self, folder: &Path) -> Result<PathBuf> {
        let comparisons = self.comparisons();
        let report = self;
        write_json(
            folder,
            "http.json",
            &Compared {
                report,
                comparisons,
            },
        )
    }

    /// Ratios are taken within a round, between two programs that ran in turn.
    fn comparisons(&self) -> Vec<Comparison> {
        let samples = |name: &str| {
            let entry = self.entries.iter().find(|entry| entry.name == name);
            entry.map(|entry| &entry.samples)
        };
        GOALS
            .iter()
            .filter_map(|&(goal, ours, theirs, wanted)| {
                let pairs = samples(theirs)?.iter().zip(samples(ours)?);
                let ratios =
                    pairs.map(|(theirs, ours)| theirs.cpu_us_per_request / ours.cpu_us_per_request);
                Some(Comparison {
                    goal,
                    ours,
                    theirs,
                    wanted,
                    ratio: Spread::of(ratios)?,
                })
            })
            .collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "medians of {} rounds of {} s; server on core 0, `wrk -t1 -c32` on core 1\n",
            self.rounds, self.seconds
        )?;
        writeln!(
            f,
            "| server | requests/s | CPU µs per request (min–max) | |"
        )?;
        writeln!(f, "| --- | ---: | ---: | --- |")?;
        for entry in &self.entries {
            writeln!(
                f,
                "| {} | {:.0} | {:.1} | {} |",
                entry.name,
                entry.requests_per_second.median,
                entry.cpu_us_per_request,
                entry.remark
            )?;
        }
        let comparisons = self.comparisons();
        if !comparisons.is_empty() {
            writeln!(f, "\n| goal | ours | peer | wanted | measured (min–max) |")?;
            writeln!(f, "| --- | --- | --- | ---: | ---: |")?;
        }
        for row in comparisons {
            writeln!(
                f,
                "| {} | {} | {} | ≥ {:.1} × | {} |",
                row.goal,
                row.ours,
                row.theirs,
                row.wanted,
                Times(row.ratio)
            )?;
        }
        if !self.latencies.is_empty() {
            writeln!(
                f,
                "\n| open loop | requests/s | p50 ms | p99 ms | p99.9 ms |"
            )?;
            writeln!(f, "| --- | ---: | ---: | ---: | ---: |")?;
        }
        for row in &self.latencies {
            writeln!(
                f,
                "| {} | {} | {:.2} | {:.2} | {:.2} |",
                row.name, row.requests_per_second, row.p50_ms, row.p99_ms, row.p999_ms
            )?;
        }
        for missing in &self.missing {
            writeln!(f, "\nnot measured: {missing}")?;
        }
        Ok(())
    }
}
