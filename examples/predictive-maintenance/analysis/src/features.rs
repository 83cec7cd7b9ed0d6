//! The figures of one window that tell what state the bearing is in.

use serde::{Deserialize, Serialize};

use crate::bearing::{Bearing, FaultFrequencies};
use crate::envelope::{Band, Envelope, Transforms};
use crate::verdict::Part;
use crate::waveform::Waveform;
use crate::window::{Malformed, Window};

/// The lower edge of the band whose envelope is looked at. Impacts ring the structure's resonances, which lie at some
/// kilohertz; the lines of shaft and motor lie below (Randall and Antoni, cited in [`crate::bearing`]).
const BAND_LOW_HZ: f64 = 2_000.0;
/// The upper edge, as a part of the sample rate: short of Nyquist's one half, where the recorder's filter cuts.
const BAND_HIGH_RATIO: f64 = 0.48;
/// How many harmonics of a fault frequency count as its evidence.
const HARMONICS: u8 = 3;
/// How far slip and the shaft's unsteadiness may move a line.
const SLIP: f64 = 0.01;
/// Turns of the shaft that a window must hold, so that the lines of two faults lie apart.
const TURNS_MIN: f64 = 8.0;
/// Amplitudes below this part of the background are noise of the arithmetic.
const RATIO_MIN: f64 = 1e-3;

/// How clearly one part's fault frequency and its harmonics stand out of the envelope's spectrum.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Where geometry and shaft speed put the fundamental, in hertz.
    pub expected_hz: f64,
    /// Where the highest line near it is.
    pub found_hz: f64,
    /// Peak over median of the neighbourhood, the mean of the harmonics' decibels. Noise yields 2 to 5.
    pub prominence_db: f64,
}

/// What one window was reduced to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Features {
    pub waveform: Waveform,
    /// Effective value above 2 kHz, in decibels over one unit of the sensor.
    pub impact_level_db: f64,
    pub outer_race: Line,
    pub inner_race: Line,
    /// At twice the ball's spin frequency: its fault meets both races in one turn.
    pub ball: Line,
}

impl Features {
    pub fn line(&self, part: Part) -> &Line {
        match part {
            Part::OuterRace => &self.outer_race,
            Part::InnerRace => &self.inner_race,
            Part::Ball => &self.ball,
        }
    }
}

/// Why a window yields no features.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum Unfit {
    #[error("the window is malformed")]
    Malformed(#[from] Malformed),
    #[error("the window holds {turns:.1} turns of the shaft, and {TURNS_MIN} are needed")]
    TooShort { turns: f64 },
    #[error("a sample rate of {rate_hz} Hz leaves no band above 2 kHz")]
    TooSlow { rate_hz: f32 },
    #[error("the window holds no vibration at all: is the sensor connected?")]
    Silent,
}

/// Computes features for one kind of bearing; keeps the transforms' plans from window to window.
pub struct Examiner {
    bearing: Bearing,
    transforms: Transforms,
}

impl Examiner {
    pub fn new(bearing: Bearing) -> Self {
        Self {
            bearing,
            transforms: Transforms::default(),
        }
    }

    /// The features of one window.
    pub fn examine(&mut self, window: &Window) -> Result<Features, Unfit> {
        window.check()?;
        let rate = f64::from(window.sample_rate_hz);
        let shaft_hz = f64::from(window.shaft_hz);
        let turns = window.samples.len() as f64 / rate * shaft_hz;
        if turns < TURNS_MIN {
            return Err(Unfit::TooShort { turns });
        }
        let band = Band {
            low_hz: BAND_LOW_HZ,
            high_hz: BAND_HIGH_RATIO * rate,
        };
        if band.high_hz <= 2.0 * band.low_hz {
            return Err(Unfit::TooSlow {
                rate_hz: window.sample_rate_hz,
            });
        }
        let envelope =
            Envelope::of(&mut self.transforms, &window.samples, rate, band).ok_or(Unfit::Silent)?;
        let frequencies = self.bearing.frequencies(shaft_hz);
        let line = |hz| line(&envelope, hz, &frequencies).ok_or(Unfit::Silent);
        Ok(Features {
            waveform: Waveform::of(&window.samples),
            impact_level_db: decibels(envelope.rms),
            outer_race: line(frequencies.outer_race)?,
            inner_race: line(frequencies.inner_race)?,
            ball: line(2.0 * frequencies.ball_spin)?,
        })
    }
}

/// How clearly `hz` and its harmonics stand out. The neighbourhood reaches one shaft frequency to both sides: far enough
/// that the lines in it, modulated by the shaft as they are, are few among many.
fn line(envelope: &Envelope, hz: f64, frequencies: &FaultFrequencies) -> Option<Line> {
    let mut sum = 0.0;
    let mut found_hz = hz;
    for harmonic in 1..=HARMONICS {
        let around = hz * f64::from(harmonic);
        let tolerance = (SLIP * around).max(0.75 * envelope.resolution_hz);
        let (peak_hz, peak) = envelope.peak(around, tolerance)?;
        let background = envelope.background(around, frequencies.shaft)?;
        if harmonic == 1 {
            found_hz = peak_hz;
        }
        sum += decibels((peak / background.max(f64::MIN_POSITIVE)).max(RATIO_MIN));
    }
    Some(Line {
        expected_hz: hz,
        found_hz,
        prominence_db: sum / f64::from(HARMONICS),
    })
}

fn decibels(ratio: f64) -> f64 {
    20.0 * ratio.log10()
}
