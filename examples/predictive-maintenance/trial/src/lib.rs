//! The two trials of the analysis on real recordings: a bearing's vibration and a machine's temperature.

pub mod recording;
pub mod table;
pub mod temperature;
pub mod vibration;
