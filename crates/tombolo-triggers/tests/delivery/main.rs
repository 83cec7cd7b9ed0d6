//! The delivery contract: what becomes of events, whatever their functions do, on a real journal.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod answers;
mod batches;
mod callbacks;
mod crash;
mod idempotency;
mod lanes;
mod order;
mod replies;
mod support;
mod traces;
mod transactions;
