//! Signals for tests: hum of the shaft, noise, and impacts that ring a resonance.

use std::f64::consts::TAU;

use crate::window::Window;

const RATE_HZ: f64 = 12_000.0;
const SHAFT_HZ: f64 = 30.0;
const RESONANCE_HZ: f64 = 3_300.0;
/// Time within which the resonance rings down to 1/e, in seconds.
const RING_S: f64 = 0.001;

/// A machine that never was.
pub struct Machine {
    noise: f64,
    strikes_hz: Option<f64>,
}

impl Machine {
    pub fn healthy() -> Self {
        Self {
            noise: 0.02,
            strikes_hz: None,
        }
    }

    pub fn noisy() -> Self {
        Self {
            noise: 0.2,
            strikes_hz: None,
        }
    }

    pub fn struck(hz: f64) -> Self {
        Self {
            noise: 0.02,
            strikes_hz: Some(hz),
        }
    }

    /// A third of a second of it; the same for the same seed.
    pub fn window(&self, seed: u64) -> Window {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let phase = random.uniform();
        let mut samples: Vec<f64> = (0..4_096)
            .map(|index| {
                let hum = 0.05 * (TAU * (SHAFT_HZ * f64::from(index) / RATE_HZ + phase)).sin();
                hum + self.noise * random.gaussian()
            })
            .collect();
        if let Some(hz) = self.strikes_hz {
            let mut at = random.uniform() / hz;
            while at < 4_096.0 / RATE_HZ {
                ring(&mut samples, at, 1.0 + 0.2 * random.gaussian());
                // Slip: each interval is a little off.
                at += (1.0 + 0.005 * random.gaussian()) / hz;
            }
        }
        Window {
            machine: "synthetic".into(),
            position: seed * 4_096,
            sample_rate_hz: RATE_HZ as f32,
            shaft_hz: SHAFT_HZ as f32,
            samples: samples.into_iter().map(|value| value as f32).collect(),
        }
    }
}

/// Adds the answer of the resonance to one strike.
fn ring(samples: &mut [f64], at: f64, strength: f64) {
    for (index, sample) in samples.iter_mut().enumerate() {
        let since = index as f64 / RATE_HZ - at;
        if (0.0..10.0 * RING_S).contains(&since) {
            *sample += strength * (-since / RING_S).exp() * (TAU * RESONANCE_HZ * since).sin();
        }
    }
}

/// Marsaglia's xorshift64, enough for noise.
struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Twelve uniform numbers less six: normal enough.
    fn gaussian(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }
}
