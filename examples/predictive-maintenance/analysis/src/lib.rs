//! What a bearing's vibration and a machine's temperature say: pure computation, no I/O, natively and as WebAssembly.
//!
//! Vibration: a [`window::Window`] of samples → [`features::Examiner`] → [`features::Features`] → with the limits of a
//! [`baseline::Baseline`] of the healthy machine → [`report::Report`] with its [`verdict::Verdict`].
//! Temperature: one reading after the other → [`temperature::Monitor`] → now and then a [`temperature::Alarm`].

pub mod baseline;
pub mod bearing;
pub mod envelope;
pub mod features;
pub mod report;
pub mod temperature;
pub mod verdict;
pub mod waveform;
pub mod window;

#[cfg(test)]
mod synthetic;
