//! Reads the bearing recordings of Case Western Reserve University: MATLAB 5 files, acceleration at 12 kHz.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use analysis::verdict::Verdict;
use analysis::window::Window;
use matfile::{MatFile, NumericData};

/// The environment variable that names the folder of recordings.
pub const FOLDER_VARIABLE: &str = "TOMBOLO_VIBRATION_DATA";
/// Samples in one window: a third of a second, ten turns of the shaft.
pub const WINDOW_SAMPLES: usize = 4_096;
const SAMPLE_RATE_HZ: f32 = 12_000.0;

/// Where on the motor the acceleration was measured. The damaged bearing is always the one at the drive end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sensor {
    DriveEnd,
    FanEnd,
}

impl Sensor {
    /// How the name of the sensor's variable ends.
    fn variable(self) -> &'static str {
        match self {
            Self::DriveEnd => "_DE_time",
            Self::FanEnd => "_FE_time",
        }
    }
}

/// One recording: its file, the name that its machine goes by, and the state that its bearing was in.
#[derive(Debug, Clone, Copy)]
pub struct Source {
    pub file: &'static str,
    pub machine: &'static str,
    pub truth: Verdict,
}

/// The four recordings, the healthy one first.
pub const SOURCES: [Source; 4] = [
    Source {
        file: "Normal_0.mat",
        machine: "motor-healthy",
        truth: Verdict::Healthy,
    },
    Source {
        file: "IR007_0.mat",
        machine: "motor-inner",
        truth: Verdict::InnerRace,
    },
    Source {
        file: "OR007@6_0.mat",
        machine: "motor-outer",
        truth: Verdict::OuterRace,
    },
    Source {
        file: "B007_0.mat",
        machine: "motor-ball",
        truth: Verdict::Ball,
    },
];

/// Why a recording could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error("{} could not be opened", .0.display())]
    Open(PathBuf, #[source] std::io::Error),
    #[error("{} is not a MATLAB 5 file: {reason}", .path.display())]
    Parse { path: PathBuf, reason: String },
    #[error("{} holds no variable whose name ends in {variable}", .path.display())]
    Missing {
        path: PathBuf,
        variable: &'static str,
    },
}

/// One recording in memory.
#[derive(Debug, Clone)]
pub struct Recording {
    pub source: Source,
    pub shaft_hz: f32,
    pub samples: Vec<f32>,
}

impl Recording {
    /// Reads one recording from the folder: the sensor's signal and the shaft's speed.
    pub fn read(folder: &Path, source: Source, sensor: Sensor) -> Result<Self, Unreadable> {
        let path = folder.join(source.file);
        let file = File::open(&path).map_err(|error| Unreadable::Open(path.clone(), error))?;
        let parsed = MatFile::parse(BufReader::new(file)).map_err(|error| Unreadable::Parse {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        let variable = |ending: &'static str| {
            parsed
                .arrays()
                .iter()
                .find(|array| array.name().ends_with(ending))
                .and_then(|array| match array.data() {
                    NumericData::Double { real, .. } => Some(real.as_slice()),
                    _ => None,
                })
                .filter(|values| !values.is_empty())
                .ok_or_else(|| Unreadable::Missing {
                    path: path.clone(),
                    variable: ending,
                })
        };
        let turns_per_minute = variable("RPM")?.first().copied().unwrap_or_default();
        Ok(Self {
            source,
            shaft_hz: (turns_per_minute / 60.0) as f32,
            samples: variable(sensor.variable())?
                .iter()
                .map(|value| *value as f32)
                .collect(),
        })
    }

    /// The recording cut into whole windows, none overlapping another; what is left over is dropped.
    pub fn windows(&self) -> impl ExactSizeIterator<Item = Window> {
        self.samples
            .chunks_exact(WINDOW_SAMPLES)
            .enumerate()
            .map(|(index, samples)| Window {
                machine: self.source.machine.into(),
                position: (index * WINDOW_SAMPLES) as u64,
                sample_rate_hz: SAMPLE_RATE_HZ,
                shaft_hz: self.shaft_hz,
                samples: samples.to_vec(),
            })
    }
}

/// All four recordings of a folder, by one sensor.
pub fn read_all(folder: &Path, sensor: Sensor) -> Result<Vec<Recording>, Unreadable> {
    SOURCES
        .into_iter()
        .map(|source| Recording::read(folder, source, sensor))
        .collect()
}
