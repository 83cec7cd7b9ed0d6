//! What a transaction is made of, and what becomes of it.

use bytes::Bytes;
use tombolo_core::event::Event;
use tombolo_core::{FunctionId, Name, Origin, Publication, Published, QueueId};

use crate::queue;
use crate::stored::Cause;
use crate::{KeyValue, Write};

/// The right to settle one event that was handed out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    pub(crate) queue: QueueId,
    pub(crate) slot: usize,
    pub(crate) lease: queue::Lease,
}

impl Lease {
    /// The queue of the event.
    pub fn queue(&self) -> &QueueId {
        &self.queue
    }

    /// The event's number in the queue.
    pub fn sequence(&self) -> u64 {
        self.lease.sequence
    }
}

/// How a function answered for an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done with it.
    Done,
    /// It failed, and may be tried again.
    Retry {
        /// Why.
        cause: Cause,
        /// How long the function asked to be left alone (`Retry-After`).
        after_ms: Option<u64>,
    },
    /// It was not tried, because nobody had a place for it: it will be, and this counts as no attempt.
    Later {
        /// Why.
        cause: Cause,
        /// How long it is to be left alone.
        after_ms: Option<u64>,
    },
    /// It will never succeed: a dead letter.
    Dead {
        /// Why.
        cause: Cause,
    },
}

impl Outcome {
    /// What the queue is told of it.
    pub(crate) fn of_queue(&self) -> queue::Outcome {
        match *self {
            Self::Done => queue::Outcome::Done,
            Self::Retry { after_ms, .. } => queue::Outcome::Retry { after_ms },
            Self::Later { after_ms, .. } => queue::Outcome::Later { after_ms },
            Self::Dead { .. } => queue::Outcome::Dead,
        }
    }

    /// Why it is not done, if it is not.
    pub(crate) fn cause(self) -> Option<Cause> {
        match self {
            Self::Done => None,
            Self::Retry { cause, .. } | Self::Later { cause, .. } | Self::Dead { cause } => {
                Some(cause)
            }
        }
    }
}

/// What became of an event that was settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It is gone.
    Done,
    /// It will be tried again.
    Retried {
        /// Attempts that failed so far.
        attempts: u16,
        /// In so many milliseconds.
        wait_ms: u64,
    },
    /// It is a dead letter.
    Buried,
    /// The lease had ended, and somebody else has the event or had it. Nothing happened.
    Stale,
}

/// What has to be so for a transaction to happen: what it read is still there.
#[derive(Clone)]
pub struct Expectation {
    /// The store of the key.
    pub store: KeyValue,
    /// The key.
    pub key: String,
    /// The value that was read; none if there was none.
    pub value: Option<Bytes>,
}

/// A function's answer to a key, to be given again to whoever comes with the same key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The function.
    pub function: FunctionId,
    /// The idempotency key; at most [`crate::KEY_BYTES_MAX`] bytes.
    pub key: String,
    /// The answer; at most [`ANSWER_BYTES_MAX`].
    pub answer: Bytes,
}

/// The longest event that is published, as it is stored.
pub const EVENT_BYTES_MAX: usize = 4 << 20;
/// The longest answer that is stored.
pub const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Changes that happen together or not at all.
#[derive(Clone, Default)]
pub struct Transaction {
    /// What must be so.
    pub expects: Vec<Expectation>,
    /// Keys that change.
    pub writes: Vec<(KeyValue, Write)>,
    /// Events that are published.
    pub publications: Vec<Publication>,
    /// Events that are settled; a stale lease refuses the transaction.
    pub settlements: Vec<(Lease, Outcome)>,
    /// Answers that are stored.
    pub answers: Vec<Answer>,
    /// What the events of watched changes come of.
    pub origin: Origin,
}

/// What became of a transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// For each publication, in their order.
    pub published: Vec<Published>,
    /// For each settlement, in their order.
    pub settled: Vec<Settled>,
}

/// A key-value store whose changes become events of a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// The app of the store.
    pub app: Name,
    /// The store.
    pub store: Name,
    /// Only keys that begin with it.
    pub prefix: String,
    /// Where the events go.
    pub queue: QueueId,
}

/// A transaction as the writer gets it: checked, and encoded as far as that can be done before.
#[derive(Default)]
pub(crate) struct Change {
    pub(crate) expects: Vec<(Vec<u8>, Option<Bytes>)>,
    /// Keys carry the prefix of their store.
    pub(crate) writes: Vec<(Vec<u8>, Option<Bytes>)>,
    pub(crate) publications: Vec<Prepared>,
    pub(crate) settlements: Vec<(Lease, Outcome)>,
    /// A stale lease is told, and the others are settled.
    pub(crate) lenient: bool,
    pub(crate) answers: Vec<(Vec<u8>, Bytes)>,
    pub(crate) origin: Origin,
    /// What the app may have does not bound the writes.
    pub(crate) unbounded: bool,
}

/// A publication, encoded.
pub(crate) struct Prepared {
    pub(crate) queue: QueueId,
    pub(crate) event: Event,
    pub(crate) stored: Vec<u8>,
    /// None if it is not to be compared with what was there before.
    pub(crate) fingerprint: Option<[u8; 16]>,
    pub(crate) due_wall_ms: Option<u64>,
    pub(crate) priority: u8,
}
