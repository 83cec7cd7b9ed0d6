//! What the waveform alone says: effective value, peak, crest factor, kurtosis.

use serde::{Deserialize, Serialize};

/// Figures of one window, its mean removed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Waveform {
    /// Root of the mean square, in the unit of the samples.
    pub rms: f64,
    /// Largest magnitude, in the unit of the samples.
    pub peak: f64,
    /// Peak over effective value: 1.41 for a sine, about 4 for noise of some thousand samples, more for impacts.
    pub crest: f64,
    /// Fourth central moment over the squared variance (Pearson's, not the excess): 1.5 for a sine, 3 for Gaussian
    /// noise, more for impacts. Dyer and Stewart, "Detection of rolling element bearing damage by statistical
    /// vibration analysis", Journal of Mechanical Design 100 (1978) 229–235.
    pub kurtosis: f64,
}

impl Waveform {
    /// Of a constant or empty signal everything is 0.
    pub fn of(samples: &[f32]) -> Self {
        let count = samples.len().max(1) as f64;
        let mean = samples.iter().map(|value| f64::from(*value)).sum::<f64>() / count;
        let (mut square, mut fourth, mut peak) = (0.0, 0.0, 0.0_f64);
        for value in samples {
            let value = f64::from(*value) - mean;
            square += value * value;
            fourth += value.powi(4);
            peak = peak.max(value.abs());
        }
        let (variance, fourth) = (square / count, fourth / count);
        if variance <= f64::EPSILON * mean * mean {
            return Self {
                rms: 0.0,
                peak: 0.0,
                crest: 0.0,
                kurtosis: 0.0,
            };
        }
        let rms = variance.sqrt();
        Self {
            rms,
            peak,
            crest: peak / rms,
            kurtosis: fourth / (variance * variance),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sine_on_an_offset_has_its_textbook_figures() {
        let sine: Vec<f32> = (0..4_000)
            .map(|index| 5.0 + 2.0 * (index as f32 * std::f32::consts::TAU / 100.0).sin())
            .collect();
        let figures = Waveform::of(&sine);
        assert!((figures.rms - 2.0_f64.sqrt()).abs() < 1e-4);
        assert!((figures.crest - 2.0_f64.sqrt()).abs() < 1e-3);
        assert!((figures.kurtosis - 1.5).abs() < 1e-3);
    }

    #[test]
    fn a_dead_sensor_yields_noughts_and_no_nonsense() {
        let dead = Waveform::of(&[0.3; 64]);
        assert_eq!((dead.rms, dead.crest, dead.kurtosis), (0.0, 0.0, 0.0));
        assert_eq!(Waveform::of(&[]), dead);
    }
}
