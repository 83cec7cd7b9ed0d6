//! One round of one contender: load by wrk from another core, and the CPU time that the server used meanwhile.

use std::fs;
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use super::contender::Running;
use crate::process::{self, program};

/// The load generator's core; the server has the other one.
pub const LOAD_CORE: &str = "1";
pub const CONNECTIONS: u32 = 32;
/// USER_HZ, which Linux fixes at 100 for every program that reads /proc.
const TICKS_PER_SECOND: f64 = 100.0;

/// What one round measured.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Sample {
    pub requests_per_second: f64,
    pub cpu_us_per_request: f64,
}

pub fn measure(running: &Running, seconds: u32) -> Result<Sample> {
    let process_id = running.server.process_id();
    let before = cpu_seconds(process_id)?;
    let (requests, requests_per_second) = load(running, seconds)?;
    let cpu = cpu_seconds(process_id)? - before;
    Ok(Sample {
        requests_per_second,
        cpu_us_per_request: cpu * 1e6 / requests,
    })
}

/// Keeps the server busy and returns the requests it answered, in all and for each second.
pub fn load(running: &Running, seconds: u32) -> Result<(f64, f64)> {
    let connections = format!("-c{CONNECTIONS}");
    let duration = format!("-d{seconds}s");
    let arguments = [
        "--cpu-list",
        LOAD_CORE,
        "wrk",
        "-t1",
        &connections,
        &duration,
        &running.url,
    ];
    let mut wrk = program("taskset", &arguments, process::repository());
    let text = process::output(wrk.stderr(Stdio::inherit()))?;
    parse_wrk(&text)
}

/// Reads wrk's summary; an answer that was an error makes the round void.
fn parse_wrk(text: &str) -> Result<(f64, f64)> {
    for complaint in ["Non-2xx", "Socket errors"] {
        if let Some(line) = text.lines().find(|line| line.contains(complaint)) {
            bail!("wrk saw errors: {}", line.trim());
        }
    }
    let number = |line: &str, place: usize| {
        line.split_whitespace()
            .nth(place)
            .and_then(|word| word.parse::<f64>().ok())
    };
    let requests = text
        .lines()
        .find(|line| line.contains(" requests in "))
        .and_then(|line| number(line, 0))
        .context("wrk did not say how many requests were answered")?;
    let requests_per_second = text
        .lines()
        .find(|line| line.starts_with("Requests/sec:"))
        .and_then(|line| number(line, 1))
        .context("wrk did not say how many requests it made each second")?;
    ensure!(requests > 0.0, "the server answered nothing");
    Ok((requests, requests_per_second))
}

/// utime + stime of all threads of a process (proc(5), fields 14 and 15 of /proc/PID/stat).
pub fn cpu_seconds(process_id: u32) -> Result<f64> {
    let file = format!("/proc/{process_id}/stat");
    let text = fs::read_to_string(&file).with_context(|| format!("{file}: the server is gone"))?;
    parse_stat(&text).with_context(|| format!("cannot read {file}"))
}

fn parse_stat(text: &str) -> Option<f64> {
    // The name of the program is in brackets and may hold anything; what follows starts with field 3.
    let (_, fields) = text.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRK: &str = "Running 2s test @ http://127.0.0.1:8080/
  1 threads and 32 connections
  444913 requests in 2.00s, 53.89MB read
Requests/sec: 222456.12
Transfer/sec:     26.95MB
";

    #[test]
    fn the_summary_of_wrk_is_read() {
        assert_eq!(parse_wrk(WRK).unwrap(), (444_913.0, 222_456.12));
    }

    #[test]
    fn a_round_with_errors_is_void() {
        let text = format!("{WRK}  Non-2xx or 3xx responses: 12\n");
        assert!(parse_wrk(&text).is_err());
    }

    #[test]
    fn cpu_time_is_read_past_a_name_with_brackets() {
        let stat = "12 (a) b) S 1 12 12 0 -1 4194304 1 0 0 0 150 50 0 0 20 0 1 0 1 1 1";
        assert_eq!(parse_stat(stat), Some(2.0));
    }
}
