//! What the journal benchmark says: one table, goal P8 beside what was measured, restarts, and the same as JSON.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::Serialize;

use super::{
    ALWAYS, ALWAYS_CONFIRMED, CONFIRMED, Cell, DEFAULT, LOOPBACK, OURS, OURS_BATCHED, Restart,
    Sample, Work,
};
use crate::bench::report::{Compared, write_json};
use crate::bench::statistics::{Spread, Times};

/// Goal P8: events per second, ours over theirs, at the same number outstanding.
const GOALS: [(&str, f64); 2] = [(ALWAYS, 20.0), (DEFAULT, 0.8)];

/// One contender in one cell, over all rounds.
#[derive(Serialize)]
pub struct Entry {
    #[serde(flatten)]
    cell: Cell,
    contender: &'static str,
    events_per_s: Spread,
    cpu_us_per_event: Spread,
    written_per_byte: Spread,
    load_cores: Spread,
    ack_p50_us: Option<Spread>,
    ack_p99_us: Option<Spread>,
    samples: Vec<Sample>,
}

/// All starts of one kind.
#[derive(Serialize)]
pub struct Restarts {
    pub contender: &'static str,
    pub in_order: bool,
    pub samples: Vec<Restart>,
}

#[derive(Serialize)]
pub struct Report {
    pub rounds: u32,
    pub seconds: u32,
    pub seed: u64,
    pub peer: String,
    pub entries: Vec<Entry>,
    pub restart_events: u32,
    pub restarts: Vec<Restarts>,
}

/// Ours over theirs in the same cell; each ratio is of two samples of one round.
#[derive(Serialize)]
struct Comparison {
    #[serde(flatten)]
    cell: Cell,
    ours: &'static str,
    theirs: &'static str,
    /// Where goal P8 speaks of it.
    wanted: Option<f64>,
    events_per_s: Spread,
    /// Theirs over ours.
    cpu: Spread,
}

impl Entry {
    /// `None` when there was no round.
    pub fn new(cell: Cell, contender: &'static str, samples: Vec<Sample>) -> Option<Self> {
        let spread = |of: fn(&Sample) -> f64| Spread::of(samples.iter().map(of));
        Some(Self {
            cell,
            contender,
            events_per_s: spread(|sample| sample.events_per_s)?,
            cpu_us_per_event: spread(|sample| sample.cpu_us_per_event)?,
            written_per_byte: spread(|sample| sample.written_per_byte)?,
            load_cores: spread(|sample| sample.load_cores)?,
            ack_p50_us: Spread::of(samples.iter().filter_map(|sample| sample.ack_p50_us)),
            ack_p99_us: Spread::of(samples.iter().filter_map(|sample| sample.ack_p99_us)),
            samples,
        })
    }
}

impl Restarts {
    pub fn new(contender: &'static str, in_order: bool) -> Self {
        Self {
            contender,
            in_order,
            samples: Vec::new(),
        }
    }

    fn spread(&self, of: fn(&Restart) -> f64) -> Option<Spread> {
        Spread::of(self.samples.iter().map(of))
    }
}

impl Report {
    pub fn write(&self, folder: &Path) -> Result<PathBuf> {
        let comparisons = self.comparisons();
        let report = self;
        write_json(
            folder,
            "journal.json",
            &Compared {
                report,
                comparisons,
            },
        )
    }

    fn comparisons(&self) -> Vec<Comparison> {
        let mut comparisons = Vec::new();
        for theirs in &self.entries {
            for ours in [OURS, OURS_BATCHED, LOOPBACK] {
                let peers = [DEFAULT, ALWAYS, CONFIRMED, ALWAYS_CONFIRMED];
                let found = self.entries.iter().find(|entry| {
                    entry.contender == ours
                        && entry.cell == theirs.cell
                        && peers.contains(&theirs.contender)
                });
                comparisons.extend(found.and_then(|ours| compare(ours, theirs)));
            }
        }
        comparisons
    }
}

fn compare(ours: &Entry, theirs: &Entry) -> Option<Comparison> {
    let pairs = || ours.samples.iter().zip(&theirs.samples);
    let goal = GOALS.iter().find(|(peer, _)| *peer == theirs.contender);
    let spoken_of = theirs.cell.work == Work::Publish && theirs.cell.outstanding == 256;
    Some(Comparison {
        cell: theirs.cell,
        ours: ours.contender,
        theirs: theirs.contender,
        wanted: goal.filter(|_| spoken_of).map(|(_, wanted)| *wanted),
        events_per_s: Spread::of(
            pairs().map(|(ours, theirs)| ours.events_per_s / theirs.events_per_s),
        )?,
        cpu: Spread::of(
            pairs().map(|(ours, theirs)| theirs.cpu_us_per_event / ours.cpu_us_per_event),
        )?,
    })
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let work = match self.work {
            Work::Publish => "publish",
            Work::Consume => "consume",
        };
        write!(
            f,
            "{work} {} B, {} outstanding",
            self.event_bytes, self.outstanding
        )?;
        if self.batch > 1 {
            write!(f, " × {}", self.batch)?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}; medians of {} rounds, publishing {} s each; a fresh process and folder for each, all cores\n",
            self.peer, self.rounds, self.seconds
        )?;
        writeln!(
            f,
            "| work | contender | events/s (min–max) | CPU µs/event | written/payload | load generator's cores | answer p50 ms | p99 ms |"
        )?;
        writeln!(f, "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |")?;
        for entry in &self.entries {
            let wait = |spread: Option<Spread>| {
                spread.map_or("–".into(), |spread| format!("{:.2}", spread.median / 1e3))
            };
            // In process, the load generator's time is in the CPU time of the event.
            let load = if [OURS, OURS_BATCHED].contains(&entry.contender) {
                "in process".into()
            } else {
                format!("{:.2}", entry.load_cores.median)
            };
            writeln!(
                f,
                "| {} | {} | {:.0} | {:.1} | {:.1} | {load} | {} | {} |",
                entry.cell,
                entry.contender,
                entry.events_per_s,
                entry.cpu_us_per_event.median,
                entry.written_per_byte.median,
                wait(entry.ack_p50_us),
                wait(entry.ack_p99_us),
            )?;
        }
        self.show_comparisons(f)?;
        self.show_restarts(f)
    }
}

impl Report {
    fn show_comparisons(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n| goal | work | ours | peer | wanted | events/s, ours over theirs (min–max) | CPU per event, theirs over ours (min–max) |"
        )?;
        writeln!(f, "| --- | --- | --- | --- | ---: | ---: | ---: |")?;
        for row in self.comparisons() {
            let (goal, wanted) = match row.wanted {
                Some(wanted) => ("P8", format!("≥ {wanted:.1} ×")),
                None => ("", String::new()),
            };
            writeln!(
                f,
                "| {goal} | {} | {} | {} | {wanted} | {} | {} |",
                row.cell,
                row.ours,
                row.theirs,
                Times(row.events_per_s),
                Times(row.cpu),
            )?;
        }
        Ok(())
    }

    fn show_restarts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n| start with {} events of 100 B | contender | first event ms (min–max) | resident MiB |",
            self.restart_events
        )?;
        writeln!(f, "| --- | --- | ---: | ---: |")?;
        for row in &self.restarts {
            let first = row.spread(|restart| restart.first_event_ms);
            let resident = row.spread(|restart| restart.resident_mib);
            let (Some(first), Some(resident)) = (first, resident) else {
                continue;
            };
            let after = if row.in_order {
                "after an orderly end"
            } else {
                "after kill -9"
            };
            writeln!(
                f,
                "| {after} | {} | {first:.0} | {:.0} |",
                row.contender, resident.median
            )?;
        }
        Ok(())
    }
}
