//! The vibration trial: the first half of the healthy recording teaches, the second half of every recording is judged.

use std::collections::BTreeMap;

use analysis::baseline::{Baseline, Limits};
use analysis::bearing::SKF_6205;
use analysis::features::{Examiner, Unfit};
use analysis::report::Report;
use analysis::verdict::{Basis, Verdict};

use crate::recording::Recording;

/// Why the trial could not be held.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("a window of {machine} says nothing")]
    Unfit {
        machine: &'static str,
        #[source]
        why: Unfit,
    },
    #[error("the healthy recording is too short to learn from: {windows} windows")]
    NoBaseline { windows: u32 },
}

/// What became of one recording's judged half.
#[derive(Debug, Clone)]
pub struct Judged {
    pub truth: Verdict,
    pub reports: Vec<Report>,
}

impl Judged {
    /// How many windows got this verdict.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.diagnosed(|diagnosed, _| diagnosed == verdict)
    }

    /// How many windows got this verdict on this basis.
    pub fn count_by(&self, verdict: Verdict, basis: Basis) -> usize {
        self.diagnosed(|diagnosed, by| diagnosed == verdict && by == basis)
    }

    fn diagnosed(&self, wanted: impl Fn(Verdict, Basis) -> bool) -> usize {
        self.reports
            .iter()
            .filter_map(|report| report.diagnosis)
            .filter(|diagnosis| wanted(diagnosis.verdict, diagnosis.basis))
            .count()
    }
}

/// The outcome of the trial.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub limits: Limits,
    /// Windows that taught: the first half of the healthy recording and nothing else.
    pub learnt: u32,
    pub judged: Vec<Judged>,
}

impl Outcome {
    /// Windows judged rightly, and windows judged.
    pub fn right_of(&self) -> (usize, usize) {
        self.judged.iter().fold((0, 0), |(right, all), judged| {
            (
                right + judged.count(judged.truth),
                all + judged.reports.len(),
            )
        })
    }

    /// What each true state was taken for.
    pub fn confusion(&self) -> BTreeMap<Verdict, [usize; 4]> {
        self.judged
            .iter()
            .map(|judged| {
                let row = Verdict::ALL.map(|verdict| judged.count(verdict));
                (judged.truth, row)
            })
            .collect()
    }
}

/// Holds the trial. The halves are halves by position, so that no judged sample lies before or among those that taught.
pub fn hold(recordings: &[Recording]) -> Result<Outcome, Failure> {
    let mut examiner = Examiner::new(SKF_6205);
    let mut baseline = Baseline::default();
    for recording in recordings {
        if recording.source.truth != Verdict::Healthy {
            continue;
        }
        let windows = recording.windows();
        let half = windows.len() / 2;
        for window in windows.take(half) {
            let features = examiner
                .examine(&window)
                .map_err(|why| unfit(recording, why))?;
            baseline.learn(&features);
        }
    }
    let limits = baseline.limits().ok_or(Failure::NoBaseline {
        windows: baseline.windows(),
    })?;
    let mut judged = Vec::new();
    for recording in recordings {
        let windows = recording.windows();
        let half = windows.len() / 2;
        judged.push(Judged {
            truth: recording.source.truth,
            reports: windows
                .skip(half)
                .map(|window| Report::on(&window, &mut examiner, Some(&limits)))
                .collect::<Result<_, _>>()
                .map_err(|why| unfit(recording, why))?,
        });
    }
    Ok(Outcome {
        limits,
        learnt: baseline.windows(),
        judged,
    })
}

fn unfit(recording: &Recording, why: Unfit) -> Failure {
    Failure::Unfit {
        machine: recording.source.machine,
        why,
    }
}
