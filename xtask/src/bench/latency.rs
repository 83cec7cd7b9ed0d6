//! Latency at a fixed rate, open loop: what a client would see, with nothing left out while the server is slow.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::contender::Running;
use super::report::Entry;
use super::round::{CONNECTIONS, LOAD_CORE};
use crate::process::{self, find, program};

/// Goal P3: ours against theirs, at this part of what theirs can carry.
const OURS: &str = "tombolo fresh, p2";
const THEIRS: &str = "wasmtime tuned, p2";
const LOAD_RATIO: f64 = 0.7;
const ROUNDS: usize = 3;

/// Latency of one server at one rate, in milliseconds.
#[derive(Debug, Serialize)]
pub struct Latency {
    pub name: &'static str,
    pub requests_per_second: u64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
}

#[derive(Deserialize)]
struct OhaReport {
    #[serde(rename = "latencyPercentiles")]
    latency: Percentiles,
}

#[derive(Deserialize)]
struct Percentiles {
    p50: f64,
    p99: f64,
    #[serde(rename = "p99.9")]
    p999: f64,
}

/// Empty when oha or one of the two servers is missing.
pub fn measure(servers: &BTreeMap<&str, &Running>, entries: &[Entry]) -> Result<Vec<Latency>> {
    let saturation = entries.iter().find(|entry| entry.name == THEIRS);
    let (Some(oha), Some(entry)) = (find("oha"), saturation) else {
        return Ok(Vec::new());
    };
    let rate = (entry.requests_per_second.median * LOAD_RATIO) as u64;
    let mut latencies = Vec::new();
    for _ in 0..ROUNDS {
        for name in [OURS, THEIRS] {
            let Some(running) = servers.get(name) else {
                continue;
            };
            let rate_text = rate.to_string();
            let connections = CONNECTIONS.to_string();
            let mut command = program("taskset", &["--cpu-list", LOAD_CORE], process::repository());
            command
                .arg(&oha)
                .args(["--no-tui", "--latency-correction", "--output-format=json"]);
            command.args([
                "-q",
                &rate_text,
                "-c",
                &connections,
                "-z",
                "5s",
                &running.url,
            ]);
            let text = process::output(&mut command)?;
            let report: OhaReport =
                serde_json::from_str(&text).context("cannot read oha's report")?;
            latencies.push(Latency {
                name,
                requests_per_second: rate,
                p50_ms: report.latency.p50 * 1e3,
                p99_ms: report.latency.p99 * 1e3,
                p999_ms: report.latency.p999 * 1e3,
            });
        }
    }
    Ok(latencies)
}
