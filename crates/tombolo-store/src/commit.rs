//! Group commit: one thread that takes what is queued, commits it as one transaction with one fsync, and answers every caller.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::engine::Transaction;
use crate::store::Open;
use crate::{StoreError, Swapped, WRITE_BYTES_MAX};

/// Requests that may wait for the writer; callers beyond wait for a place.
const QUEUE_MAX: usize = 1024;
/// Bytes that may wait for the writer or be in its hands.
const QUEUE_BYTES_MAX: usize = 4 * WRITE_BYTES_MAX;
/// A transaction takes no more requests once it has this many bytes.
const BATCH_BYTES_MAX: usize = WRITE_BYTES_MAX;

/// Something to do in a transaction. Keys carry the prefix of their store.
pub(crate) enum Action {
    Write(Vec<(Vec<u8>, Option<Bytes>)>),
    Increment {
        key: Vec<u8>,
        delta: i64,
    },
    Swap {
        key: Vec<u8>,
        expected: Option<Bytes>,
        value: Bytes,
    },
}

/// What an action answers once it is on disk.
pub(crate) enum Answer {
    Written,
    Number(i64),
    Swapped(Swapped),
}

type Answered = Result<Answer, StoreError>;

/// A message to the writer thread.
enum Request {
    Apply {
        action: Action,
        answer: oneshot::Sender<Answered>,
        room: OwnedSemaphorePermit,
    },
    /// Finish what was queued before, then end.
    Close(oneshot::Sender<()>),
}

/// The writer thread and the way to it. Dropping it waits for the thread's end.
pub(crate) struct Writer {
    queue: mpsc::Sender<Request>,
    room: Arc<Semaphore>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread.
    pub(crate) fn start(open: Arc<Open>) -> io::Result<Self> {
        let (queue, requests) = mpsc::channel(QUEUE_MAX);
        let thread = thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || run(open, requests))?;
        Ok(Self {
            queue,
            room: Arc::new(Semaphore::new(QUEUE_BYTES_MAX)),
            thread: Some(thread),
        })
    }

    /// Queues an action of about so many bytes, and waits until it is on disk. Waits for a place
    /// while the queue is full. Once it is queued, dropping the future does not take it back.
    pub(crate) async fn ask(&self, action: Action, bytes: usize) -> Answered {
        let bytes = u32::try_from(bytes.min(QUEUE_BYTES_MAX)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(bytes);
        let room = room.await.map_err(|_| StoreError::Closed)?;
        let (answer, answered) = oneshot::channel();
        let request = Request::Apply {
            action,
            answer,
            room,
        };
        let sent = self.queue.send(request).await;
        sent.map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)?
    }

    /// Resolves when what was queued before is done and the thread has let go of the engine.
    pub(crate) async fn close(&self) {
        let (answer, closed) = oneshot::channel();
        if self.queue.send(Request::Close(answer)).await.is_ok() {
            // The answer is that the sender is dropped.
            let _ = closed.await;
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Closes the channel, which ends the thread once it has answered what was queued.
        self.queue = mpsc::channel(1).0;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What one transaction will do, and who waits for it.
#[derive(Default)]
struct Batch {
    actions: Vec<Action>,
    answers: Vec<oneshot::Sender<Answered>>,
    bytes: usize,
    rooms: Vec<OwnedSemaphorePermit>,
    /// The batch is the last one.
    closing: Option<oneshot::Sender<()>>,
}

impl Batch {
    /// Waits for a request, then takes what else is there. `None` when all callers are gone.
    fn take(requests: &mut mpsc::Receiver<Request>) -> Option<Self> {
        let mut batch = Self::default();
        let mut next = Some(requests.blocking_recv()?);
        while let Some(request) = next {
            match request {
                Request::Apply {
                    action,
                    answer,
                    room,
                } => {
                    batch.actions.push(action);
                    batch.answers.push(answer);
                    batch.bytes += room.num_permits();
                    batch.rooms.push(room);
                }
                Request::Close(answer) => batch.closing = Some(answer),
            }
            next = if batch.is_full() {
                None
            } else {
                requests.try_recv().ok()
            };
        }
        Some(batch)
    }

    fn is_full(&self) -> bool {
        self.closing.is_some() || self.actions.len() >= QUEUE_MAX || self.bytes >= BATCH_BYTES_MAX
    }
}

fn run(open: Arc<Open>, mut requests: mpsc::Receiver<Request>) {
    while let Some(batch) = Batch::take(&mut requests) {
        if !batch.actions.is_empty() {
            commit(&open, batch.bytes, batch.actions, batch.answers);
        }
        if let Some(closing) = batch.closing {
            // In this order, so that the closer finds the thread's handle of the engine gone.
            drop(open);
            drop(requests);
            drop(closing);
            return;
        }
    }
}

/// Commits a batch and answers it. An action that is refused by itself (no number) does not touch
/// the others; when the commit fails, all have failed.
fn commit(
    open: &Open,
    bytes: usize,
    actions: Vec<Action>,
    answers: Vec<oneshot::Sender<Answered>>,
) {
    let mut results = Vec::with_capacity(actions.len());
    let committed = open.engine.transact(bytes, |transaction| {
        for action in actions {
            results.push(apply(transaction, action)?);
        }
        Ok(())
    });
    match committed {
        Ok(()) => {
            for (answer, result) in answers.into_iter().zip(results) {
                // A caller that has gone away does not need its answer.
                let _ = answer.send(result);
            }
        }
        Err(error) => {
            tracing::error!(%error, writes = answers.len(), "commit failed");
            for answer in answers {
                let _ = answer.send(Err(error.clone()));
            }
        }
    }
}

/// Does an action. The outer error is one after which the transaction cannot be committed; the
/// inner one is the action's own, which has then written nothing.
fn apply(transaction: &mut Transaction<'_>, action: Action) -> Result<Answered, StoreError> {
    match action {
        Action::Write(changes) => {
            for (key, value) in changes {
                match value {
                    Some(value) => transaction.put(&key, &value)?,
                    None => transaction.delete(&key)?,
                }
            }
            Ok(Ok(Answer::Written))
        }
        Action::Increment { key, delta } => {
            let sum = transaction
                .get(&key)
                .and_then(|value| add(value.as_deref(), delta));
            if let Ok(sum) = &sum {
                transaction.put(&key, sum.to_string().as_bytes())?;
            }
            Ok(sum.map(Answer::Number))
        }
        Action::Swap {
            key,
            expected,
            value,
        } => match transaction.get(&key) {
            Ok(found) if found == expected => {
                transaction.put(&key, &value)?;
                Ok(Ok(Answer::Swapped(Swapped::Done)))
            }
            found => Ok(found.map(|found| Answer::Swapped(Swapped::Changed(found)))),
        },
    }
}

fn add(value: Option<&[u8]>, delta: i64) -> Result<i64, StoreError> {
    let number: i64 = match value {
        None => 0,
        Some(value) => std::str::from_utf8(value)
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or(StoreError::NotANumber)?,
    };
    number.checked_add(delta).ok_or(StoreError::NotANumber)
}
