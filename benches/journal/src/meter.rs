//! What a stretch of work cost: events, time, and the CPU time and written bytes of the process that did it.

use std::fs;
use std::time::Instant;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

/// USER_HZ, which Linux fixes at 100 for every program that reads /proc.
const TICK_US: f64 = 10_000.0;

/// A process (proc(5)); ours where the store is in this one.
#[derive(Clone, Copy)]
pub struct Process(u32);

/// Counts from its start on.
pub struct Meter {
    process: Process,
    start: Instant,
    cpu_us: f64,
    load_cpu_us: f64,
    written_bytes: f64,
}

impl Process {
    pub fn with_id(id: u32) -> Self {
        Self(id)
    }

    pub fn this() -> Self {
        Self(std::process::id())
    }

    /// User and system time of all threads, those that ended included; in ticks.
    fn cpu_us(self) -> Result<f64> {
        let stat = self.read("stat")?;
        // The name of the program is in brackets and may hold anything; what follows starts with field 3.
        let (_, fields) = stat.rsplit_once(") ").context("no name in stat")?;
        let ticks: Result<Vec<f64>, _> = fields
            .split(' ')
            .skip(11)
            .take(2)
            .map(str::parse::<f64>)
            .collect();
        Ok(ticks?.iter().sum::<f64>() * TICK_US)
    }

    /// Bytes of pages that the process made the kernel write, or will; what is written over before
    /// it reached the disk counts once.
    fn written_bytes(self) -> Result<f64> {
        let io = self.read("io")?;
        let line = io
            .lines()
            .find_map(|line| line.strip_prefix("write_bytes: "));
        Ok(line.context("no write_bytes")?.parse()?)
    }

    pub fn resident_mib(self) -> Result<f64> {
        let status = self.read("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        Ok(kib.context("no VmRSS")?.parse::<f64>()? / 1024.0)
    }

    fn read(self, file: &str) -> Result<String> {
        let path = format!("/proc/{}/{file}", self.0);
        fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
    }
}

impl Meter {
    pub fn start(process: Process) -> Result<Self> {
        Ok(Self {
            process,
            start: Instant::now(),
            cpu_us: process.cpu_us()?,
            load_cpu_us: Process::this().cpu_us()?,
            written_bytes: process.written_bytes()?,
        })
    }

    /// `load_cores` is how many cores this process used: a load generator near 1 is the limit itself.
    pub fn stop(&self, events: u64, event_bytes: usize) -> Result<Value> {
        let seconds = self.start.elapsed().as_secs_f64();
        let cpu_us = self.process.cpu_us()? - self.cpu_us;
        let load_cpu_us = Process::this().cpu_us()? - self.load_cpu_us;
        let written = self.process.written_bytes()? - self.written_bytes;
        let events = events.max(1) as f64;
        Ok(json!({
            "events_per_s": events / seconds,
            "cpu_us_per_event": cpu_us / events,
            "written_per_byte": written / (events * event_bytes as f64),
            "load_cores": load_cpu_us / seconds / 1e6,
        }))
    }
}
