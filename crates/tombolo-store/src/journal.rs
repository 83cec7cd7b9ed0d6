//! The journal: durable, ordered, deduplicated queues beneath all triggers, and transactions over them and the keys.

mod operate;
mod take;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tombolo_core::{
    FunctionId, Moment, Origin, Publication, Publish, PublishError, PublishFuture, QueueId,
};

pub use self::operate::{EventFilter, Listed, Peeked, QueueFigures, Selection};
pub use self::take::{Batch, Delivery, Taken};
use crate::commit::{Action, Answer as Answered};
use crate::key_value::{KEY_BYTES_MAX, bytes_of};
use crate::queue::{QueueSettings, Refusal};
use crate::store::{Open, Shared};
use crate::stored::{Stored, fingerprint};
use crate::transaction::{
    ANSWER_BYTES_MAX, Answer, Change, Changes, Committed, EVENT_BYTES_MAX, Lease, Outcome,
    Prepared, Settled, Transaction,
};
use crate::{StoreError, WRITE_BYTES_MAX};

/// When a publisher whose queue is full should try again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The queues of all apps. Cheap to clone.
#[derive(Clone)]
pub struct Journal {
    shared: Arc<Shared>,
}

/// The stored answers of a function in numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerFigures {
    /// The function.
    pub function: FunctionId,
    /// Answers that are stored.
    pub answers: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Answers that made room for newer ones of the function before their time, since the store was
    /// opened.
    pub evicted: u64,
}

impl Journal {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The present, in both times of the store.
    ///
    /// # Errors
    /// When the store is closed.
    pub fn now(&self) -> Result<Moment, StoreError> {
        Ok(self.shared.open()?.life.now())
    }

    /// Makes a queue one that is used, or changes its settings; its dead letters get a queue, too,
    /// which keeps as much for as long unless it is configured itself.
    /// Settings are not stored: after a start all queues are to be configured again.
    ///
    /// # Errors
    /// When the store is closed, or the disk refuses.
    pub async fn configure(
        &self,
        queue: QueueId,
        settings: QueueSettings,
    ) -> Result<(), StoreError> {
        let configure = Action::Configure(queue, Box::new(settings));
        self.shared.writer().ask(configure, 0).await.map(drop)
    }

    /// Makes a queue one that is not used: it takes and gives nothing. What is in it stays.
    ///
    /// # Errors
    /// When the store is closed.
    pub async fn retire(&self, queue: &QueueId) -> Result<(), StoreError> {
        let retire = Action::Retire(queue.clone());
        self.shared.writer().ask(retire, 0).await.map(drop)
    }

    /// Says which stores' changes become events, instead of those before. Each put or delete of a
    /// key adds, in the same transaction, an event of type [`crate::CHANGED`] with the JSON
    /// `{"key", "operation": "put" | "delete", "old", "new"}` (values in base64, or null) to the
    /// queue, in commit order. A queue that is full or not configured refuses the write.
    ///
    /// # Errors
    /// When the store is closed.
    pub async fn configure_changes(&self, changes: Vec<Changes>) -> Result<(), StoreError> {
        let watch = Action::Watch(changes);
        self.shared.writer().ask(watch, 0).await.map(drop)
    }

    /// Does all of a transaction, or nothing. Resolves when it is on disk.
    ///
    /// # Errors
    /// [`StoreError::Stale`] when a lease has ended, [`StoreError::Conflict`] when what was read has
    /// changed, [`StoreError::QueueFull`], [`StoreError::UnknownQueue`], or when something is too
    /// long, the disk is full or the store closed or failed.
    pub async fn commit(&self, transaction: Transaction) -> Result<Committed, StoreError> {
        let (change, bytes) = self.change(transaction)?;
        self.ask(change, bytes).await
    }

    async fn ask(&self, change: Change, bytes: usize) -> Result<Committed, StoreError> {
        let change = Action::Change(Box::new(change));
        match self.shared.writer().ask(change, bytes).await? {
            Answered::Committed(committed) => Ok(committed),
            _ => Err(StoreError::Closed),
        }
    }

    fn change(&self, transaction: Transaction) -> Result<(Change, usize), StoreError> {
        let open = self.shared.open()?;
        let expects = transaction.expects.into_iter();
        let expects = expects.map(|expects| Ok((expects.store.key(&expects.key)?, expects.value)));
        // Stores of the host, which bounds what it writes, are not in one transaction with those of apps.
        let unbounded = transaction
            .writes
            .iter()
            .all(|(store, _)| store.is_unbounded());
        let writes = transaction.writes.into_iter();
        let writes = writes.map(|(store, write)| store.write_of(write));
        let answers = transaction.answers.into_iter();
        let change = Change {
            expects: expects.collect::<Result<_, StoreError>>()?,
            writes: writes.collect::<Result<_, _>>()?,
            publications: prepare(&open, transaction.publications),
            settlements: transaction.settlements,
            lenient: false,
            answers: answers.map(answer_of).collect::<Result<_, _>>()?,
            origin: transaction.origin,
            unbounded,
        };
        let mut queues = change.publications.iter().map(|one| &one.queue);
        if let Some(queue) = queues.find(|queue| queue.queue.is_dead()) {
            return Err(StoreError::Unfit {
                queue: queue.clone(),
                source: Refusal::Grave,
            });
        }
        let mut events = 0;
        let published = change.publications.iter();
        for bytes in published.map(|one| one.stored.len()) {
            if bytes > EVENT_BYTES_MAX {
                return Err(StoreError::EventTooLong { bytes });
            }
            events += bytes;
        }
        if events > WRITE_BYTES_MAX {
            return Err(StoreError::EventsTooLong { bytes: events });
        }
        let answers: usize = change.answers.iter().map(|(_, answer)| answer.len()).sum();
        let bytes = bytes_of(&change.writes)? + events + answers;
        Ok((change, bytes))
    }

    /// Settles events. A lease that has ended is told as [`Settled::Stale`] and does not keep the
    /// others from being settled.
    ///
    /// # Errors
    /// When the disk is full, or the store closed or failed; then nothing was settled.
    pub async fn settle(
        &self,
        settlements: Vec<(Lease, Outcome)>,
    ) -> Result<Vec<Settled>, StoreError> {
        let change = Change {
            settlements,
            lenient: true,
            ..Change::default()
        };
        Ok(self.ask(change, 0).await?.settled)
    }

    /// Changes whenever something was published in a queue, settled in it or configured of it. Mark
    /// it as seen before [`Journal::take`], and wait for it when there was nothing.
    ///
    /// # Errors
    /// [`StoreError::UnknownQueue`], or when the store is closed.
    pub fn ready(&self, queue: &QueueId) -> Result<watch::Receiver<()>, StoreError> {
        let open = self.shared.open()?;
        let queues = open.queues();
        let slot = queues.find(queue).and_then(|slot| queues.get(slot));
        let slot = slot.ok_or_else(|| StoreError::UnknownQueue(queue.clone()))?;
        Ok(slot.ready())
    }

    /// The answer that was stored for a function and a key within the last 24 hours of the store's
    /// life.
    ///
    /// # Errors
    /// When the key is too long, or the store closed, damaged or failed.
    pub fn answer(&self, function: &FunctionId, key: &str) -> Result<Option<Bytes>, StoreError> {
        let key = answer_key(function, key)?;
        let open = self.shared.open()?;
        open.engine.answer(&key, open.life.now().lived_ms)
    }

    /// The stored answers of each function, in numbers.
    ///
    /// # Errors
    /// When the store is closed.
    pub fn answers(&self) -> Result<Vec<AnswerFigures>, StoreError> {
        let answers = self.shared.open()?.engine.answers().into_iter();
        let figures = answers.filter_map(|(key, held)| {
            let mut names = std::str::from_utf8(&key).ok()?.split('\0');
            Some(AnswerFigures {
                function: FunctionId {
                    app: names.next()?.parse().ok()?,
                    function: names.next()?.parse().ok()?,
                },
                answers: held.answers,
                bytes: held.bytes,
                evicted: held.evicted,
            })
        });
        Ok(figures.collect())
    }
}

impl Publish for Journal {
    fn publish(&self, publications: Vec<Publication>) -> PublishFuture {
        let journal = self.clone();
        Box::pin(async move {
            let transaction = Transaction {
                publications,
                ..Transaction::default()
            };
            let committed = journal.commit(transaction).await;
            committed.map(|done| done.published).map_err(publish_error)
        })
    }
}

pub(crate) fn publish_error(error: StoreError) -> PublishError {
    match error {
        StoreError::UnknownQueue(queue) => PublishError::Unknown(queue),
        StoreError::QueueFull { queue } => PublishError::Full {
            queue,
            retry_after: RETRY_AFTER,
        },
        StoreError::EventTooLong { .. } => PublishError::TooLong {
            bound_bytes: EVENT_BYTES_MAX as u64,
        },
        StoreError::EventsTooLong { .. } => PublishError::TooLong {
            bound_bytes: WRITE_BYTES_MAX as u64,
        },
        StoreError::Unfit {
            source: Refusal::TooLong { bytes_max, .. },
            ..
        } => PublishError::TooLong {
            bound_bytes: bytes_max,
        },
        StoreError::Unfit { queue, source } => PublishError::Unfit {
            queue,
            detail: source.to_string(),
        },
        StoreError::Full => PublishError::DiskFull,
        error => PublishError::Unavailable(error.to_string()),
    }
}

/// Encodes events, on the caller's thread.
fn prepare(open: &Open, publications: Vec<Publication>) -> Vec<Prepared> {
    let now = open.life.now();
    let prepare = |publication: Publication| {
        let stored = Stored {
            event: publication.event,
            origin: Origin {
                trace: publication.trace,
                hops: publication.hops,
            },
            published_wall_ms: now.wall_ms,
            dead: None,
        };
        Prepared {
            fingerprint: Some(fingerprint(&open.key, &publication.queue, &stored.event)),
            stored: stored.encode(),
            event: stored.event,
            queue: publication.queue,
            due_wall_ms: publication.due_wall_ms,
            priority: publication.priority,
        }
    };
    publications.into_iter().map(prepare).collect()
}

fn answer_of(answer: Answer) -> Result<(Vec<u8>, Bytes), StoreError> {
    let bytes = answer.answer.len();
    if bytes > ANSWER_BYTES_MAX {
        return Err(StoreError::AnswerTooLong { bytes });
    }
    Ok((answer_key(&answer.function, &answer.key)?, answer.answer))
}

fn answer_key(function: &FunctionId, key: &str) -> Result<Vec<u8>, StoreError> {
    if key.len() > KEY_BYTES_MAX {
        return Err(StoreError::KeyTooLong { bytes: key.len() });
    }
    Ok(format!("{}\0{}\0{key}", function.app, function.function).into_bytes())
}
