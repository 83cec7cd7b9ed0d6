//! One window of vibration as a machine publishes it: a short header, then the samples.

/// Samples that one window may hold: 64 Ki, 256 KiB on the wire.
pub const SAMPLES_MAX: usize = 65_536;
/// Bytes that a machine's name may have.
pub const NAME_BYTES_MAX: usize = 64;

/// The first byte of every encoded window; another layout gets another number.
const VERSION: u8 = 1;

/// A stretch of acceleration, measured without a gap.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    pub machine: String,
    /// Index of the first sample since the machine began to measure; with the machine's name it names the window.
    pub position: u64,
    pub sample_rate_hz: f32,
    pub shaft_hz: f32,
    /// Acceleration, in the sensor's unit.
    pub samples: Vec<f32>,
}

/// Why bytes are not a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("the window ends within its header")]
    Truncated,
    #[error("windows of layout {0} are not known here")]
    Version(u8),
    #[error("a machine's name is 1 to {NAME_BYTES_MAX} letters, digits and hyphens")]
    Name,
    #[error("sample rate and shaft speed are positive numbers")]
    Rate,
    #[error("a window is 1 to {SAMPLES_MAX} samples of four bytes")]
    Length,
    #[error("a sample is not a finite number")]
    NotFinite,
}

impl Window {
    /// The bytes of this window, all numbers little-endian: version (u8), length of the name (u8), name, position
    /// (u64), sample rate (f32), shaft speed (f32), samples (f32 each) to the end.
    pub fn encode(&self) -> Vec<u8> {
        let name = self.machine.as_bytes();
        let mut bytes = Vec::with_capacity(18 + name.len() + 4 * self.samples.len());
        bytes.push(VERSION);
        bytes.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        bytes.extend_from_slice(name);
        bytes.extend_from_slice(&self.position.to_le_bytes());
        bytes.extend_from_slice(&self.sample_rate_hz.to_le_bytes());
        bytes.extend_from_slice(&self.shaft_hz.to_le_bytes());
        for sample in &self.samples {
            bytes.extend_from_slice(&sample.to_le_bytes());
        }
        bytes
    }

    /// Reads what [`Window::encode`] wrote. What it returns is within the bounds above and finite throughout.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let (&[version, name_bytes], rest) =
            bytes.split_first_chunk().ok_or(Malformed::Truncated)?;
        if version != VERSION {
            return Err(Malformed::Version(version));
        }
        let (name, rest) = rest
            .split_at_checked(name_bytes.into())
            .ok_or(Malformed::Truncated)?;
        let (position, rest) = rest.split_first_chunk().ok_or(Malformed::Truncated)?;
        let (sample_rate, rest) = rest.split_first_chunk().ok_or(Malformed::Truncated)?;
        let (shaft, rest) = rest.split_first_chunk().ok_or(Malformed::Truncated)?;
        let (samples, odd) = rest.as_chunks();
        if !odd.is_empty() {
            return Err(Malformed::Length);
        }
        let window = Self {
            machine: String::from_utf8(name.to_vec()).map_err(|_| Malformed::Name)?,
            position: u64::from_le_bytes(*position),
            sample_rate_hz: f32::from_le_bytes(*sample_rate),
            shaft_hz: f32::from_le_bytes(*shaft),
            samples: samples.iter().copied().map(f32::from_le_bytes).collect(),
        };
        window.check()?;
        Ok(window)
    }

    /// Whether the window keeps to the bounds; a decoded one does.
    pub fn check(&self) -> Result<(), Malformed> {
        let named = (1..=NAME_BYTES_MAX).contains(&self.machine.len())
            && self
                .machine
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if !named {
            return Err(Malformed::Name);
        }
        let positive = |rate: f32| rate.is_finite() && rate > 0.0;
        if !positive(self.sample_rate_hz) || !positive(self.shaft_hz) {
            return Err(Malformed::Rate);
        }
        if !(1..=SAMPLES_MAX).contains(&self.samples.len()) {
            return Err(Malformed::Length);
        }
        if !self.samples.iter().all(|sample| sample.is_finite()) {
            return Err(Malformed::NotFinite);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window() -> Window {
        Window {
            machine: "press-7".into(),
            position: 4_096,
            sample_rate_hz: 12_000.0,
            shaft_hz: 29.95,
            samples: vec![0.25, -1.5, 3.0],
        }
    }

    #[test]
    fn a_window_survives_the_wire() {
        let bytes = window().encode();
        assert_eq!(bytes.len(), 18 + "press-7".len() + 3 * 4);
        assert_eq!(Window::decode(&bytes), Ok(window()));
    }

    #[test]
    fn every_truncation_is_refused_or_leaves_a_shorter_window() {
        let bytes = window().encode();
        let head = bytes.len() - 12;
        for end in 0..bytes.len() {
            match Window::decode(&bytes[..end]) {
                Ok(short) => assert!(end > head && short.samples.len() == (end - head) / 4),
                Err(why) => assert!(
                    if end < head {
                        why == Malformed::Truncated
                    } else {
                        why == Malformed::Length
                    },
                    "{end}: {why}"
                ),
            }
        }
    }

    #[test]
    fn what_no_sensor_sends_is_refused() {
        let refused = |change: fn(&mut Window)| {
            let mut changed = window();
            change(&mut changed);
            Window::decode(&changed.encode()).unwrap_err()
        };
        assert_eq!(refused(|it| it.machine = "a/b".into()), Malformed::Name);
        assert_eq!(refused(|it| it.machine.clear()), Malformed::Name);
        assert_eq!(refused(|it| it.shaft_hz = 0.0), Malformed::Rate);
        assert_eq!(refused(|it| it.sample_rate_hz = f32::NAN), Malformed::Rate);
        assert_eq!(
            refused(|it| it.samples[1] = f32::INFINITY),
            Malformed::NotFinite
        );
        assert_eq!(refused(|it| it.samples.clear()), Malformed::Length);
        let mut other = window().encode();
        other[0] = 9;
        assert_eq!(Window::decode(&other), Err(Malformed::Version(9)));
    }
}
