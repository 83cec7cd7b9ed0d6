//! What a machine is told after each window: run, watch, or stop after several bad windows in a row.

use analysis::verdict::Verdict;
use messages::{Action, Command};
use serde::{Deserialize, Serialize};

/// A machine is not stopped on one window: of the ball's whole recording, cut into windows that overlap by three
/// quarters, one in thirty is taken for another part's.
pub const STOP_AFTER: u32 = 3;

/// The state of the watch over one machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Watch {
    /// The answer to the last window.
    last: Option<Command>,
    /// Windows in a row that were not those of a healthy machine.
    bad: u32,
}

/// What one window leads to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    pub command: Command,
    /// Whether people should hear of it: the machine is told something worse than before.
    pub alarm: bool,
}

impl Watch {
    /// Takes the next window's verdict. `None` for a window that is older than the last one; the last one again gets
    /// the same answer again, without an alarm.
    pub fn take(&mut self, position: u64, verdict: Option<Verdict>) -> Option<Step> {
        if let Some(last) = self.last.filter(|last| position <= last.position) {
            return (position == last.position).then_some(Step {
                command: last,
                alarm: false,
            });
        }
        self.bad = match verdict {
            None | Some(Verdict::Healthy) => 0,
            Some(_) => self.bad.saturating_add(1),
        };
        let action = match self.bad {
            0 => Action::Run,
            bad if bad < STOP_AFTER => Action::Watch,
            _ => Action::Stop,
        };
        let command = Command {
            position,
            action,
            verdict,
        };
        self.last = Some(command);
        Some(Step {
            command,
            alarm: self.bad == 1 || self.bad == STOP_AFTER,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(verdicts: &[Verdict]) -> Vec<(Action, bool)> {
        let mut watch = Watch::default();
        (0..)
            .zip(verdicts)
            .map(|(position, verdict)| {
                let step = watch.take(position, Some(*verdict)).unwrap();
                (step.command.action, step.alarm)
            })
            .collect()
    }

    #[test]
    fn three_bad_windows_in_a_row_stop_the_machine() {
        use Verdict::{Ball, Healthy, OuterRace};
        assert_eq!(
            steps(&[Healthy, Ball, Healthy, Ball, OuterRace, Ball, Ball]),
            [
                (Action::Run, false),
                (Action::Watch, true),
                (Action::Run, false),
                (Action::Watch, true),
                (Action::Watch, false),
                (Action::Stop, true),
                (Action::Stop, false),
            ]
        );
    }

    #[test]
    fn a_window_that_comes_again_gets_its_answer_again_and_an_older_one_none() {
        let mut watch = Watch::default();
        watch.take(0, Some(Verdict::Ball));
        let first = watch.take(4_096, Some(Verdict::Ball)).unwrap();
        let again = watch.take(4_096, Some(Verdict::Ball)).unwrap();
        assert_eq!((again.command, again.alarm), (first.command, false));
        assert_eq!(watch.take(0, Some(Verdict::Ball)), None);
        let third = watch.take(8_192, Some(Verdict::Ball)).unwrap();
        assert_eq!((third.command.action, third.alarm), (Action::Stop, true));
    }
}
