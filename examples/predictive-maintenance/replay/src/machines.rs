//! The machines: four motors with an accelerometer, and a press with a thermometer.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use analysis::verdict::Verdict;
use analysis::window::Window;
use anyhow::{Context, Result, ensure};
use messages::{Action, Channel, Command, Readings};
use trial::recording::{Recording, WINDOW_SAMPLES};
use trial::temperature::Series;

use crate::board::Board;
use crate::link::{Heard, Link};

/// Every so many messages one is published twice, as a machine does whose connection broke before the acknowledgement.
const TWICE_EVERY: usize = 10;
/// Readings of one message: an hour's.
const READINGS: usize = 12;

/// What a machine sent, and what it heard.
#[derive(Debug, Default)]
pub struct Sent {
    pub machine: String,
    /// Messages, each counted once, and how many of them were sent again.
    pub messages: u64,
    pub repeated: u64,
    pub acknowledged: u64,
    /// Windows that taught, windows to be judged, readings.
    pub taught: u64,
    pub windows: u64,
    pub readings: u64,
    /// From publishing a window to the command that answers it, for each window to be judged.
    pub latencies: Vec<Duration>,
}

impl Sent {
    fn of(machine: &str) -> Self {
        Self {
            machine: machine.to_owned(),
            ..Self::default()
        }
    }
}

/// The first half of the healthy recording, as fast as it is taken; nothing for the other recordings.
pub async fn commission(
    broker: &str,
    recording: &Recording,
    board: &Board,
) -> Result<Option<Sent>> {
    if recording.source.truth != Verdict::Healthy {
        return Ok(None);
    }
    let name = recording.source.machine;
    let mut link = connect(broker, name).await?;
    let mut sent = Sent::of(name);
    let windows = recording.windows();
    let half = windows.len() / 2;
    board.begin(name, half);
    for window in windows.take(half) {
        link.publish(
            name,
            Channel::Commissioning,
            window.position,
            window.encode(),
        )
        .await?;
        let heard = command(&link.hear_soon().await?)?;
        ensure!(
            heard.action == Action::Learn && heard.position == window.position,
            "{name} was told {heard:?} while it taught"
        );
        sent.messages += 1;
        sent.taught += 1;
        board.heard(name, link.acknowledged_so_far(), heard.action, None);
    }
    sent.acknowledged = link.acknowledged().await?;
    Ok(Some(sent))
}

/// The second half of each recording, all at once, a window whenever the sensor has filled one.
pub async fn vibrate(broker: &str, recordings: &[Recording], board: &Board) -> Result<Vec<Sent>> {
    let mut running = tokio::task::JoinSet::new();
    for recording in recordings {
        let windows = recording.windows();
        let half = windows.len() / 2;
        let windows: Vec<Window> = windows.skip(half).collect();
        let (broker, board) = (broker.to_owned(), board.clone());
        running.spawn(async move { run_motor(&broker, windows, &board).await });
    }
    let mut sent = Vec::new();
    while let Some(motor) = running.join_next().await {
        sent.push(motor??);
    }
    Ok(sent)
}

async fn run_motor(broker: &str, windows: Vec<Window>, board: &Board) -> Result<Sent> {
    let first = windows.first().context("a recording is empty")?;
    let name = first.machine.clone();
    let filled = Duration::from_secs_f64(WINDOW_SAMPLES as f64 / f64::from(first.sample_rate_hz));
    let mut link = connect(broker, &name).await?;
    let mut sent = Sent::of(&name);
    board.begin(&name, with_repeated(windows.len()));
    let mut waiting: BTreeMap<u64, Instant> = BTreeMap::new();
    let mut due = Instant::now();
    for (index, window) in windows.iter().enumerate() {
        waiting.insert(window.position, Instant::now());
        link.publish(&name, Channel::Vibration, window.position, window.encode())
            .await?;
        sent.messages += 1;
        sent.windows += 1;
        if index % TWICE_EVERY == TWICE_EVERY - 1 {
            link.publish(&name, Channel::Vibration, window.position, window.encode())
                .await?;
            sent.repeated += 1;
        }
        due += filled;
        for heard in link.hear_until(due).await? {
            answer(
                &name,
                &heard,
                &mut waiting,
                &mut sent,
                board,
                link.acknowledged_so_far(),
            )?;
        }
    }
    while !waiting.is_empty() {
        let heard = link.hear_soon().await?;
        answer(
            &name,
            &heard,
            &mut waiting,
            &mut sent,
            board,
            link.acknowledged_so_far(),
        )?;
    }
    sent.acknowledged = link.acknowledged().await?;
    Ok(sent)
}

/// Takes a command into account. The replay does not obey: the recording goes on, so that every window is judged.
fn answer(
    name: &str,
    heard: &Heard,
    waiting: &mut BTreeMap<u64, Instant>,
    sent: &mut Sent,
    board: &Board,
    acknowledged: u64,
) -> Result<()> {
    let command = command(heard)?;
    // A command may come twice, as everything that is delivered at least once.
    if let Some(published) = waiting.remove(&command.position) {
        let latency = heard.at.duration_since(published);
        sent.latencies.push(latency);
        board.heard(name, acknowledged, command.action, Some(latency));
    }
    Ok(())
}

/// The whole series, an hour in each message, as fast as it is taken.
pub async fn warm(broker: &str, name: &str, series: &Series, board: &Board) -> Result<Sent> {
    let mut link = connect(broker, name).await?;
    let mut sent = Sent::of(name);
    let hours = series.readings.chunks(READINGS);
    board.begin(name, with_repeated(hours.len()));
    for (index, readings) in hours.enumerate() {
        let message = Readings {
            first: sent.readings,
            readings: readings.to_vec(),
        };
        let payload = serde_json::to_vec(&message)?;
        if index % TWICE_EVERY == TWICE_EVERY - 1 {
            link.publish(name, Channel::Temperature, message.first, payload.clone())
                .await?;
            sent.repeated += 1;
        }
        link.publish(name, Channel::Temperature, message.first, payload)
            .await?;
        sent.messages += 1;
        sent.readings += readings.len() as u64;
        board.acknowledged(name, link.acknowledged_so_far());
    }
    sent.acknowledged = link.acknowledged().await?;
    board.acknowledged(name, sent.acknowledged);
    Ok(sent)
}

/// How many messages are published when so many are to be told.
fn with_repeated(messages: usize) -> usize {
    messages + messages / TWICE_EVERY
}

async fn connect(broker: &str, name: &str) -> Result<Link> {
    Link::connect(broker, name, &format!("machines/{name}/command")).await
}

fn command(heard: &Heard) -> Result<Command> {
    serde_json::from_slice(&heard.payload).context("a command is not readable")
}
