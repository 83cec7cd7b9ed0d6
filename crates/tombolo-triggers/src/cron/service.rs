//! The service: wakes the cron triggers of all apps, and publishes their ticks together with the memory of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tombolo_core::Name;
use tombolo_store::{Journal, KeyValue, StoreError, Transaction, Write};

use super::settled::Settled;
use super::source::{CronSource, Wake};

/// Schedules are looked at this often at least: a clock may jump.
const LOOK: Duration = Duration::from_secs(60);
/// How soon ticks are tried again that could not be published.
const AGAIN: Duration = Duration::from_secs(1);

/// The cron triggers of each app.
type Sources = BTreeMap<Name, Vec<CronSource>>;

/// The part that runs.
pub struct Cron {
    journal: Journal,
    /// What is settled, by trigger; written in one transaction with the ticks.
    memory: KeyValue,
    sources: watch::Receiver<Sources>,
    handle: CronHandle,
}

/// Says which cron triggers there are; a clone is cheap and means the same service.
#[derive(Clone)]
pub struct CronHandle {
    sources: Arc<watch::Sender<Sources>>,
}

impl CronHandle {
    /// Replaces the cron triggers of an app. One that stays the same goes on where it was.
    pub fn schedule(&self, app: &Name, sources: Vec<CronSource>) {
        self.sources.send_modify(|all| {
            if sources.is_empty() {
                all.remove(app);
            } else {
                all.insert(app.clone(), sources);
            }
        });
    }
}

impl Cron {
    /// Cron triggers that publish to a journal, and remember in a store of the same folder what they
    /// have published. Nothing ticks before it runs.
    pub fn new(journal: Journal, memory: KeyValue) -> Self {
        let (sender, sources) = watch::channel(Sources::new());
        Self {
            journal,
            memory,
            sources,
            handle: CronHandle {
                sources: Arc::new(sender),
            },
        }
    }

    /// Says which cron triggers there are, before and while it runs.
    pub fn handle(&self) -> CronHandle {
        self.handle.clone()
    }

    /// Ticks until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self {
            journal,
            memory,
            mut sources,
            // Kept until the end, so that the channel stays open.
            handle: _handle,
        } = self;
        while !shutdown.is_cancelled() {
            let all: Vec<CronSource> = {
                let sources = sources.borrow_and_update();
                sources.values().flatten().cloned().collect()
            };
            let mut pause = LOOK;
            for source in &all {
                let next = look(&journal, &memory, source).await;
                let next = next.unwrap_or_else(|error| {
                    let queue = source.queue();
                    tracing::warn!(%queue, %error, "ticks cannot be published yet");
                    AGAIN
                });
                pause = pause.min(next);
            }
            // Each branch is cancel-safe.
            tokio::select! {
                () = shutdown.cancelled() => {}
                _ = sources.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

/// Publishes what is due of a trigger, and says how long to wait for the next tick.
async fn look(
    journal: &Journal,
    memory: &KeyValue,
    source: &CronSource,
) -> Result<Duration, StoreError> {
    let key = source.key();
    // What cannot be read any more is settled anew from now on.
    let known = memory.get(&key)?;
    let known = known.and_then(|bytes| serde_json::from_slice::<Settled>(&bytes).ok());
    let now_ms = journal.now()?.wall_ms;
    let Wake {
        ticks,
        dropped,
        settled,
        next_wall_ms,
    } = source.wake(&known.clone().unwrap_or_default(), now_ms);
    if known.as_ref() != Some(&settled) {
        let value = serde_json::to_vec(&settled).unwrap_or_default().into();
        let publications = ticks.iter().map(|tick| source.publication(*tick)).collect();
        let committed = journal.commit(Transaction {
            publications,
            writes: vec![(memory.clone(), Write::Set { key, value })],
            ..Transaction::default()
        });
        committed.await?;
    }
    if dropped.ticks > 0 {
        let (queue, ticks, more) = (source.queue(), dropped.ticks, dropped.more);
        tracing::warn!(%queue, ticks, more, "ticks were missed and are not made up for");
    }
    let next = next_wall_ms.map(|next_ms| Duration::from_millis(next_ms.saturating_sub(now_ms)));
    Ok(next.unwrap_or(LOOK))
}
