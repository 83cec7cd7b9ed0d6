//! The actuated-control rule: what each phase should do in the coming second.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::batch::Instant;
use crate::phase::{Light, Phase, PhaseNumber};

/// A green lasts at least this long: drivers must see it and start.
pub const GREEN_MIN_MS: i64 = 6_000;
/// A green lasts at most this long once someone waits elsewhere.
pub const GREEN_MAX_MS: i64 = 50_000;
/// A gap between vehicles of this length ends a green for which someone else waits.
pub const GAP_MS: i64 = 3_000;

/// What a phase should do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// Stay as it is: not green, or green with no one waiting elsewhere.
    Keep,
    /// Hold the green for those who are still coming.
    Extend,
    /// End the green: a conflicting phase waits.
    End,
}

/// Decides for every phase, at the instant `now`:
///
/// 1. not green → keep;
/// 2. green, and no conflicting phase is called → keep (the signal rests in green);
/// 3. green for less than the minimum → extend;
/// 4. green for the maximum or longer → end;
/// 5. a vehicle at the stop bar, or one seen within the gap → extend;
/// 6. else → end.
pub fn decide(
    phases: &BTreeMap<PhaseNumber, Phase>,
    now: Instant,
) -> BTreeMap<PhaseNumber, Decision> {
    phases
        .iter()
        .map(|(number, phase)| (*number, decide_one(*number, phase, phases, now)))
        .collect()
}

fn decide_one(
    number: PhaseNumber,
    phase: &Phase,
    phases: &BTreeMap<PhaseNumber, Phase>,
    now: Instant,
) -> Decision {
    let waits = |(other, state): (&PhaseNumber, &Phase)| {
        state.called && state.light != Light::Green && conflict(number, *other)
    };
    if phase.light != Light::Green || !phases.iter().any(waits) {
        return Decision::Keep;
    }
    let green = now - phase.since;
    let demand = phase.occupied > 0 || now - phase.last_vehicle < GAP_MS;
    if green < GREEN_MIN_MS || (green < GREEN_MAX_MS && demand) {
        Decision::Extend
    } else {
        Decision::End
    }
}

/// Whether two phases may not be green together, by the NEMA dual-ring diagram: phases 1–4 are one ring and 5–8 the
/// other; within a ring all conflict, and the barrier parts 1, 2, 5, 6 from 3, 4, 7, 8. Phases beyond 8 conflict with all.
fn conflict(one: PhaseNumber, other: PhaseNumber) -> bool {
    let place = |phase: PhaseNumber| match phase {
        1..=8 => Some(((phase - 1) / 4, (phase - 1) % 4 / 2)),
        _ => None,
    };
    match (place(one), place(other)) {
        (Some((ring, side)), Some((other_ring, other_side))) => {
            one != other && (ring == other_ring || side != other_side)
        }
        _ => one != other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Phase 2 is green since 0 with its last vehicle at `vehicle`; phase 8 is red, called or not.
    fn phases(vehicle: Instant, called: bool) -> BTreeMap<PhaseNumber, Phase> {
        let green = Phase {
            light: Light::Green,
            last_vehicle: vehicle,
            ..Phase::default()
        };
        let red = Phase {
            light: Light::Red,
            called,
            ..Phase::default()
        };
        BTreeMap::from([(2, green), (8, red)])
    }

    fn decision(vehicle: Instant, called: bool, now: Instant) -> Decision {
        let decisions = decide(&phases(vehicle, called), now);
        assert_eq!(decisions[&8], Decision::Keep);
        decisions[&2]
    }

    #[test]
    fn the_rule_in_order() {
        assert_eq!(decision(0, false, 90_000), Decision::Keep, "no one waits");
        assert_eq!(decision(0, true, 5_000), Decision::Extend, "minimum");
        assert_eq!(
            decision(18_000, true, 20_000),
            Decision::Extend,
            "vehicles keep coming"
        );
        assert_eq!(decision(17_000, true, 20_000), Decision::End, "gap");
        assert_eq!(decision(49_900, true, 50_000), Decision::End, "maximum");
    }

    #[test]
    fn a_vehicle_at_the_stop_bar_extends() {
        let mut phases = phases(0, true);
        phases.get_mut(&2).unwrap().occupied = 1;
        assert_eq!(decide(&phases, 20_000)[&2], Decision::Extend);
    }

    #[test]
    fn conflicts_follow_the_rings_and_the_barrier() {
        assert!(
            conflict(1, 2) && conflict(2, 8) && conflict(5, 6) && conflict(3, 6) && conflict(2, 9)
        );
        assert!(!conflict(2, 6) && !conflict(1, 6) && !conflict(4, 8) && !conflict(2, 2));
    }
}
