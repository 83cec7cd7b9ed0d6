//! Two samples of a node's counters, and what happened between them.

use std::time::{Duration, SystemTime};

use serde::Serialize;
use tokio::time::Instant;
use tombolo_api::{Bucket, Client, FunctionSummary, Queue};
use tombolo_core::{Code, Name, QueueName};

use crate::arguments::Format;
use crate::error::Error;
use crate::output::{Row, table};

/// The counters of a node at one moment.
pub struct Sample {
    at: Instant,
    functions: Vec<FunctionSummary>,
    queues: Vec<Queue>,
}

impl Sample {
    pub async fn take(client: &Client) -> Result<Self, Error> {
        let functions = client.functions().await?.items;
        let queues = client.queues().await?.items;
        Ok(Self {
            at: Instant::now(),
            functions,
            queues,
        })
    }
}

/// What a node did in an interval, and how it stands at the end of it.
#[derive(Debug, Serialize)]
pub struct Figures {
    /// The end of the interval (RFC 3339, UTC).
    time: String,
    /// The length of the interval.
    seconds: f64,
    functions: Vec<FunctionFigures>,
    queues: Vec<QueueFigures>,
}

#[derive(Debug, PartialEq, Serialize)]
struct FunctionFigures {
    app: Name,
    name: Name,
    running: u32,
    waiting: u32,
    invocations_per_s: f64,
    errors_per_s: f64,
    /// The times that half, and 99 of 100, of the invocations that ended in the interval did not exceed, as far as the
    /// node's histogram tells; none when none ended.
    p50_ms: Option<Between>,
    p99_ms: Option<Between>,
    /// Their mean time.
    mean_ms: Option<f64>,
    /// CPU seconds of the function's own code, per second.
    cpu: f64,
    /// Since the node started.
    invocations: u64,
    errors: u64,
}

/// The bounds of the bucket that a time is in, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Between {
    over: f64,
    /// None beyond the last bound.
    up_to: Option<f64>,
}

#[derive(Debug, PartialEq, Serialize)]
struct QueueFigures {
    app: Name,
    name: QueueName,
    function: Option<Name>,
    depth: u64,
    oldest_age_ms: Option<u64>,
    leased: u64,
    backing_off: u64,
    published_per_s: f64,
    delivered_per_s: f64,
    /// Since the node started.
    attempts: u64,
    retried: u64,
    dead: u64,
    /// Those that left unread, for whatever reason but an operator's.
    dropped: u64,
}

impl Figures {
    pub fn between(before: &Sample, now: &Sample) -> Self {
        let seconds = (now.at - before.at).as_secs_f64().max(1e-3);
        let functions = now.functions.iter().map(|function| {
            let same =
                |one: &&FunctionSummary| one.app == function.app && one.name == function.name;
            function_figures(before.functions.iter().find(same), function, seconds)
        });
        let queues = now.queues.iter().map(|queue| {
            let same = |one: &&Queue| one.app == queue.app && one.name == queue.name;
            queue_figures(before.queues.iter().find(same), queue, seconds)
        });
        Self {
            time: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            seconds,
            functions: functions.collect(),
            queues: queues.collect(),
        }
    }

    /// In the format, with the end of its last line.
    pub fn text(&self, format: Format) -> Result<String, Error> {
        let failed = |error: &dyn std::fmt::Display| {
            Error::new(Code::Failed, format!("figures cannot be printed: {error}"))
        };
        Ok(match format {
            Format::Json => serde_json::to_string(self).map_err(|error| failed(&error))? + "\n",
            Format::Yaml => {
                let yaml = serde_yaml_ng::to_string(self).map_err(|error| failed(&error))?;
                format!("---\n{yaml}")
            }
            Format::Name => {
                let functions = self.functions.iter().map(Row::name);
                let queues = self.queues.iter().map(Row::name);
                functions.chain(queues).map(|name| name + "\n").collect()
            }
            Format::Table | Format::Wide => self.tables(format) + "\n",
        })
    }

    /// As tables.
    pub fn tables(&self, format: Format) -> String {
        // Queues that never had an event say nothing.
        let used =
            |queue: &&QueueFigures| queue.depth > 0 || queue.attempts > 0 || !queue.name.is_dead();
        let queues = self.queues.iter().filter(used);
        let wide = format == Format::Wide;
        format!(
            "{}\n\n{}\n{}",
            self.time,
            table(&self.functions, wide),
            table(queues, wide)
        )
    }
}

fn function_figures(
    before: Option<&FunctionSummary>,
    now: &FunctionSummary,
    seconds: f64,
) -> FunctionFigures {
    let then = before.map(|before| before.usage.clone());
    let then = then.unwrap_or_default();
    let usage = &now.usage;
    // A node that was started again counts from 0.
    let ended = usage.invocations.saturating_sub(then.invocations);
    let wall_ms = usage.wall_ns.saturating_sub(then.wall_ns) as f64 / 1e6;
    FunctionFigures {
        app: now.app.clone(),
        name: now.name.clone(),
        running: usage.running,
        waiting: usage.waiting,
        invocations_per_s: ended as f64 / seconds,
        errors_per_s: usage.errors.saturating_sub(then.errors) as f64 / seconds,
        p50_ms: percentile(&then.wall, &usage.wall, 50),
        p99_ms: percentile(&then.wall, &usage.wall, 99),
        mean_ms: (ended > 0).then(|| wall_ms / ended as f64),
        cpu: usage.cpu_ns.saturating_sub(then.cpu_ns) as f64 / 1e9 / seconds,
        invocations: usage.invocations,
        errors: usage.errors,
    }
}

/// Where the time lies that so many of 100 invocations between two readings did not exceed.
fn percentile(before: &[Bucket], now: &[Bucket], percent: u64) -> Option<Between> {
    let new = |bucket: &Bucket| {
        let mut before = before.iter();
        let same = before.find(|one| one.up_to_ns == bucket.up_to_ns);
        bucket.count.saturating_sub(same.map_or(0, |one| one.count))
    };
    let total: u64 = now.iter().map(new).sum();
    let rank = (total * percent).div_ceil(100).max(1);
    let mut counted = 0;
    let bucket = now.iter().find(|bucket| {
        counted += new(bucket);
        counted >= rank
    })?;
    let ms = |ns: u64| ns as f64 / 1e6;
    Some(Between {
        over: ms(bucket.over_ns),
        up_to: bucket.up_to_ns.map(ms),
    })
}

fn queue_figures(before: Option<&Queue>, now: &Queue, seconds: f64) -> QueueFigures {
    let then = before.map(|before| before.counters).unwrap_or_default();
    let counters = &now.counters;
    let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
    QueueFigures {
        app: now.app.clone(),
        name: now.name.clone(),
        function: now.function.clone(),
        depth: now.depth,
        oldest_age_ms: now.oldest_age_ms,
        leased: now.leased,
        backing_off: now.backing_off,
        published_per_s: rate(counters.published, then.published),
        delivered_per_s: rate(counters.delivered, then.delivered),
        attempts: counters.attempts,
        retried: counters.retried,
        dead: counters.dead,
        dropped: counters.dropped + counters.expired + counters.compacted + counters.lost,
    }
}

impl Row for FunctionFigures {
    const COLUMNS: &'static [&'static str] = &[
        "FUNCTION", "RUNNING", "WAITING", "CALLS/S", "ERRORS/S", "P50", "P99", "CALLS", "ERRORS",
    ];
    const WIDE: &'static [&'static str] = &["MEAN", "CPU"];

    fn name(&self) -> String {
        format!("{}/{}", self.app, self.name)
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.name(),
            self.running.to_string(),
            self.waiting.to_string(),
            rate(self.invocations_per_s),
            rate(self.errors_per_s),
            self.p50_ms.map_or_else(dash, bound),
            self.p99_ms.map_or_else(dash, bound),
            self.invocations.to_string(),
            self.errors.to_string(),
            self.mean_ms.map_or_else(dash, milliseconds),
            format!("{:.0}%", self.cpu * 100.0),
        ]
    }
}

impl Row for QueueFigures {
    const COLUMNS: &'static [&'static str] = &[
        "QUEUE",
        "DEPTH",
        "OLDEST",
        "IN FLIGHT",
        "IN/S",
        "DONE/S",
        "ATTEMPTS",
        "DEAD",
    ];
    const WIDE: &'static [&'static str] = &["FUNCTION", "RETRYING", "RETRIED", "DROPPED"];

    fn name(&self) -> String {
        format!("{}/{}", self.app, self.name)
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.name(),
            self.depth.to_string(),
            self.oldest_age_ms.map_or_else(dash, age),
            self.leased.to_string(),
            rate(self.published_per_s),
            rate(self.delivered_per_s),
            self.attempts.to_string(),
            self.dead.to_string(),
            self.function.as_ref().map_or_else(dash, Name::to_string),
            self.backing_off.to_string(),
            self.retried.to_string(),
            self.dropped.to_string(),
        ]
    }
}

fn rate(per_s: f64) -> String {
    match per_s {
        0.0 => "0".into(),
        ..10.0 => format!("{per_s:.1}"),
        _ => format!("{per_s:.0}"),
    }
}

/// The upper bound of a time, which is what is known for sure; beyond the last one the lower bound.
fn bound(between: Between) -> String {
    match between.up_to {
        Some(ms) => format!("<={}", milliseconds(ms)),
        None => format!(">{}", milliseconds(between.over)),
    }
}

fn milliseconds(ms: f64) -> String {
    match ms {
        ..1.0 => format!("{:.0}us", ms * 1000.0),
        ..10.0 => format!("{ms:.1}ms"),
        ..10_000.0 => format!("{ms:.0}ms"),
        _ => format!("{:.0}s", ms / 1000.0),
    }
}

/// An age in its largest unit and the one below.
fn age(ms: u64) -> String {
    let age = match ms {
        ..1000 => Duration::from_millis(ms),
        _ => Duration::from_secs(ms / 1000),
    };
    let text = humantime::format_duration(age).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

fn dash() -> String {
    "-".into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sample(at: Instant, invocations: u64, delivered: u64) -> Sample {
        let usage = json!({
            "invocations": invocations, "errors": invocations / 10, "wall_ns": invocations * 3_000_000,
            "running": 2, "waiting": 1,
            "wall": [
                {"over_ns": 2_500_000, "up_to_ns": 5_000_000, "count": invocations * 98 / 100},
                {"over_ns": 10_000_000_000_u64, "count": invocations * 2 / 100},
            ],
        });
        let function = json!({
            "app": "a", "name": "f", "isolation": "fresh", "world": "wasi:http 0.2", "usage": usage,
        });
        let counters =
            json!({"published": 5, "attempts": delivered, "delivered": delivered, "lost": 1});
        let queue = json!({
            "app": "a", "name": "q", "used": true, "function": "f", "depth": 7, "bytes": 70,
            "oldest_age_ms": 3_725_000, "ready": 6, "leased": 1, "scheduled": 0, "backing_off": 0,
            "counters": counters,
        });
        Sample {
            at,
            functions: vec![serde_json::from_value(function).unwrap()],
            queues: vec![serde_json::from_value(queue).unwrap()],
        }
    }

    #[test]
    fn rates_are_what_happened_between_two_samples() {
        let begun = Instant::now();
        let before = sample(begun, 100, 0);
        let now = sample(begun + Duration::from_secs(2), 300, 50);
        let figures = Figures::between(&before, &now);
        let cells = figures.functions[0].cells();
        assert_eq!(
            cells,
            [
                "a/f", "2", "1", "100", "10", "<=5.0ms", ">10s", "300", "30", "3.0ms", "0%"
            ]
        );
        let cells = figures.queues[0].cells();
        assert_eq!(
            cells,
            [
                "a/q", "7", "1h 2m", "1", "0", "25", "50", "0", "f", "0", "0", "1"
            ]
        );
        let json = figures.text(Format::Json).unwrap();
        assert_eq!(json.lines().count(), 1);
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let function = &json["functions"][0];
        assert_eq!(function["mean_ms"], 3.0);
        assert_eq!(function["p50_ms"], json!({"over": 2.5, "up_to": 5.0}));
        assert_eq!(function["p99_ms"], json!({"over": 10_000.0, "up_to": null}));
        assert_eq!(figures.text(Format::Name).unwrap(), "a/f\na/q\n");
    }

    #[test]
    fn a_node_that_started_again_counts_from_nothing() {
        let begun = Instant::now();
        let before = sample(begun, 100, 40);
        let now = sample(begun + Duration::from_secs(1), 0, 0);
        let figures = Figures::between(&before, &now);
        assert_eq!(figures.functions[0].cells()[3..7], ["0", "0", "-", "-"]);
    }

    #[test]
    fn a_percentile_is_of_what_ended_between_two_readings() {
        let bucket = |over_ns, up_to_ns, count| Bucket {
            over_ns,
            up_to_ns: Some(up_to_ns),
            count,
        };
        let slow = bucket(25_000_000, 50_000_000, 7);
        let before = [bucket(10_000, 25_000, 1000), slow];
        let now = [
            bucket(10_000, 25_000, 1001),
            bucket(25_000, 50_000, 98),
            bucket(50_000, 100_000, 1),
            slow,
        ];
        for (percent, over) in [(1, 0.01), (50, 0.025), (99, 0.025), (100, 0.05)] {
            let found = percentile(&before, &now, percent);
            assert_eq!(found.map(|one| one.over), Some(over), "{percent}");
        }
        assert_eq!(percentile(&now, &now, 50), None);
    }
}
