//! The control API of a node: paths, requests, responses, the OpenAPI document and the client.
//!
//! It lives on the node's admin listener. Every request carries `Authorization: Bearer TOKEN`;
//! every refusal is `application/problem+json` with a `code` of the one table of error codes.

pub mod address;
pub mod client;
pub mod invocation;
pub mod log;
mod openapi;
pub mod path;
pub mod problem;
mod queue;
mod resource;

pub use address::Address;
pub use client::{Client, ClientError};
pub use log::{LogEntry, LogQuery};
pub use openapi::openapi;
pub use problem::Problem;
pub use queue::{
    Attempt, DeadLetter, DroppedEvent, Queue, QueueCounters, QueuedEvent, Receipt, RememberedIds,
    Selected, Selection, Standing, Terms,
};
pub use resource::{
    App, Bucket, Function, FunctionSummary, Grants, Limits, List, Node, Trigger, TriggerKind, Usage,
};
