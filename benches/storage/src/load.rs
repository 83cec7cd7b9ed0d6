//! What a child process measures: commits by many callers through one group-commit thread, reads, and opening.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use crate::contender::{self, Engine, Record};

/// Keys that the loaded data has.
pub const KEYS: u64 = 1_000_000;
/// Length of the values of the loaded data.
pub const LOADED_VALUE_BYTES: usize = 100;
/// Keys that the commit rounds write to.
const HOT_KEYS: u64 = 100_000;
const BATCH_MAX: usize = 1024;

type Queued = (Record, oneshot::Sender<()>);

/// Callers in a closed loop on one thread, the writer on another. Returns commits and latencies in µs.
fn drive(
    engine: &dyn Engine,
    writers: usize,
    value_bytes: usize,
    keys: u64,
    stop: &Arc<AtomicBool>,
    committed: &AtomicU64,
) -> Result<Vec<u32>> {
    let first = first_sequence()?;
    let (queue, requests) = mpsc::channel::<Queued>(BATCH_MAX);
    thread::scope(|scope| {
        let writer = scope.spawn(|| write(engine, requests, committed));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()?;
        let latencies = tokio::task::LocalSet::new().block_on(&runtime, async {
            let sequence = Arc::new(AtomicU64::new(first));
            let mut callers = tokio::task::JoinSet::new();
            for _ in 0..writers {
                let (queue, sequence) = (queue.clone(), Arc::clone(&sequence));
                callers.spawn_local(call(queue, sequence, value_bytes, keys, Arc::clone(stop)));
            }
            drop(queue);
            callers.join_all().await.concat()
        });
        writer
            .join()
            .ok()
            .context("the writer panicked")?
            .context("commit")?;
        Ok(latencies)
    })
}

/// Sequences continue over restarts by starting at the time.
fn first_sequence() -> Result<u64> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    Ok(u64::try_from(now.as_nanos())?)
}

async fn call(
    queue: mpsc::Sender<Queued>,
    sequence: Arc<AtomicU64>,
    value_bytes: usize,
    keys: u64,
    stop: Arc<AtomicBool>,
) -> Vec<u32> {
    let mut latencies = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let record = record(
            sequence.fetch_add(1, Ordering::Relaxed),
            fastrand::u64(0..keys),
            value_bytes,
        );
        let (answer, answered) = oneshot::channel();
        let start = Instant::now();
        if queue.send((record, answer)).await.is_err() || answered.await.is_err() {
            break;
        }
        latencies.push(u32::try_from(start.elapsed().as_micros()).unwrap_or(u32::MAX));
    }
    latencies
}

fn write(
    engine: &dyn Engine,
    mut requests: mpsc::Receiver<Queued>,
    committed: &AtomicU64,
) -> Result<()> {
    let (mut records, mut answers) = (Vec::new(), Vec::new());
    while let Some((record, answer)) = requests.blocking_recv() {
        records.push(record);
        answers.push(answer);
        while records.len() < BATCH_MAX {
            let Ok((record, answer)) = requests.try_recv() else {
                break;
            };
            records.push(record);
            answers.push(answer);
        }
        engine.commit(&records)?;
        committed.fetch_add(records.len() as u64, Ordering::Relaxed);
        records.clear();
        for answer in answers.drain(..) {
            let _ = answer.send(());
        }
    }
    Ok(())
}

/// A 20-byte key that is spread over the whole space, and random bytes that no compression shrinks.
pub fn record(sequence: u64, key: u64, value_bytes: usize) -> Record {
    Record {
        sequence,
        event: random(value_bytes),
        key: key_of(key),
        value: random(value_bytes),
    }
}

pub fn key_of(key: u64) -> Vec<u8> {
    format!("{:020}", key.wrapping_mul(0x9e37_79b9_7f4a_7c15)).into_bytes()
}

pub fn random(bytes: usize) -> Vec<u8> {
    let mut random = vec![0; bytes];
    fastrand::fill(&mut random);
    random
}

fn timed<T: Send>(
    duration: Duration,
    stop: &AtomicBool,
    work: impl FnOnce() -> T + Send,
) -> (T, f64) {
    thread::scope(|scope| {
        let start = Instant::now();
        scope.spawn(|| {
            thread::sleep(duration);
            stop.store(true, Ordering::Relaxed);
        });
        (work(), start.elapsed().as_secs_f64())
    })
}

/// Durable commits per second on an empty folder.
pub fn commits(
    name: &str,
    folder: &Path,
    writers: usize,
    value_bytes: usize,
    millis: u64,
) -> Result<Value> {
    let engine = contender::open(name, folder)?;
    let (stop, committed) = (Arc::new(AtomicBool::new(false)), AtomicU64::new(0));
    let (before, cpu_before) = (written_bytes()?, cpu_us()?);
    let (latencies, seconds) = timed(Duration::from_millis(millis), &stop, || {
        drive(&*engine, writers, value_bytes, HOT_KEYS, &stop, &committed)
    });
    let mut latencies = latencies?;
    latencies.sort_unstable();
    let count = committed.load(Ordering::Relaxed);
    let payload = count * record(0, 0, value_bytes).bytes() as u64;
    Ok(json!({
        "commits_per_s": count as f64 / seconds,
        "p50_us": percentile(&latencies, 0.5),
        "p99_us": percentile(&latencies, 0.99),
        "written_per_payload": (written_bytes()? - before) as f64 / payload.max(1) as f64,
        "cpu_us_per_commit": (cpu_us()? - cpu_before) / count.max(1) as f64,
        "rss_mib": status("VmRSS")?,
    }))
}

/// Fills a folder with one million keys.
pub fn fill(name: &str, folder: &Path) -> Result<Value> {
    let engine = contender::open(name, folder)?;
    let start = Instant::now();
    for batch in 0..KEYS / 10_000 {
        let records: Vec<_> = (batch * 10_000..(batch + 1) * 10_000)
            .map(|key| record(key, key, LOADED_VALUE_BYTES))
            .collect();
        engine.commit(&records)?;
    }
    Ok(json!({ "seconds": start.elapsed().as_secs_f64() }))
}

/// Reads alone, reads while 64 callers write, and then writes until somebody kills the process.
pub fn reads(name: &str, folder: &Path, millis: u64) -> Result<Value> {
    let engine = contender::open(name, folder)?;
    let duration = Duration::from_millis(millis);
    read_for(&*engine, duration / 2)?;
    let alone = read_for(&*engine, duration)?;
    let rss = status("VmRSS")?;
    let (stop, committed) = (Arc::new(AtomicBool::new(false)), AtomicU64::new(0));
    let (mixed, commits) = thread::scope(|scope| {
        let writing =
            scope.spawn(|| drive(&*engine, 64, LOADED_VALUE_BYTES, KEYS, &stop, &committed));
        let mixed = read_for(&*engine, duration);
        let commits = committed.load(Ordering::Relaxed) as f64 / duration.as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        let written = writing.join();
        anyhow::Ok((
            mixed?,
            written
                .ok()
                .context("a writer panicked")?
                .map(|_| commits)?,
        ))
    })?;
    let result = json!({
        "reads_per_s": alone, "reads_while_writing_per_s": mixed, "commits_while_reading_per_s": commits,
        "rss_mib": rss, "rss_after_writes_mib": status("VmRSS")?, "rss_peak_mib": status("VmHWM")?,
    });
    println!("{result}");
    drive(
        &*engine,
        64,
        LOADED_VALUE_BYTES,
        KEYS,
        &Arc::new(AtomicBool::new(false)),
        &committed,
    )?;
    Ok(result)
}

fn read_for(engine: &dyn Engine, duration: Duration) -> Result<f64> {
    let mut reader = engine.reader()?;
    let (start, mut count) = (Instant::now(), 0_u64);
    while start.elapsed() < duration {
        for _ in 0..64 {
            let value = reader.value(&key_of(fastrand::u64(0..KEYS)))?;
            anyhow::ensure!(value.is_some(), "a loaded key is missing");
            count += 1;
        }
    }
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

/// From nothing to the first value, on a folder whose process was killed.
pub fn reopen(name: &str, folder: &Path) -> Result<Value> {
    let start = Instant::now();
    let engine = contender::open(name, folder)?;
    let found = engine.reader()?.value(&key_of(1))?;
    anyhow::ensure!(found.is_some(), "a loaded key is missing");
    Ok(json!({ "open_ms": start.elapsed().as_secs_f64() * 1e3, "rss_mib": status("VmRSS")? }))
}

fn percentile(sorted: &[u32], part: f64) -> u32 {
    let index = (sorted.len() as f64 * part) as usize;
    sorted.get(index).copied().unwrap_or(0)
}

fn written_bytes() -> Result<u64> {
    let io = std::fs::read_to_string("/proc/self/io")?;
    let line = io
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "));
    Ok(line.context("no write_bytes")?.parse()?)
}

/// CPU time of this process, user and system, callers included; in ticks of 10 ms.
fn cpu_us() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let behind_name = stat.rsplit(')').next().context("no stat")?;
    let ticks = behind_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| Ok(field.parse::<f64>()?))
        .sum::<Result<f64>>()?;
    Ok(ticks * 10_000.0)
}

fn status(field: &str) -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with(field));
    let kib: f64 = line
        .and_then(|line| line.split_whitespace().nth(1))
        .context("no such field")?
        .parse()?;
    Ok(kib / 1024.0)
}
