//! Whole nodes, as their users see them.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod control;
mod deploy;
mod events;
mod support;
