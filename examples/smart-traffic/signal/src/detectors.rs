//! The intersection's detector table: which channel lies on the way to which phase, and what it is for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::phase::PhaseNumber;

/// The controller's number of a detector input.
pub type Channel = u8;

/// What a detector is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// Far before the stop bar: sees a vehicle arrive. Arrivals are counted here.
    Advance,
    /// At the stop bar: occupied while a vehicle waits.
    Presence,
    /// Any other: counted, and nothing more.
    Other,
}

/// Channel to phase and purpose.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detectors(BTreeMap<Channel, (PhaseNumber, Purpose)>);

impl Detectors {
    /// Reads rows of `device,phase,channel,purpose` under one head line, and takes those of `device`.
    pub fn parse(text: &str, device: &str) -> Result<Self, String> {
        let mut table = BTreeMap::new();
        for (index, line) in text
            .lines()
            .enumerate()
            .skip(1)
            .filter(|(_, line)| !line.trim().is_empty())
        {
            let wrong = || format!("line {}: expected device,phase,channel,purpose", index + 1);
            let fields: Vec<&str> = line
                .split(',')
                .map(|field| field.trim().trim_matches('"'))
                .collect();
            let [row_device, phase, channel, purpose] = fields.as_slice() else {
                return Err(wrong());
            };
            if *row_device != device {
                continue;
            }
            let purpose = match *purpose {
                "Advance" => Purpose::Advance,
                "Presence" => Purpose::Presence,
                _ => Purpose::Other,
            };
            let number = |field: &str| field.parse::<u8>().map_err(|_| wrong());
            table.insert(number(channel)?, (number(phase)?, purpose));
        }
        if table.is_empty() {
            Err(format!("no detector of device {device}"))
        } else {
            Ok(Self(table))
        }
    }

    pub fn get(&self, channel: Channel) -> Option<(PhaseNumber, Purpose)> {
        self.0.get(&channel).copied()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The phases that have detectors, ascending.
    pub fn phases(&self) -> Vec<PhaseNumber> {
        let mut phases: Vec<_> = self.0.values().map(|(phase, _)| *phase).collect();
        phases.sort_unstable();
        phases.dedup();
        phases
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\"DeviceId\",\"Phase\",\"Parameter\",\"Function\"\n7,2,4,\"Presence\"\n7,6,9,\"Advance\"\n8,1,1,\"Advance\"\n";

    #[test]
    fn only_the_own_rows_are_read() {
        let detectors = Detectors::parse(TABLE, "7").unwrap();
        assert_eq!(detectors.get(9), Some((6, Purpose::Advance)));
        assert_eq!(detectors.get(1), None);
        assert_eq!(detectors.phases(), [2, 6]);
    }

    #[test]
    fn a_bad_line_is_named() {
        assert_eq!(
            Detectors::parse("head\n7,2,x,Advance", "7"),
            Err("line 2: expected device,phase,channel,purpose".into())
        );
        assert!(Detectors::parse(TABLE, "9").is_err());
    }
}
