//! The seam between those who make events and what keeps them: the trait `Publish`.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use serde::Serialize;

use crate::event::Event;
use crate::{Blame, Code, Failure, QueueId, TraceContext};

/// The priority of an event that says none.
pub const PRIORITY_DEFAULT: u8 = 4;
/// The lowest priority; 0 is the highest.
pub const PRIORITY_LOWEST: u8 = 9;

/// An event on its way into a queue.
#[derive(Clone, Debug, PartialEq)]
pub struct Publication {
    /// The queue.
    pub queue: QueueId,
    /// The event, checked by [`Event::check_within`].
    pub event: Event,
    /// The trace and the span that publish it.
    pub trace: Option<TraceContext>,
    /// When it may be delivered at the earliest, in milliseconds of the wall clock since 1970; at once when absent.
    pub due_wall_ms: Option<u64>,
    /// From 0, the highest, to [`PRIORITY_LOWEST`].
    pub priority: u8,
}

impl Publication {
    /// An event for a queue, to be delivered at once with the usual priority.
    pub fn new(queue: QueueId, event: Event) -> Self {
        Self {
            queue,
            event,
            trace: None,
            due_wall_ms: None,
            priority: PRIORITY_DEFAULT,
        }
    }

    /// Says which trace it belongs to.
    #[must_use]
    pub fn trace(mut self, trace: Option<TraceContext>) -> Self {
        self.trace = trace;
        self
    }
}

/// What became of an event that was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// It is kept as the queue's durability says, under this number.
    Accepted(u64),
    /// An event of the same source and id was accepted before, within the queue's retention.
    Duplicate,
}

/// What became of the events of a call, as those are told who publish by HTTP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Receipt {
    /// Events that are kept now and were not before.
    pub accepted: u64,
    /// Events that were accepted before.
    pub duplicates: u64,
}

impl FromIterator<Published> for Receipt {
    fn from_iter<I: IntoIterator<Item = Published>>(published: I) -> Self {
        let mut receipt = Self::default();
        for one in published {
            match one {
                Published::Accepted(_) => receipt.accepted += 1,
                Published::Duplicate => receipt.duplicates += 1,
            }
        }
        receipt
    }
}

/// Why nothing of a call was published.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum PublishError {
    #[error("there is no queue `{0}`")]
    Unknown(QueueId),
    #[error("the queue `{queue}` is full")]
    Full {
        /// The queue.
        queue: QueueId,
        /// When to try again.
        retry_after: Duration,
    },
    #[error("the event is longer than the {bound_bytes} bytes that the queue accepts")]
    TooLong {
        /// The bound.
        bound_bytes: u64,
    },
    #[error("the queue `{queue}` cannot take this: {detail}")]
    Unfit {
        /// The queue.
        queue: QueueId,
        /// What it would never take.
        detail: String,
    },
    #[error("the disk of the store is full")]
    DiskFull,
    #[error("the store does not accept events: {0}")]
    Unavailable(String),
}

impl From<PublishError> for Failure {
    fn from(error: PublishError) -> Self {
        let (code, blame) = match &error {
            PublishError::Unknown(_) => (Code::QueueMissing, Blame::Caller),
            PublishError::Full { .. } => (Code::QueueFull, Blame::Host),
            PublishError::TooLong { .. } => (Code::EventTooLong, Blame::Caller),
            PublishError::Unfit { .. } => (Code::BadRequest, Blame::Caller),
            PublishError::DiskFull => (Code::StoreFull, Blame::Host),
            PublishError::Unavailable(_) => (Code::PublishUnavailable, Blame::Host),
        };
        let failure = Self::new(code, blame, error.to_string());
        match error {
            PublishError::Full { retry_after, .. } => failure.retry_after(retry_after),
            _ => failure,
        }
    }
}

/// The future of a publication; ready once it is as durable as its queue says.
pub type PublishFuture = Pin<Box<dyn Future<Output = Result<Vec<Published>, PublishError>> + Send>>;

/// Something that keeps events: the store's journal, a link to another node, a fake in tests.
pub trait Publish: Send + Sync + 'static {
    /// Publishes all or nothing, and answers in the order of the publications.
    fn publish(&self, publications: Vec<Publication>) -> PublishFuture;
}
