//! What is kept of a window once it was looked at: a few hundred bytes instead of its samples.

use serde::{Deserialize, Serialize};

use crate::baseline::Limits;
use crate::features::{Examiner, Features, Unfit};
use crate::verdict::Diagnosis;
use crate::window::Window;

/// The report on one window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub machine: String,
    /// Index of the window's first sample.
    pub position: u64,
    pub samples: u32,
    pub sample_rate_hz: f32,
    pub shaft_hz: f32,
    pub features: Features,
    /// Absent while the machine's baseline is being learnt.
    pub diagnosis: Option<Diagnosis>,
}

impl Report {
    /// Examines one window and judges it by the limits, if there are any yet.
    pub fn on(
        window: &Window,
        examiner: &mut Examiner,
        limits: Option<&Limits>,
    ) -> Result<Self, Unfit> {
        let features = examiner.examine(window)?;
        Ok(Self {
            machine: window.machine.clone(),
            position: window.position,
            samples: u32::try_from(window.samples.len()).unwrap_or(u32::MAX),
            sample_rate_hz: window.sample_rate_hz,
            shaft_hz: window.shaft_hz,
            features,
            diagnosis: limits.map(|limits| Diagnosis::of(&features, limits)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::baseline::{Baseline, WINDOWS_MIN};
    use crate::bearing::SKF_6205;
    use crate::synthetic::Machine;
    use crate::verdict::{Basis, Verdict};

    /// The limits of a machine that only hums and hisses.
    fn limits(examiner: &mut Examiner) -> Limits {
        let mut baseline = Baseline::default();
        for seed in 0..u64::from(WINDOWS_MIN) {
            let report = Report::on(&Machine::healthy().window(seed), examiner, None).unwrap();
            assert_eq!(report.diagnosis, None);
            baseline.learn(&report.features);
        }
        baseline.limits().unwrap()
    }

    fn verdicts(machine: &Machine) -> Vec<(Verdict, Basis)> {
        let mut examiner = Examiner::new(SKF_6205);
        let limits = limits(&mut examiner);
        (100..110)
            .map(|seed| {
                let window = machine.window(seed);
                let report = Report::on(&window, &mut examiner, Some(&limits)).unwrap();
                let diagnosis = report.diagnosis.unwrap();
                (diagnosis.verdict, diagnosis.basis)
            })
            .collect()
    }

    #[test]
    fn hum_and_hiss_are_healthy_on_windows_never_seen() {
        assert_eq!(
            verdicts(&Machine::healthy()),
            [(Verdict::Healthy, Basis::Quiet); 10]
        );
    }

    #[test]
    fn impacts_at_a_fault_frequency_through_a_resonance_name_the_part() {
        let frequencies = SKF_6205.frequencies(30.0);
        for (hz, verdict) in [
            (frequencies.inner_race, Verdict::InnerRace),
            (frequencies.outer_race, Verdict::OuterRace),
            (2.0 * frequencies.ball_spin, Verdict::Ball),
        ] {
            assert_eq!(
                verdicts(&Machine::struck(hz)),
                [(verdict, Basis::Line); 10],
                "{hz} Hz"
            );
        }
    }

    #[test]
    fn impacts_at_another_frequency_accuse_no_race() {
        let frequencies = SKF_6205.frequencies(30.0);
        let between = 0.5 * (frequencies.outer_race + 2.0 * frequencies.ball_spin);
        assert!(
            verdicts(&Machine::struck(between))
                .iter()
                .all(|(verdict, basis)| *verdict == Verdict::Ball && *basis == Basis::Exclusion)
        );
    }

    #[test]
    fn noise_without_a_line_is_called_the_ball_by_exclusion() {
        assert_eq!(
            verdicts(&Machine::noisy()),
            [(Verdict::Ball, Basis::Exclusion); 10]
        );
    }

    #[test]
    fn windows_that_say_nothing_are_refused_with_the_reason() {
        let mut examiner = Examiner::new(SKF_6205);
        let mut examine = |change: fn(&mut Window)| {
            let mut window = Machine::healthy().window(1);
            change(&mut window);
            examiner.examine(&window).unwrap_err()
        };
        assert!(matches!(
            examine(|window| window.samples.truncate(1_000)),
            Unfit::TooShort { .. }
        ));
        assert!(matches!(
            examine(|window| window.sample_rate_hz = 4_000.0),
            Unfit::TooSlow { .. }
        ));
        assert_eq!(examine(|window| window.samples.fill(0.0)), Unfit::Silent);
        assert!(matches!(
            examine(|window| window.shaft_hz = -1.0),
            Unfit::Malformed(_)
        ));
    }

    #[test]
    fn a_report_is_small_and_is_read_back_whole() {
        let mut examiner = Examiner::new(SKF_6205);
        let limits = limits(&mut examiner);
        let window = Machine::healthy().window(7);
        let report = Report::on(&window, &mut examiner, Some(&limits)).unwrap();
        let json = serde_json::to_vec(&report).unwrap();
        assert!(
            json.len() * 16 < window.encode().len(),
            "{} bytes",
            json.len()
        );
        assert_eq!(serde_json::from_slice::<Report>(&json).unwrap(), report);
    }
}
