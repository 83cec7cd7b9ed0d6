//! Group commit: one thread that takes what is queued, has it decided and written to the log with one fsync, and answers every caller.
//!
//! Groups are not waited for: while one is synced the next gathers. So a caller alone waits for
//! nothing but its own sync, and many callers share each. (Waiting for more was slower: decision
//! 0004.) Only callers that want the writer's own core are let run first ([`let_callers_run`]).

mod ahead;
pub(crate) mod callback;
pub(crate) mod changes;
mod decide;
mod group;
mod moving;
mod upkeep;

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tombolo_core::{Origin, QueueId};

use crate::queue::QueueSettings;
use crate::transaction::{Change, Changes, Committed};
use crate::{StoreError, Swapped, WRITE_BYTES_MAX};

pub(crate) use self::upkeep::{Known, Writing};

/// Requests that may wait for the writer; callers beyond wait for a place.
const QUEUE_MAX: usize = 1024;
/// Bytes that may wait for the writer or be in its hands.
const QUEUE_BYTES_MAX: usize = 4 * WRITE_BYTES_MAX;
/// A group takes no more requests once it has this many bytes.
const GROUP_BYTES_MAX: usize = WRITE_BYTES_MAX;
/// A group gathers no longer than this.
const GATHERING_MAX: Duration = Duration::from_millis(2);
/// What a request may add to the log besides its own bytes.
const REQUEST_OVERHEAD_BYTES: usize = 512;

/// Something to do in a group. Keys carry the prefix of their store.
pub(crate) enum Action {
    Change(Box<Change>),
    Increment {
        key: Vec<u8>,
        delta: i64,
        origin: Origin,
    },
    Swap {
        key: Vec<u8>,
        expected: Option<Bytes>,
        value: Bytes,
        origin: Origin,
    },
    /// Deal with what time did to a queue.
    Sweep(QueueId),
    Purge(QueueId, Vec<u64>),
    Redrive(QueueId, Vec<u64>),
    Configure(QueueId, Box<QueueSettings>),
    Retire(QueueId),
    Watch(Vec<Changes>),
}

impl Action {
    /// Whether it makes room on the disk sooner or later, and takes next to none now.
    fn shrinks(&self) -> bool {
        match self {
            Self::Change(change) => !self.touches_keys() && change.publications.is_empty(),
            Self::Sweep(_) | Self::Purge(..) => true,
            Self::Configure(..) | Self::Retire(_) | Self::Watch(_) => true,
            Self::Increment { .. } | Self::Swap { .. } | Self::Redrive(..) => false,
        }
    }

    fn touches_keys(&self) -> bool {
        match self {
            Self::Change(change) => {
                !(change.writes.is_empty()
                    && change.expects.is_empty()
                    && change.answers.is_empty())
            }
            Self::Increment { .. } | Self::Swap { .. } => true,
            _ => false,
        }
    }
}

/// What an action answers once it is on disk.
pub(crate) enum Answer {
    Committed(Committed),
    Number(i64),
    Swapped(Swapped),
    /// Of so many events.
    Count(u64),
}

type Answered = Result<Answer, StoreError>;

/// Who waits for an answer, and on which async runtime.
struct Caller {
    answer: oneshot::Sender<Answered>,
    runtime: Option<Handle>,
}

/// Answers callers; one that has gone away does not need its answer.
///
/// Those that wait on one runtime are answered by a task there. Waking each of them from here would wake a sleeping
/// thread of the runtime once for each, which costs more than all else that is done for it.
fn answer_all(answered: impl Iterator<Item = (Caller, Answered)>) {
    type Waiting = Vec<(oneshot::Sender<Answered>, Answered)>;
    let mut runtimes: Vec<(Handle, Waiting)> = Vec::new();
    for (Caller { answer, runtime }, answered) in answered {
        let Some(runtime) = runtime else {
            let _ = answer.send(answered);
            continue;
        };
        let known = runtimes
            .iter_mut()
            .find(|(one, _)| one.id() == runtime.id());
        match known {
            Some((_, waiting)) => waiting.push((answer, answered)),
            None => runtimes.push((runtime, vec![(answer, answered)])),
        }
    }
    for (runtime, waiting) in runtimes {
        // It waits for nothing. With a runtime that ends before it runs, those who wait there end too.
        runtime.spawn(async move {
            for (answer, answered) in waiting {
                let _ = answer.send(answered);
            }
        });
    }
}

/// A message to the writer thread.
enum Request {
    Apply {
        action: Action,
        caller: Caller,
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
    pub(crate) fn start(writing: Writing) -> io::Result<Self> {
        let (queue, requests) = mpsc::channel(QUEUE_MAX);
        let thread = thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || run(writing, requests))?;
        Ok(Self {
            queue,
            room: Arc::new(Semaphore::new(QUEUE_BYTES_MAX)),
            thread: Some(thread),
        })
    }

    /// Queues an action of about so many bytes, and waits until it is on disk. Waits for a place
    /// while the queue is full. Once it is queued, dropping the future does not take it back.
    pub(crate) async fn ask(&self, action: Action, bytes: usize) -> Answered {
        let bytes = bytes.saturating_add(REQUEST_OVERHEAD_BYTES);
        let bytes = u32::try_from(bytes.min(QUEUE_BYTES_MAX)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(bytes);
        let room = room.await.map_err(|_| StoreError::Closed)?;
        let (answer, answered) = oneshot::channel();
        let request = Request::Apply {
            action,
            caller: Caller {
                answer,
                runtime: Handle::try_current().ok(),
            },
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

/// What one group will do, and who waits for it.
#[derive(Default)]
struct Batch {
    actions: Vec<Action>,
    callers: Vec<Caller>,
    bytes: usize,
    rooms: Vec<OwnedSemaphorePermit>,
    /// The batch is the last one.
    closing: Option<oneshot::Sender<()>>,
}

impl Batch {
    /// Waits for a request, then takes what else is there. `None` when all callers are gone.
    fn take(requests: &mut mpsc::Receiver<Request>) -> Option<Self> {
        let mut batch = Self::default();
        batch.add(requests.blocking_recv()?);
        let_callers_run(requests);
        while !batch.is_full()
            && let Ok(request) = requests.try_recv()
        {
            batch.add(request);
        }
        Some(batch)
    }

    fn add(&mut self, request: Request) {
        match request {
            Request::Apply {
                action,
                caller,
                room,
            } => {
                self.actions.push(action);
                self.callers.push(caller);
                self.bytes += room.num_permits();
                self.rooms.push(room);
            }
            Request::Close(answer) => self.closing = Some(answer),
        }
    }

    fn is_full(&self) -> bool {
        self.closing.is_some() || self.actions.len() >= QUEUE_MAX || self.bytes >= GROUP_BYTES_MAX
    }
}

/// Lets callers that want this core have it, for as long as they ask for more: they share one sync, which costs as much
/// as dozens of requests. Where the core is free nothing is waited for, and callers go on beside the sync.
fn let_callers_run(requests: &mpsc::Receiver<Request>) {
    let begun = Instant::now();
    loop {
        let waiting = requests.len();
        thread::yield_now();
        if requests.len() == waiting || begun.elapsed() >= GATHERING_MAX {
            return;
        }
    }
}

fn run(mut writing: Writing, mut requests: mpsc::Receiver<Request>) {
    while let Some(batch) = Batch::take(&mut requests) {
        if !batch.actions.is_empty() {
            writing.commit(batch.bytes, batch.actions, batch.callers);
        }
        if let Some(closing) = batch.closing {
            // In this order, so that the closer finds the thread's handle of the engine gone.
            drop(writing.close());
            drop(requests);
            drop(closing);
            return;
        }
    }
    drop(writing.close());
}

/// The sum of a number as it is stored and another.
pub(crate) fn add(value: Option<&[u8]>, delta: i64) -> Result<i64, StoreError> {
    let number: i64 = match value {
        None => 0,
        Some(value) => std::str::from_utf8(value)
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or(StoreError::NotANumber)?,
    };
    number.checked_add(delta).ok_or(StoreError::NotANumber)
}
