//! The geometry of a rolling bearing and the frequencies at which its faults strike.

use serde::{Deserialize, Serialize};

/// A rolling bearing whose outer race stands still.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bearing {
    pub balls: u8,
    pub ball_diameter_mm: f64,
    /// Diameter of the circle on which the balls' centres run.
    pub pitch_diameter_mm: f64,
    pub contact_angle_degrees: f64,
}

/// SKF 6205-2RS JEM, a deep-groove ball bearing: nine balls of 0.3126 in on a pitch circle of 1.537 in, as the Bearing
/// Data Center of Case Western Reserve University lists it for the drive end of its test stand ("Bearing Information").
/// Its table of defect frequencies, in multiples of the running speed, is the check of this module's test.
pub const SKF_6205: Bearing = Bearing {
    balls: 9,
    ball_diameter_mm: 0.3126 * 25.4,
    pitch_diameter_mm: 1.537 * 25.4,
    contact_angle_degrees: 0.0,
};

/// How often each part of a bearing meets a fault, in hertz, when nothing slips.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct FaultFrequencies {
    pub shaft: f64,
    /// A ball passes a point of the outer race (BPFO).
    pub outer_race: f64,
    /// A ball passes a point of the inner race (BPFI).
    pub inner_race: f64,
    /// A ball turns once about itself (BSF). A fault on it strikes twice a turn: once each race.
    pub ball_spin: f64,
    /// The cage turns once (FTF).
    pub cage: f64,
}

impl Bearing {
    /// The kinematic fault frequencies at a shaft speed. Source: Randall and Antoni, "Rolling element bearing
    /// diagnostics: a tutorial", Mechanical Systems and Signal Processing 25 (2011) 485–520.
    /// Slip makes the real ones differ by one or two per cent (the same).
    pub fn frequencies(&self, shaft_hz: f64) -> FaultFrequencies {
        let balls = f64::from(self.balls);
        let ratio = self.ball_diameter_mm / self.pitch_diameter_mm
            * self.contact_angle_degrees.to_radians().cos();
        FaultFrequencies {
            shaft: shaft_hz,
            outer_race: balls * shaft_hz / 2.0 * (1.0 - ratio),
            inner_race: balls * shaft_hz / 2.0 * (1.0 + ratio),
            ball_spin: self.pitch_diameter_mm * shaft_hz / (2.0 * self.ball_diameter_mm)
                * (1.0 - ratio * ratio),
            cage: shaft_hz / 2.0 * (1.0 - ratio),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frequencies_are_those_that_the_bearing_data_center_lists() {
        let multiples = SKF_6205.frequencies(1.0);
        let listed = [
            (multiples.inner_race, 5.4152),
            (multiples.outer_race, 3.5848),
            (multiples.cage, 0.39828),
            (2.0 * multiples.ball_spin, 4.7135),
        ];
        for (computed, listed) in listed {
            assert!(
                (computed / listed - 1.0_f64).abs() < 1e-4,
                "{computed} is not {listed}"
            );
        }
    }
}
