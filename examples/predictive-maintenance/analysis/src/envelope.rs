//! The squared envelope of a band of the signal, and its spectrum: where repeated impacts show as lines.

use realfft::RealFftPlanner;
use rustfft::FftPlanner;
use rustfft::num_complex::Complex;

/// A band of frequencies, in hertz.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Band {
    pub low_hz: f64,
    pub high_hz: f64,
}

/// The plans of the Fourier transforms, made once for each length and kept.
pub struct Transforms {
    real: RealFftPlanner<f32>,
    complex: FftPlanner<f32>,
}

impl Default for Transforms {
    fn default() -> Self {
        Self {
            real: RealFftPlanner::new(),
            complex: FftPlanner::new(),
        }
    }
}

/// How much finer than one over the window's length the spectrum is sampled, by zero padding.
const PADDING: usize = 4;

/// Spectrum of the squared envelope of one band.
#[derive(Debug, Clone)]
pub struct Envelope {
    /// Effective value of the signal within the band, in the samples' unit.
    pub rms: f64,
    /// One over the window's length: two lines closer than twice this are one.
    pub resolution_hz: f64,
    step_hz: f64,
    amplitudes: Vec<f32>,
}

impl Envelope {
    /// Band-pass and Hilbert transform in one: the one-sided spectrum of the band alone is shifted to zero, padded to
    /// twice its width (squaring doubles the bandwidth) and transformed back; its squared magnitude is the squared
    /// envelope at a reduced rate. Its mean is removed, it is divided by the mean (so that the spectrum does not
    /// depend on the level) and weighted by Hann's window. Sources: Randall and Antoni, "Rolling element bearing
    /// diagnostics: a tutorial", Mechanical Systems and Signal Processing 25 (2011) 485–520, for the way; Ho and
    /// Randall, "Optimisation of bearing diagnostic techniques using simulated and actual bearing fault signals", the
    /// same journal 14 (2000) 763–788, for the square.
    /// `None` when the band holds fewer than 16 lines or no signal at all.
    pub fn of(
        transforms: &mut Transforms,
        samples: &[f32],
        sample_rate_hz: f64,
        band: Band,
    ) -> Option<Self> {
        let resolution_hz = sample_rate_hz / samples.len() as f64;
        let lines = band_lines(transforms, samples, resolution_hz, band)?;
        let length = (2 * lines.len()).next_power_of_two();
        let power: f64 = lines.iter().map(|line| f64::from(line.norm_sqr())).sum();
        let count = samples.len() as f64;
        let rms = (2.0 * power).sqrt() / count;

        let mut analytic = lines;
        analytic.resize(length, Complex::default());
        transforms
            .complex
            .plan_fft_inverse(length)
            .process(&mut analytic);
        let mean = analytic.iter().map(Complex::norm_sqr).sum::<f32>() / length as f32;
        if !mean.is_normal() {
            return None;
        }
        let mut squared: Vec<f32> = analytic
            .iter()
            .enumerate()
            .map(|(index, value)| (value.norm_sqr() / mean - 1.0) * hann(index, length))
            .collect();
        squared.resize(length * PADDING, 0.0);
        let forward = transforms.real.plan_fft_forward(squared.len());
        let mut spectrum = forward.make_output_vec();
        forward.process(&mut squared, &mut spectrum).ok()?;
        // Hann's window has a mean of one half; an amplitude is twice the one-sided line: hence 4 over the length.
        let scale = 4.0 / length as f32;
        Some(Self {
            rms,
            resolution_hz,
            step_hz: resolution_hz / PADDING as f64,
            amplitudes: spectrum.iter().map(|line| line.norm() * scale).collect(),
        })
    }

    /// The highest line within `around_hz` ± `tolerance_hz`: its frequency, and its amplitude as a part of the mean
    /// squared envelope.
    pub fn peak(&self, around_hz: f64, tolerance_hz: f64) -> Option<(f64, f64)> {
        let first = self.index_above(around_hz - tolerance_hz);
        self.range(around_hz, tolerance_hz)?
            .iter()
            .enumerate()
            .max_by(|one, other| one.1.total_cmp(other.1))
            .map(|(index, amplitude)| {
                ((first + index) as f64 * self.step_hz, f64::from(*amplitude))
            })
    }

    /// The median of the amplitudes within `around_hz` ± `reach_hz`: what noise yields there, few lines notwithstanding.
    pub fn background(&self, around_hz: f64, reach_hz: f64) -> Option<f64> {
        let mut amplitudes = self.range(around_hz, reach_hz)?.to_vec();
        let middle = amplitudes.len() / 2;
        let (_, median, _) = amplitudes.select_nth_unstable_by(middle, f32::total_cmp);
        Some(f64::from(*median))
    }

    fn index_above(&self, hz: f64) -> usize {
        (hz.max(0.0) / self.step_hz).ceil() as usize
    }

    /// The amplitudes within `around_hz` ± `reach_hz`, at least one. The lowest lines are left out: Hann's window
    /// smears the removed mean over them.
    fn range(&self, around_hz: f64, reach_hz: f64) -> Option<&[f32]> {
        let first = self.index_above(around_hz - reach_hz).max(2 * PADDING);
        let end = self.index_above(around_hz + reach_hz);
        self.amplitudes
            .get(first..end)
            .filter(|range| !range.is_empty())
    }
}

/// The lines of the signal's spectrum that lie in the band.
fn band_lines(
    transforms: &mut Transforms,
    samples: &[f32],
    resolution_hz: f64,
    band: Band,
) -> Option<Vec<Complex<f32>>> {
    if samples.is_empty() {
        return None;
    }
    let forward = transforms.real.plan_fft_forward(samples.len());
    let mut input = samples.to_vec();
    let mut spectrum = forward.make_output_vec();
    forward.process(&mut input, &mut spectrum).ok()?;
    let first = (band.low_hz / resolution_hz).ceil() as usize;
    let end = (band.high_hz / resolution_hz).floor() as usize + 1;
    let lines = spectrum.get(first..end.min(spectrum.len()))?;
    (lines.len() >= 16).then(|| lines.to_vec())
}

/// Hann's window, periodic.
fn hann(index: usize, length: usize) -> f32 {
    let phase = std::f32::consts::TAU * index as f32 / length as f32;
    0.5 - 0.5 * phase.cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BAND: Band = Band {
        low_hz: 2_000.0,
        high_hz: 5_700.0,
    };

    fn modulated(depth: f32, by_hz: f32) -> Vec<f32> {
        (0..4_096)
            .map(|index| {
                let turn = index as f32 / 12_000.0 * std::f32::consts::TAU;
                (1.0 + depth * (turn * by_hz).cos()) * (turn * 3_300.0).cos()
            })
            .collect()
    }

    #[test]
    fn the_frequency_and_depth_of_a_modulation_are_found() {
        let envelope = Envelope::of(
            &mut Transforms::default(),
            &modulated(0.1, 107.0),
            12_000.0,
            BAND,
        )
        .unwrap();
        let (hz, amplitude) = envelope.peak(110.0, 10.0).unwrap();
        assert!((hz - 107.0).abs() < 1.0, "{hz} Hz");
        // (1 + d cos)² = 1 + d²/2 + 2d cos + …: the line is 2d over the mean.
        assert!((amplitude - 0.2 / 1.005).abs() < 0.01, "{amplitude}");
        assert!(
            (envelope.rms - (0.5_f64 * 1.005).sqrt()).abs() < 0.01,
            "{}",
            envelope.rms
        );
    }

    #[test]
    fn the_spectrum_does_not_depend_on_the_level() {
        let mut transforms = Transforms::default();
        let soft = modulated(0.1, 107.0);
        let loud: Vec<f32> = soft.iter().map(|value| value * 1_000.0).collect();
        let mut peak = |samples: &[f32]| {
            Envelope::of(&mut transforms, samples, 12_000.0, BAND)
                .unwrap()
                .peak(107.0, 5.0)
                .unwrap()
                .1
        };
        let (soft, loud) = (peak(&soft), peak(&loud));
        assert!((soft - loud).abs() < 1e-4);
    }

    #[test]
    fn silence_and_a_band_without_lines_have_no_envelope() {
        let mut transforms = Transforms::default();
        assert!(Envelope::of(&mut transforms, &[0.0; 4_096], 12_000.0, BAND).is_none());
        assert!(Envelope::of(&mut transforms, &[1.0; 8], 12_000.0, BAND).is_none());
        assert!(Envelope::of(&mut transforms, &[], 12_000.0, BAND).is_none());
        assert!(Envelope::of(&mut transforms, &modulated(0.1, 50.0), 2_000.0, BAND).is_none());
    }
}
