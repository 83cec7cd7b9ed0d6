//! What leaves the intersection: one small aggregate per cycle, cut at the quarter hour.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::batch::Instant;
use crate::detectors::Channel;
use crate::phase::{Ending, PhaseNumber};

/// Counts of one phase. They travel as a plain list, in the order of the fields.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "[u64; 12]", from = "[u64; 12]")]
pub struct PhaseCounts {
    /// Vehicles seen by any of the phase's detectors.
    pub actuations: u64,
    /// Vehicles seen by its advance detectors, and those of them that came to a green light.
    pub arrivals: u64,
    pub arrivals_on_green: u64,
    /// Greens that began.
    pub greens: u64,
    /// Splits (green, yellow, clearance) that ended, and the parts' lengths.
    pub splits: u64,
    pub green_ms: u64,
    pub yellow_ms: u64,
    pub clearance_ms: u64,
    /// How greens ended.
    pub gap_outs: u64,
    pub max_outs: u64,
    pub force_offs: u64,
    /// Time in which at least one of its stop-bar detectors was occupied.
    pub occupied_ms: u64,
}

impl PhaseCounts {
    pub fn ended(&mut self, ending: Ending) {
        match ending {
            Ending::GapOut => self.gap_outs += 1,
            Ending::MaxOut => self.max_outs += 1,
            Ending::ForceOff => self.force_offs += 1,
        }
    }
}

impl From<PhaseCounts> for [u64; 12] {
    fn from(counts: PhaseCounts) -> Self {
        [
            counts.actuations,
            counts.arrivals,
            counts.arrivals_on_green,
            counts.greens,
            counts.splits,
            counts.green_ms,
            counts.yellow_ms,
            counts.clearance_ms,
            counts.gap_outs,
            counts.max_outs,
            counts.force_offs,
            counts.occupied_ms,
        ]
    }
}

impl From<[u64; 12]> for PhaseCounts {
    fn from(list: [u64; 12]) -> Self {
        let [
            actuations,
            arrivals,
            arrivals_on_green,
            greens,
            splits,
            green_ms,
            yellow_ms,
            clearance_ms,
            gap_outs,
            max_outs,
            force_offs,
            occupied_ms,
        ] = list;
        Self {
            actuations,
            arrivals,
            arrivals_on_green,
            greens,
            splits,
            green_ms,
            yellow_ms,
            clearance_ms,
            gap_outs,
            max_outs,
            force_offs,
            occupied_ms,
        }
    }
}

/// A period's counts. `number` ascends by one, so that the receiver drops what it has and sees what it lacks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aggregate {
    pub number: u64,
    /// Begin and end, in milliseconds since 1970 on the controller's clock; both lie in one quarter hour.
    pub from: Instant,
    pub to: Instant,
    /// Ended by the cycle's end; false when the quarter hour cut it.
    pub cycle: bool,
    pub phases: BTreeMap<PhaseNumber, PhaseCounts>,
    /// Actuations of each detector, those without a phase too.
    pub detectors: BTreeMap<Channel, u64>,
}

impl Aggregate {
    pub fn phase(&mut self, phase: PhaseNumber) -> &mut PhaseCounts {
        self.phases.entry(phase).or_default()
    }
}
