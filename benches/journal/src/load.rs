//! A closed loop: so many publications outstanding at any moment, warmed up, then counted.

use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde_json::{Value, json};

use crate::meter::{Meter, Process};

const WARM_UP: Duration = Duration::from_millis(400);

/// How publications are made.
#[derive(Clone, Copy)]
pub struct Load {
    /// Requests that wait for their answer at any moment.
    pub outstanding: usize,
    /// Events of each request.
    pub batch: u64,
    pub event_bytes: usize,
    pub duration: Duration,
}

impl Load {
    /// Bytes that no file system and no log can make less of.
    pub fn payload(&self) -> Bytes {
        let bytes: Vec<u8> = (0..self.event_bytes).map(|_| fastrand::u8(..)).collect();
        bytes.into()
    }

    /// Calls `publish` with the number of the first event of each request.
    pub async fn run<F>(&self, process: Process, publish: impl Fn(u64) -> F) -> Result<Value>
    where
        F: Future<Output = Result<()>>,
    {
        let mut next = 0;
        let mut begin = || {
            let first = next;
            next += self.batch;
            let publication = publish(first);
            let begun = Instant::now();
            async move { publication.await.map(|()| begun.elapsed()) }
        };
        let mut outstanding: FuturesUnordered<_> = (0..self.outstanding).map(|_| begin()).collect();
        let warm = Instant::now() + WARM_UP;
        while Instant::now() < warm {
            if let Some(done) = outstanding.next().await {
                done?;
                outstanding.push(begin());
            }
        }
        let meter = Meter::start(process)?;
        let end = Instant::now() + self.duration;
        let mut waits_us: Vec<u32> = Vec::new();
        while Instant::now() < end {
            if let Some(done) = outstanding.next().await {
                waits_us.push(u32::try_from(done?.as_micros())?);
                outstanding.push(begin());
            }
        }
        let events = waits_us.len() as u64 * self.batch;
        let mut result = meter.stop(events, self.event_bytes)?;
        waits_us.sort_unstable();
        let part = |part: f64| waits_us.get((waits_us.len() as f64 * part) as usize);
        result["ack_p50_us"] = json!(part(0.5));
        result["ack_p99_us"] = json!(part(0.99));
        // What is outstanding still is answered, so that nobody finds its connection closed.
        while let Some(done) = outstanding.next().await {
            done?;
        }
        Ok(result)
    }
}

/// Unique, and as long as the ids that people use.
pub fn id(number: u64) -> String {
    format!("event-{number:020}")
}
