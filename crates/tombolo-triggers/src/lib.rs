//! Sources that turn the world into calls of functions and into events.

pub mod cron;
pub mod delivery;
pub mod http;
pub mod idempotent;
pub mod ingress;
pub mod mqtt;
mod tls;

pub use tls::TlsError;
