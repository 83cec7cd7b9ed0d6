//! The two times of a store: how long it has lived, which clocks cannot touch, and what the wall clock says.

use serde::{Deserialize, Serialize};

/// An instant, in both times.
///
/// Leases, backoffs, retention and rates run on `lived_ms`; only absolute schedules and what
/// people read (`ce-time`) use `wall_ms`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Moment {
    /// Milliseconds that the store has been running, summed over its life. Never goes back: a
    /// stopped node does not age, and a clock that jumps changes nothing.
    pub lived_ms: u64,
    /// Milliseconds since 1970-01-01T00:00:00Z by the machine's clock, which may jump.
    pub wall_ms: u64,
}

impl Moment {
    /// The instant `milliseconds` later, in both times.
    #[must_use]
    pub fn after(self, milliseconds: u64) -> Self {
        Self {
            lived_ms: self.lived_ms.saturating_add(milliseconds),
            wall_ms: self.wall_ms.saturating_add(milliseconds),
        }
    }
}
