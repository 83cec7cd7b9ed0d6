//! One phase of the signal: its light, who waits for it, and how long it has been so.

use serde::{Deserialize, Serialize};

use crate::aggregate::PhaseCounts;
use crate::batch::Instant;

/// A phase's number in the ring-and-barrier diagram, from 1.
pub type PhaseNumber = u8;

/// What drivers see. `Clearance` is red for everyone, `Unknown` is before the first change was seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Light {
    #[default]
    Unknown,
    Green,
    Yellow,
    Clearance,
    Red,
}

/// Why the controller ended a green.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    GapOut,
    MaxOut,
    ForceOff,
}

/// What is remembered of a phase from one batch to the next.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    pub light: Light,
    /// Since when the light is so; meaningless while it is unknown.
    pub since: Instant,
    /// The parts of the running split that are over; no green when its begin was not seen.
    pub green_ms: u64,
    pub yellow_ms: u64,
    /// Someone waits for green, by the controller's own word.
    pub called: bool,
    /// When one of the phase's detectors last saw a vehicle come or go.
    pub last_vehicle: Instant,
    /// How many of its stop-bar detectors are occupied, and since when it is more than none.
    pub occupied: u8,
    pub occupied_since: Instant,
}

impl Phase {
    /// The light changes. A split that was seen from its begin is counted, whole, in the period in which it ends.
    pub fn turn(&mut self, light: Light, at: Instant, counts: &mut PhaseCounts) {
        let lasted = u64::try_from(at - self.since).unwrap_or(0);
        match (self.light, light) {
            (Light::Green, _) => self.green_ms = lasted,
            (Light::Yellow, _) => self.yellow_ms = lasted,
            (Light::Clearance, Light::Red) if self.green_ms > 0 => {
                counts.splits += 1;
                counts.green_ms += std::mem::take(&mut self.green_ms);
                counts.yellow_ms += std::mem::take(&mut self.yellow_ms);
                counts.clearance_ms += lasted;
            }
            _ => {}
        }
        if light == Light::Green {
            counts.greens += 1;
        }
        self.light = light;
        self.since = at;
    }

    /// A stop-bar detector of this phase is occupied or free again.
    pub fn occupy(&mut self, on: bool, at: Instant, counts: &mut PhaseCounts) {
        if on {
            if self.occupied == 0 {
                self.occupied_since = at;
            }
            self.occupied = self.occupied.saturating_add(1);
        } else {
            self.occupied = self.occupied.saturating_sub(1);
            if self.occupied == 0 {
                counts.occupied_ms += u64::try_from(at - self.occupied_since).unwrap_or(0);
            }
        }
    }

    /// A period ends while the stop bar is occupied: the part until now belongs to it.
    pub fn settle(&mut self, at: Instant, counts: &mut PhaseCounts) {
        if self.occupied > 0 {
            counts.occupied_ms += u64::try_from(at - self.occupied_since).unwrap_or(0);
            self.occupied_since = at;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_is_green_yellow_and_clearance() {
        let (mut phase, mut counts) = (Phase::default(), PhaseCounts::default());
        for (light, at) in [
            (Light::Green, 10_000),
            (Light::Yellow, 32_500),
            (Light::Clearance, 36_500),
            (Light::Red, 38_000),
        ] {
            phase.turn(light, at, &mut counts);
        }
        assert_eq!((counts.greens, counts.splits), (1, 1));
        assert_eq!(
            (counts.green_ms, counts.yellow_ms, counts.clearance_ms),
            (22_500, 4_000, 1_500)
        );
    }

    #[test]
    fn a_split_whose_begin_was_not_seen_is_not_counted() {
        let (mut phase, mut counts) = (Phase::default(), PhaseCounts::default());
        for (light, at) in [
            (Light::Yellow, 5_000),
            (Light::Clearance, 9_000),
            (Light::Red, 10_000),
        ] {
            phase.turn(light, at, &mut counts);
        }
        assert_eq!(counts, PhaseCounts::default());
    }

    #[test]
    fn occupancy_is_the_time_with_at_least_one_vehicle_and_is_cut_at_a_period_end() {
        let (mut phase, mut counts) = (Phase::default(), PhaseCounts::default());
        phase.occupy(true, 1_000, &mut counts);
        phase.occupy(true, 2_000, &mut counts);
        phase.occupy(false, 3_000, &mut counts);
        phase.settle(4_000, &mut counts);
        assert_eq!(counts.occupied_ms, 3_000);
        phase.occupy(false, 4_500, &mut counts);
        assert_eq!(counts.occupied_ms, 3_500);
    }
}
