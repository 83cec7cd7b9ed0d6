//! `replay`: the machines of the example. Publishes their recordings by MQTT and checks what comes of them.

mod board;
mod link;
mod machines;
mod outcome;
mod reference;
mod result;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;
use summary::report::Report;
use tokio::task::JoinHandle;
use trial::recording::{FOLDER_VARIABLE, SOURCES, Sensor, read_all};
use trial::temperature::Series;

use board::Board;
use link::Link;
use machines::Sent;

/// The thermometer's machine.
const PRESS: &str = "press-7";
/// The folder that is looked at when none is named.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../data/vibration");
/// The report is asked for until nothing has changed for this long.
const STILL: Duration = Duration::from_secs(20);
const ASK_EVERY: Duration = Duration::from_millis(100);

/// Publishes real recordings as machines would, and tells whether all of it was processed, once, and rightly.
#[derive(Parser, Debug)]
struct Arguments {
    /// Where the node's broker listens
    #[arg(long, default_value = "127.0.0.1:1883")]
    broker: String,
    /// Where the node serves the report
    #[arg(long, default_value = "http://127.0.0.1:3000")]
    site: String,
    /// Folder of the vibration recordings; without them that part is skipped
    #[arg(long, env = FOLDER_VARIABLE, default_value = FOLDER)]
    vibration: PathBuf,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(&Arguments::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything is as it must be.
async fn run(arguments: &Arguments) -> Result<bool> {
    // First what takes no time and may be wrong.
    let series = Series::load()?;
    let recordings = if SOURCES
        .iter()
        .all(|source| arguments.vibration.join(source.file).is_file())
    {
        Some(read_all(&arguments.vibration, Sensor::DriveEnd)?)
    } else {
        eprintln!(
            "vibration: skipped, the recordings are not in {} (data/SOURCE.md says which and whence; {FOLDER_VARIABLE} names another folder)",
            arguments.vibration.display()
        );
        None
    };
    let known = ask(&arguments.site)?.machines;
    if let Some(name) = known.keys().next() {
        bail!(
            "the node has heard of {name} before, and drops what it knows: begin with an empty store (rm -r .tombolo)"
        );
    }
    let board = Board::new();
    let alarms = Alarms::listen(&arguments.broker).await?;
    let mut sent = Vec::new();
    if let Some(recordings) = &recordings {
        board.phase("commissioning: the healthy motor teaches");
        for recording in recordings {
            if let Some(taught) = machines::commission(&arguments.broker, recording, &board).await?
            {
                sent.push(taught);
            }
        }
        board.phase("four motors, in real time");
        sent.extend(machines::vibrate(&arguments.broker, recordings, &board).await?);
    }
    board.phase("a press, 79 days of temperature");
    sent.push(machines::warm(&arguments.broker, PRESS, &series, &board).await?);
    board.phase("inspections: people tell what they found");
    let inspections = inspect(&arguments.broker, recordings.is_some(), &series).await?;
    let report = settled(&arguments.site, &sent, &inspections, &alarms).await?;
    let alarms = alarms.heard();
    board.finish();

    let differences = outcome::differences(&report, &sent, alarms)?;
    print!("{}", result::render(&report, &sent, alarms, &differences));
    Ok(differences.is_empty())
}

/// Publishes what was found in the bearings, and the log book of the press. Returns the machines that were inspected.
async fn inspect(broker: &str, bearings: bool, series: &Series) -> Result<Vec<String>> {
    let mut people = Link::connect(broker, "inspectors", "inspectors").await?;
    let mut names = Vec::new();
    if bearings {
        for source in SOURCES {
            let inspection = messages::Inspection {
                found: Some(source.truth),
                incidents: Vec::new(),
            };
            people.inspect(source.machine, &inspection).await?;
            names.push(source.machine.to_owned());
        }
    }
    let incident =
        |window: &std::ops::RangeInclusive<String>| (window.start().clone(), window.end().clone());
    let inspection = messages::Inspection {
        found: None,
        incidents: series.windows.iter().map(incident).collect(),
    };
    people.inspect(PRESS, &inspection).await?;
    names.push(PRESS.to_owned());
    people.acknowledged().await?;
    Ok(names)
}

/// Hears the alarms of all machines, as a panel on the wall does; ends when dropped.
struct Alarms {
    heard: Arc<AtomicU64>,
    listener: JoinHandle<Result<()>>,
}

impl Alarms {
    async fn listen(broker: &str) -> Result<Self> {
        let mut link = Link::connect(broker, "panel", "alarms/#").await?;
        let heard = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&heard);
        let listener = tokio::spawn(async move {
            loop {
                link.hear().await?;
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        Ok(Self { heard, listener })
    }

    fn heard(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }
}

impl Drop for Alarms {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

/// The report once it holds everything that was sent, or once it has stopped changing.
async fn settled(
    site: &str,
    sent: &[Sent],
    inspected: &[String],
    alarms: &Alarms,
) -> Result<Report> {
    let (mut last, mut changed) = ((Report::default(), 0), Instant::now());
    loop {
        let now = (ask(site)?, alarms.heard());
        if outcome::is_whole(&now.0, sent, inspected) && outcome::alarms(&now.0) <= now.1 {
            return Ok(now.0);
        }
        if now != last {
            changed = Instant::now();
            last = now;
        }
        if changed.elapsed() > STILL {
            return Ok(last.0);
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

fn ask(site: &str) -> Result<Report> {
    let url = format!("{site}/report.json");
    let mut answer = ureq::get(&url)
        .config()
        .timeout_global(Some(STILL))
        .build()
        .call()
        .with_context(|| format!("no report from {url}"))?;
    let text = answer.body_mut().read_to_string()?;
    serde_json::from_str(&text).with_context(|| format!("{url} is no report"))
}

/// The reference tables.
fn reference_folder() -> Result<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../reference");
    if !folder.is_dir() {
        bail!("{} is not there", folder.display());
    }
    Ok(folder)
}
