//! What is usual for one healthy machine, learnt from its first windows, and the limits that follow from it.

use serde::{Deserialize, Serialize};

use crate::features::Features;
use crate::verdict::Part;

/// Windows that a baseline needs before it has limits.
pub const WINDOWS_MIN: u32 = 16;
/// A limit is this many standard deviations above the mean of the healthy machine …
const DEVIATIONS: f64 = 5.0;
/// … and never less than this above it: a doubling of the amplitude.
const RISE_MIN_DB: f64 = 6.0;

/// Mean and spread of one figure, by Welford's recurrence (Technometrics 4 (1962) 419–420).
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Usual {
    mean: f64,
    squares: f64,
}

impl Usual {
    fn learn(&mut self, value: f64, count: u32) {
        let before = value - self.mean;
        self.mean += before / f64::from(count);
        self.squares += before * (value - self.mean);
    }

    fn limit(&self, count: u32) -> f64 {
        let deviation = (self.squares / f64::from(count.max(2) - 1)).sqrt();
        self.mean + (DEVIATIONS * deviation).max(RISE_MIN_DB)
    }
}

/// What is usual for one machine. Small enough for one value of a key-value store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    windows: u32,
    impact_level: Usual,
    outer_race: Usual,
    inner_race: Usual,
    ball: Usual,
}

/// Above which a figure is no longer usual. Nothing in it was learnt from a damaged machine.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    pub impact_level_db: f64,
    pub outer_race_db: f64,
    pub inner_race_db: f64,
    pub ball_db: f64,
}

impl Limits {
    pub fn line_db(&self, part: Part) -> f64 {
        match part {
            Part::OuterRace => self.outer_race_db,
            Part::InnerRace => self.inner_race_db,
            Part::Ball => self.ball_db,
        }
    }
}

impl Baseline {
    /// Takes one window of the healthy machine into account.
    pub fn learn(&mut self, features: &Features) {
        self.windows = self.windows.saturating_add(1);
        for (usual, value) in [
            (&mut self.impact_level, features.impact_level_db),
            (&mut self.outer_race, features.outer_race.prominence_db),
            (&mut self.inner_race, features.inner_race.prominence_db),
            (&mut self.ball, features.ball.prominence_db),
        ] {
            usual.learn(value, self.windows);
        }
    }

    /// How many windows it has learnt from.
    pub fn windows(&self) -> u32 {
        self.windows
    }

    /// Mean plus five standard deviations, at least mean plus 6 dB; `None` before [`WINDOWS_MIN`] windows.
    pub fn limits(&self) -> Option<Limits> {
        (self.windows >= WINDOWS_MIN).then(|| Limits {
            impact_level_db: self.impact_level.limit(self.windows),
            outer_race_db: self.outer_race.limit(self.windows),
            inner_race_db: self.inner_race.limit(self.windows),
            ball_db: self.ball.limit(self.windows),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_five_deviations_or_a_doubling_above_the_mean() {
        let mut steady = Usual::default();
        let mut lively = Usual::default();
        for (index, sign) in [1.0, -1.0].into_iter().cycle().take(100).enumerate() {
            steady.learn(-30.0 + 0.1 * sign, index as u32 + 1);
            lively.learn(4.0 + 2.0 * sign, index as u32 + 1);
        }
        assert!((steady.limit(100) - -24.0).abs() < 1e-9);
        assert!((lively.limit(100) - 14.0).abs() < 0.1);
    }

    #[test]
    fn nothing_is_judged_before_the_baseline_is_known() {
        assert_eq!(Baseline::default().limits(), None);
    }
}
