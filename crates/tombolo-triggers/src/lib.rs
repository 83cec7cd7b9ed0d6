//! Sources that turn the world into calls of functions: today HTTP.

pub mod cron;
pub mod delivery;
pub mod http;
pub mod idempotent;
pub mod ingress;
pub mod mqtt;
