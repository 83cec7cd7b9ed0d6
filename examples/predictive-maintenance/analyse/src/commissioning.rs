//! Learning what is usual from a machine that is known to be healthy.

use analysis::baseline::Baseline;
use analysis::features::Features;
use serde::{Deserialize, Serialize};

/// The baseline and up to where the machine has taught it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Commissioning {
    pub baseline: Baseline,
    /// Machine and position of the window that taught last.
    last: Option<(String, u64)>,
}

impl Commissioning {
    /// Learns from a window; from one that comes again, or too late, nothing.
    pub fn take(&mut self, machine: &str, position: u64, features: &Features) {
        let known = self
            .last
            .as_ref()
            .is_some_and(|(last, taught)| last == machine && position <= *taught);
        if !known {
            self.baseline.learn(features);
            self.last = Some((machine.to_owned(), position));
        }
    }
}
