//! Delivers events: takes them from their queues, calls functions, and settles each by what its function answered.
//!
//! Every queue with a trigger has one [`Consumer`], whichever source fills the queue: so all
//! triggers keep one contract. Delivery is at least once. An event is settled only once the whole
//! answer was read; whatever ends before (a function that never answers, a drain that is cut short,
//! a power cut) leaves it in its queue, and it is delivered again.
//!
//! **Fairness.** A consumer may always have one delivery under way. Beyond that, deliveries need
//! one of the node's places, which consumers get in turn; each waits for one place at a time. So a
//! flooded queue, or a function that hangs, slows no other queue down to nothing.

mod answer;
mod callback;
mod exchange;
mod lane;
mod retry_after;
mod service;
mod settle;
mod told;
mod verdict;

use std::time::Duration;

use http::HeaderMap;
use tombolo_core::{FunctionId, QueueId};
use tombolo_store::queue::TakeBounds;

pub use service::{Deliveries, DeliveriesHandle};

/// What delivers on a node.
#[derive(Clone, Debug)]
pub struct DeliveryConfig {
    /// Deliveries at once on the node, besides the one that every consumer may always have.
    pub concurrency: usize,
    /// How long deliveries may go on that are under way at shutdown. What is cut is delivered again
    /// after the restart.
    pub drain_timeout: Duration,
    /// What every request carries besides the event: what functions are told of their node.
    pub headers: HeaderMap,
    /// Whether each delivery is told, to the log's target `delivery`.
    pub log: bool,
}

/// What is called for an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The function.
    Function,
    /// The URL that the event has in its attribute [`CALLBACK`](tombolo_core::publish::CALLBACK), in the function's name.
    Callback,
}

/// Who receives the events of a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumer {
    /// The queue.
    pub queue: QueueId,
    /// The function.
    pub function: FunctionId,
    /// What is called.
    pub target: Target,
    /// The kind of trigger, which the function is told: `queue`, `cron`, `mqtt`, `change` or `async`.
    pub trigger: &'static str,
    /// What one invocation gets at most, besides the queue's own bounds. With one event it is a
    /// request in binary mode; with more it is always a batch, also of one event.
    pub batch: TakeBounds,
    /// Where events go that the function answers with. Without it they are not looked at; batches
    /// have none.
    pub reply: Option<QueueId>,
    /// Where what became of an event goes if it has the attribute [`CALLBACK`](tombolo_core::publish::CALLBACK).
    pub callback: Option<QueueId>,
    /// Whether the effects of an invocation are committed with its acknowledgement.
    pub transactional: bool,
    /// How long the function may be at work for an event of an ordered queue after it was given up: with
    /// `isolation = "concurrent"` it cannot be stopped alone. The queue's lease has room for that.
    pub lingers: Duration,
}

/// Why consumers were not taken. Nothing has changed then.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConsumeError {
    /// Two triggers want the events of one queue.
    #[error("the queue `{0}` has two triggers")]
    Twice(QueueId),
}
