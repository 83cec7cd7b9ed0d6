//! Tombolo's journal in this process: publications, consumption, and a start with a full queue.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde_json::{Value, json};
use tombolo_core::event::Event;
use tombolo_core::{Publication, Publish as _, Published, QueueId};
use tombolo_store::queue::{QueueSettings, TakeBounds};
use tombolo_store::{Journal, Outcome, Store, Taken};

use crate::load::{Load, id};
use crate::meter::{Meter, Process};

/// A queue in a store, with room for whatever a measurement brings.
#[derive(Clone)]
pub struct Queue {
    journal: Journal,
    id: QueueId,
}

impl Queue {
    pub async fn open(store: &Store, lanes: u32, batch: u32) -> Result<Self> {
        let mut settings = QueueSettings {
            bytes: 1 << 40,
            events: 1 << 30,
            concurrency: lanes,
            ..QueueSettings::default()
        };
        settings.batch.events = batch;
        let id = QueueId {
            app: "bench".parse()?,
            queue: "events".parse()?,
        };
        let journal = store.journal();
        journal.configure(id.clone(), settings).await?;
        Ok(Self { journal, id })
    }

    /// One transaction of `batch` events; resolves when it is synced.
    pub async fn publish(&self, first: u64, batch: u64, payload: Bytes) -> Result<()> {
        let publication = |number| {
            let event = Event::new(id(number), "/bench", "bench.measured")
                .with_data("application/octet-stream", payload.clone());
            Publication::new(self.id.clone(), event)
        };
        let publications = (first..first + batch).map(publication).collect();
        let published = self.journal.publish(publications).await?;
        let accepted = |one: &Published| matches!(one, Published::Accepted(_));
        ensure!(published.iter().all(accepted), "an event was not accepted");
        Ok(())
    }

    /// Takes and settles until nothing is there; returns how many events that were.
    async fn drain(&self, batch: u32) -> Result<u64> {
        let bounds = TakeBounds {
            events: batch,
            bytes: 1 << 20,
        };
        let mut events = 0;
        while let Taken::Batch(batch) = self.journal.take(&self.id, bounds).await? {
            events += batch.deliveries.len() as u64;
            let done = batch.deliveries.into_iter();
            let done = done.map(|delivery| (delivery.lease, Outcome::Done));
            self.journal.settle(done.collect()).await?;
        }
        Ok(events)
    }
}

pub async fn publish(folder: &Path, load: Load) -> Result<Value> {
    let store = Store::open(folder)?;
    let queue = Queue::open(&store, 1, 1).await?;
    let payload = load.payload();
    load.run(Process::this(), |first| {
        let (queue, payload) = (queue.clone(), payload.clone());
        async move { queue.publish(first, load.batch, payload).await }
    })
    .await
}

/// Publishes so many events, a thousand in a transaction.
pub async fn fill(queue: &Queue, events: u64, load: Load) -> Result<()> {
    const BATCH: u64 = 1000;
    let payload = load.payload();
    for first in (0..events).step_by(BATCH as usize) {
        let batch = BATCH.min(events - first);
        queue.publish(first, batch, payload.clone()).await?;
    }
    Ok(())
}

/// `lanes` at once take `load.batch` events, settle them, and wait until that is synced.
pub async fn consume(folder: &Path, events: u64, load: Load) -> Result<Value> {
    let store = Store::open(folder)?;
    let (lanes, batch) = (load.outstanding as u32, load.batch as u32);
    let queue = Queue::open(&store, lanes, batch).await?;
    fill(&queue, events, load).await?;
    let meter = Meter::start(Process::this())?;
    let mut running: FuturesUnordered<_> = (0..lanes).map(|_| queue.drain(batch)).collect();
    let mut consumed = 0;
    while let Some(drained) = running.next().await {
        consumed += drained?;
    }
    ensure!(consumed == events, "{consumed} of {events} were delivered");
    meter.stop(events, load.event_bytes)
}

/// Fills a queue, says so, and either closes it in order or waits to be killed.
pub async fn prepare(folder: &Path, events: u64, load: Load, close: bool) -> Result<()> {
    let store = Store::open(folder)?;
    let queue = Queue::open(&store, 1, 1).await?;
    fill(&queue, events, load).await?;
    if close {
        drop(queue);
        store.close().await;
    }
    println!("filled");
    std::future::pending().await
}

/// From opening the folder to the first event.
pub async fn restart(folder: &Path, events: u64) -> Result<Value> {
    let begun = Instant::now();
    let store = Store::open(folder)?;
    let opened = begun.elapsed();
    let queue = Queue::open(&store, 1, 1).await?;
    let bounds = TakeBounds {
        events: 1,
        bytes: 1 << 20,
    };
    let taken = queue.journal.take(&queue.id, bounds).await?;
    let first = begun.elapsed();
    ensure!(matches!(taken, Taken::Batch(_)), "no event was delivered");
    let figures = queue.journal.figures(&queue.id).context("no figures")?;
    let found = figures.figures.depth;
    ensure!(found == events, "{found} of {events} are there");
    Ok(json!({
        "open_ms": opened.as_secs_f64() * 1e3,
        "first_event_ms": first.as_secs_f64() * 1e3,
        "resident_mib": Process::this().resident_mib()?,
    }))
}
