//! What a queue is allowed to hold, and how its events are handed out.

use std::num::NonZeroU32;

use tombolo_core::{FunctionId, QueueId};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// When an event counts as accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Durability {
    /// Once it is on disk.
    #[default]
    Fsync,
    /// At once; a crash loses it.
    Memory,
}

/// What happens to a publication that the queue has no room for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum WhenFull {
    /// It is refused.
    #[default]
    Refuse,
    /// The oldest events that nobody is working on make room.
    DropOldest,
    /// Events that a newer one of the same order key supersedes make room, the oldest first.
    Compact,
}

/// How many events one invocation gets, and how long it waits for them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchSettings {
    /// Most events of a batch.
    pub events: u32,
    /// Most bytes of a batch; an event that is longer comes alone.
    pub bytes: u32,
    /// A batch that is not full is handed out once its oldest event is this old.
    pub wait_ms: u64,
}

/// What happens to an event that its function did not acknowledge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RetrySettings {
    /// Attempts in all, the first included; then it is a dead letter.
    pub attempts: u16,
    /// Bound of the wait behind the first attempt; it doubles with each that follows. The wait is
    /// drawn evenly from nothing to the bound ("full jitter").
    pub backoff_ms: u64,
    /// The bound grows no further than this, and a function's `Retry-After` counts up to this.
    pub backoff_max_ms: u64,
    /// An attempt that fails when the event is older than this was the last.
    pub age_ms: Option<u64>,
}

impl Default for RetrySettings {
    fn default() -> Self {
        Self {
            attempts: 5,
            backoff_ms: 1000,
            backoff_max_ms: 5 * 60 * 1000,
            age_ms: None,
        }
    }
}

/// Who is told of an event that becomes a dead letter, if it asks for that by its attribute
/// [`CALLBACK`](tombolo_core::publish::CALLBACK).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Callback {
    /// Where the event goes that tells it. When there is no room, it is not told.
    pub queue: QueueId,
    /// The function that had the event.
    pub function: FunctionId,
}

/// The settings of one queue. Those of its consumer (concurrency, rate, batch, retry, lease) come
/// from the trigger.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QueueSettings {
    /// When an event counts as accepted.
    pub durability: Durability,
    /// An event that is older goes.
    pub age_ms: u64,
    /// Most bytes of all events.
    pub bytes: u64,
    /// Most events.
    pub events: u64,
    /// What happens to a publication beyond these bounds.
    pub full: WhenFull,
    /// The CloudEvents attribute whose value is the order key.
    pub order_by: Option<String>,
    /// Most batches that are out at once.
    pub concurrency: u32,
    /// Most batches handed out in a second; a tenth of it (at least one) may come in a burst.
    pub rate_per_s: Option<NonZeroU32>,
    /// How events are grouped.
    pub batch: BatchSettings,
    /// What happens to events that fail.
    pub retry: RetrySettings,
    /// A batch that is not settled this long after it was handed out has failed.
    pub lease_ms: u64,
    /// Who is told of dead letters.
    pub callback: Option<Callback>,
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self {
            durability: Durability::Fsync,
            age_ms: 30 * DAY_MS,
            bytes: 1 << 30,
            events: 4_000_000,
            full: WhenFull::Refuse,
            order_by: None,
            concurrency: 64,
            rate_per_s: None,
            batch: BatchSettings {
                events: 1,
                bytes: 1 << 20,
                wait_ms: 0,
            },
            retry: RetrySettings::default(),
            lease_ms: 60_000,
            callback: None,
        }
    }
}
