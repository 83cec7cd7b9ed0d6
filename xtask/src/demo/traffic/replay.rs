//! Sends the recording to function `signal`, second by second, as fast as the answers come.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::recording::{DETECTORS, Recording, Second};

/// How often a batch is sent when the answer is "later" (429, 502, 503, 504); the function takes it once.
const ATTEMPTS: u32 = 6;
const PAUSE: Duration = Duration::from_millis(100);
/// Every so many batches one is sent twice, as a controller does whose connection broke before the answer.
const REPEAT_EVERY: u64 = 600;

/// What has happened so far.
#[derive(Debug, Default)]
pub struct Counts {
    pub batches: usize,
    pub repeated: usize,
    pub retried: usize,
    pub events: usize,
    pub bytes: u64,
    /// Decisions by kind.
    pub decisions: BTreeMap<String, usize>,
    /// The recording's clock, in seconds since 1970.
    pub time: i64,
    pub elapsed: Duration,
    latencies_us: Vec<u32>,
}

impl Counts {
    pub fn decided(&self) -> usize {
        self.decisions.values().sum()
    }

    /// The latency that this share of the batches was answered within, in milliseconds.
    pub fn latency_ms(&self, share: f64) -> f64 {
        let mut sorted = self.latencies_us.clone();
        sorted.sort_unstable();
        let place = (sorted.len() as f64 * share).ceil() as usize;
        sorted
            .get(place.saturating_sub(1))
            .map_or(0.0, |latency| f64::from(*latency) / 1_000.0)
    }
}

#[derive(Deserialize)]
struct Answer {
    sequence: u64,
    repeated: bool,
    decisions: BTreeMap<String, String>,
}

/// Replays everything; `show` is called after each batch.
pub fn run(
    agent: &ureq::Agent,
    site: &str,
    recording: &Recording,
    mut show: impl FnMut(&Counts),
) -> Result<Counts> {
    let url = format!("{site}/signals/{}", recording.device());
    configure(agent, &url, recording.detectors())?;
    let begin = Instant::now();
    let mut counts = Counts::default();
    for second in recording.seconds() {
        let answer = send(agent, &url, second, &mut counts)?;
        ensure!(
            !answer.repeated,
            "batch {} was taken for a repetition",
            second.sequence
        );
        for decision in answer.decisions.into_values() {
            *counts.decisions.entry(decision).or_default() += 1;
        }
        if second.sequence % REPEAT_EVERY == REPEAT_EVERY - 1 {
            let again = send(agent, &url, second, &mut counts)?;
            ensure!(again.repeated, "batch {} was taken twice", second.sequence);
            counts.repeated += 1;
        }
        counts.batches += 1;
        counts.events += second.events.len();
        counts.time = second.time;
        counts.elapsed = begin.elapsed();
        show(&counts);
    }
    Ok(counts)
}

fn configure(agent: &ureq::Agent, url: &str, table: &str) -> Result<()> {
    let mut answer = agent
        .put(format!("{url}/detectors"))
        .header("content-type", "text/csv")
        .send(table)?;
    let status = answer.status();
    let text = answer.body_mut().read_to_string()?;
    ensure!(
        status.is_success(),
        "{DETECTORS} was answered {status}: {}",
        detail(&text)
    );
    Ok(())
}

/// What a problem says in words; any other answer as it is.
fn detail(text: &str) -> String {
    #[derive(Deserialize)]
    struct Problem {
        detail: String,
    }
    serde_json::from_str(text).map_or_else(|_| text.into(), |problem: Problem| problem.detail)
}

fn send(agent: &ureq::Agent, url: &str, second: &Second, counts: &mut Counts) -> Result<Answer> {
    let body = serde_json::to_vec(second)?;
    for attempt in 1..=ATTEMPTS {
        let begin = Instant::now();
        let mut answer = agent
            .post(url)
            .header("content-type", "application/json")
            .send(&body)?;
        let text = answer.body_mut().read_to_string()?;
        counts.bytes += body.len() as u64;
        if answer.status().is_success() {
            counts
                .latencies_us
                .push(u32::try_from(begin.elapsed().as_micros()).unwrap_or(u32::MAX));
            let answer: Answer =
                serde_json::from_str(&text).with_context(|| format!("not an answer: {text}"))?;
            ensure!(
                answer.sequence == second.sequence,
                "the answer is to batch {}",
                answer.sequence
            );
            return Ok(answer);
        }
        if !matches!(answer.status().as_u16(), 429 | 502 | 503 | 504) || attempt == ATTEMPTS {
            bail!(
                "batch {} was answered {}: {}",
                second.sequence,
                answer.status(),
                detail(&text)
            );
        }
        counts.retried += 1;
        thread::sleep(PAUSE * attempt);
    }
    bail!("batch {} was never taken", second.sequence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_told_in_its_words() {
        assert_eq!(detail(r#"{"status":400,"detail":"line 3"}"#), "line 3");
        assert_eq!(detail("no"), "no");
    }

    #[test]
    fn latencies_are_ranked() {
        let counts = Counts {
            latencies_us: (1..=100).rev().map(|place| place * 1_000).collect(),
            ..Counts::default()
        };
        assert_eq!(
            (counts.latency_ms(0.5), counts.latency_ms(0.99)),
            (50.0, 99.0)
        );
        assert_eq!(Counts::default().latency_ms(0.5), 0.0);
    }
}
