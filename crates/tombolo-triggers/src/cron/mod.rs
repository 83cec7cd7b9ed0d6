//! Schedules: which ticks are due, what becomes of missed ones, and when to look again. Pure, but for the service that publishes them.

mod instants;
mod service;
mod settled;
mod source;

pub use service::{Cron, CronHandle};
pub use settled::{Settled, Span};
pub use source::{CronSource, Dropped, MADE_UP_MAX, ON_TIME_MS, Tick, Wake};
