//! The MQTT broker as clients see it: over real sockets, with both protocol versions.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on shall stop"
)]

mod client;
mod delivery;
mod foreign;
mod limits;
mod order;
mod publishing;
mod restarts;
mod security;
mod sessions;
