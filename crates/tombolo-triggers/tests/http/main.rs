//! The HTTP listener as clients see it: real sockets on loopback, and functions that are a few lines each.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on shall stop"
)]

mod bodies;
mod drain;
mod files;
mod head;
mod patience;
mod support;
mod tls;
