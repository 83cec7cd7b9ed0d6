//! From features and limits to a verdict: healthy, or which part of the bearing is damaged.

use serde::{Deserialize, Serialize};

use crate::baseline::Limits;
use crate::features::Features;

/// A part of the bearing that can be damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    InnerRace,
    OuterRace,
    Ball,
}

impl Part {
    pub const ALL: [Self; 3] = [Self::InnerRace, Self::OuterRace, Self::Ball];
}

/// What a window says about the bearing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    Healthy,
    InnerRace,
    OuterRace,
    Ball,
}

impl Verdict {
    pub const ALL: [Self; 4] = [Self::Healthy, Self::InnerRace, Self::OuterRace, Self::Ball];
}

impl From<Part> for Verdict {
    fn from(part: Part) -> Self {
        match part {
            Part::InnerRace => Self::InnerRace,
            Part::OuterRace => Self::OuterRace,
            Part::Ball => Self::Ball,
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.pad(match self {
            Self::Healthy => "healthy",
            Self::InnerRace => "inner race",
            Self::OuterRace => "outer race",
            Self::Ball => "ball",
        })
    }
}

/// What a verdict rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Basis {
    /// Nothing is above its limit.
    Quiet,
    /// The part's fault frequency stands out.
    Line,
    /// The impact band is far louder than in health, and no fault frequency stands out.
    Exclusion,
}

/// A verdict and how it came about.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Diagnosis {
    pub verdict: Verdict,
    pub basis: Basis,
    /// How far above its limit is what the verdict rests on, in decibels; below 0 for a healthy bearing, whose
    /// nearest limit it is.
    pub margin_db: f64,
}

impl Diagnosis {
    /// 1. The fault lines that are above their limits: the most prominent one names the part. (A race's fault raises
    ///    the other lines too, through its sidebands; never as far as its own.)
    /// 2. None, but the impact band is above its limit: the ball, by exclusion. A race's fault is struck at a fixed
    ///    rate and must show as a line; a ball's axis of spin wanders, so that its fault now meets the races and now
    ///    does not, and often shows no line (Smith and Randall, "Rolling element bearing diagnostics using the Case
    ///    Western Reserve University data: a benchmark study", Mechanical Systems and Signal Processing 64–65 (2015)
    ///    100–131). Whatever else raises the noise, such as want of grease, is called the ball too.
    /// 3. Else healthy.
    pub fn of(features: &Features, limits: &Limits) -> Self {
        let above = |part: Part| features.line(part).prominence_db - limits.line_db(part);
        let standing = Part::ALL
            .into_iter()
            .filter(|part| above(*part) > 0.0)
            .max_by(|one, other| {
                let prominence = |part: Part| features.line(part).prominence_db;
                prominence(*one).total_cmp(&prominence(*other))
            });
        if let Some(part) = standing {
            return Self {
                verdict: part.into(),
                basis: Basis::Line,
                margin_db: above(part),
            };
        }
        let louder = features.impact_level_db - limits.impact_level_db;
        if louder > 0.0 {
            return Self {
                verdict: Verdict::Ball,
                basis: Basis::Exclusion,
                margin_db: louder,
            };
        }
        Self {
            verdict: Verdict::Healthy,
            basis: Basis::Quiet,
            margin_db: Part::ALL.into_iter().map(above).fold(louder, f64::max),
        }
    }
}
