//! Time as the store sees it: what the machine's clocks say, and how long the store has lived.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tombolo_core::Moment;

/// The clocks of a machine.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since some moment after the start of the process; never goes back.
    fn elapsed_ms(&self) -> u64;
    /// Milliseconds since 1970, as far as the machine knows.
    fn wall_ms(&self) -> u64;
}

/// The operating system's clocks.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// Clocks that start now.
    pub fn start() -> Self {
        Self {
            start: Instant::now(),
        }
    }
}

impl Clock for SystemClock {
    fn elapsed_ms(&self) -> u64 {
        milliseconds(self.start.elapsed())
    }

    fn wall_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        milliseconds(since.unwrap_or_default())
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The clocks, and how long the store had lived when they were started.
pub(crate) struct Life {
    pub(crate) clock: Box<dyn Clock>,
    pub(crate) before_ms: u64,
}

impl Life {
    /// The present. A crash takes back the time since the last record; nothing gets older by that.
    pub(crate) fn now(&self) -> Moment {
        Moment {
            lived_ms: self.before_ms.saturating_add(self.clock.elapsed_ms()),
            wall_ms: self.clock.wall_ms(),
        }
    }
}
