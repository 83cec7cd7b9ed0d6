//! Group commit: one thread that takes what is queued, decides it, writes it to the log with one fsync, applies it, and answers every caller.
//!
//! Groups are not waited for: while one is synced the next gathers. So a caller alone waits for
//! nothing but its own sync, and many callers share each. (Waiting for more was slower: decision
//! 0004.) Only callers that want the writer's own core are let run first ([`let_callers_run`]).

pub(crate) mod callback;
pub(crate) mod changes;
mod decide;
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

use self::changes::Watched;
use self::decide::{Decisions, Outcomes, Refused};
use crate::engine::Transaction;
use crate::log::Group;
use crate::operation::Body;
use crate::queue::{Durability, QueueSettings};
use crate::queues::Queues;
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
    let mut runtimes: Vec<(Handle, Vec<(oneshot::Sender<Answered>, Answered)>)> = Vec::new();
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

impl Writing {
    /// Commits a batch and answers it. An action that is refused by itself does not touch the
    /// others; when the group cannot be written, all have failed and nothing has changed.
    fn commit(&mut self, bytes: usize, actions: Vec<Action>, callers: Vec<Caller>) {
        let mut written = false;
        let begun = self.begin(bytes as u64);
        let (actions, callers) = match begun {
            // What makes room is done even then.
            Err(StoreError::Full) => refuse_growth(actions, callers),
            _ => (actions, callers),
        };
        let begun = match begun {
            Err(StoreError::Full) if !actions.is_empty() => self.begin_shrinking(),
            begun => begun,
        };
        let keys = actions.iter().any(Action::touches_keys);
        let committed = begun.and_then(|group| {
            if !keys {
                return self.write(group, actions, None, &mut written);
            }
            let open = Arc::clone(&self.open);
            let transacted = open
                .engine
                .transact(|engine| self.write(group, actions, Some(engine), &mut written));
            let (done, dirty_bytes) = transacted?;
            self.dirty_bytes += dirty_bytes;
            Ok(done)
        });
        match committed {
            Ok((results, outcomes)) => {
                self.apply(outcomes);
                answer_all(callers.into_iter().zip(results));
                self.look_after();
            }
            Err(error) => {
                if written {
                    // It is in the log and nobody sees it: the next start will bring it to light.
                    self.log.stop(&error);
                }
                tracing::error!(%error, requests = callers.len(), "commit failed");
                let failed = |caller| (caller, Err(error.clone()));
                answer_all(callers.into_iter().map(failed));
            }
        }
    }

    /// Decides a group and writes it.
    fn write(
        &mut self,
        mut group: Group,
        actions: Vec<Action>,
        mut engine: Option<&mut Transaction<'_>>,
        written: &mut bool,
    ) -> Result<(Vec<Answered>, Outcomes), StoreError> {
        let now = self.open.life.now();
        let mut results = Vec::with_capacity(actions.len());
        let outcomes = {
            let open = Arc::clone(&self.open);
            let mut queues = open.queues();
            let mut rest = Vec::with_capacity(actions.len());
            // Settings first: nothing of a queue may change while decisions about it are open.
            for action in actions {
                match action {
                    Action::Configure(queue, settings) => {
                        let retained = self.configure(&mut queues, &queue, *settings);
                        rest.push(retained.err().map(Err));
                        continue;
                    }
                    Action::Retire(queue) => queues.retire(&queue),
                    Action::Watch(changes) => {
                        self.watched = changes.into_iter().map(Watched::new).collect();
                    }
                    action => {
                        rest.push(Some(Ok(action)));
                        continue;
                    }
                }
                rest.push(None);
            }
            let random = &mut || self.random.next();
            let mut decisions = Decisions::new(
                now,
                &queues,
                &self.open.segments,
                &mut self.ids,
                &self.watched,
                random,
            );
            for action in rest {
                let action = match action {
                    Some(Ok(action)) => action,
                    Some(Err(error)) => {
                        results.push(Err(error));
                        continue;
                    }
                    None => {
                        results.push(Ok(Answer::Count(0)));
                        continue;
                    }
                };
                let mut body = Body::at(group.next_body_position());
                let engine = engine.as_deref_mut();
                match decide(&mut decisions, action, &mut body, engine) {
                    Ok(answer) => {
                        if !body.bytes().is_empty() {
                            group.push(now, body.bytes())?;
                        }
                        results.push(Ok(answer));
                    }
                    Err(Refused::Alone(error)) => results.push(Err(error)),
                    Err(Refused::Group(error)) => return Err(error),
                }
            }
            decisions.outcomes()
        };
        if !group.is_empty() {
            self.log.commit(group)?;
            *written = true;
        }
        Ok((results, outcomes))
    }

    fn configure(
        &mut self,
        queues: &mut Queues,
        queue: &QueueId,
        settings: QueueSettings,
    ) -> Result<(), StoreError> {
        let durable = settings.durability == Durability::Fsync;
        let retention_ms = settings.age_ms;
        let slot = queues.configure(queue, settings);
        self.ids.retain(slot, queue, retention_ms, durable)?;
        if let Some(configured) = queues.get_mut(slot) {
            configured.remembered = self.ids.figures(slot);
        }
        Ok(())
    }

    /// Lets everybody see what is written.
    fn apply(&mut self, outcomes: Outcomes) {
        let lived_ms = self.open.life.now().lived_ms;
        for ((slot, id), position) in outcomes.remembered {
            self.ids.remember(slot, id, lived_ms, position);
        }
        let mut queues = self.open.queues();
        let mut touched: Vec<usize> = Vec::new();
        for effect in outcomes.effects {
            if touched.last() != Some(&effect.slot()) {
                touched.push(effect.slot());
            }
            queues.apply(effect);
        }
        touched.sort_unstable();
        touched.dedup();
        for slot in touched {
            let remembered = self.ids.figures(slot);
            if let Some(slot) = queues.get_mut(slot) {
                slot.remembered = remembered;
                slot.wake();
            }
        }
    }
}

/// Answers those that need room, which there is not.
fn refuse_growth(actions: Vec<Action>, callers: Vec<Caller>) -> (Vec<Action>, Vec<Caller>) {
    let (shrinking, growing): (Vec<_>, Vec<_>) = actions
        .into_iter()
        .zip(callers)
        .partition(|(action, _)| action.shrinks());
    let full = |(_, caller)| (caller, Err(StoreError::Full));
    answer_all(growing.into_iter().map(full));
    shrinking.into_iter().unzip()
}

fn decide(
    decisions: &mut Decisions<'_>,
    action: Action,
    body: &mut Body,
    engine: Option<&mut Transaction<'_>>,
) -> Result<Answer, Refused> {
    match (action, engine) {
        (Action::Change(change), engine) => decisions
            .change(*change, body, engine)
            .map(Answer::Committed),
        (Action::Increment { key, delta, origin }, Some(engine)) => decisions
            .increment(key, delta, origin, body, engine)
            .map(Answer::Number),
        (
            Action::Swap {
                key,
                expected,
                value,
                origin,
            },
            Some(engine),
        ) => decisions
            .swap(key, expected.as_ref(), (value, origin), body, engine)
            .map(Answer::Swapped),
        (Action::Sweep(queue), _) => decisions.sweep(&queue, body).map(Answer::Count),
        (Action::Purge(queue, sequences), _) => {
            decisions.purge(&queue, &sequences, body).map(Answer::Count)
        }
        (Action::Redrive(queue, sequences), _) => decisions
            .redrive(&queue, &sequences, body)
            .map(Answer::Count),
        // These were done before, or have an engine because they touch keys.
        _ => Ok(Answer::Count(0)),
    }
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
