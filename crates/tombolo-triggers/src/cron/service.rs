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
/// Keys of the memory that are read or removed at once.
const KEYS_AT_ONCE: usize = 1000;

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
    /// Replaces the cron triggers of an app. One that stays the same goes on where it was; one that is gone is
    /// forgotten, so that it does not make up for the time without it when it comes back.
    pub fn schedule(&self, app: &Name, sources: Vec<CronSource>) {
        self.sources.send_modify(|all| {
            all.insert(app.clone(), sources);
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
        // Whether no trigger may be remembered that is gone.
        let mut forgotten = false;
        while !shutdown.is_cancelled() {
            let apps = {
                forgotten &= !sources.has_changed().unwrap_or(false);
                sources.borrow_and_update().clone()
            };
            let mut pause = LOOK;
            if !forgotten {
                let done = forget(&memory, &apps).await;
                forgotten = done.is_ok();
                if let Err(error) = done {
                    tracing::warn!(%error, "schedules that are gone cannot be forgotten yet");
                    pause = AGAIN;
                }
            }
            for source in apps.values().flatten() {
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

/// Removes what is remembered of triggers that the apps do not have any more. Apps that are not there are left alone.
async fn forget(memory: &KeyValue, apps: &Sources) -> Result<(), StoreError> {
    let mut gone = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let keys = memory.keys(after.as_deref(), KEYS_AT_ONCE)?;
        let Some(last) = keys.last() else { break };
        after = Some(last.clone());
        let is_gone = |key: &String| {
            let app = key.split('/').next().unwrap_or_default();
            let found = apps.iter().find(|(name, _)| name.as_str() == app);
            found.is_some_and(|(_, sources)| sources.iter().all(|source| source.key() != *key))
        };
        gone.extend(keys.into_iter().filter(is_gone));
    }
    for chunk in gone.chunks(KEYS_AT_ONCE) {
        let deletions = chunk.iter().cloned().map(|key| Write::Delete { key });
        memory.write(deletions.collect()).await?;
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use tombolo_manifest::{CronTrigger, Missed};
    use tombolo_store::Store;
    use tombolo_store::queue::QueueSettings;

    use super::*;

    /// Longer than a test that is right needs.
    const PATIENCE: Duration = Duration::from_secs(60);

    fn source(app: &str, schedule: &str) -> CronSource {
        let trigger = CronTrigger {
            schedule: schedule.parse().unwrap(),
            timezone: "UTC".parse().unwrap(),
            missed: Missed::All,
            function: "rollup".parse().unwrap(),
        };
        CronSource::new(app.parse().unwrap(), trigger)
    }

    #[tokio::test]
    async fn a_trigger_that_comes_back_does_not_make_up_for_the_time_without_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let (journal, app) = (store.journal(), "plant".parse::<Name>().unwrap());
        let memory = store.key_value(&"tombolo".parse().unwrap(), &"cron".parse().unwrap());
        let (hourly, yearly) = (source("plant", "0 * * * *"), source("plant", "0 0 1 1 *"));
        let queue = hourly.queue();
        let settings = QueueSettings::default();
        journal.configure(queue.clone(), settings).await.unwrap();
        // The hourly trigger was there until 1970, and so was one of an app that is not here.
        let absent = source("absent", "0 * * * *");
        for source in [&hourly, &absent] {
            let settled = serde_json::to_vec(&source.wake(&Settled::default(), 1000).settled);
            let (key, value) = (source.key(), settled.unwrap().into());
            memory.write(vec![Write::Set { key, value }]).await.unwrap();
        }
        let cron = Cron::new(journal.clone(), memory.clone());
        let (handle, shutdown) = (cron.handle(), CancellationToken::new());
        handle.schedule(&app, vec![yearly]);
        let running = tokio::spawn(cron.run(shutdown.clone()));
        let remembered = async |source: &CronSource, wanted: bool| {
            while memory.get(&source.key()).unwrap().is_some() != wanted {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let waiting = async {
            remembered(&hourly, false).await;
            handle.schedule(&app, vec![hourly.clone()]);
            remembered(&hourly, true).await;
        };
        tokio::time::timeout(PATIENCE, waiting).await.unwrap();
        assert_eq!(journal.figures(&queue).unwrap().figures.depth, 0);
        assert!(memory.get(&absent.key()).unwrap().is_some());
        shutdown.cancel();
        running.await.unwrap();
    }
}
